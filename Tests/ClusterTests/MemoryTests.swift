import FaultRig
import Foundation
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// The queue of embeddings of earlier steps, in real processes.
extension ClusterTests {
    /// A step has 64 images, so that the queue begins again within the run several times.
    private static func options(_ scope: String) throws -> [String] {
        LocalRun.options(
            try LocalRun.values(steps: 24)
                + ["loss.memory=100", "loss.memory_start_step=3", "mining.scope=\(scope)"])
    }

    private static func start(
        _ run: String, _ scope: String, trainers: Int
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "0"] + options(scope))
    }

    /// What a run leaves.
    private struct Outcome: Equatable {
        let weights: String
        let ledger: String
        /// The digests of the whole state and of the queue alone.
        let state: UInt64
        let queue: [Data]

        init(_ run: String) throws {
            weights = try LocalRun.weights(run, step: 24)
            ledger = try ClusterTests.ledgerDigest(run)
            let reader = try CheckpointReader(
                path: run + "/checkpoints/step-000000024.safetensors")
            state = reader.digests.state
            queue = try ["embeddings", "identities", "next"].map { name in
                let tensor = try #require(reader["memory/" + name])
                return withExtendedLifetime(reader) { Data(tensor.bytes) }
            }
        }
    }

    /// One trainer for each scope.
    private static let remembered: Result<[String: Outcome], any Error> = Result {
        var outcomes: [String: Outcome] = [:]
        for scope in ["slot", "step"] {
            let run = LocalRun.folder("memory-" + scope)
            let process = try start(run, scope, trainers: 1)
            try #require(try process.wait() == 0, "\(process.errors)")
            outcomes[scope] = try Outcome(run)
        }
        return outcomes
    }

    @Test(.timeLimit(.minutes(4)))
    func aMemoryIsFilledAndChangesTheWeights() throws {
        let outcomes = try Self.remembered.get()
        for outcome in outcomes.values {
            let next = outcome.queue[2].withUnsafeBytes { $0.loadUnaligned(as: Float.self) }
            #expect(next == Float(24 * 64 % 100))
            let identities = outcome.queue[1].withUnsafeBytes { bytes in
                Array(bytes.bindMemory(to: Float.self))
            }
            #expect(identities.count == 100 && identities.allSatisfy { $0 >= 1 })
        }
        let plain = LocalRun.folder("memory-none")
        let process = try LocalRun.start(plain, steps: 24, trainers: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(plain, step: 24) != outcomes["slot"]?.weights)
    }

    @Test(.timeLimit(.minutes(4)), arguments: ["slot", "step"])
    func aMemoryIsTheSameForThreeTrainersOfWhichOneIsKilled(scope: String) throws {
        let run = LocalRun.folder("memory-killed-" + scope)
        let process = try Self.start(run, scope, trainers: 3)
        try LocalRun.wait(for: 6, in: run, of: process)
        let reader = try LedgerReader(run: run)
        let trainers = try reader.workers().filter { $0.role == "trainer" }
        try #require(trainers.count == 3)
        kill(Int32(trainers[1].process), SIGKILL)
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try Outcome(run) == Self.remembered.get()[scope])
        try LocalRun.checkLedger(run, steps: 24)
        let left = try reader.workers().first { $0.worker == trainers[1].worker }
        try reader.close()
        #expect(left?.why == "connection lost")
    }

    @Test(.timeLimit(.minutes(4)))
    func aMemoryOutlivesEverythingKilled() throws {
        let run = LocalRun.folder("memory-dead")
        let process = try Self.start(run, "slot", trainers: 2)
        try LocalRun.wait(for: 13, in: run, of: process)
        process.killTree()
        let again = try LocalRun.resume(run, trainers: 3)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try Outcome(run) == Self.remembered.get()["slot"])
    }

    /// A trainer that comes late gets the queue with the state, and goes on filling it.
    @Test(.timeLimit(.minutes(4)))
    func aMemoryIsGivenToWhoeverJoins() throws {
        let run = LocalRun.folder("memory-joined")
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "1"]
                + Self.options("slot"))
        let address = try LocalRun.address(of: coordinator)
        func trainer() throws -> LineupProcess {
            // Slow enough that the second is there before the run ends.
            try LineupProcess(
                [
                    "trainer", "--coordinator", address, "--slots-at-once", "1", "--slot-pause",
                    "0.2",
                ])
        }
        let first = try trainer()
        try LocalRun.wait(for: 3, in: run, of: coordinator)
        let second = try trainer()
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for process in [first, second] {
            #expect(try process.wait(seconds: 30) == 0, "\(process.errors)")
        }
        #expect(try Outcome(run) == Self.remembered.get()["slot"])
        let reader = try LedgerReader(run: run)
        #expect(Set(try reader.miniBatches().map(\.worker)).count == 2)
        try reader.close()
    }
}

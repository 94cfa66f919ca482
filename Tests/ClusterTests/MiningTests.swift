import FaultRig
import Foundation
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// Steps that mine over all of their slots, in real processes.
extension ClusterTests {
    private static func options(_ settings: [String]) throws -> [String] {
        LocalRun.options(
            try LocalRun.values(steps: 24)
                + [
                    "mining.scope=step", "network.batch_norm=true",
                    "loss.plus=softmax,center:0.0005",
                ] + settings)
    }

    private static func start(
        _ run: String, trainers: Int, _ settings: [String] = []
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "0"]
                + options(settings))
    }

    /// One trainer, graphs kept.
    private static let mined: Result<(weights: String, ledger: String), any Error> = Result {
        let run = LocalRun.folder("mined")
        let process = try start(run, trainers: 1)
        try #require(try process.wait() == 0, "\(process.errors)")
        return (try LocalRun.weights(run, step: 24), try ledgerDigest(run))
    }

    @Test(.timeLimit(.minutes(4)), arguments: [1, 2, 4], ["once", "twice"])
    func miningOverTheStepGivesTheSameWeights(trainers: Int, forward: String) throws {
        let run = LocalRun.folder("mined-\(trainers)-\(forward)")
        let process = try Self.start(run, trainers: trainers, ["mining.forward=\(forward)"])
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.mined.get().weights)
        let reader = try LedgerReader(run: run)
        let workers = Set(try reader.miniBatches().map(\.worker))
        try reader.close()
        #expect(workers.count == trainers)
        if forward == "once" { #expect(try Self.ledgerDigest(run) == Self.mined.get().ledger) }
    }

    /// While one is halted the others wait for its embeddings: one of them dies then.
    @Test(.timeLimit(.minutes(4)), arguments: ["once", "twice"])
    func aTrainerKilledBetweenThePhasesIsMadeUpFor(forward: String) throws {
        let run = LocalRun.folder("mined-killed-\(forward)")
        let process = try Self.start(run, trainers: 3, ["mining.forward=\(forward)"])
        try LocalRun.wait(for: 4, in: run, of: process)
        let reader = try LedgerReader(run: run)
        let trainers = try reader.workers().filter { $0.role == "trainer" }
        try #require(trainers.count == 3)
        kill(Int32(trainers[0].process), SIGSTOP)
        usleep(150_000)
        kill(Int32(trainers[1].process), SIGKILL)
        usleep(100_000)
        kill(Int32(trainers[0].process), SIGCONT)
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.mined.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        let left = try reader.workers().first { $0.worker == trainers[1].worker }
        try reader.close()
        #expect(left?.why == "connection lost")
    }

    /// Before it is digested others find it, afterwards the trainer does itself.
    ///
    /// Two of three use nothing of the trainer any more; of two both compute everything again.
    @Test(
        .timeLimit(.minutes(4)),
        arguments: [
            ("slot", 3, "quarantined", Int32(2)), ("slot", 2, "suspected", 0),
            ("sealed", 3, "worker_left", 1),
        ])
    func aFlippedBitInAGradientOfTheWholeStepIsLaidToItsTrainer(
        kind: String, trainers: Int, event: String, code: Int32
    ) throws {
        let run = LocalRun.folder("mined-flipped-\(kind)-\(trainers)")
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers",
                "\(trainers)",
            ] + Self.options(["audit_fraction=1"]))
        let address = try LocalRun.address(of: coordinator)
        let workers = try (0..<trainers).map { number in
            try LineupProcess(
                ["trainer", "--coordinator", address, "--slots-at-once", "1"]
                    + (number == 0 ? ["--flip", "\(kind):5"] : []))
        }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for (number, worker) in workers.enumerated() {
            #expect(
                try worker.wait(seconds: 30) == (number == 0 ? code : 0), "\(worker.errors)")
        }
        #expect(try LocalRun.weights(run, step: 24) == Self.mined.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        let reader = try LedgerReader(run: run)
        let name = try #require(
            try reader.workers().first { Int32($0.process) == workers[0].identifier }
        ).worker
        let events = try reader.events()
        try reader.close()
        #expect(
            events.contains { $0.kind == event && $0.text.contains(name) },
            "\(events.map { "\($0.kind): \($0.text)" })")
    }

    @Test(.timeLimit(.minutes(4)))
    func everythingKilledWhileMiningOverTheStepIsResumed() throws {
        let run = LocalRun.folder("mined-dead")
        let process = try Self.start(run, trainers: 2)
        try LocalRun.wait(for: 11, in: run, of: process)
        process.killTree()
        let again = try LocalRun.resume(run, trainers: 3)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.mined.get().weights)
        #expect(try Self.ledgerDigest(run) == Self.mined.get().ledger)
    }
}

import Basics
import ClusterCore
import Coordinator
import Foundation
import Protocol
import Storage
import Synchronization
import Testing
import Transport

/// A coordinator's bulk channel, and who brings it what.
@Suite struct BulkServerTests {
    /// A channel of a run of its own; everything that is stored is noted.
    private final class Bench {
        let run: String
        let server: BulkServer
        let refusals = Refusals(label: "test")
        private let stored = SharedSteps()

        init() throws {
            run = NSTemporaryDirectory() + "bulk-tests-\(UUID().uuidString)"
            let stored = stored
            server = try BulkServer(
                Context(), bind: "tcp://127.0.0.1:*", advertised: nil, host: "127.0.0.1", run: 9,
                folder: try RunFolder(
                    path: run, intent: .startOrResume, overrides: ["data.root=/nowhere"]),
                admission: nil, refusals: refusals,
                report: { event in
                    switch event {
                    case .stored(let checkpoint, _):
                        stored.steps.withLock { $0.append(checkpoint.step) }
                    case .refused(let step, _): stored.refused.withLock { $0.append(step) }
                    default: break
                    }
                })
        }

        deinit {
            server.stop()
            try? FileManager.default.removeItem(atPath: run)
        }

        var storedSteps: [Int] { stored.steps.withLock { $0 } }

        var refusedSteps: [Int] { stored.refused.withLock { $0 } }

        func expect(
            _ step: Int, from senders: [String], state: StateVerdict = .any, barred: [String] = []
        ) {
            server.expect(
                AwaitedCheckpoint(
                    step: step, isRecovery: false, senders: senders, state: state), barred: barred)
        }

        /// The state of a step, long enough for a few chunks.
        private func withState<R>(
            _ step: Int, more: Int = 0, _ body: (SerialisedCheckpoint) throws -> R
        ) throws -> R {
            let values = (0..<300_000 + more).map { Float($0 % 977 + step) }
            return try values.withUnsafeBytes { bytes in
                try body(
                    SerialisedCheckpoint(
                        [CheckpointTensor(name: "network/w", shape: [values.count], bytes: bytes)],
                        metadata: CheckpointMetadata(
                            step: step, settingsDigest: 1, datasetDigest: 2,
                            numericsClass: "test", history: 3, extra: [:])))
            }
        }

        func digest(of step: Int) throws -> UInt64 {
            try withState(step) { $0.digests.state }
        }

        /// Sends the state of a step, or its beginning.
        ///
        /// - Parameter more: numbers that the state has beyond the right ones.
        func send(
            _ step: Int, from worker: String, chunks: Int = .max, more: Int = 0
        ) throws {
            try withState(step, more: more) { file in
                var header = WireDataHeader()
                header.kind = .checkpoint
                header.run = 9
                header.step = UInt64(step)
                header.worker = worker
                var asked = 0
                try file.header.withUnsafeBytes { start in
                    try ChunkSender.send(
                        Context(), to: server.address, identity: "", base: header,
                        segments: [start] + file.tensors.map(\.bytes), silence: .seconds(2),
                        isCancelled: {
                            asked += 1
                            return asked > chunks
                        })
                }
            }
        }

        /// What lies in the folder, also under a temporary name.
        var files: [String] {
            (try? FileManager.default.contentsOfDirectory(atPath: run + "/checkpoints"))?.sorted()
                ?? []
        }
    }

    private final class SharedSteps: Sendable {
        let steps = Mutex<[Int]>([])
        let refused = Mutex<[Int]>([])
    }

    private func wait(until condition: () -> Bool) -> Bool {
        let deadline = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < deadline {
            if condition() { return true }
            usleep(20_000)
        }
        return condition()
    }

    @Test func onlyWhoWasAskedBringsACheckpoint() throws {
        let bench = try Bench()
        bench.expect(4, from: ["a", "b"])
        try bench.send(4, from: "c")
        #expect(bench.files.isEmpty && bench.storedSteps.isEmpty)
        try bench.send(4, from: "b")
        #expect(wait { bench.storedSteps == [4] })
        #expect(bench.files == [CheckpointStore.fileName(step: 4)])
    }

    @Test func whoBeganWithAnotherLengthKeepsNobodyOut() throws {
        let bench = try Bench()
        bench.expect(4, from: ["a", "b"])
        #expect(throws: TransportError.self) { try bench.send(4, from: "a", chunks: 2, more: 1) }
        #expect(wait { bench.files.count == 1 })
        try bench.send(4, from: "b")
        #expect(wait { bench.storedSteps == [4] })
    }

    @Test func whatAQuarantinedWorkerBroughtIsGivenUp() throws {
        let bench = try Bench()
        bench.expect(4, from: ["a", "b"])
        // The beginning comes from one that turns out to compute wrongly.
        #expect(throws: TransportError.self) { try bench.send(4, from: "a", chunks: 2) }
        #expect(wait { bench.files.count == 1 })
        let begun = bench.files
        bench.expect(4, from: ["b"], barred: ["a"])
        #expect(throws: TransportError.self) { try bench.send(4, from: "a") }
        #expect(bench.storedSteps.isEmpty && bench.refusals.total > 0)
        try bench.send(4, from: "b")
        #expect(wait { bench.storedSteps == [4] })
        #expect(bench.files == [CheckpointStore.fileName(step: 4)] && begun != bench.files)
    }

    @Test func whatHasComeWaitsForWhatMembersHold() throws {
        let bench = try Bench()
        bench.expect(4, from: ["a", "b"], state: .open)
        try bench.send(4, from: "a")
        let name = CheckpointStore.fileName(step: 4)
        #expect(bench.files.count == 1 && bench.files != [name])
        // Another state than this: nothing of it is left.
        bench.expect(4, from: ["b"], state: .agreed(1))
        #expect(wait { bench.refusedSteps == [4] })
        #expect(bench.files.isEmpty)
        try bench.send(4, from: "b")
        #expect(wait { bench.refusedSteps == [4, 4] })
        bench.expect(4, from: ["b"], state: .agreed(try bench.digest(of: 4)))
        try bench.send(4, from: "b")
        #expect(wait { bench.storedSteps == [4] })
        #expect(bench.files == [name])
        // Nobody waits for it by the time that members have said.
        bench.expect(5, from: ["a"], state: .open)
        try bench.send(5, from: "a")
        bench.server.expect(nil, barred: [])
        #expect(wait { bench.refusedSteps == [4, 4, 5] })
        #expect(bench.files == [name])
    }
}

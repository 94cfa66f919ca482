import FaultRig
import Foundation
import Storage
import Testing

/// Files of a run that a disk has damaged: named, kept aside, never overwritten.
@Suite(.serialized) struct DamageTests {
    private static let steps = 24

    /// A run that was killed, all of it, after checkpoint 16.
    private func killed(_ name: String) throws -> String {
        let run = LocalRun.folder(name)
        let process = try LocalRun.start(run, steps: Self.steps, trainers: 2)
        try LocalRun.wait(for: 17, in: run, of: process)
        let deadline = Date().addingTimeInterval(60)
        let store = CheckpointStore(directory: run + "/checkpoints")
        while Date() < deadline, try !store.steps().contains(16) { usleep(5_000) }
        process.killTree()
        return run
    }

    /// The one line with which a run that cannot go on ends.
    private func refused(
        _ run: String, saying parts: String..., location: SourceLocation = #_sourceLocation
    ) throws {
        try expectRefusal(
            LocalRun.resume(run, trainers: 1), saying: parts, location: location)
    }

    private func contents(_ path: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: path))
    }

    private func finish(_ run: String, location: SourceLocation = #_sourceLocation) throws {
        let process = try LocalRun.resume(run, trainers: 2)
        #expect(try process.wait() == 0, "\(process.errors)", sourceLocation: location)
        #expect(
            try LocalRun.weights(run, step: Self.steps)
                == ClusterTests.undisturbed.get().weights, sourceLocation: location)
        try LocalRun.checkLedger(run, steps: Self.steps)
    }

    @Test(.timeLimit(.minutes(4)))
    func aDamagedLedgerIsKeptAsideAndNoneIsBegunInItsPlace() throws {
        let run = try killed("ledger")
        let path = run + "/ledger.sqlite"
        // Whoever closes it last takes its log in.
        try Ledger(path: path).close()
        let sound = try contents(path)
        try #require(sound.count > 8 * 4096)
        var damaged = sound
        for place in sound.count / 2..<sound.count / 2 + 8192 { damaged[place] = 0xA5 }
        for (number, bytes) in [damaged, Data()].enumerated() {
            try bytes.write(to: URL(fileURLWithPath: path))
            let aside = "\(path).damaged-\(number + 1)"
            try refused(run, saying: path, aside)
            #expect(try contents(aside) == bytes)
            #expect(!FileManager.default.fileExists(atPath: path))
            // Checkpoints without a ledger are no new run.
            try refused(run, saying: path, "put its ledger back")
            #expect(!FileManager.default.fileExists(atPath: path))
        }
        // What the line says to do helps.
        try sound.write(to: URL(fileURLWithPath: path))
        try finish(run)
    }

    @Test(.timeLimit(.minutes(4)))
    func aDamagedCheckpointIsSkippedAndKeptAside() throws {
        let run = try killed("checkpoint")
        let store = CheckpointStore(directory: run + "/checkpoints")
        let newest = try #require(try store.steps().last)
        try #require(newest >= 16)
        let path = store.path(step: newest)
        var damaged = try contents(path)
        damaged[damaged.count / 2] ^= 0x10
        try damaged.write(to: URL(fileURLWithPath: path))

        try finish(run)
        let reader = try LedgerReader(run: run)
        let skipped = try reader.events().filter { $0.kind == "checkpoint_skipped" }
        #expect(skipped.count == 1 && skipped.allSatisfy { $0.text.contains(path) })
        #expect(try reader.events().contains { $0.kind == "redone" })
        let rows = try reader.checkpoints()
        #expect(rows.map(\.step) == [0, 8, 16, 24] && rows.allSatisfy { $0.state == .durable })
        #expect(try contents(path + ".damaged-1") == damaged)
        // What took its place is what was there before it was damaged.
        #expect(
            try store.open(step: newest).digests.state
                == rows.first { $0.step == newest }?.stateDigest)
    }
}

import FaultRig
import Foundation
import Storage
import Testing

extension ClusterTests {
    /// Steps of the listed checkpoint files, and those whose row says that the file is there.
    private static func files(of run: String) throws -> (there: [Int], rows: [Int]) {
        let reader = try LedgerReader(run: run)
        let rows = try reader.checkpoints()
        try reader.close()
        #expect(rows.allSatisfy { ($0.state == .deleted) == ($0.deleted != nil) })
        return (
            try CheckpointStore(directory: run + "/checkpoints").steps(),
            rows.filter { $0.state == .durable }.map(\.step)
        )
    }

    /// As a coordinator does that dies before it removes the file; its lock ends with it.
    private static func markDeleted(_ step: Int, in run: String) throws {
        let ledger = try Ledger(path: run + "/ledger.sqlite")
        try ledger.beginTerm()
        try ledger.setCheckpointState(step: step, .deleted)
        try ledger.close()
    }

    @Test(.timeLimit(.minutes(4)))
    func retentionSurvivesCrashesAndChangesNoResult() throws {
        let run = LocalRun.folder("kept")
        let process = try LineupProcess(
            ["train", run, "--trainers", "2", "--evaluators", "1"] + LocalRun.settings(steps: 24)
                + ["checkpoint.keep_last=1", "checkpoint.keep_best=2"].flatMap { ["--set", $0] })
        try LocalRun.wait(for: 17, in: run, of: process)
        let deadline = Date().addingTimeInterval(60)
        while Date() < deadline, process.isRunning {
            let reader = try LedgerReader(run: run)
            let scored = Set(
                try reader.evaluations().filter { $0.step < 16 }.map { [$0.set, "\($0.step)"] })
            try reader.close()
            if scored.count == 6 { break }
            usleep(20_000)
        }
        process.killTree()

        // A crash between the row and the file, and a file that somebody removed.
        let store = CheckpointStore(directory: run + "/checkpoints")
        let before = try store.steps()
        let newest = try #require(before.last)
        try #require(before.count > 1)
        try Self.markDeleted(newest, in: run)
        try store.remove(step: before[0])

        let again = try LocalRun.resume(run, trainers: 2, evaluators: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        let (there, rows) = try Self.files(of: run)
        #expect(there == rows && there.last == 24 && there.count <= 3)
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        #expect(try Self.ledgerDigest(run) == Self.undisturbed.get().ledger)
        let reader = try LedgerReader(run: run)
        #expect(
            try reader.events().contains {
                $0.kind == "checkpoint_gone" && $0.text.contains("somebody removed it")
            })
        #expect(try reader.checkpoints().map(\.step) == [0, 8, 16, 24])
        let shown = try LineupProcess(["ledger", run])
        #expect(shown.standardOutput().contains("deleted 20"))
        #expect(try shown.wait() == 0)
    }
}

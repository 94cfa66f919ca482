import Basics
import Foundation
import Storage
import Testing

/// Files of earlier versions stay readable: these were written by the first one.
@Suite struct FormatTests {
    @Test func aCheckpointOfVersion1IsRead() throws {
        let reader = try CheckpointReader(path: fixture("checkpoint-v1.safetensors"))
        #expect(reader.metadata.formatVersion == 1)
        #expect(reader.metadata.step == 50)
        #expect(reader.digests.weights.hex == "4ce7a8bac2e20b8c")
        #expect(reader["network/a.weight"]?.shape == [10, 100])
        #expect(reader["network/a.weight"]?.floats()?.last == 1049)
    }

    @Test func aLedgerOfVersion1IsReadAndContinued() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.copyItem(
            atPath: fixture("ledger-v1.sqlite"), toPath: folder("ledger.sqlite"))
        let before = try LedgerReader(run: folder.path)
        #expect(try before.run()?.lastStep == 10)
        #expect(try before.resultDigest().total.hex == "5dbdf88191ee9cb5")
        #expect(try before.checkpoints().allSatisfy { $0.deleted == nil })
        let evaluations = try before.evaluations()
        #expect(evaluations.count == 30)
        try before.close()
        let ledger = try Ledger(path: folder("ledger.sqlite"))
        #expect(try ledger.reader.resultDigest().total.hex == "5dbdf88191ee9cb5")
        #expect(try ledger.beginTerm() == 2)
        try ledger.commitStep(stepRecord(11), miniBatches: miniBatches(11))
        let snapshot = try ledger.reader.snapshot()
        #expect(snapshot.steps.map(\.step) == Array(1...11))
        #expect(snapshot.workers.map(\.worker) == ["trainer-1", "trainer-2"])
        #expect(snapshot.evaluations == evaluations)
        #expect(try ledger.insertEvaluations(evaluations).allSatisfy { $0 == .identical })
    }
}

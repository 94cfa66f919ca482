import Basics
import Foundation
import Storage
import Testing

@Suite struct CheckpointStoreTests {
    private static let scenarioSteps = [20, 40, 60]

    /// Writes three checkpoints, one of them twice and one from a stream; tells which are durable.
    private static func scenario(
        _ disk: SimulatedDisk, done: (Int) -> Void
    ) throws(StorageError) {
        let store = CheckpointStore(directory: "run", files: disk)
        try store.prepare()
        try store.write(serialised(step: 20))
        done(20)
        try store.write(serialised(step: 40))
        done(40)
        try store.write(serialised(step: 40))
        let checkpoint = try serialised(step: 60)
        let receiver = try CheckpointReceiver(
            store: store, step: 60, byteCount: checkpoint.byteCount)
        while receiver.received < checkpoint.byteCount {
            try receiver.append(chunk: checkpoint.chunk(at: receiver.received, count: 500))
        }
        _ = try receiver.finish()
        done(60)
    }

    /// Every crash point, with every outcome that the disk's rules allow.
    ///
    /// - Returns: a sentence for every outcome in which something durable was lost or something
    ///   broken was loaded, and how many outcomes there were.
    private static func enumerateCrashes(
        lying: Bool
    ) throws -> (failures: [String], outcomes: Int) {
        let calm = SimulatedDisk()
        try scenario(calm) { _ in }
        var failures: [String] = []
        var outcomes = 0
        for crash in 0...calm.operations {
            let disk = SimulatedDisk()
            if lying { disk.lie() }
            disk.crash(at: crash)
            var durable = -1
            try? scenario(disk) { durable = $0 }
            // A disk that lies keeps everything pending: none and all of it are enough.
            let all = (1 << disk.pendingChanges) - 1
            for kept in lying ? [0, all] : Array(0...all) {
                for loss in SimulatedDisk.Loss.allCases {
                    outcomes += 1
                    let after = disk.survivor(kept: kept, loss: loss)
                    let place = "crash before operation \(crash), \(kept), \(loss)"
                    let store = CheckpointStore(directory: "run", files: after)
                    var skipped = 0
                    let newest = try store.newest { _, _ in skipped += 1 }
                    let step = newest?.metadata.step ?? -1
                    if step < durable { failures.append("\(place): \(step) after \(durable)") }
                    if skipped > 0 { failures.append("\(place): a broken file has a name") }
                    if let newest,
                        newest.digests != StateDigests(of: state(step: step), step: step)
                    {
                        failures.append("\(place): other tensors")
                    }
                    try scenario(after) { _ in }
                    if try store.steps() != scenarioSteps {
                        failures.append("\(place): did not go on")
                    }
                    if after.names.contains(where: { $0.contains(".tmp-") }) {
                        failures.append("\(place): a temporary file stayed")
                    }
                }
            }
        }
        return (failures, outcomes)
    }

    @Test func theNewestDurableCheckpointLoadsAfterEveryCrash() throws {
        let (failures, outcomes) = try Self.enumerateCrashes(lying: false)
        #expect(failures.isEmpty, "\(failures.prefix(5))")
        #expect(outcomes > 100)
    }

    @Test func theEnumerationFindsADiskThatLies() throws {
        #expect(try !Self.enumerateCrashes(lying: true).failures.isEmpty)
    }

    /// Every write, flush, rename and removal fails once; the process lives on and tries again.
    @Test func anOperationThatFailsCostsNothingDurable() throws {
        let calm = SimulatedDisk()
        try Self.scenario(calm) { _ in }
        var failed = 0
        for operation in 0..<calm.operations {
            let disk = SimulatedDisk()
            disk.fail(at: operation)
            var durable = -1
            do throws(StorageError) {
                try Self.scenario(disk) { durable = $0 }
            } catch {
                failed += 1
                #expect(error.code == .io, "operation \(operation): \(error)")
            }
            // Power is lost right after the failure: the worst of what may be left.
            for loss in SimulatedDisk.Loss.allCases {
                let newest = try CheckpointStore(
                    directory: "run", files: disk.survivor(kept: 0, loss: loss)
                ).newest()
                #expect(newest?.metadata.step ?? -1 >= durable, "operation \(operation), \(loss)")
            }
            try Self.scenario(disk) { _ in }
            let store = CheckpointStore(directory: "run", files: disk)
            #expect(try store.steps() == Self.scenarioSteps, "operation \(operation)")
            #expect(try store.newest()?.metadata.step == 60, "operation \(operation)")
            #expect(!disk.names.contains { $0.contains(".tmp-") }, "operation \(operation)")
        }
        // A removal that fails may pass without a word; nothing else may.
        #expect(failed >= calm.operations - 3)
    }

    @Test func aFullDiskLeavesNothingBehind() throws {
        let calm = SimulatedDisk()
        let store = CheckpointStore(directory: "run", files: calm)
        try store.write(serialised(step: 20))
        for operation in 1..<calm.operations - 2 {
            let disk = SimulatedDisk()
            disk.fill(at: operation)
            let store = CheckpointStore(directory: "run", files: disk)
            expectError(.diskFull, "checkpoint of step 20", "bytes", "No space left") {
                try store.write(serialised(step: 20))
            }
            #expect(disk.names.isEmpty, "full at operation \(operation)")
        }
    }

    @Test func anExistingCheckpointIsComparedNotWritten() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        try store.write(serialised(step: 20))
        let before = try FileManager.default.attributesOfItem(atPath: store.path(step: 20))
        #expect(try store.write(serialised(step: 20)).outcome == .identical)
        expectError(.conflict, "step-000000020.safetensors", "'network/conv.weight' differs") {
            try store.write(serialised(step: 20, salt: 1))
        }
        let after = try FileManager.default.attributesOfItem(atPath: store.path(step: 20))
        #expect(before[.systemFileNumber] as? Int == after[.systemFileNumber] as? Int)
        #expect(before[.modificationDate] as? Date == after[.modificationDate] as? Date)
        #expect(try folder.names() == ["step-000000020.safetensors"])
    }

    @Test func aDamagedCheckpointIsMovedAsideAndWrittenAgain() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        for step in [20, 40] { try store.write(serialised(step: step)) }
        func damage(with byte: UInt8) throws -> Data {
            let handle = try #require(FileHandle(forWritingAtPath: store.path(step: 40)))
            try handle.seek(toOffset: UInt64(try serialised(step: 40).byteCount - 3))
            try handle.write(contentsOf: Data([byte]))
            try handle.close()
            return try Data(contentsOf: URL(fileURLWithPath: store.path(step: 40)))
        }
        let first = try damage(with: 0xAA)

        var skipped: [Int] = []
        let newest = try store.newest { step, why in
            skipped.append(step)
            #expect(why.code == .corrupt)
        }
        #expect(newest?.metadata.step == 20 && skipped == [40])
        #expect(try store.write(serialised(step: 40)).outcome == .replacedDamaged)
        #expect(try store.newest()?.metadata.step == 40)
        #expect(try store.steps() == [20, 40])
        // A second one does not replace the first.
        let second = try damage(with: 0xBB)
        #expect(try store.write(serialised(step: 40)).outcome == .replacedDamaged)
        #expect(try store.steps() == [20, 40])
        for (number, bytes) in [first, second].enumerated() {
            let kept = folder("step-000000040.safetensors.damaged-\(number + 1)")
            #expect(FileManager.default.contents(atPath: kept) == bytes)
        }
    }

    @Test func theNewestIsNotNewerThanTheLedger() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        #expect(try store.newest() == nil)
        for step in [0, 20, 40] { try store.write(serialised(step: step)) }
        #expect(try store.newest(notNewerThan: 39)?.metadata.step == 20)
        #expect(try store.newest(notNewerThan: 40)?.metadata.step == 40)
        try store.remove(step: 40)
        try store.remove(step: 40)
        #expect(try store.steps() == [0, 20])
    }

    @Test func aFileUnderAnotherStepsNameIsNotLoaded() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        try store.write(serialised(step: 20))
        try FileManager.default.copyItem(
            atPath: store.path(step: 20), toPath: store.path(step: 60))
        expectError(.corrupt, "holds step 20") { _ = try store.open(step: 60) }
        #expect(try store.newest()?.metadata.step == 20)
    }

    @Test func leftoversOfAKilledWriterAreRemovedAndForeignFilesStay() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        for name in [".tmp-00-step-000000020.safetensors", "notes.txt", "step-20.safetensors"] {
            try Data([1]).write(to: URL(fileURLWithPath: folder(name)))
        }
        #expect(try store.prepare() == [".tmp-00-step-000000020.safetensors"])
        #expect(try folder.names() == ["notes.txt", "step-20.safetensors"])
        #expect(try store.steps().isEmpty)
    }

    @Test func namesAndStepsBelongTogether() {
        #expect(CheckpointStore.fileName(step: 0) == "step-000000000.safetensors")
        #expect(CheckpointStore.step(fileName: "step-1234567890.safetensors") == 1_234_567_890)
        for name in [
            "step-60.safetensors", "step--00000060.safetensors", "step-000000060.safetensors.tmp",
            "step-.safetensors", "step-+00000060.safetensors",
        ] {
            #expect(CheckpointStore.step(fileName: name) == nil, "\(name)")
        }
    }
}

@Suite struct CheckpointReceiverTests {
    @Test func chunksOutOfOrderOrDamagedAreRefusedAndCanBeSentAgain() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        let checkpoint = try serialised(step: 20)
        let receiver = try CheckpointReceiver(
            store: store, step: 20, byteCount: checkpoint.byteCount)
        let first = checkpoint.chunk(at: 0, count: 300)
        try receiver.append(chunk: first)
        try receiver.append(chunk: first, at: 0)
        #expect(receiver.received == 300)
        expectError(.invalidValue, "byte 300 was expected") {
            try receiver.append(chunk: checkpoint.chunk(at: 400, count: 10), at: 400)
        }
        expectError(.invalidValue, "digests to") {
            try receiver.append(
                chunk: checkpoint.chunk(at: 300, count: 10), at: 300, digest: 1)
        }
        for offset in [checkpoint.byteCount, .max, -1, .min] {
            expectError(.invalidValue, "not within") {
                try receiver.append(chunk: [1, 2], at: offset)
            }
        }
        #expect(try store.steps().isEmpty)
        while receiver.received < checkpoint.byteCount {
            try receiver.append(chunk: checkpoint.chunk(at: receiver.received, count: 77))
        }
        #expect(try receiver.finish().outcome == .written)
        #expect(try store.open(step: 20).digests == checkpoint.digests)
        #expect(try folder.names() == ["step-000000020.safetensors"])
    }

    @Test func aStreamThatIsNotWholeLeavesNothing() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        let checkpoint = try serialised(step: 20)
        func receive(step: Int, bytes: [UInt8], count: Int) throws {
            let receiver = try CheckpointReceiver(store: store, step: step, byteCount: count)
            try receiver.append(chunk: bytes)
            _ = try receiver.finish()
        }
        let bytes = checkpoint.bytes
        expectError(.corrupt, "bytes arrived") {
            try receive(step: 20, bytes: Array(bytes.dropLast()), count: bytes.count)
        }
        expectError(.corrupt, "not a valid safetensors file") {
            try receive(step: 20, bytes: [UInt8](repeating: 0xFF, count: 64), count: 64)
        }
        expectError(.corrupt, "belong to none") {
            try receive(step: 20, bytes: bytes, count: bytes.count + 4)
        }
        expectError(.corrupt, "what arrived is step 20") {
            try receive(step: 21, bytes: bytes, count: bytes.count)
        }
        var damaged = bytes
        damaged[bytes.count - 1] ^= 1
        expectError(.corrupt, "damaged") {
            try receive(step: 20, bytes: damaged, count: bytes.count)
        }
        _ = try CheckpointReceiver(store: store, step: 20, byteCount: 10)
        #expect(try folder.names().isEmpty)
    }

    @Test(arguments: [1, 31, 4096, 1 << 20, 5 << 20])
    func aStreamIsCheckedHoweverItIsCut(chunkBytes: Int) throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        // Longer than one piece that goes past the page cache, and of an odd length.
        let large = chunkBytes < 4096 ? 100 : 700_001
        let tensors = [
            tensor("network/empty", [0, 3], []),
            tensor("network/w", [large], (0..<large).map { Float($0) }),
            tensor("network/none", [0], []), tensor("optimizer/m/w", [1], [0.5]),
            tensor("optimizer/v/none", [0], []),
        ]
        let checkpoint = try SerialisedCheckpoint(tensors, metadata: metadata(step: 5))
        let receiver = try CheckpointReceiver(
            store: store, step: 5, byteCount: checkpoint.byteCount)
        let bytes = checkpoint.bytes
        while receiver.received < bytes.count {
            try receiver.append(
                chunk: Array(bytes[receiver.received...].prefix(chunkBytes)))
        }
        let stored = try receiver.finish()
        #expect(stored.digests == checkpoint.digests)
        #expect(stored.history == metadata(step: 5).history)
        let file = try Data(contentsOf: URL(fileURLWithPath: store.path(step: 5)))
        #expect(file == Data(bytes))
        #expect(try store.open(step: 5).digests == checkpoint.digests)
    }

    @Test func theWeightsOfAFileAreReadWithoutTheRest() throws {
        let folder = try TemporaryFolder()
        let checkpoint = try serialised(step: 20)
        var bytes = checkpoint.bytes
        let header = try bytes.withUnsafeBytes {
            try CheckpointHeader(prefix: $0, byteCount: bytes.count, path: "f")
        }
        #expect(header.digests == checkpoint.digests)
        #expect(header.weightsEnd == checkpoint.header.count + 4 * (24 + 2))
        for at in header.weightsEnd..<bytes.count { bytes[at] = 0 }
        let path = folder("f")
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let reader = try CheckpointReader(path: path, verifying: .weights)
        #expect(reader["network/conv.weight"]?.floats() == state(step: 20)[0].floats())
        expectError(.corrupt, "its tensors digest to") { try reader.verify() }
        bytes[header.weightsEnd - 1] ^= 1
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        expectError(.corrupt, "its weights digest to") {
            _ = try CheckpointReader(path: path, verifying: .weights)
        }
    }

    @Test func aSecondStreamOfAStepIsCompared() throws {
        let folder = try TemporaryFolder()
        let store = CheckpointStore(directory: folder.path)
        try store.write(serialised(step: 20))
        for (salt, conflicts) in [(Float(0), false), (1, true)] {
            let checkpoint = try serialised(step: 20, salt: salt)
            let receiver = try CheckpointReceiver(
                store: store, step: 20, byteCount: checkpoint.byteCount)
            try receiver.append(chunk: checkpoint.bytes)
            if conflicts {
                expectError(.conflict) { _ = try receiver.finish() }
            } else {
                #expect(try receiver.finish().outcome == .identical)
            }
            #expect(try folder.names() == ["step-000000020.safetensors"])
        }
    }
}

extension CheckpointReceiver {
    /// Takes a chunk of an array.
    func append(
        chunk: [UInt8], at offset: Int? = nil, digest: UInt64? = nil
    ) throws(StorageError) {
        let contents = FileContents(copying: chunk)
        try append(
            contents.bytes, at: offset ?? received, digest: digest ?? XXH64.digest(contents.bytes))
    }
}

extension XXH64 {
    static func digest(_ data: Data) -> UInt64 {
        data.withUnsafeBytes { digest($0) }
    }
}

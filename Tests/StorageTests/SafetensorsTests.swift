import Basics
import Foundation
import Storage
import Testing

@Suite struct SafetensorsTests {
    @Test func readsWhatThePythonPackageWrote() throws {
        let file = try SafetensorsFile(path: fixture("foreign.safetensors"))
        #expect(file.metadata == ["format": "pt", "k": "ü\"\\"])
        let tensors = Dictionary(uniqueKeysWithValues: file.tensors.map { ($0.name, $0) })
        #expect(tensors.count == 6)
        #expect(tensors["a.float32"]?.shape == [2, 3])
        #expect(tensors["a.float32"]?.floats() == [0, 0.25, 0.5, 0.75, 1, 1.25])
        #expect(tensors["b.int64"]?.type == .int64)
        #expect(tensors["b.int64"]?.floats() == nil)
        #expect(tensors["c.uint8"].map { Array($0.bytes) } == [1, 2, 255])
        #expect(tensors["d.scalar"]?.shape == [])
        #expect(tensors["e.empty"]?.shape == [0, 4])
        #expect(tensors["ünïcode \"quoted\"\n"].map { Array($0.bytes) } == [7, 0, 0, 0])
    }

    @Test func aFileReadsBackAsItWasWritten() throws {
        let folder = try TemporaryFolder()
        let written = try serialised(step: 60)
        let store = CheckpointStore(directory: folder.path)
        let stored = try store.write(written)
        #expect(stored.file == "step-000000060.safetensors")
        #expect(stored.outcome == .written)
        for access in [SystemFiles.Access.automatic, .mapped, .copied] {
            let reader = try CheckpointReader(
                path: store.path(step: 60), files: SystemFiles(access: access))
            #expect(reader.metadata == metadata(step: 60))
            #expect(reader.byteCount == written.byteCount && stored.byteCount == written.byteCount)
            #expect(reader.digests == written.digests)
            #expect(reader.tensors.map(\.name) == state(step: 60).map(\.name))
            #expect(reader["network/conv.weight"]?.floats() == state(step: 60)[0].floats())
            #expect(reader["network/none"] == nil)
        }
        let bytes = try Data(contentsOf: URL(fileURLWithPath: store.path(step: 60)))
        #expect(written.header.count % 64 == 0)
        #expect(bytes == Data(written.bytes) && bytes.count == written.byteCount)
        #expect(
            try CheckpointReader.weightsDigest(of: store.path(step: 60)) == written.digests.weights)
    }

    @Test func everyTruncationIsFound() throws {
        let folder = try TemporaryFolder()
        let bytes = try serialised(step: 5).bytes
        for count in 0..<bytes.count {
            try Data(bytes[..<count]).write(to: URL(fileURLWithPath: folder("t")))
            expectError(.corrupt) { _ = try CheckpointReader(path: folder("t")) }
        }
        try Data(bytes + [0]).write(to: URL(fileURLWithPath: folder("t")))
        expectError(.corrupt, "belong to none") { _ = try CheckpointReader(path: folder("t")) }
    }

    /// Every bit of the file is guarded, but for white space of the header.
    @Test func everyFlippedBitIsFound() throws {
        let bytes = try serialised(step: 5).bytes
        let headerEnd = try serialised(step: 5).header.count
        var unguarded = 0
        for at in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[at] ^= 1 << UInt8(bit)
                let files = MemoryFiles(["f": damaged])
                guard
                    storageError({ _ = try CheckpointReader(path: "f", files: files) }) == nil
                else { continue }
                #expect(at < headerEnd && [0x20, 0x09, 0x0A, 0x0D].contains(damaged[at]))
                unguarded += 1
            }
        }
        #expect(unguarded < 64 * 8)
    }

    @Test(arguments: [
        (
            #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
            6, "overlap"
        ),
        (
            #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}}"#,
            10, "gap"
        ),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 3, "truncated"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4, "ends before"),
        (#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, "takes 8"),
        (
            #"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#, 4,
            "larger than any memory"
        ),
        (
            #"{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}}"#, 4,
            "below 2^63"
        ),
        (#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, "expected"),
        (#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4, "whole number"),
        (#"{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}"#, 8, "dtype 'C64'"),
        (#"{"a":{"shape":[1],"data_offsets":[0,8]}}"#, 8, "no dtype"),
        (#"{"a":{"dtype":"F32","data_offsets":[0,4]}}"#, 4, "no shape"),
        (#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}"#, 4, "two whole numbers"),
        (
            #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8, "twice"
        ),
        (#"{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#, 4, "twice"),
        (#"{"a":3}"#, 0, "no JSON object"),
        (#"[]"#, 0, "no JSON object"),
        (#"{"__metadata__":{"k":1}}"#, 0, "one text"),
        (#"{"__metadata__":3}"#, 0, "no JSON object"),
        (#"{"a":[[[[[[]]]]]]}"#, 0, "nesting"),
        (#"{"a":"#, 0, "a value"),
        (#"{"a"#, 0, "closing quote"),
        (#"{"\ud800":{}}"#, 0, "escape"),
        (#"{} x"#, 0, "the end"),
        ("", 0, "a value"),
    ])
    func aWrongHeaderIsRefused(header: String, dataBytes: Int, text: String) {
        let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) }
        let bytes = length + Array(header.utf8) + [UInt8](repeating: 0, count: dataBytes)
        expectError(.corrupt, "f is not a valid safetensors file", text) {
            _ = try SafetensorsFile(path: "f", files: MemoryFiles(["f": bytes]))
        }
    }

    @Test func aHugeHeaderLengthIsRefused() {
        let bytes = [UInt8](repeating: 0xFF, count: 8) + Array("{}".utf8)
        expectError(.corrupt, "18446744073709551615 bytes") {
            _ = try SafetensorsFile(path: "f", files: MemoryFiles(["f": bytes]))
        }
    }

    @Test func otherFilesAreToldApart() throws {
        let folder = try TemporaryFolder()
        expectError(.notFound, "none.safetensors") {
            _ = try CheckpointReader(path: folder("none.safetensors"))
        }
        expectError(.corrupt, "regular file") { _ = try CheckpointReader(path: folder.path) }
        expectError(.corrupt, "format_version") {
            _ = try CheckpointReader(path: fixture("foreign.safetensors"))
        }
        expectError(.corrupt, "none named network/") {
            _ = try CheckpointReader.weightsDigest(of: fixture("foreign.safetensors"))
        }
    }

    @Test func aNewerFormatIsRefused() throws {
        var newer = metadata(step: 1)
        newer.formatVersion = 2
        let bytes = try SerialisedCheckpoint(state(step: 1), metadata: newer).bytes
        expectError(.newerVersion, "format version 2") {
            _ = try CheckpointReader(path: "f", files: MemoryFiles(["f": bytes]))
        }
    }

    @Test func tensorsThatCannotBeStoredAreRefused() {
        expectError(.invalidValue, "'a'") {
            _ = try SerialisedCheckpoint(
                [tensor("a", [1], [1]), tensor("a", [1], [2])], metadata: metadata(step: 1))
        }
        expectError(.invalidValue, "shape [3]") {
            _ = try SerialisedCheckpoint([tensor("a", [3], [1])], metadata: metadata(step: 1))
        }
        var reserved = metadata(step: 1)
        reserved.extra["step"] = "2"
        expectError(.invalidValue, "'step'") {
            _ = try SerialisedCheckpoint([tensor("a", [1], [1])], metadata: reserved)
        }
    }
}

extension SerialisedCheckpoint {
    /// The bytes of the file.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        forEachPiece { bytes.append(contentsOf: $0) }
        return bytes
    }

    /// Some bytes of it, fewer at the end.
    func chunk(at offset: Int, count: Int) -> [UInt8] {
        Array(bytes.dropFirst(offset).prefix(count))
    }
}

/// Files that are there from the start and cannot be changed.
struct MemoryFiles: FileLayer {
    let contents: [String: [UInt8]]

    init(_ contents: [String: [UInt8]]) {
        self.contents = contents
    }

    private var refusal: StorageError { StorageError(.io, "these files cannot be changed") }

    func createDirectory(_ path: String) throws(StorageError) { throw refusal }
    func create(_ path: String) throws(StorageError) -> any OutputFile { throw refusal }
    func rename(_ path: String, to newPath: String) throws(StorageError) { throw refusal }
    func remove(_ path: String) throws(StorageError) { throw refusal }
    func exists(_ path: String) -> Bool { contents[path] != nil }
    func list(_ directory: String) throws(StorageError) -> [String] { contents.keys.sorted() }
    func synchroniseDirectory(_ path: String) throws(StorageError) { throw refusal }
    func contents(of path: String) throws(StorageError) -> FileContents {
        guard let bytes = contents[path] else { throw StorageError(.notFound, "no \(path)") }
        return FileContents(copying: bytes)
    }
}

import Basics
import Foundation
import Storage
import Testing

/// A folder that goes away with the test.
final class TemporaryFolder {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "storage-tests-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func callAsFunction(_ name: String) -> String { path + "/" + name }

    func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    }
}

/// A file of the folder Fixtures.
func fixture(_ name: String, source: String = #filePath) -> String {
    (source as NSString).deletingLastPathComponent + "/Fixtures/" + name
}

/// The error that a body throws, if it is a storage error.
func storageError(_ body: () throws -> Void) -> StorageError? {
    do {
        try body()
        return nil
    } catch {
        return error as? StorageError
    }
}

/// Checks that a body throws a storage error of a code, whose message holds all texts.
func expectError(
    _ code: StorageError.Code, _ texts: String..., at location: SourceLocation = #_sourceLocation,
    _ body: () throws -> Void
) {
    guard let error = storageError(body) else {
        Issue.record("no StorageError was thrown", sourceLocation: location)
        return
    }
    #expect(error.code == code, "\(error.message)", sourceLocation: location)
    for text in texts {
        #expect(
            error.message.contains(text), "'\(text)' is not in: \(error.message)",
            sourceLocation: location)
    }
    #expect(!error.message.contains("\n"), "a message is one line", sourceLocation: location)
}

/// Tensors that a test owns.
func tensor(_ name: String, _ shape: [Int], _ values: [Float]) -> CheckpointTensor {
    let contents = FileContents(copying: values.withUnsafeBytes { Array($0) })
    return CheckpointTensor(name: name, shape: shape, bytes: contents.bytes, owner: contents)
}

/// A small state whose values depend on the step.
func state(step: Int, salt: Float = 0) -> [CheckpointTensor] {
    let weights = (0..<24).map { Float($0) / 8 + Float(step) + salt }
    return [
        tensor("network/conv.weight", [2, 3, 4], weights),
        tensor("network/bn.running_mean", [2], [0.25, Float(step)]),
        tensor("optimizer/m/conv.weight", [2, 3, 4], weights.map { $0 * 1e-3 }),
        tensor("optimizer/v/conv.weight", [2, 3, 4], weights.map { $0 * $0 }),
    ]
}

func metadata(step: Int) -> CheckpointMetadata {
    CheckpointMetadata(
        step: step, settingsDigest: 0x1234, datasetDigest: 0x5678,
        numericsClass: "cpu \"avx2\" torch 2.13", history: UInt64(step) &* 0x9E37_79B9,
        extra: ["note": "ü\n"])
}

func serialised(
    step: Int, salt: Float = 0
) throws(StorageError) -> SerialisedCheckpoint {
    try SerialisedCheckpoint(state(step: step, salt: salt), metadata: metadata(step: step))
}

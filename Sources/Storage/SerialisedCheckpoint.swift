import Basics
import Foundation

/// A checkpoint as the bytes of its file, without a file.
///
/// The tensors stay where they are; only the header is new memory. Equal tensors and metadata give
/// equal bytes on any machine.
///
/// - Complexity: making one reads every tensor once, for the digests.
public struct SerialisedCheckpoint: Sendable {
    /// What the checkpoint says about itself.
    public let metadata: CheckpointMetadata
    /// The digests of the tensors.
    public let digests: StateDigests
    /// The first bytes of the file: header length and header, padded to whole 64 bytes.
    public let header: [UInt8]
    /// The tensors in file order.
    public let tensors: [CheckpointTensor]
    /// Bytes of the whole file.
    public let byteCount: Int

    /// Lays out a checkpoint.
    ///
    /// - Throws: ``StorageError`` with code `invalidValue` when a name is empty or there twice, a
    ///   shape does not fit its bytes, the step is below 0, or an extra metadata key is one that
    ///   Lineup uses.
    public init(
        _ tensors: [CheckpointTensor], metadata: CheckpointMetadata
    ) throws(StorageError) {
        guard metadata.step >= 0 else {
            throw StorageError(
                .invalidValue, "a checkpoint of step \(metadata.step): steps start at 0")
        }
        var names: Set<String> = []
        for tensor in tensors {
            guard !tensor.name.isEmpty, tensor.name != "__metadata__",
                names.insert(tensor.name).inserted
            else {
                throw StorageError(
                    .invalidValue,
                    "checkpoint of step \(metadata.step): tensor name '\(tensor.name)' is empty, "
                        + "reserved or there twice; give every tensor its own name")
            }
            guard
                CheckpointTensor.byteCount(type: tensor.type, shape: tensor.shape)
                    == tensor.bytes.count
            else {
                throw StorageError(
                    .invalidValue,
                    "checkpoint of step \(metadata.step): tensor '\(tensor.name)' has "
                        + "\(tensor.bytes.count) bytes, which is not \(tensor.type.rawValue) of "
                        + "shape \(tensor.shape)")
            }
        }
        if let key = metadata.extra.keys.sorted().first(where: CheckpointMetadata.Key.all.contains)
        {
            throw StorageError(
                .invalidValue,
                "checkpoint of step \(metadata.step): extra metadata '\(key)' is a name that "
                    + "every checkpoint has; use another")
        }
        let digests = StateDigests(of: tensors, step: metadata.step)
        self.metadata = metadata
        self.digests = digests
        self.tensors = tensors
        header = Self.header(tensors, metadata, digests)
        byteCount = header.count + tensors.reduce(0) { $0 + $1.bytes.count }
    }

    /// Hands out the file's bytes from start to end, without copying.
    public func forEachPiece<Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        let start = FileContents(copying: header)
        try body(start.bytes)
        for tensor in tensors where !tensor.bytes.isEmpty { try body(tensor.bytes) }
    }

    /// Makes a durable file of it, completely or not at all; one of that name is replaced.
    ///
    /// - Throws: ``StorageError`` with code `diskFull` or `io`, and nothing is left behind.
    public func write(
        to path: String, files: any FileLayer = SystemFiles()
    ) throws(StorageError) {
        let temporary = path + ".part"
        try files.remove(temporary)
        let file = try files.create(temporary)
        do throws(StorageError) {
            try forEachPiece { (piece) throws(StorageError) in try file.write(piece) }
            try file.synchronise()
            try file.close()
            try files.rename(temporary, to: path)
        } catch {
            try? file.close()
            try? files.remove(temporary)
            throw error
        }
        try files.synchroniseDirectory((path as NSString).deletingLastPathComponent)
    }

    private static func header(
        _ tensors: [CheckpointTensor], _ metadata: CheckpointMetadata, _ digests: StateDigests
    ) -> [UInt8] {
        var pairs = metadata.pairs(digests)
        pairs[CheckpointMetadata.Key.metadata] =
            CheckpointMetadata.digest(
                pairs: pairs, tensors: tensors.map { ($0.name, $0.type) }
            ).hex
        let fields = pairs.keys.sorted().map {
            HeaderJSON.quoted($0) + ":" + HeaderJSON.quoted(pairs[$0] ?? "")
        }
        var text = "{\"__metadata__\":{" + fields.joined(separator: ",") + "}"
        var offset = 0
        for tensor in tensors {
            let shape = tensor.shape.map { String($0) }.joined(separator: ",")
            let end = offset + tensor.bytes.count
            text += ",\(HeaderJSON.quoted(tensor.name)):{\"dtype\":\"\(tensor.type.rawValue)\","
            text += "\"shape\":[\(shape)],\"data_offsets\":[\(offset),\(end)]}"
            offset = end
        }
        text += "}"
        // Tensors begin at a multiple of 64 bytes, so that a mapped file is aligned for vectors.
        let padding = (64 - (8 + text.utf8.count) % 64) % 64
        let length = UInt64(text.utf8.count + padding)
        var header = withUnsafeBytes(of: length.littleEndian) { Array($0) }
        header.append(contentsOf: text.utf8)
        header.append(contentsOf: repeatElement(UInt8(ascii: " "), count: padding))
        return header
    }
}

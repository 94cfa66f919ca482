import Basics
import Foundation

/// Takes the bytes of a checkpoint file in chunks and makes it durable once all are there.
///
/// One thread at a time; a receiver that is dropped leaves nothing behind. Another sender may go
/// on at ``received`` where the first one died: equal states have equal bytes.
public final class CheckpointReceiver {
    /// The step whose state arrives.
    public let step: Int
    /// Bytes that will arrive.
    public let byteCount: Int
    /// Bytes that have arrived; the offset of the next chunk.
    public private(set) var received = 0

    private let store: CheckpointStore
    private let digest: UInt64?
    private let temporary: String
    private var file: (any OutputFile)?
    private var hash = XXH64()
    private var buffer: [UInt8] = []
    private static let bufferBytes = 1 << 20

    /// Starts receiving into a store.
    ///
    /// - Parameters:
    ///   - byteCount: of the whole file.
    ///   - digest: of the whole file, if known; the digests inside the file are checked in any case.
    /// - Throws: ``StorageError`` with code `io` or `diskFull`.
    public init(
        store: CheckpointStore, step: Int, byteCount: Int, digest: UInt64?
    ) throws(StorageError) {
        self.store = store
        self.step = step
        self.byteCount = byteCount
        self.digest = digest
        let unique = UInt64.random(in: .min ... .max).hex
        temporary = store.join(
            "\(CheckpointStore.temporaryPrefix)\(unique)-\(CheckpointStore.fileName(step: step))")
        try store.files.createDirectory(store.directory)
        file = try store.files.create(temporary)
    }

    deinit { abandon() }

    /// Takes a chunk.
    ///
    /// A chunk that has arrived before is ignored.
    ///
    /// - Parameters:
    ///   - offset: of the chunk's first byte in the file.
    ///   - digest: of the chunk's bytes.
    /// - Throws: ``StorageError`` with code `invalidValue` when the chunk leaves a gap, reaches
    ///   beyond the end or differs from its digest: ask for ``received`` again; with code `io` or
    ///   `diskFull` when it cannot be written: nothing is left behind.
    public func append(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, digest: UInt64
    ) throws(StorageError) {
        let computed = XXH64.digest(bytes)
        guard computed == digest else {
            throw refusal(
                "the chunk at byte \(offset) digests to \(computed.hex), "
                    + "its sender says \(digest.hex)")
        }
        guard offset >= 0, bytes.count <= byteCount, offset <= byteCount - bytes.count else {
            throw refusal(
                "a chunk of \(bytes.count) bytes at \(offset) is not within \(byteCount) bytes")
        }
        if offset + bytes.count <= received { return }
        guard offset == received else {
            throw refusal("the chunk at byte \(offset) came when byte \(received) was expected")
        }
        do throws(StorageError) {
            try append(bytes)
        } catch {
            abandon()
            throw error
        }
    }

    /// Checks the whole file and makes it durable under its name.
    ///
    /// - Throws: ``StorageError``, and nothing is left behind: with code `corrupt` when bytes are
    ///   missing or a digest differs, `conflict` when a sound checkpoint of the step exists with
    ///   other tensors, `io` or `diskFull`.
    public func finish() throws(StorageError) -> StoredCheckpoint {
        do throws(StorageError) {
            guard received == byteCount else {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): \(received) of \(byteCount) bytes arrived; "
                        + "ask for it again")
            }
            let computed = hash.finish()
            if let digest, computed != digest {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): the bytes that arrived digest to "
                        + "\(computed.hex), its sender says \(digest.hex); ask for it again")
            }
            try flush()
            let reader = try CheckpointReader(path: temporary, files: store.files)
            guard reader.metadata.step == step else {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): what arrived is step \(reader.metadata.step); "
                        + "ask for it again")
            }
            if let stored = try store.identical(
                step: step, digests: reader.digests, tensors: reader.tensors)
            {
                abandon()
                return stored
            }
            return try publish(digests: reader.digests)
        } catch {
            abandon()
            throw error
        }
    }

    /// Gives up and removes what has arrived; harmless after ``finish()``.
    public func abandon() {
        guard let file else { return }
        self.file = nil
        // Nothing can be done about a failure here; the next start removes what is left.
        try? file.close()
        try? store.files.remove(temporary)
    }

    /// Appends bytes that need no check.
    func append(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        guard file != nil else {
            throw StorageError(
                .io, "checkpoint of step \(step): an earlier write failed; start it again")
        }
        if digest != nil { hash.update(bytes) }
        received += bytes.count
        if buffer.count + bytes.count > Self.bufferBytes { try flush() }
        if bytes.count > Self.bufferBytes {
            try write(bytes)
        } else {
            buffer.append(contentsOf: bytes)
        }
    }

    /// Makes the file durable under its name; the checks are done.
    func publish(digests: StateDigests) throws(StorageError) -> StoredCheckpoint {
        let outcome: StoredCheckpoint.Outcome
        do throws(StorageError) {
            try flush()
            try file?.synchronise()
            try file?.close()
            outcome = try store.publish(temporary, step: step)
        } catch {
            abandon()
            throw explained(error)
        }
        file = nil
        return StoredCheckpoint(
            step: step, file: CheckpointStore.fileName(step: step), byteCount: byteCount,
            digests: digests, outcome: outcome)
    }

    private func flush() throws(StorageError) {
        guard !buffer.isEmpty else { return }
        // The buffer is taken out while it is lent to the file.
        let bytes = buffer
        buffer.removeAll(keepingCapacity: true)
        let contents = FileContents(copying: bytes)
        try write(contents.bytes)
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        do throws(StorageError) {
            try file?.write(bytes)
        } catch {
            throw explained(error)
        }
    }

    private func explained(_ error: StorageError) -> StorageError {
        StorageError(
            error.code,
            "checkpoint of step \(step) (\(byteCount) bytes) is not stored: \(error.message)",
            cause: error.cause)
    }

    private func refusal(_ what: String) -> StorageError {
        StorageError(.invalidValue, "checkpoint of step \(step): \(what); send it again")
    }
}

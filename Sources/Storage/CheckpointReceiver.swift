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
    private let temporary: String
    private var file: (any OutputFile)?
    private var stream: CheckpointStream

    /// Starts receiving into a store.
    ///
    /// - Parameters:
    ///   - byteCount: of the whole file.
    /// - Throws: ``StorageError`` with code `io` or `diskFull`.
    public init(
        store: CheckpointStore, step: Int, byteCount: Int
    ) throws(StorageError) {
        self.store = store
        self.step = step
        self.byteCount = byteCount
        stream = CheckpointStream(
            byteCount: byteCount, path: "the checkpoint of step \(step) that arrives")
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
    ///   beyond the end or differs from its digest: ask for ``received`` again; with code `corrupt`
    ///   when the bytes so far are no checkpoint's, `io` or `diskFull` when they cannot be written:
    ///   nothing is left behind.
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
            try stream.update(bytes)
            try append(bytes)
        } catch {
            abandon()
            throw error
        }
    }

    /// Checks the whole file and makes it durable under its name.
    ///
    /// - Parameter expected: digest of the state that it must hold, where that is known.
    /// - Throws: ``StorageError``, and nothing is left behind: with code `corrupt` when bytes are
    ///   missing or a digest differs, `conflict` when a sound checkpoint of the step exists with
    ///   other tensors, `io` or `diskFull`.
    public func finish(state expected: UInt64? = nil) throws(StorageError) -> StoredCheckpoint {
        do throws(StorageError) {
            guard received == byteCount else {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): \(received) of \(byteCount) bytes arrived; "
                        + "ask for it again")
            }
            let header = try stream.finish()
            guard header.metadata.step == step else {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): what arrived is step \(header.metadata.step); "
                        + "ask for it again")
            }
            if let expected, header.digests.state != expected {
                throw StorageError(
                    .corrupt,
                    "checkpoint of step \(step): state \(header.digests.state.hex) arrived, "
                        + "\(expected.hex) was expected; ask another holder for it")
            }
            if store.files.exists(store.path(step: step)) {
                // The same step was stored before: compared, not written.
                try write { file throws(StorageError) in try file.synchronise() }
                let reader = try CheckpointReader(
                    path: temporary, verifying: .header, files: store.files)
                if let stored = try store.identical(
                    step: step, digests: reader.digests, tensors: reader.tensors)
                {
                    abandon()
                    return stored
                }
            }
            return try publish(history: header.metadata.history, digests: header.digests)
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
        received += bytes.count
        try write { file throws(StorageError) in try file.write(bytes) }
    }

    /// Makes the file durable under its name; the checks are done.
    func publish(
        history: UInt64, digests: StateDigests
    ) throws(StorageError) -> StoredCheckpoint {
        let outcome: StoredCheckpoint.Outcome
        do throws(StorageError) {
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
            history: history, digests: digests, outcome: outcome)
    }

    private func write(
        _ body: (any OutputFile) throws(StorageError) -> Void
    ) throws(StorageError) {
        guard let file else { return }
        do throws(StorageError) {
            try body(file)
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

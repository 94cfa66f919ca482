import Basics
import Foundation

/// The checkpoints of one folder: what is there is whole, what is being written is not there yet.
///
/// A file is written under a temporary name in the same folder, made durable, renamed, and the
/// folder made durable. One process writes; any number read.
public struct CheckpointStore: Sendable {
    /// The folder, for instance `RUN/checkpoints`.
    public let directory: String
    let files: any FileLayer

    /// Names a folder of checkpoints; nothing is read or written.
    public init(directory: String, files: any FileLayer = SystemFiles()) {
        self.directory = directory
        self.files = files
    }

    /// The name of a step's file: `step-000000060.safetensors`.
    public static func fileName(step: Int) -> String {
        let digits = String(step)
        let zeros = String(repeating: "0", count: max(0, 9 - digits.count))
        return "step-\(zeros)\(digits).safetensors"
    }

    /// The step that a file name stands for; nil for temporary and foreign files.
    public static func step(fileName: String) -> Int? {
        let prefix = "step-"
        let suffix = ".safetensors"
        guard fileName.hasPrefix(prefix), fileName.hasSuffix(suffix) else { return nil }
        let digits = fileName.dropFirst(prefix.count).dropLast(suffix.count)
        guard let step = Int(digits), step >= 0, Self.fileName(step: step) == fileName else {
            return nil
        }
        return step
    }

    /// The path of a step's file, whether it exists or not.
    public func path(step: Int) -> String { join(Self.fileName(step: step)) }

    /// Creates the folder and removes what killed writers left; only the one writer calls it.
    ///
    /// - Returns: the names of the files removed.
    @discardableResult
    public func prepare() throws(StorageError) -> [String] {
        try files.createDirectory(directory)
        let leftovers = try files.list(directory).filter { $0.hasPrefix(Self.temporaryPrefix) }
        for name in leftovers { try files.remove(join(name)) }
        if !leftovers.isEmpty { try files.synchroniseDirectory(directory) }
        return leftovers
    }

    /// The steps that have a file, ascending; the files are not opened.
    public func steps() throws(StorageError) -> [Int] {
        try files.list(directory).compactMap { Self.step(fileName: $0) }.sorted()
    }

    /// Opens the checkpoint of a step.
    ///
    /// - Throws: ``StorageError``; with code `corrupt` also when the file holds another step.
    public func open(
        step: Int, verifying: CheckpointReader.Verification = .state
    ) throws(StorageError) -> CheckpointReader {
        let reader = try CheckpointReader(
            path: path(step: step), verifying: verifying, files: files)
        guard reader.metadata.step == step else {
            throw StorageError(
                .corrupt,
                "checkpoint \(path(step: step)) holds step \(reader.metadata.step); "
                    + "its name must not be changed")
        }
        return reader
    }

    /// The newest checkpoint that verifies and is not newer than a step.
    ///
    /// - Parameters:
    ///   - skipped: is told every newer file that failed, and why.
    /// - Returns: nil when there is none.
    public func newest(
        notNewerThan limit: Int = .max,
        skipped: (_ step: Int, _ why: StorageError) -> Void = { _, _ in }
    ) throws(StorageError) -> CheckpointReader? {
        for step in try steps().reversed() where step <= limit {
            do throws(StorageError) {
                return try open(step: step)
            } catch {
                skipped(step, error)
            }
        }
        return nil
    }

    /// Makes a checkpoint durable, or compares it with the one that is already there.
    ///
    /// - Returns: how it went; the checkpoint is durable in every case.
    /// - Throws: ``StorageError`` with code `diskFull` or `io`, and nothing is left behind; with
    ///   code `conflict` when a sound checkpoint of the step exists with other tensors.
    @discardableResult
    public func write(
        _ checkpoint: SerialisedCheckpoint
    ) throws(StorageError) -> StoredCheckpoint {
        let step = checkpoint.metadata.step
        if let stored = try identical(
            step: step, digests: checkpoint.digests, tensors: checkpoint.tensors)
        {
            return stored
        }
        let receiver = try CheckpointReceiver(
            store: self, step: step, byteCount: checkpoint.byteCount)
        do throws(StorageError) {
            try checkpoint.forEachPiece { (piece) throws(StorageError) in
                try receiver.append(piece)
            }
        } catch {
            receiver.abandon()
            throw error
        }
        return try receiver.publish(
            history: checkpoint.metadata.history, digests: checkpoint.digests)
    }

    /// Removes the checkpoint of a step; a missing one is no error.
    public func remove(step: Int) throws(StorageError) {
        try files.remove(path(step: step))
        try files.synchroniseDirectory(directory)
    }

    static let temporaryPrefix = ".tmp-"

    /// Compares with an existing file.
    ///
    /// - Returns: nil when there is no file, or a damaged one, which ``publish(_:step:)`` moves away.
    func identical(
        step: Int, digests: StateDigests, tensors: [CheckpointTensor]
    ) throws(StorageError) -> StoredCheckpoint? {
        let path = path(step: step)
        guard files.exists(path) else { return nil }
        let existing: CheckpointReader
        do throws(StorageError) {
            existing = try open(step: step)
        } catch {
            if error.code == .corrupt { return nil }
            throw error
        }
        guard existing.digests == digests else {
            throw StorageError(
                .conflict,
                "checkpoint \(path) exists with state \(existing.digests.state.hex), the new one "
                    + "has \(digests.state.hex)\(Self.difference(existing.tensors, tensors)); "
                    + "it is not overwritten: move it away if it is wrong")
        }
        // A writer may have been killed between rename and fsync of the folder.
        try files.synchroniseDirectory(directory)
        return StoredCheckpoint(
            step: step, file: Self.fileName(step: step), byteCount: existing.byteCount,
            history: existing.metadata.history, digests: digests, outcome: .identical)
    }

    /// Gives a durable temporary file its name, and makes the name durable.
    ///
    /// What already has the name has been found damaged; it is kept beside it.
    func publish(_ temporary: String, step: Int) throws(StorageError) -> StoredCheckpoint.Outcome {
        let path = path(step: step)
        let replaces = files.exists(path)
        if replaces { try files.rename(path, to: files.nameAside(path)) }
        try files.rename(temporary, to: path)
        try files.synchroniseDirectory(directory)
        return replaces ? .replacedDamaged : .written
    }

    private static func difference(_ old: [CheckpointTensor], _ new: [CheckpointTensor]) -> String {
        for (left, right) in zip(old, new) {
            if left.name != right.name { return ": '\(left.name)' became '\(right.name)'" }
            if left.shape != right.shape {
                return ": '\(left.name)' is \(left.shape), now \(right.shape)"
            }
            if !left.bytes.elementsEqual(right.bytes) { return ": '\(left.name)' differs first" }
        }
        return old.count == new.count ? "" : ": \(old.count) tensors became \(new.count)"
    }

    func join(_ name: String) -> String { directory + "/" + name }
}

/// A checkpoint that is durable.
public struct StoredCheckpoint: Equatable, Sendable {
    /// What storing it did.
    public enum Outcome: String, Sendable {
        /// A new file.
        case written
        /// The file was there with the same tensors.
        case identical
        /// A damaged file was there; it was moved aside and a new one written.
        case replacedDamaged
    }

    /// The step.
    public let step: Int
    /// The file's name within its folder.
    public let file: String
    /// Bytes of the file.
    public let byteCount: Int
    /// The history digest after the step.
    public let history: UInt64
    /// The digests of its tensors.
    public let digests: StateDigests
    /// What storing it did.
    public let outcome: Outcome
}

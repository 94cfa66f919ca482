import Basics

/// A checkpoint of a run, opened and checked.
public struct CheckpointReader: Sendable {
    /// Where the file lies.
    public let path: String
    /// What the checkpoint says about itself.
    public let metadata: CheckpointMetadata
    /// The digests that the file says its tensors have; ``verify()`` compares.
    public let digests: StateDigests
    /// Bytes of the whole file.
    public let byteCount: Int
    /// The tensors in file order; their bytes live as long as any of them is held.
    public let tensors: [CheckpointTensor]
    private let indices: [String: Int]

    /// Opens a checkpoint.
    ///
    /// - Parameters:
    ///   - verifying: whether every byte is read and digested; without it only the layout and the
    ///     metadata are checked.
    /// - Throws: ``StorageError`` with code `notFound`, `io`, `corrupt` or `newerVersion`.
    public init(
        path: String, verifying: Bool = true, files: any FileLayer = SystemFiles()
    ) throws(StorageError) {
        let file = try SafetensorsFile(path: path, files: files)
        self.path = path
        metadata = try CheckpointMetadata(pairs: file.metadata, path: path)
        byteCount = file.byteCount
        tensors = file.tensors
        indices = Dictionary(
            uniqueKeysWithValues: file.tensors.enumerated().map { ($1.name, $0) })
        let said = file.metadata[CheckpointMetadata.Key.metadata] ?? "missing"
        let computed = CheckpointMetadata.digest(pairs: file.metadata, tensors: file.tensors).hex
        guard said == computed else {
            throw Self.damaged(
                path, "its metadata digest is \(said), its contents give \(computed)")
        }
        guard
            let weights = file.metadata[CheckpointMetadata.Key.weights]
                .flatMap({ UInt64(hex: $0) }),
            let state = file.metadata[CheckpointMetadata.Key.state].flatMap({ UInt64(hex: $0) })
        else { throw Self.damaged(path, "it holds no digests of its tensors") }
        digests = StateDigests(weights: weights, state: state)
        if verifying { try verify() }
    }

    /// The tensor of a name; nil when there is none.
    public subscript(_ name: String) -> CheckpointTensor? {
        indices[name].map { tensors[$0] }
    }

    /// Reads every byte and compares the digests.
    ///
    /// - Throws: ``StorageError`` with code `corrupt`.
    public func verify() throws(StorageError) {
        let computed = StateDigests(of: tensors, step: metadata.step)
        guard computed.state == digests.state else {
            throw Self.damaged(
                path,
                "its tensors digest to \(computed.state.hex), it says \(digests.state.hex)")
        }
        guard computed.weights == digests.weights else {
            throw Self.damaged(
                path,
                "its weights digest to \(computed.weights.hex), it says \(digests.weights.hex)")
        }
    }

    /// The digest of the weights alone in a file, computed from its bytes.
    ///
    /// Works on any safetensors file with tensors named `network/…`.
    ///
    /// - Throws: ``StorageError`` with code `notFound`, `io` or `corrupt`.
    public static func weightsDigest(
        of path: String, files: any FileLayer = SystemFiles()
    ) throws(StorageError) -> UInt64 {
        let file = try SafetensorsFile(path: path, files: files)
        guard file.tensors.contains(where: { $0.name.hasPrefix(StateDigests.networkPrefix) }) else {
            throw StorageError(
                .corrupt,
                "\(path) holds \(file.tensors.count) tensors, none named "
                    + "\(StateDigests.networkPrefix)…; name a checkpoint that Lineup wrote")
        }
        guard file.metadata[CheckpointMetadata.Key.state] != nil else {
            return StateDigests(of: file.tensors, step: 0).weights
        }
        return try CheckpointReader(path: path, files: files).digests.weights
    }

    private static func damaged(_ path: String, _ what: String) -> StorageError {
        StorageError(
            .corrupt, "checkpoint \(path) is damaged: \(what); use another copy or an earlier one")
    }
}

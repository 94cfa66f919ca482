import Basics

/// A checkpoint of a run, opened and checked.
public struct CheckpointReader: Sendable {
    /// Where the file lies.
    public let path: String
    /// What the file's first bytes say.
    public let header: CheckpointHeader
    /// What the checkpoint says about itself.
    public var metadata: CheckpointMetadata { header.metadata }
    /// The digests that the file says its tensors have; ``verify(_:)`` compares.
    public var digests: StateDigests { header.digests }
    /// Bytes of the whole file.
    public let byteCount: Int
    /// The tensors in file order; their bytes live as long as any of them is held.
    public let tensors: [CheckpointTensor]
    private let indices: [String: Int]

    /// How much of a file is read and compared with its digests when it is opened.
    public enum Verification: Sendable {
        /// Every byte.
        case state
        /// The network's tensors alone: nothing else of the file needs to be there.
        case weights
        /// Layout and metadata alone.
        case header
    }

    /// Opens a checkpoint.
    ///
    /// - Throws: ``StorageError`` with code `notFound`, `io`, `corrupt` or `newerVersion`.
    public init(
        path: String, verifying: Verification = .state, files: any FileLayer = SystemFiles()
    ) throws(StorageError) {
        let file = try SafetensorsFile(path: path, files: files)
        header = try CheckpointHeader(file.layout, path: path)
        self.path = path
        byteCount = file.byteCount
        tensors = file.tensors
        indices = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($1.name, $0) })
        try verify(verifying)
    }

    /// The tensor of a name; nil when there is none.
    public subscript(_ name: String) -> CheckpointTensor? {
        indices[name].map { tensors[$0] }
    }

    /// Reads bytes and compares them with their digests.
    ///
    /// - Throws: ``StorageError`` with code `corrupt`.
    public func verify(_ what: Verification = .state) throws(StorageError) {
        switch what {
        case .state:
            try header.check(StateDigests(of: tensors, step: metadata.step), path: path)
        case .weights: try header.check(weights: StateDigests.weights(of: tensors), path: path)
        case .header: break
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
        guard file.isCheckpoint else {
            return StateDigests(of: file.tensors, step: 0).weights
        }
        return try CheckpointReader(path: path, files: files).digests.weights
    }
}

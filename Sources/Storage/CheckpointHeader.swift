import Basics

/// What the first bytes of a checkpoint's file say, checked as far as they can be without the rest.
public struct CheckpointHeader: Sendable {
    /// What the checkpoint says about itself.
    public let metadata: CheckpointMetadata
    /// The digests that it says its tensors have.
    public let digests: StateDigests
    /// Where the tensors lie.
    public let layout: SafetensorsLayout

    /// End of the last tensor of the network: what an evaluator needs of the file.
    public var weightsEnd: Int {
        layout.tensors.last { $0.name.hasPrefix(StateDigests.networkPrefix) }?.range.upperBound
            ?? layout.headerBytes
    }

    /// Reads a header.
    ///
    /// - Parameters:
    ///   - prefix: the file's first bytes, at least the whole header.
    ///   - byteCount: of the whole file.
    ///   - path: names the file in errors.
    /// - Throws: ``StorageError`` with code `corrupt` or `newerVersion`.
    public init(
        prefix: UnsafeRawBufferPointer, byteCount: Int, path: String
    ) throws(StorageError) {
        try self.init(
            SafetensorsLayout(prefix: prefix, byteCount: byteCount, path: path), path: path)
    }

    init(_ layout: SafetensorsLayout, path: String) throws(StorageError) {
        self.layout = layout
        metadata = try CheckpointMetadata(pairs: layout.metadata, path: path)
        let pairs = layout.metadata
        let said = pairs[CheckpointMetadata.Key.metadata] ?? "missing"
        let computed = CheckpointMetadata.digest(
            pairs: pairs, tensors: layout.tensors.map { ($0.name, $0.type) }
        ).hex
        guard said == computed else {
            throw Self.damaged(
                path, "its metadata digest is \(said), its contents give \(computed)")
        }
        guard let weights = pairs[CheckpointMetadata.Key.weights].flatMap({ UInt64(hex: $0) }),
            let state = pairs[CheckpointMetadata.Key.state].flatMap({ UInt64(hex: $0) })
        else { throw Self.damaged(path, "it holds no digests of its tensors") }
        digests = StateDigests(weights: weights, state: state)
    }

    static func damaged(_ path: String, _ what: String) -> StorageError {
        StorageError(
            .corrupt, "checkpoint \(path) is damaged: \(what); use another copy or an earlier one")
    }

    /// Compares digests of tensors with those that the header says.
    func check(_ computed: StateDigests, path: String) throws(StorageError) {
        guard computed.state == digests.state else {
            throw Self.damaged(
                path, "its tensors digest to \(computed.state.hex), it says \(digests.state.hex)")
        }
        try check(weights: computed.weights, path: path)
    }

    func check(weights: UInt64, path: String) throws(StorageError) {
        guard weights == digests.weights else {
            throw Self.damaged(
                path, "its weights digest to \(weights.hex), it says \(digests.weights.hex)")
        }
    }
}

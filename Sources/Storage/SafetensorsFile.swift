/// A safetensors file whose every offset, size and name has been checked.
///
/// Reads what any writer of the format makes; ``CheckpointReader`` adds what a checkpoint promises.
///
/// - SeeAlso: the safetensors format: eight bytes header length, JSON header, tensor bytes.
public struct SafetensorsFile: Sendable {
    /// The longest header that is read: the bound of the format's own library.
    public static let headerBytesMax = 100_000_000

    /// Where the file lies.
    public let path: String
    /// What its header says.
    public let layout: SafetensorsLayout
    /// The pairs of `__metadata__`.
    public var metadata: [String: String] { layout.metadata }
    /// The tensors in file order; their bytes live as long as any of them is held.
    public let tensors: [CheckpointTensor]
    /// Bytes of the whole file.
    public let byteCount: Int
    /// Whether it is a checkpoint, which ``CheckpointReader`` can verify.
    public var isCheckpoint: Bool { metadata[CheckpointMetadata.Key.state] != nil }

    /// Opens and checks a file.
    ///
    /// - Throws: ``StorageError`` with code `notFound`, `io` or `corrupt`.
    public init(path: String, files: any FileLayer = SystemFiles()) throws(StorageError) {
        let contents = try files.contents(of: path)
        let layout = try SafetensorsLayout(
            prefix: contents.bytes, byteCount: contents.bytes.count, path: path)
        self.path = path
        self.layout = layout
        tensors = layout.tensors.map { tensor in
            CheckpointTensor(
                name: tensor.name, type: tensor.type, shape: tensor.shape,
                bytes: UnsafeRawBufferPointer(rebasing: contents.bytes[tensor.range]),
                owner: contents)
        }
        byteCount = contents.bytes.count
    }
}

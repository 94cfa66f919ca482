public import Networks
public import Tensors

/// Turns images into embeddings with fixed weights, in evaluation mode.
///
/// Several threads may use one embedder at once.
public final class Embedder: Sendable {
    /// The network.
    public let network: Network
    /// Where it runs.
    public let device: Device
    private let precision: Precision
    private let threads: Int
    private let parameters: [Tensor]
    private let buffers: [Tensor]

    /// What the names of averaged weights begin with in checkpoints.
    public static let averagePrefix = "network/average/"

    /// Copies the `network/` tensors of a checkpoint.
    ///
    /// - Parameters:
    ///   - usesAverage: take the averaged weights, with the running means and variances as they are.
    ///   - threads: intra-op threads of one call; part of the evaluation's numerics class.
    ///   - find: the sizes and bytes of a tensor by its name, for instance `network/conv1.weight`; nil
    ///     when missing.
    /// - Throws: ``TrainingError`` with code `missingTensor` or `shapeMismatch` that names the tensor.
    public init(
        _ configuration: NetworkConfiguration, device: Device = .cpu, precision: Precision = .fp32,
        threads: Int = 1, usesAverage: Bool = false,
        find: (String) throws -> (shape: [Int], bytes: UnsafeRawBufferPointer)?
    ) throws {
        KeptMemory.enable()
        try device.requireAvailable()
        let network = try Network(configuration)
        func copy(_ name: String, _ shape: [Int]) throws -> Tensor {
            guard let (found, bytes) = try find(name) else {
                throw TrainingError(
                    .missingTensor,
                    "tensor '\(name)' is missing; the network needs it with sizes \(shape)")
            }
            guard found == shape, bytes.count == shape.reduce(4, *) else {
                throw TrainingError(
                    .shapeMismatch,
                    "tensor '\(name)' has sizes \(found) and \(bytes.count) bytes; "
                        + "the network wants \(shape)")
            }
            let tensor = try Tensor(copying: bytes, shape: shape, dtype: .float32)
            let placed = try tensor.to(device: device)
            return shape.count == 4 ? try placed.contiguous(.channelsLast) : placed
        }
        let prefix = usesAverage ? Self.averagePrefix : "network/"
        parameters = try network.parameters.map { try copy(prefix + $0.name, $0.shape) }
        buffers = try network.buffers.map { try copy("network/" + $0.name, $0.shape) }
        self.network = network
        self.device = device
        self.precision = precision
        self.threads = threads
    }

    /// Copies the weights of a training state, or their average.
    public convenience init(
        _ state: TrainingState, threads: Int = 1, usesAverage: Bool = false
    ) throws {
        let tensors = try state.tensors()
        let places = Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0) })
        try self.init(
            state.configuration.network, device: state.configuration.device,
            precision: state.configuration.precision, threads: threads, usesAverage: usesAverage
        ) { name in
            // The state outlives the initialiser, which copies.
            places[name].map { tensor in (tensor.shape, tensor.withUnsafeBytes { $0 }) }
        }
    }

    /// Embeds a batch of images; equal rows of equal batch sizes get equal bits.
    ///
    /// - Parameters:
    ///   - images: `[count, 3, height, width]` planar floats.
    ///   - count: images, the same in every call of one evaluation; pad the last batch.
    /// - Returns: row-major `[count, embeddingDimension]`.
    public func embed(_ images: UnsafePointer<Float>, count: Int) throws -> [Float] {
        let configuration = network.configuration
        let view = try Tensor(
            viewing: UnsafeMutableRawPointer(mutating: images),
            shape: [count, 3, configuration.inputHeight, configuration.inputWidth],
            dtype: .float32)
        return try embed(view).floats()
    }

    /// Embeds a batch of images.
    ///
    /// - Parameter images: `[count, 3, height, width]`, float32.
    /// - Returns: `[count, embeddingDimension]`, on the embedder's device.
    public func embed(_ images: Tensor) throws -> Tensor {
        try Engine.setIntraOpThreads(threads)
        return try withoutGradient {
            let input = try images.to(device: device).contiguous(.channelsLast)
            return try network.forward(
                input, parameters: parameters, batchNorm: .evaluation(buffers),
                autocast: precision.autocast)
        }
    }
}

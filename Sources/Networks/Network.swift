public import Tensors

/// A network: the list of its tensors and its arithmetic, without any values.
///
/// Parameters and buffers are passed in, so that many slots can run at once on the same weights.
///
/// - `basic`: two blocks of 3x3 convolution (``NetworkConfiguration/channels`` filters, then twice as
///   many; zero padding keeps the size), optional batch norm, ReLU, 2x2 maximum pooling; then the
///   flattened features. A convolution has a bias where no batch norm follows. Glorot initialisation.
/// - `resnet50`: torchvision's parameter names, strides and initialisation; the spatial mean of the
///   last stage, 2048 features.
/// - Heads: an orthogonal fully connected layer with zero bias; `fc1024` puts a Glorot layer without
///   bias, batch norm and ReLU in front of it.
///
/// - SeeAlso: He, Zhang, Ren, Sun, arXiv:1512.03385; the stride's place is PyTorch's.
public struct Network: Sendable {
    /// What the network was built from.
    public let configuration: NetworkConfiguration
    /// The trainable tensors in registration order.
    public let parameters: [ParameterSpec]
    /// The batch norms' running means and variances in registration order, each pair together.
    public let buffers: [BufferSpec]
    /// Components of an embedding.
    public let embeddingDimension: Int
    /// Features that the backbone hands to the head.
    public let featureCount: Int
    /// Blocks of the backbone: the two of `basic`; the stem and the four stages of `resnet50`.
    public var blockCount: Int { 1 + (parameters.compactMap(\.block).max() ?? 0) }

    let body: Body
    let head: HeadLayers

    /// Lays the network out.
    ///
    /// - Throws: ``NetworkError`` with code `invalidSize` for sizes that no network can have.
    public init(_ configuration: NetworkConfiguration) throws(NetworkError) {
        try Self.check(configuration)
        var registry = Registry()
        let features: Int
        switch configuration.backbone {
        case .basic:
            (body, features) = Self.basicBody(configuration, &registry)
        case .resnet50:
            (body, features) = Self.residualBody(&registry)
        }
        head = Self.headLayers(configuration, features: features, &registry)
        featureCount = features
        embeddingDimension = head.embedding == nil ? features : configuration.embeddingDimension
        parameters = registry.parameters
        buffers = registry.buffers
        self.configuration = configuration
    }

    private static func check(_ configuration: NetworkConfiguration) throws(NetworkError) {
        let smallest = configuration.backbone == .basic ? 4 : 32
        let sizes = [
            ("input.height", configuration.inputHeight, smallest),
            ("input.width", configuration.inputWidth, smallest),
            ("network.embedding_dim", configuration.embeddingDimension, 1),
            ("network.channels", configuration.channels, 1),
        ]
        for (name, value, least) in sizes where value < least || value > 65_536 {
            throw NetworkError(
                .invalidSize,
                "\(name) is \(value); network '\(configuration.backbone.rawValue)' needs "
                    + "\(least) to 65536")
        }
        guard (0...1).contains(configuration.batchNormMomentum) else {
            throw NetworkError(
                .invalidSize,
                "batch norm momentum is \(configuration.batchNormMomentum); it must be 0 to 1")
        }
    }

    /// Embeddings of a batch of images.
    ///
    /// - Parameters:
    ///   - images: `[batch, 3, height, width]`, float32; channels-last memory is fastest on a CPU.
    ///   - parameters: one tensor for each of ``parameters``.
    ///   - batchNorm: where batch norms take their statistics from.
    ///   - autocast: the dtype in which the backbone's convolutions run, nil for float32; the
    ///     pooling into features, the head and everything after them stay float32.
    /// - Returns: `[batch, embeddingDimension]`, float32.
    /// - Throws: ``NetworkError`` with code `shapeMismatch`, or a `TensorError`.
    public func forward(
        _ images: Tensor, parameters: [Tensor], batchNorm: BatchNormMode, autocast: DType? = nil
    ) throws -> Tensor {
        let expected = [3, configuration.inputHeight, configuration.inputWidth]
        guard images.shape.count == 4, Array(images.shape.dropFirst()) == expected else {
            throw NetworkError(
                .shapeMismatch,
                "images are \(images.shape); the network wants [batch, 3, \(expected[1]), "
                    + "\(expected[2])]; see input.height and input.width")
        }
        guard parameters.count == self.parameters.count else {
            throw NetworkError(
                .shapeMismatch,
                "\(parameters.count) parameters given; the network has \(self.parameters.count)")
        }
        let pass = ForwardPass(
            parameters: parameters, mode: batchNorm, epsilon: configuration.batchNormEpsilon)
        let device = images.device
        let features = try withAutocast(autocast, device: device) { () throws(TensorError) in
            try pass.body(body, images)  // [batch, featureCount]
        }
        return try withAutocast(nil, device: device) { () throws(TensorError) in
            try pass.head(head, features)  // [batch, embeddingDimension]
        }
    }
}

/// The convolutional part of a network.
public enum Backbone: String, CaseIterable, Hashable, Sendable {
    /// Two blocks of 3x3 convolution, optional batch norm, ReLU and 2x2 maximum pooling.
    case basic
    /// ResNet-50 with the stride in the 3x3 convolution of each stage's first unit.
    case resnet50
}

/// What turns the backbone's features into an embedding.
public enum Head: String, CaseIterable, Hashable, Sendable {
    /// One fully connected layer.
    case direct
    /// One fully connected layer, then division by the L2 norm.
    case directNormalize = "direct_normalize"
    /// 1024 hidden units with batch norm and ReLU, then one fully connected layer.
    case fc1024
    /// As `fc1024`, then division by the L2 norm.
    case fc1024Normalize = "fc1024_normalize"
    /// The features themselves.
    case none

    var hasHiddenLayer: Bool { self == .fc1024 || self == .fc1024Normalize }
    var normalizes: Bool { self == .directNormalize || self == .fc1024Normalize }
}

/// Everything that decides a network's parameters and arithmetic.
public struct NetworkConfiguration: Hashable, Sendable {
    /// The convolutional part.
    public var backbone: Backbone
    /// What follows it.
    public var head: Head
    /// Components of an embedding; head `none` ignores it.
    public var embeddingDimension: Int
    /// Rows of an input image.
    public var inputHeight: Int
    /// Columns of an input image.
    public var inputWidth: Int
    /// Filters of `basic`'s first block; its second has twice as many.
    public var channels: Int
    /// Whether `basic` has batch norm; ResNet-50 always has.
    public var batchNorm: Bool
    /// Share of a step's own statistics in the running ones, in PyTorch's sense.
    public var batchNormMomentum: Double
    /// Added to variances before the square root.
    public var batchNormEpsilon: Double

    /// Makes a configuration; ``Network/init(_:)`` checks it.
    public init(
        backbone: Backbone = .basic, head: Head = .direct, embeddingDimension: Int = 128,
        inputHeight: Int = 128, inputWidth: Int = 64, channels: Int = 32, batchNorm: Bool = true,
        batchNormMomentum: Double = 0.1, batchNormEpsilon: Double = 1e-5
    ) {
        self.backbone = backbone
        self.head = head
        self.embeddingDimension = embeddingDimension
        self.inputHeight = inputHeight
        self.inputWidth = inputWidth
        self.channels = channels
        self.batchNorm = batchNorm
        self.batchNormMomentum = batchNormMomentum
        self.batchNormEpsilon = batchNormEpsilon
    }

    /// Reads names as settings write them.
    ///
    /// - Throws: ``NetworkError`` with code `unknownName` that lists the known names.
    public init(
        backbone: String, head: String, embeddingDimension: Int, inputHeight: Int, inputWidth: Int,
        channels: Int = 32, batchNorm: Bool = true, batchNormMomentum: Double = 0.1
    ) throws(NetworkError) {
        guard let knownBackbone = Backbone(rawValue: backbone) else {
            throw NetworkError(
                .unknownName,
                "network.backbone is '\(backbone)'; known are "
                    + Backbone.allCases.map(\.rawValue).joined(separator: ", "))
        }
        guard let knownHead = Head(rawValue: head) else {
            throw NetworkError(
                .unknownName,
                "network.head is '\(head)'; known are "
                    + Head.allCases.map(\.rawValue).joined(separator: ", "))
        }
        self.init(
            backbone: knownBackbone, head: knownHead, embeddingDimension: embeddingDimension,
            inputHeight: inputHeight, inputWidth: inputWidth, channels: channels,
            batchNorm: batchNorm, batchNormMomentum: batchNormMomentum)
    }
}

/// What a parameter does in its layer.
public enum ParameterRole: Hashable, Sendable {
    /// Multiplies the input of a convolution or dense layer.
    case weight
    /// Is added to their output.
    case bias
    /// Scales or shifts what a batch norm has normalised.
    case normalisation
}

/// One trainable tensor of a network.
public struct ParameterSpec: Hashable, Sendable {
    /// Dotted name, torchvision's where it has one: `layer1.0.conv1.weight`.
    public let name: String
    /// Sizes; convolutions are `[out, in, rows, columns]`, dense layers `[out, in]`.
    public let shape: [Int]
    /// Where training starts from.
    public let initializer: Initializer
    /// What it does in its layer.
    public let role: ParameterRole
    /// Which of ``Network/blockCount`` blocks it lies in; nil in the head.
    public let block: Int?

    /// Elements.
    public var count: Int { shape.reduce(1, *) }
}

/// One tensor that training moves without a gradient: a batch norm's running mean or variance.
public struct BufferSpec: Hashable, Sendable {
    /// Dotted name, torchvision's where it has one: `bn1.running_mean`.
    public let name: String
    /// Sizes: `[channels]`.
    public let shape: [Int]
    /// Value of every element at step 0.
    public let initialValue: Float
    /// Which of ``Network/blockCount`` blocks it lies in; nil in the head.
    public let block: Int?

    /// Elements.
    public var count: Int { shape.reduce(1, *) }
}

/// One trainable tensor of a network.
public struct ParameterSpec: Hashable, Sendable {
    /// Dotted name, torchvision's where it has one: `layer1.0.conv1.weight`.
    public let name: String
    /// Sizes; convolutions are `[out, in, rows, columns]`, dense layers `[out, in]`.
    public let shape: [Int]
    /// Where training starts from.
    public let initializer: Initializer
    /// Whether training leaves the tensor as it is; it keeps its place in the flat order.
    public let isFrozen: Bool

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

    /// Elements.
    public var count: Int { shape.reduce(1, *) }
}

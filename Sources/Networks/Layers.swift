/// A two-dimensional convolution: indices into the parameters, and geometry.
struct Convolution: Hashable, Sendable {
    let weight: Int
    let bias: Int?
    let stride: Int
    let padding: Int
}

/// A batch norm: indices into the parameters and the buffers.
struct Normalisation: Hashable, Sendable {
    let weight: Int
    let bias: Int
    /// The running mean; the running variance follows it.
    let buffer: Int
    /// Place among the network's batch norms.
    let ordinal: Int
    let channels: Int
}

/// A fully connected layer: indices into the parameters.
struct Dense: Hashable, Sendable {
    let weight: Int
    let bias: Int?
}

/// ResNet's unit of three convolutions around an identity or a projection.
struct Bottleneck: Hashable, Sendable {
    let reduce: Convolution
    let reduceNorm: Normalisation
    let spatial: Convolution
    let spatialNorm: Normalisation
    let expand: Convolution
    let expandNorm: Normalisation
    let projection: Convolution?
    let projectionNorm: Normalisation?
}

/// One of `basic`'s blocks.
struct BasicBlock: Hashable, Sendable {
    let convolution: Convolution
    let norm: Normalisation?
}

enum Body: Hashable, Sendable {
    case basic([BasicBlock])
    case residual(stem: Convolution, stemNorm: Normalisation, blocks: [Bottleneck])
}

struct HeadLayers: Hashable, Sendable {
    let hidden: Dense?
    let hiddenNorm: Normalisation?
    let embedding: Dense?
    let normalizes: Bool
}

/// Hands out indices while a network registers its tensors in order.
struct Registry {
    private(set) var parameters: [ParameterSpec] = []
    private(set) var buffers: [BufferSpec] = []
    private(set) var norms = 0
    /// Where what is registered next belongs; nil for the head.
    var block: Int? = 0

    private mutating func add(
        _ name: String, _ shape: [Int], _ initializer: Initializer, _ role: ParameterRole = .weight
    ) -> Int {
        parameters.append(
            ParameterSpec(
                name: name, shape: shape, initializer: initializer, role: role, block: block))
        return parameters.count - 1
    }

    mutating func convolution(
        _ name: String, from input: Int, to output: Int, kernel: Int, stride: Int = 1,
        padding: Int = 0, bias: Bool = false, _ initializer: Initializer
    ) -> Convolution {
        let weight = add("\(name).weight", [output, input, kernel, kernel], initializer)
        let biasIndex = bias ? add("\(name).bias", [output], .constant(0), .bias) : nil
        return Convolution(weight: weight, bias: biasIndex, stride: stride, padding: padding)
    }

    mutating func norm(_ name: String, channels: Int) -> Normalisation {
        let weight = add("\(name).weight", [channels], .constant(1), .normalisation)
        let bias = add("\(name).bias", [channels], .constant(0), .normalisation)
        for (buffer, value) in [("running_mean", Float(0)), ("running_var", 1)] {
            buffers.append(
                BufferSpec(
                    name: "\(name).\(buffer)", shape: [channels], initialValue: value,
                    block: block))
        }
        norms += 1
        return Normalisation(
            weight: weight, bias: bias, buffer: buffers.count - 2, ordinal: norms - 1,
            channels: channels)
    }

    mutating func dense(
        _ name: String, from input: Int, to output: Int, bias: Bool, _ initializer: Initializer
    ) -> Dense {
        let weight = add("\(name).weight", [output, input], initializer)
        let biasIndex = bias ? add("\(name).bias", [output], .constant(0), .bias) : nil
        return Dense(weight: weight, bias: biasIndex)
    }
}

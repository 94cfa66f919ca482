/// How a gradient moves a parameter.
public enum UpdateRule: Hashable, Sendable {
    /// By the quotient of two moments.
    case adam(AdamConfiguration)
    /// By the gradient, or by its running sum.
    case sgd(SGDConfiguration)

    /// What each parameter's tensors beside its value are called in checkpoints.
    public var momentNames: [String] {
        switch self {
        case .adam: ["m", "v"]
        case .sgd(let sgd): sgd.momentum == 0 ? [] : ["momentum"]
        }
    }

    /// The names that any rule has.
    public static let allMomentNames = ["m", "v", "momentum"]

    /// The step size with bias corrections, and what is added to Adam's root; 0 with SGD.
    ///
    /// - Parameter step: the number of the update that is made, from 1.
    public func scalars(step: Int, learningRate: Double) -> (rate: Double, epsilon: Double) {
        switch self {
        case .adam(let adam): adam.scalars(step: step, learningRate: learningRate)
        case .sgd: (learningRate, 0)
        }
    }
}

/// Stochastic gradient descent: s = momentum * s + g, theta -= rate * s.
///
/// The first s is the first gradient, as in PyTorch, without dampening.
public struct SGDConfiguration: Hashable, Sendable {
    /// Decay of the running sum; 0: no sum is kept.
    public var momentum: Double
    /// theta -= rate * (g + momentum * s): looks one step ahead.
    ///
    /// - SeeAlso: Sutskever, Martens, Dahl, Hinton, ICML 2013, in PyTorch's form.
    public var isNesterov: Bool

    /// Makes a configuration.
    public init(momentum: Double = 0.9, isNesterov: Bool = false) {
        self.momentum = momentum
        self.isNesterov = isNesterov
    }
}

/// How parameters are pulled to zero.
public struct WeightDecay: Hashable, Sendable {
    /// What is multiplied with the parameter.
    public var rate: Double
    /// theta *= 1 - learning rate * rate before the update, past the moments; otherwise
    /// rate * theta is added to the gradient, as an L2 penalty would be.
    ///
    /// - SeeAlso: Loshchilov, Hutter, arXiv:1711.05101.
    public var isDecoupled: Bool
    /// What the rate of batch norms' scales and shifts is multiplied with.
    public var normFactor: Double
    /// What the rate of biases is multiplied with.
    public var biasFactor: Double

    /// Makes a configuration.
    public init(
        rate: Double = 0, isDecoupled: Bool = false, normFactor: Double = 1, biasFactor: Double = 1
    ) {
        self.rate = rate
        self.isDecoupled = isDecoupled
        self.normFactor = normFactor
        self.biasFactor = biasFactor
    }
}

/// What is done to a step's gradient before it moves anything.
public enum GradientClipping: Hashable, Sendable {
    /// Nothing.
    case none
    /// One factor for the whole gradient where its Euclidean norm is above this one.
    case norm(Double)
    /// Every component into -value...value.
    case value(Double)

    /// What the gradient is multiplied with: limit / (norm + 1e-6), at most 1, as PyTorch has it.
    ///
    /// - Parameter squaredNorm: sum of the gradient's squares.
    public static func factor(limit: Double, squaredNorm: Double) -> Double {
        min(1, limit / (squaredNorm.squareRoot() + 1e-6))
    }
}

/// Everything that decides an update but gradient, step and learning rate.
public struct OptimizerConfiguration: Hashable, Sendable {
    /// How a gradient moves a parameter.
    public var rule: UpdateRule
    /// How parameters are pulled to zero.
    public var weightDecay: WeightDecay
    /// What the learning rate of the head's parameters is multiplied with.
    public var headRateFactor: Double
    /// What the learning rate of biases, the head's too, is multiplied with.
    public var biasRateFactor: Double
    /// What is done to the gradient first.
    public var clipping: GradientClipping
    /// The share of its old value that the average of the weights keeps at a step; nil: no average.
    public var averageDecay: Double?

    /// Makes a configuration.
    public init(
        rule: UpdateRule = .adam(.init()), weightDecay: WeightDecay = .init(),
        headRateFactor: Double = 1, biasRateFactor: Double = 1, clipping: GradientClipping = .none,
        averageDecay: Double? = nil
    ) {
        self.rule = rule
        self.weightDecay = weightDecay
        self.headRateFactor = headRateFactor
        self.biasRateFactor = biasRateFactor
        self.clipping = clipping
        self.averageDecay = averageDecay
    }
}

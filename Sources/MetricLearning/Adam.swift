/// Where Adam adds epsilon.
public enum AdamForm: String, CaseIterable, Hashable, Sendable {
    /// To the bias-corrected root: m^ / (sqrt(v^) + eps), as PyTorch does.
    case torch
    /// To the raw root: sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), as TensorFlow 1 does.
    case tensorflow
}

/// Everything that decides Adam but the step.
///
/// - SeeAlso: Kingma, Ba, arXiv:1412.6980; the `tensorflow` form is the last remark of section 2.
public struct AdamConfiguration: Hashable, Sendable {
    /// Where epsilon is added.
    public var form: AdamForm
    /// Decay of the first moment.
    public var beta1: Double
    /// Decay of the second moment.
    public var beta2: Double
    /// Keeps the quotient finite.
    public var epsilon: Double

    /// Makes a configuration.
    public init(
        form: AdamForm = .torch, beta1: Double = 0.9, beta2: Double = 0.999,
        epsilon: Double = 1e-8
    ) {
        self.form = form
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
    }

    /// What the moments are combined with at a step: theta -= rate * m / (sqrt(v) + epsilon).
    ///
    /// Both forms take this shape once their bias corrections are moved into the two numbers, so
    /// that whoever applies a step needs no power of a beta.
    ///
    /// - Parameter step: the update's number, from 1.
    public func scalars(step: Int, learningRate: Double) -> (rate: Double, epsilon: Double) {
        precondition(step >= 1, "Adam counts updates from 1, not \(step)")
        let first = 1 - Self.power(beta1, step)
        let second = (1 - Self.power(beta2, step)).squareRoot()
        let rate = learningRate * second / first
        return (rate, form == .torch ? epsilon * second : epsilon)
    }

    /// base^exponent by repeated squaring: the same bits with every C library.
    static func power(_ base: Double, _ exponent: Int) -> Double {
        var result = 1.0
        var square = base
        var left = exponent
        while left > 0 {
            if left & 1 == 1 { result *= square }
            square *= square
            left >>= 1
        }
        return result
    }
}

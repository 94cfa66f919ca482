// Updates of many tensors in place, each one call into LibTorch.

/// One step of Adam on whole tensors, with LibTorch's fused kernel.
///
/// - Parameters:
///   - steps: one `float32` element for each parameter: the number of the step, from 1.
///   - weightDecay: times the parameter, added to the gradient.
///   - isDecayDecoupled: the parameter is multiplied by 1 - learningRate * weightDecay instead.
/// - SeeAlso: Kingma, Ba, arXiv:1412.6980; Loshchilov, Hutter, arXiv:1711.05101.
public func fusedAdam_(
    parameters: [Tensor], gradients: [Tensor], firstMoments: [Tensor], secondMoments: [Tensor],
    steps: [Tensor], learningRate: Double, beta1: Double, beta2: Double, epsilon: Double,
    weightDecay: Double = 0, isDecayDecoupled: Bool = false
) throws(TensorError) {
    try callOperator(
        isDecayDecoupled ? "aten::_fused_adamw_" : "aten::_fused_adam_",
        [
            .tensors(parameters), .tensors(gradients), .tensors(firstMoments),
            .tensors(secondMoments), .tensors([]), .tensors(steps), .double(learningRate),
            .double(beta1), .double(beta2), .double(weightDecay), .double(epsilon),
            .bool(false), .bool(false),
        ])
}

/// One step of stochastic gradient descent on whole tensors, with LibTorch's fused kernel.
///
/// - Parameters:
///   - momenta: the running sums, zeros at first; empty when `momentum` is 0.
///   - weightDecay: times the parameter, added to the gradient.
public func fusedSGD_(
    parameters: [Tensor], gradients: [Tensor], momenta: [Tensor], learningRate: Double,
    momentum: Double, isNesterov: Bool = false, weightDecay: Double = 0
) throws(TensorError) {
    try callOperator(
        "aten::_fused_sgd_",
        [
            .tensors(parameters), .tensors(gradients), .tensors(momenta), .double(weightDecay),
            .double(momentum), .double(learningRate), .double(0), .bool(isNesterov), .bool(false),
            .bool(false),
        ])
}

/// Moves tensors towards others: x + weight * (end - x).
public func lerp_(
    _ tensors: [Tensor], to ends: [Tensor], weight: Double
) throws(TensorError) {
    try callOperator(
        "aten::_foreach_lerp_", overload: "Scalar",
        [.tensors(tensors), .tensors(ends), .scalar(weight)])
}

/// Multiplies tensors by a number.
public func mul_(_ tensors: [Tensor], _ factor: Double) throws(TensorError) {
    try callOperator(
        "aten::_foreach_mul_", overload: "Scalar", [.tensors(tensors), .scalar(factor)])
}

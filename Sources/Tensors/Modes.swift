import CTorch

/// Runs `body` without recording a graph, on the calling OS thread.
///
/// The setting belongs to the thread: `body` must not hop to another one.
public func withoutGradient<Result, Failure>(
    _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    try withGradientMode(false, body)
}

/// Runs `body` with the recording of a graph turned on, on the calling OS thread.
public func withGradient<Result, Failure>(
    _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    try withGradientMode(true, body)
}

private func withGradientMode<Result, Failure>(
    _ enabled: Bool, _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    // Without an engine the body's first operator says so.
    guard let table = try? Engine.table() else { return try body() }
    let before = table.functions.set_gradient_mode(enabled ? 1 : 0)
    defer { _ = table.functions.set_gradient_mode(before) }
    return try body()
}

/// Whether operators called by the calling OS thread record a graph.
public func isGradientEnabled() -> Bool {
    guard let table = try? Engine.table() else { return true }
    return table.functions.gradient_mode() != 0
}

/// Runs `body` with autocast to `dtype` on the calling OS thread; nil turns autocast off.
///
/// The cache of cast weights is off: it is shared by all threads and would tie slots together.
/// Take gradients outside, as LibTorch asks: backward runs in the dtypes that forward used.
///
/// - Parameters:
///   - dtype: `bfloat16` or `float16`, or nil for none.
///   - device: the kind of device whose operators are cast.
public func withAutocast<Result, Failure>(
    _ dtype: DType?, device: Device = .cpu, _ body: () throws(Failure) -> Result
) throws(Failure) -> Result {
    guard let table = try? Engine.table() else { return try body() }
    var before = ct_autocast()
    guard table.functions.autocast_get(device.kind.rawValue, &before) == 0 else {
        return try body()
    }
    var setting = ct_autocast(
        enabled: dtype == nil ? 0 : 1, dtype: dtype?.rawValue ?? before.dtype, cache: 0)
    guard table.functions.autocast_set(device.kind.rawValue, &setting) == 0 else {
        return try body()
    }
    defer { _ = table.functions.autocast_set(device.kind.rawValue, &before) }
    return try body()
}

/// The gradients of a scalar with respect to some tensors, in their order.
///
/// Nothing accumulates anywhere; an input that was not used gets zeros.
///
/// - Parameters:
///   - output: one element, unless `gradOutput` is given.
///   - inputs: tensors that required a gradient when `output` was computed.
///   - gradOutput: the gradient of what follows with respect to `output`, in its shape.
///   - keepingGraph: whether gradients of the same graph will be taken again.
///   - createGraph: whether the gradients can themselves be differentiated.
/// - Throws: ``TensorError`` when `output` has no graph or several elements.
public func gradients(
    of output: Tensor, withRespectTo inputs: [Tensor], gradOutput: Tensor? = nil,
    keepingGraph: Bool = false, createGraph: Bool = false
) throws(TensorError) -> [Tensor] {
    let found = try optionalGradients(
        of: output, withRespectTo: inputs, gradOutput: gradOutput, keepingGraph: keepingGraph,
        createGraph: createGraph)
    var gradients: [Tensor] = []
    gradients.reserveCapacity(found.count)
    for (gradient, input) in zip(found, inputs) {
        if let gradient {
            gradients.append(gradient)
        } else {
            gradients.append(try callTensorOperator("aten::zeros_like", [.tensor(input.detach())]))
        }
    }
    return gradients
}

/// The gradients of a scalar with respect to some tensors; nil for an input that was not used.
///
/// - SeeAlso: ``gradients(of:withRespectTo:gradOutput:keepingGraph:createGraph:)``.
public func optionalGradients(
    of output: Tensor, withRespectTo inputs: [Tensor], gradOutput: Tensor? = nil,
    keepingGraph: Bool = false, createGraph: Bool = false
) throws(TensorError) -> [Tensor?] {
    let table = try Engine.table()
    guard !inputs.isEmpty else { return [] }
    var outputs: [OpaquePointer?] = [output.handle]
    var seeds: [OpaquePointer?] = [gradOutput?.handle]
    var handles: [OpaquePointer?] = inputs.map(\.handle)
    var results = [OpaquePointer?](repeating: nil, count: inputs.count)
    let status = withExtendedLifetime((output, gradOutput, inputs)) {
        table.functions.gradients(
            &outputs, &seeds, 1, &handles, Int32(inputs.count), keepingGraph ? 1 : 0,
            createGraph ? 1 : 0, &results)
    }
    try table.check(
        status, "gradients of \(output.summary) with respect to \(inputs.count) tensors")
    return results.map { $0.map(Tensor.init(adopting:)) }
}

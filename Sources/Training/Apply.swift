import Foundation
import Networks
import Tensors

/// Turns the state before a step into the state after it; nothing else changes training state.
///
/// The optimizer runs on whole tensors with LibTorch's fused kernels on one intra-op thread: their
/// bits depend on where a tensor is cut. Adam's bias corrections are in the scalars. Running averages
/// move by
/// `average + momentum * (batch - average)`, in that order of operations, once a step and with the mean
/// of all slots' statistics; G sequential updates, as G small steps would make, move them further
/// (their old value keeps (1 - momentum)^G instead of 1 - momentum) and weigh the last slot most. The
/// mean of the slots' variances leaves out what the slots' means differ by. The step's embeddings take the
/// places of the oldest ones in the memory, where there is one.
///
/// Runs on the calling OS thread and `threads - 1` others.
///
/// - Parameters:
///   - effect: of the step after the state's.
///   - threads: how many threads share the tensors; has no influence on the bits.
/// - Throws: ``TrainingError`` with code `stepOutOfOrder`, `shapeMismatch` or `invalidValue`, before anything
///   changes; or a `TensorError`.
public func apply(_ effect: StepEffect, to state: TrainingState, threads: Int = 1) throws {
    try check(effect, state)
    let update = ParameterUpdate(effect, state, threads: threads)
    let shares = update.shares(threads)
    try Parallel.tryRun(parts: shares.count) { part, _ in try update.run(shares[part]) }
    try moveAverages(state, effect.batchStatistics)
    state.memory?.enqueue(effect.entries)
    try state.didApply(step: effect.step, threads: threads)
}

private func check(_ effect: StepEffect, _ state: TrainingState) throws(TrainingError) {
    guard effect.step == state.step + 1 else {
        throw TrainingError(
            .stepOutOfOrder,
            "the effect of step \(effect.step) does not follow the state's step \(state.step)")
    }
    let layout = state.layout
    guard effect.gradient.count == layout.elementCount,
        effect.batchStatistics.count == layout.statisticsCount
    else {
        throw TrainingError(
            .shapeMismatch,
            "the effect of step \(effect.step) has \(effect.gradient.count) gradient elements and "
                + "\(effect.batchStatistics.count) statistics; the network has "
                + "\(layout.elementCount) and \(layout.statisticsCount)")
    }
    if let memory = state.memory { try memory.shape.check(effect.entries, step: effect.step) }
}

/// Moves the running averages; in Swift, so that every device gets the same formula.
private func moveAverages(_ state: TrainingState, _ statistics: [Float]) throws {
    let momentum = Float(state.configuration.network.batchNormMomentum)
    var start = 0
    for (tensor, spec) in zip(state.buffers, state.network.buffers) {
        let onHost = try tensor.to(device: .cpu)
        try onHost.withUnsafeMutableBytes { bytes throws(TensorError) in
            let averages = bytes.bindMemory(to: Float.self)
            for at in 0..<spec.count {
                averages[at] = averages[at] + momentum * (statistics[start + at] - averages[at])
            }
        }
        if tensor.device != .cpu { try tensor.copy_(onHost) }
        start += spec.count
    }
}

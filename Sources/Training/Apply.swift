import Foundation
import MetricLearning
import Networks
import Tensors

/// Turns the state before a step into the state after it; nothing else changes training state.
///
/// Adam runs on whole tensors with LibTorch's fused kernel on one intra-op thread: its bits depend
/// on where a tensor is cut. The kernel's own bias corrections are switched off by a step number at
/// which they are exactly 1; the corrections are in the scalars. Running averages move by
/// `average + momentum * (batch - average)`, in that order of operations, once a step and with the mean
/// of all slots' statistics; G sequential updates, as G small steps would make, move them further
/// (their old value keeps (1 - momentum)^G instead of 1 - momentum) and weigh the last slot most. The
/// mean of the slots' variances leaves out what the slots' means differ by.
///
/// Runs on the calling OS thread and `threads - 1` others.
///
/// - Parameters:
///   - effect: of the step after the state's.
///   - threads: how many threads share the tensors; has no influence on the bits.
/// - Throws: ``TrainingError`` with code `stepOutOfOrder` or `shapeMismatch`, before anything
///   changes; or a `TensorError`.
public func apply(_ effect: StepEffect, to state: TrainingState, threads: Int = 1) throws {
    try check(effect, state)
    let update = AdamUpdate(effect: effect, state: state)
    let shares = update.shares(threads)
    try Parallel.tryRun(parts: shares.count) { part, _ in try update.run(shares[part]) }
    try moveAverages(state, effect.batchStatistics)
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
}

private struct AdamUpdate: Sendable {
    let effect: StepEffect
    let state: TrainingState

    /// Parameters for each thread, largest first to the least loaded.
    func shares(_ threads: Int) -> [[Int]] {
        let entries = state.layout.entries
        let moving = entries.indices.filter { !entries[$0].isFrozen }
        let count = state.configuration.device == .cpu ? max(1, min(threads, moving.count)) : 1
        guard count > 1 else { return [moving] }
        var shares = [[Int]](repeating: [], count: count)
        var loads = [Int](repeating: 0, count: count)
        let bySize = moving.sorted { (entries[$0].count, $1) > (entries[$1].count, $0) }
        for index in bySize {
            let least = loads.indices.min { loads[$0] < loads[$1] }!
            shares[least].append(index)
            loads[least] += entries[index].count
        }
        return shares
    }

    func run(_ indices: [Int]) throws(TensorError) {
        guard !indices.isEmpty else { return }
        try Engine.setIntraOpThreads(1)
        let adam = state.configuration.adam
        let device = state.configuration.device
        // 1 - beta^1e9 is exactly 1.
        let farStep = try Tensor.full([], 1e9, device: device)
        var gradients: [Tensor] = []
        for index in indices {
            let entry = state.layout.entries[index]
            let view = try Tensor(
                viewing: effect.gradient.base + entry.offset, shape: entry.shape, dtype: .float32,
                keepingAlive: effect.gradient)
            gradients.append(try view.to(device: device))
        }
        try withoutGradient { () throws(TensorError) in
            try fusedAdam_(
                parameters: indices.map { state.parameters[$0] }, gradients: gradients,
                firstMoments: indices.map { state.firstMoments[$0] },
                secondMoments: indices.map { state.secondMoments[$0] },
                steps: indices.map { _ in farStep },
                learningRate: effect.scalars.effectiveRate, beta1: adam.beta1, beta2: adam.beta2,
                epsilon: effect.scalars.effectiveEpsilon, weightDecay: adam.weightDecay)
        }
    }
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

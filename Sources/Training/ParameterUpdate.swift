import Basics
import MetricLearning
import Networks
import Tensors

/// Parameters that one call of a kernel may move together.
private struct ParameterGroup: Hashable {
    /// What the step's learning rate is multiplied with.
    let rateFactor: Double
    /// Weight decay.
    let decay: Double
    /// The first step that moves them.
    let firstStep: Int

    init(_ entry: FlatLayout.Entry, _ optimizer: OptimizerConfiguration) {
        rateFactor =
            (entry.isHead ? optimizer.headRateFactor : 1)
            * (entry.role == .bias ? optimizer.biasRateFactor : 1)
            * (entry.loss?.classRateFactor ?? 1)
        let decayFactor =
            switch entry.role {
            case .weight: entry.loss?.classDecayFactor ?? 1
            case .normalisation: optimizer.weightDecay.normFactor
            case .bias: optimizer.weightDecay.biasFactor
            }
        decay = optimizer.weightDecay.rate * decayFactor
        firstStep = entry.firstStep
    }
}

/// One step's change of parameters, moments and averaged weights.
struct ParameterUpdate: Sendable {
    let effect: StepEffect
    let state: TrainingState
    /// What the gradient is multiplied with; nil: 1.
    private let clipFactor: Double?

    init(_ effect: StepEffect, _ state: TrainingState, threads: Int) {
        self.effect = effect
        self.state = state
        guard case .norm(let limit) = state.configuration.optimizer.clipping else {
            clipFactor = nil
            return
        }
        let factor = GradientClipping.factor(
            limit: limit, squaredNorm: effect.squaredNorm(threads: threads))
        clipFactor = factor == 1 ? nil : factor
    }

    /// Parameters for each thread, largest first to the least loaded.
    func shares(_ threads: Int) -> [[Int]] {
        let entries = state.layout.entries
        let moving = entries.indices.filter { !entries[$0].isFrozen(at: effect.step) }
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

    /// Moves some parameters, on the calling thread.
    func run(_ indices: [Int]) throws(TensorError) {
        guard !indices.isEmpty else { return }
        try Engine.setIntraOpThreads(1)
        let optimizer = state.configuration.optimizer
        let groups = Dictionary(grouping: indices) {
            ParameterGroup(state.layout.entries[$0], optimizer)
        }
        try withoutGradient { () throws(TensorError) in
            for (group, members) in groups { try move(members, group, optimizer) }
            guard let decay = optimizer.averageDecay else { return }
            try lerp_(
                indices.map { state.averages[$0] }, to: indices.map { state.parameters[$0] },
                weight: 1 - decay)
        }
    }

    private func move(
        _ indices: [Int], _ group: ParameterGroup, _ optimizer: OptimizerConfiguration
    ) throws(TensorError) {
        let parameters = indices.map { state.parameters[$0] }
        var gradients: [Tensor] = []
        for index in indices { gradients.append(try gradient(index, optimizer.clipping)) }
        let moments = state.moments.map { moment in indices.map { moment[$0] } }
        let (rate, epsilon) = scalars(group, optimizer.rule)
        let isDecoupled = optimizer.weightDecay.isDecoupled
        switch optimizer.rule {
        case .adam(let adam):
            // The kernel's own bias corrections are off: 1 - beta^1e9 is exactly 1.
            let farStep = try Tensor.full([], 1e9, device: state.configuration.device)
            // The rate holds the corrections, of which decoupled decay knows nothing.
            let uncorrected = rate == 0 ? 0 : effect.scalars.learningRate / rate
            try fusedAdam_(
                parameters: parameters, gradients: gradients, firstMoments: moments[0],
                secondMoments: moments[1], steps: indices.map { _ in farStep },
                learningRate: rate * group.rateFactor, beta1: adam.beta1, beta2: adam.beta2,
                epsilon: epsilon,
                weightDecay: isDecoupled ? group.decay * uncorrected : group.decay,
                isDecayDecoupled: isDecoupled)
        case .sgd(let sgd):
            let rate = rate * group.rateFactor
            if isDecoupled, group.decay > 0 { try mul_(parameters, 1 - rate * group.decay) }
            try fusedSGD_(
                parameters: parameters, gradients: gradients, momenta: moments.first ?? [],
                learningRate: rate, momentum: sgd.momentum, isNesterov: sgd.isNesterov,
                weightDecay: isDecoupled ? 0 : group.decay)
        }
    }

    /// The coordinator's numbers; what was frozen at first counts its updates from its own first.
    private func scalars(
        _ group: ParameterGroup, _ rule: UpdateRule
    ) -> (rate: Double, epsilon: Double) {
        let scalars = effect.scalars
        guard group.firstStep > 1 else {
            return (scalars.effectiveRate, scalars.effectiveEpsilon)
        }
        return rule.scalars(
            step: effect.step - group.firstStep + 1, learningRate: scalars.learningRate)
    }

    /// A parameter's gradient on the device, clipped; the effect's own stays as it is.
    private func gradient(
        _ index: Int, _ clipping: GradientClipping
    ) throws(TensorError) -> Tensor {
        let entry = state.layout.entries[index]
        let view = try Tensor(
            viewing: effect.gradient.base + entry.offset, shape: entry.shape, dtype: .float32,
            keepingAlive: effect.gradient)
        let gradient = try view.to(device: state.configuration.device)
        if let clipFactor { return try gradient * clipFactor }
        if case .value(let limit) = clipping {
            return try gradient.clamp(min: -limit, max: limit)
        }
        return gradient
    }
}

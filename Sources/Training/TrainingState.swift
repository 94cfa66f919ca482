import Basics
import MetricLearning
public import Networks
import Synchronization
public import Tensors

// @unchecked: `step` and the tensors' contents change in apply, pull, push and loading alone, which
// their caller never runs while a slot reads; `prepared` is guarded by its mutex.
/// Weights, their average, optimizer moments and batch-norm averages after some number of steps.
///
/// Only ``apply(_:to:threads:)`` changes it; slots read it from several threads at once.
public final class TrainingState: @unchecked Sendable {
    /// What the run computes.
    public let configuration: TrainingConfiguration
    /// The network.
    public let network: Network
    /// Where each parameter lies in flat gradients.
    public let layout: FlatLayout
    /// The network's parameters, on the configuration's device.
    public let parameters: [Tensor]
    /// What the optimizer remembers: one list for each of its moments.
    public let moments: [[Tensor]]
    /// Exponential averages of the parameters; none where the run keeps none.
    public let averages: [Tensor]
    /// Running means and variances.
    public let buffers: [Tensor]
    /// Updates made so far.
    public private(set) var step: Int

    private let named: [NamedTensor]
    private let prepared = Mutex<Prepared>(Prepared())

    private struct Prepared {
        var tensors: [Tensor] = []
        var isCurrent = false
    }

    /// Allocates zeros; ``initial(_:)`` and ``loading(_:step:find:)`` fill them.
    private init(_ configuration: TrainingConfiguration, step: Int) throws {
        self.configuration = configuration
        network = try Network(configuration.network)
        layout = try FlatLayout(network, freeze: configuration.freeze)
        self.step = step
        let weights = network.parameters.map { (name: $0.name, shape: $0.shape) }
        let statistics = network.buffers.map { (name: $0.name, shape: $0.shape) }
        let optimizer = configuration.optimizer
        let groups =
            [
                Self.allocate("network/", weights), Self.allocate("network/", statistics),
                Self.allocate(
                    Embedder.averagePrefix, optimizer.averageDecay == nil ? [] : weights),
            ]
            + optimizer.rule.momentNames.map { Self.allocate("optimizer/\($0)/", weights) }
        named = groups.flatMap { $0 }
        let device = configuration.device
        let tensors = try groups.map { group in
            try group.map { try $0.view().to(device: device) }
        }
        parameters = tensors[0]
        buffers = tensors[1]
        averages = tensors[2]
        moments = Array(tensors[3...])
    }

    /// Lays tensors out in one buffer, each at a multiple of 64 bytes.
    private static func allocate(
        _ prefix: String, _ specs: [(name: String, shape: [Int])]
    ) -> [NamedTensor] {
        var offsets: [Int] = []
        var total = 0
        for spec in specs {
            offsets.append(total)
            total += (spec.shape.reduce(1, *) + 15) / 16 * 16
        }
        let buffer = FloatBuffer(count: total)
        return zip(specs, offsets).map { spec, offset in
            NamedTensor(
                name: prefix + spec.name, shape: spec.shape, buffer: buffer, offset: offset)
        }
    }

    /// The state before the first step: a pure function of the configuration.
    public static func initial(_ configuration: TrainingConfiguration) throws -> TrainingState {
        let state = try TrainingState(configuration, step: 0)
        let parameters = state.network.parameters
        Parallel.run(parts: 2) { part, parts in
            for index in stride(from: part, to: parameters.count, by: parts) {
                state.named[index].withUnsafeMutableBytes { bytes in
                    parameters[index].initializer.fill(
                        bytes.bindMemory(to: Float.self), shape: parameters[index].shape,
                        seed: configuration.seed, index: index)
                }
            }
        }
        for (index, buffer) in state.network.buffers.enumerated() {
            state.named[parameters.count + index].withUnsafeMutableBytes { bytes in
                bytes.bindMemory(to: Float.self).update(repeating: buffer.initialValue)
            }
        }
        let firstAverage = parameters.count + state.buffers.count
        for index in state.averages.indices {
            state.named[index].withUnsafeBytes { weights in
                state.named[firstAverage + index].withUnsafeMutableBytes {
                    $0.copyMemory(from: weights)
                }
            }
        }
        try state.push()
        return state
    }

    /// The state that a checkpoint or a peer holds.
    ///
    /// - Parameters:
    ///   - step: updates made when it was stored.
    ///   - find: the sizes and bytes of a tensor by its name in ``tensors()``, nil when missing.
    /// - Throws: ``TrainingError`` with code `missingTensor` or `shapeMismatch` that names the tensor,
    ///   with code `otherOptimizer`, and what `find` throws.
    public static func loading(
        _ configuration: TrainingConfiguration, step: Int,
        find: (String) throws -> (shape: [Int], bytes: UnsafeRawBufferPointer)?
    ) throws -> TrainingState {
        let state = try TrainingState(configuration, step: step)
        try state.checkOptimizer(find)
        for tensor in state.named {
            guard let (shape, bytes) = try find(tensor.name) else {
                throw TrainingError(
                    .missingTensor,
                    "tensor '\(tensor.name)' is missing at step \(step); the run's network "
                        + "'\(configuration.network.backbone.rawValue)' needs it "
                        + "with sizes \(tensor.shape)")
            }
            guard shape == tensor.shape, bytes.count == tensor.byteCount else {
                throw TrainingError(
                    .shapeMismatch,
                    "tensor '\(tensor.name)' has sizes \(shape) and \(bytes.count) bytes, the run "
                        + "wants \(tensor.shape) and \(tensor.byteCount); resume with the run's "
                        + "own settings")
            }
            tensor.withUnsafeMutableBytes { $0.copyMemory(from: bytes) }
        }
        try state.push()
        return state
    }

    /// Refuses what another optimizer left, by the first parameter's moments.
    private func checkOptimizer(
        _ find: (String) throws -> (shape: [Int], bytes: UnsafeRawBufferPointer)?
    ) throws {
        let wanted = configuration.optimizer.rule.momentNames
        let first = network.parameters[0].name
        let held = try UpdateRule.allMomentNames.filter {
            try find("optimizer/\($0)/\(first)") != nil
        }
        guard held != wanted else { return }
        func spoken(_ names: [String]) -> String {
            names.isEmpty ? "none" : names.map { "optimizer/\($0)" }.joined(separator: " and ")
        }
        throw TrainingError(
            .otherOptimizer,
            "the state of step \(step) was written with another optimizer: its moments are "
                + "\(spoken(held)), the run's optimizer has \(spoken(wanted)); resume with the "
                + "run's own settings")
    }

    /// Every tensor in the order of checkpoints, over the state's own memory.
    ///
    /// `network/` parameters in registration order, `network/` running means and variances,
    /// `network/average/` where an average is kept, then `optimizer/m/` and `optimizer/v/`, or
    /// `optimizer/momentum/`. On a GPU the values are copied to the host first.
    public func tensors() throws -> [NamedTensor] {
        try pull()
        return named
    }

    /// A copy in host memory that later steps do not change.
    ///
    /// - Parameters:
    ///   - old: a snapshot of the same run that nobody reads any more; its memory is used again.
    ///   - threads: how many threads share the copying.
    public func copyAside(
        reusing old: StateSnapshot? = nil, threads: Int = 1
    ) throws -> StateSnapshot {
        try pull()
        let fits =
            old?.tensors.elementsEqual(named) { $0.name == $1.name && $0.shape == $1.shape }
            ?? false
        let copies =
            fits ? old!.tensors : Self.allocate("", named.map { (name: $0.name, shape: $0.shape) })
        Parallel.run(parts: threads) { [named] part, parts in
            for index in stride(from: part, to: copies.count, by: parts) {
                named[index].withUnsafeBytes { source in
                    copies[index].withUnsafeMutableBytes { $0.copyMemory(from: source) }
                }
            }
        }
        return StateSnapshot(step: step, tensors: copies)
    }

    /// The digest of everything: all tensors and the step.
    public func digest(threads: Int = 1) throws -> UInt64 {
        StateSnapshot(step: step, tensors: try tensors()).digest(threads: threads)
    }

    /// The digest of every `parts`-th tensor from the `part`-th on.
    public func digest(ofPart part: Int, of parts: Int, threads: Int = 1) throws -> UInt64 {
        let tensors = try tensors()
        let share = stride(from: part, to: tensors.count, by: parts).map { tensors[$0] }
        return StateDigest.combined(StateSnapshot.digests(share, threads))
    }

    /// The digest of weights, batch-norm averages and averaged weights alone, as checkpoints are
    /// compared by.
    public func weightsDigest(threads: Int = 1) throws -> UInt64 {
        StateSnapshot(step: step, tensors: try tensors()).weightsDigest(threads: threads)
    }

    /// The parameters as slots use them, made once a step and shared by all slots.
    ///
    /// Convolution weights lie channels-last, as their inputs do, so that no slot reorders them.
    public func preparedParameters() throws -> [Tensor] {
        try prepared.withLock { prepared in
            if !prepared.isCurrent { try prepare(&prepared, threads: 1) }
            return prepared.tensors
        }
    }

    private func prepare(_ prepared: inout Prepared, threads: Int) throws {
        try withoutGradient {
            if prepared.tensors.isEmpty {
                prepared.tensors = try parameters.map { parameter in
                    let plain = try parameter.detach()
                    return parameter.rank == 4 ? try plain.contiguous(.channelsLast) : plain
                }
            }
        }
        let copies = zip(prepared.tensors, parameters).filter { $0.dataAddress != $1.dataAddress }
        try Parallel.tryRun(parts: max(1, min(threads, copies.count))) { part, parts in
            try withoutGradient {
                for index in stride(from: part, to: copies.count, by: parts) {
                    try copies[index].0.relayout_(from: copies[index].1)
                }
            }
        }
        prepared.isCurrent = true
    }

    /// The tensors have moved on; what slots use follows at once, on as many threads.
    func didApply(step: Int, threads: Int) throws {
        self.step = step
        try prepared.withLock { prepared in
            prepared.isCurrent = false
            if !prepared.tensors.isEmpty { try prepare(&prepared, threads: threads) }
        }
    }

    private var groups: [Tensor] { parameters + buffers + averages + moments.flatMap { $0 } }

    /// Brings the host's copy up to date; nothing to do where the state lives on the host.
    private func pull() throws(TensorError) {
        guard configuration.device != .cpu else { return }
        for (tensor, host) in zip(groups, named) { try host.view().copy_(tensor) }
    }

    /// Brings the device up to date with the host's copy.
    private func push() throws(TensorError) {
        prepared.withLock { $0.isCurrent = false }
        guard configuration.device != .cpu else { return }
        for (tensor, host) in zip(groups, named) { try tensor.copy_(host.view()) }
    }
}

/// A training state's tensors at one step, in memory of their own.
public struct StateSnapshot: Sendable {
    /// Updates made.
    public let step: Int
    /// The tensors in the order of ``TrainingState/tensors()``.
    public let tensors: [NamedTensor]

    /// The digest of all tensors and the step.
    public func digest(threads: Int = 1) -> UInt64 {
        var hash = XXH64()
        for digest in Self.digests(tensors, threads) { hash.update(digest) }
        hash.update(UInt64(step))
        return hash.finish()
    }

    /// The digest of the `network/` tensors alone.
    public func weightsDigest(threads: Int = 1) -> UInt64 {
        StateDigest.combined(
            Self.digests(tensors.filter { $0.name.hasPrefix("network/") }, threads))
    }

    static func digests(_ tensors: [NamedTensor], _ threads: Int) -> [UInt64] {
        let results = Mutex([UInt64](repeating: 0, count: tensors.count))
        Parallel.run(parts: threads) { part, parts in
            for index in stride(from: part, to: tensors.count, by: parts) {
                let digest = tensors[index].digest
                results.withLock { $0[index] = digest }
            }
        }
        return results.withLock { $0 }
    }
}

import Basics
import MetricLearning
public import Networks
import Synchronization
public import Tensors

// @unchecked: `step` and the tensors' contents change in apply, pull, push and loading alone, which
// their caller never runs while a slot reads; `prepared` is guarded by its mutex.
/// Weights, their average, optimizer moments, batch-norm averages and the memory of embeddings after some
/// number of steps.
///
/// Only ``apply(_:to:threads:)`` changes it; slots read it from several threads at once.
public final class TrainingState: @unchecked Sendable {
    /// What the run computes.
    public let configuration: TrainingConfiguration
    /// The network.
    public let network: Network
    /// Where each parameter lies in flat gradients.
    public let layout: FlatLayout
    /// The network's parameters and then the losses', on the configuration's device.
    public let parameters: [Tensor]
    /// What the optimizer remembers: one list for each of its moments.
    public let moments: [[Tensor]]
    /// Exponential averages of the parameters; none where the run keeps none.
    public let averages: [Tensor]
    /// Running means and variances.
    public let buffers: [Tensor]
    /// Embeddings of earlier steps, where losses compare with them.
    let memory: CrossBatchMemory?
    /// Updates made so far.
    public private(set) var step: Int

    private let named: [NamedTensor]
    /// The tensors over ``named``, on the configuration's device.
    private let tensorsOnDevice: [Tensor]
    /// Where in ``named`` the parameters and their averages are.
    private let places: (parameters: [Int], averages: [Int])
    private let prepared = Mutex<Prepared>(Prepared())

    private struct Prepared {
        var tensors: [Tensor] = []
        var isCurrent = false
    }

    /// Allocates zeros; ``initial(_:)`` and ``loading(_:step:find:)`` fill them.
    private init(_ configuration: TrainingConfiguration, step: Int) throws {
        self.configuration = configuration
        network = try Network(configuration.network)
        try configuration.checkMemory()
        let layout = try configuration.layout()
        self.layout = layout
        self.step = step
        let keepsAverage = configuration.optimizer.averageDecay != nil
        let ofNetwork = layout.entries.filter { $0.loss == nil }
        let ofLosses = layout.entries.filter { $0.loss != nil }
        func averages(_ entries: [FlatLayout.Entry]) -> [(name: String, shape: [Int])] {
            keepsAverage ? entries.map { ($0.averageName, $0.shape) } : []
        }
        // In the order of checkpoints; what an evaluator needs is in front.
        let groups =
            [
                ofNetwork.map { (name: $0.storedName, shape: $0.shape) },
                network.buffers.map { (name: "network/" + $0.name, shape: $0.shape) },
                averages(ofNetwork),
                ofLosses.map { (name: $0.storedName, shape: $0.shape) },
                averages(ofLosses),
            ]
            + configuration.optimizer.rule.momentNames.map { moment in
                layout.entries.map { (name: "optimizer/\(moment)/" + $0.name, shape: $0.shape) }
            }
            + [configuration.memory.map(CrossBatchMemory.specs) ?? []]
        named = groups.flatMap(Self.allocate)
        memory = configuration.memory.map { [named] shape in
            CrossBatchMemory(shape, named.suffix(groups.last!.count))
        }
        let device = configuration.device
        // Losses are computed on the host, and so the memory stays there.
        tensorsOnDevice = try named.dropLast(groups.last!.count).map {
            try $0.view().to(device: device)
        }
        var ranges: [Range<Int>] = []
        for group in groups {
            let start = ranges.last?.upperBound ?? 0
            ranges.append(start..<start + group.count)
        }
        places = (Array(ranges[0]) + Array(ranges[3]), Array(ranges[2]) + Array(ranges[4]))
        let tensors = tensorsOnDevice
        parameters = places.parameters.map { tensors[$0] }
        buffers = Array(tensors[ranges[1]])
        self.averages = places.averages.map { tensors[$0] }
        moments = ranges[5..<ranges.count - 1].map { Array(tensors[$0]) }
    }

    /// Lays tensors out in one buffer, each at a multiple of 64 bytes.
    private static func allocate(
        _ specs: [(name: String, shape: [Int])]
    ) -> [NamedTensor] {
        var offsets: [Int] = []
        var total = 0
        for spec in specs {
            offsets.append(total)
            total += (spec.shape.reduce(1, *) + 15) / 16 * 16
        }
        let buffer = FloatBuffer(count: total)
        return zip(specs, offsets).map { spec, offset in
            NamedTensor(name: spec.name, shape: spec.shape, buffer: buffer, offset: offset)
        }
    }

    /// The state before the first step: a pure function of the configuration and of the weights given.
    ///
    /// - Parameter weights: the sizes and bytes of a network's tensor by its name, for instance
    ///   `network/conv1.weight` or `network/bn1.running_mean`; nil where the seed decides.
    /// - Throws: ``TrainingError`` with code `shapeMismatch` that names the tensor, and what `weights`
    ///   throws.
    public static func initial(
        _ configuration: TrainingConfiguration,
        weights: (String) throws -> (shape: [Int], bytes: UnsafeRawBufferPointer)? = { _ in nil }
    ) throws -> TrainingState {
        let state = try filled(configuration) { parameter, index, values in
            parameter.initializer.fill(
                values, shape: parameter.shape, seed: configuration.seed, index: index)
        }
        for tensor in state.named.prefix(
            state.network.parameters.count + state.network.buffers.count)
        {
            guard let (shape, bytes) = try weights(tensor.name) else { continue }
            try tensor.fill(from: bytes, shape: shape)
        }
        state.startAverages()
        try state.push()
        return state
    }

    /// A state before the first step with given weights.
    ///
    /// - Parameter fill: writes a parameter's values; is given its place in registration order.
    static func filled(
        _ configuration: TrainingConfiguration,
        _ fill: @Sendable (FlatLayout.Entry, Int, UnsafeMutableBufferPointer<Float>) -> Void
    ) throws -> TrainingState {
        let state = try TrainingState(configuration, step: 0)
        let (entries, places) = (state.layout.entries, state.places)
        Parallel.run(parts: 2) { part, parts in
            for index in stride(from: part, to: entries.count, by: parts) {
                state.named[places.parameters[index]].withUnsafeMutableBytes { bytes in
                    fill(entries[index], index, bytes.bindMemory(to: Float.self))
                }
            }
        }
        for (index, buffer) in state.network.buffers.enumerated() {
            state.named[state.network.parameters.count + index].withUnsafeMutableBytes { bytes in
                bytes.bindMemory(to: Float.self).update(repeating: buffer.initialValue)
            }
        }
        state.startAverages()
        try state.push()
        return state
    }

    /// An average of one value is that value.
    private func startAverages() {
        for (average, parameter) in zip(places.averages, places.parameters) {
            named[parameter].withUnsafeBytes { weights in
                named[average].withUnsafeMutableBytes { $0.copyMemory(from: weights) }
            }
        }
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
            try tensor.fill(from: bytes, shape: shape)
        }
        try state.memory?.check()
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
    /// `network/average/` where an average is kept, `loss/` and `loss/average/` where a loss has
    /// parameters, then `optimizer/m/` and `optimizer/v/`, or `optimizer/momentum/`, then `memory/` where
    /// losses compare with one. On a GPU the values are copied to the host first.
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
            fits ? old!.tensors : Self.allocate(named.map { (name: $0.name, shape: $0.shape) })
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

    /// What the losses of the next step compare with: the embeddings that the memory holds.
    ///
    /// They lie in the state's memory and are valid until it moves on.
    ///
    /// - Returns: nil without a memory, up to step `loss.memory_start_step`, and while it is empty.
    func references() throws -> References? {
        guard step >= configuration.loss.memoryStartStep else { return nil }
        return try memory?.references()
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

    /// Brings the host's copy up to date; nothing to do where the state lives on the host.
    private func pull() throws(TensorError) {
        guard configuration.device != .cpu else { return }
        for (tensor, host) in zip(tensorsOnDevice, named) { try host.view().copy_(tensor) }
    }

    /// Brings the device up to date with the host's copy.
    private func push() throws(TensorError) {
        prepared.withLock { $0.isCurrent = false }
        guard configuration.device != .cpu else { return }
        for (tensor, host) in zip(tensorsOnDevice, named) { try tensor.copy_(host.view()) }
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

import Foundation
import Synchronization

/// One mini-batch in memory.
public struct SlotInput: Sendable {
    /// `[batch, 3, height, width]` planar floats.
    public let images: FloatBuffer
    /// One identity for each image.
    public let labels: [Int]

    /// Collects a mini-batch.
    public init(images: FloatBuffer, labels: [Int]) {
        self.images = images
        self.labels = labels
    }
}

/// A training loop without a cluster: slots on parallel threads, one fold, one apply.
///
/// What benchmarks and tests hold the cluster against: the same slots on the same threads, the same
/// tree, and nothing else.
public final class BareLoop: Sendable {
    /// What the run computes.
    public let configuration: TrainingConfiguration
    /// Slots that run at once.
    public let parallelSlots: Int
    /// The state that steps change.
    public let state: TrainingState
    private let computer: SlotComputer
    private let gradients: [FloatBuffer]
    private let reduced: FloatBuffer

    /// Allocates the gradients of all slots.
    public init(_ state: TrainingState, parallelSlots: Int) throws {
        configuration = state.configuration
        self.parallelSlots = parallelSlots
        self.state = state
        computer = try SlotComputer(configuration)
        let count = state.layout.elementCount
        gradients = (0..<configuration.slotsPerStep).map { _ in FloatBuffer(count: count) }
        reduced = FloatBuffer(count: count)
    }

    /// Computes one step's slots and folds them; the state stays as it is.
    ///
    /// - Parameter slots: one mini-batch for each slot of a step, in slot order.
    /// - Returns: the slots' results in slot order, and the effect, whose gradient the next step
    ///   overwrites.
    public func compute(
        _ slots: [SlotInput], learningRate: Double
    ) throws -> (results: [SlotResult], effect: StepEffect) {
        guard slots.count == configuration.slotsPerStep else {
            throw TrainingError(
                .shapeMismatch,
                "\(slots.count) slots given; a step has \(configuration.slotsPerStep)")
        }
        let results =
            configuration.mining == .slot ? try computeEach(slots) : try computeTogether(slots)
        try Fold.mean(gradients, into: reduced, threads: parallelSlots)
        let step = state.step + 1
        return (
            results,
            StepEffect(
                step: step, gradient: reduced,
                batchStatistics: Fold.mean(results.map(\.batchStatistics)),
                entries: entries(of: results, labels: slots.map(\.labels)),
                scalars: StepScalars(
                    configuration.optimizer, step: step, learningRate: learningRate))
        )
    }

    /// What the slots put into the memory.
    private func entries(of results: [SlotResult], labels: [[Int]]) -> [Float] {
        guard let memory = configuration.memory else { return [] }
        var entries = [Float](repeating: 0, count: memory.entryCount)
        entries.withUnsafeMutableBufferPointer { entries in
            for (slot, result) in results.enumerated() {
                memory.write(result.embeddings, labels: labels[slot], slot: slot, into: entries)
            }
        }
        return entries
    }

    private func computeEach(_ slots: [SlotInput]) throws -> [SlotResult] {
        try forEach(slots) { [state, computer, gradients] place, slot in
            try computer.compute(
                images: UnsafePointer(slot.images.base), labels: slot.labels, state: state,
                into: gradients[place])
        }
    }

    /// The two phases of a step that mines over all of its slots; each result has the loss of all.
    private func computeTogether(_ slots: [SlotInput]) throws -> [SlotResult] {
        let embedded = try forEach(slots) { [state, computer] _, slot in
            try computer.embed(
                images: UnsafePointer(slot.images.base), count: slot.labels.count, state: state)
        }
        let loss = try computer.loss(
            of: embedded.flatMap(\.embeddings), labels: slots.flatMap(\.labels), state: state)
        return try forEach(slots) { [state, computer, gradients] place, slot in
            try computer.backward(
                embedded[place], firstRow: slots[..<place].reduce(0) { $0 + $1.labels.count },
                of: loss, images: UnsafePointer(slot.images.base), state: state,
                into: gradients[place])
        }
    }

    /// Slots on parallel threads; what comes of each, in slot order.
    private func forEach<Result: Sendable>(
        _ slots: [SlotInput], _ body: @Sendable (Int, SlotInput) throws -> Result
    ) throws -> [Result] {
        let next = Atomic<Int>(0)
        let collected = Mutex([Result?](repeating: nil, count: slots.count))
        try Parallel.tryRun(parts: min(parallelSlots, slots.count)) { _, _ in
            while true {
                let slot = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard slot < slots.count else { return }
                let result = try body(slot, slots[slot])
                collected.withLock { $0[slot] = result }
            }
        }
        return collected.withLock { $0 }.compactMap { $0 }
    }

    /// Makes one step.
    ///
    /// - Returns: the mean loss over slots, in tree order; the loss of the step where that mines over all
    ///   of its slots.
    @discardableResult
    public func step(_ slots: [SlotInput], learningRate: Double) throws -> Float {
        let (results, effect) = try compute(slots, learningRate: learningRate)
        try apply(effect, to: state, threads: parallelSlots)
        return configuration.mining == .slot ? Fold.mean(results.map(\.loss)) : results[0].loss
    }
}

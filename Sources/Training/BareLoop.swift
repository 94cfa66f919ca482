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
        let next = Atomic<Int>(0)
        let collected = Mutex([SlotResult?](repeating: nil, count: slots.count))
        try Parallel.tryRun(parts: min(parallelSlots, slots.count)) { _, _ in
            while true {
                let slot = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard slot < slots.count else { return }
                let result = try computer.compute(
                    images: UnsafePointer(slots[slot].images.base), labels: slots[slot].labels,
                    state: state, into: gradients[slot])
                collected.withLock { $0[slot] = result }
            }
        }
        let results = collected.withLock { $0 }.compactMap { $0 }
        try Fold.mean(gradients, into: reduced, threads: parallelSlots)
        let step = state.step + 1
        return (
            results,
            StepEffect(
                step: step, gradient: reduced,
                batchStatistics: Fold.mean(results.map(\.batchStatistics)),
                scalars: StepScalars(
                    configuration.optimizer, step: step, learningRate: learningRate))
        )
    }

    /// Makes one step.
    ///
    /// - Returns: the mean loss over slots, in tree order.
    @discardableResult
    public func step(_ slots: [SlotInput], learningRate: Double) throws -> Float {
        let (results, effect) = try compute(slots, learningRate: learningRate)
        try apply(effect, to: state, threads: parallelSlots)
        return Fold.mean(results.map(\.loss))
    }
}

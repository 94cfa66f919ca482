import Basics
import Foundation
import MetricLearning
import Networks
public import Tensors

/// What one slot contributes to a step.
public struct SlotResult: Sendable {
    /// The slot's own loss, not scaled by the number of slots.
    public let loss: Float
    /// Share of valid terms that are active.
    public let fractionPositive: Double
    /// Active terms.
    public let activeCount: Int
    /// Valid terms.
    public let validCount: Int
    /// The gradient of the loss, in ``FlatLayout`` order.
    public let gradient: FloatBuffer
    /// Each batch norm's mean and unbiased variance, in buffer order.
    public let batchStatistics: [Float]
    /// Row-major `[batch, embeddingDimension]`.
    public let embeddings: [Float]
    /// Mean L2 norm of the embeddings' rows.
    public let embeddingMeanNorm: Double
}

/// Computes slots: forward, loss and backward of one mini-batch on a state that stays as it is.
///
/// A slot's result is a pure function of images, labels and state. Several computers, or one from
/// several threads, may run at once on one state; each call uses the calling OS thread and
/// ``TrainingConfiguration/threadsPerSlot`` intra-op threads.
public final class SlotComputer: Sendable {
    /// What the run computes.
    public let configuration: TrainingConfiguration
    private let loss: MetricLoss

    /// Makes a computer; opens the tensor engine.
    public init(_ configuration: TrainingConfiguration) throws {
        guard configuration.threadsPerSlot >= 1, configuration.slotsPerStep >= 1 else {
            throw TrainingError(
                .invalidValue,
                "numerics.threads_per_slot is \(configuration.threadsPerSlot) and "
                    + "batch.mini_batches_per_step is \(configuration.slotsPerStep); "
                    + "both must be at least 1")
        }
        KeptMemory.enable()
        try Engine.load()
        try configuration.device.requireAvailable()
        self.configuration = configuration
        loss = try MetricLoss(configuration.loss)
    }

    /// Computes one slot from images in memory.
    ///
    /// - Parameters:
    ///   - images: `[batch, 3, height, width]` planar floats, left as they are; `batch` is the number
    ///     of labels.
    ///   - labels: one identity for each image.
    ///   - state: read only.
    ///   - gradient: receives the gradient; ``FlatLayout/elementCount`` elements.
    public func compute(
        images: UnsafePointer<Float>, labels: [Int], state: TrainingState,
        into gradient: FloatBuffer
    ) throws -> SlotResult {
        let network = configuration.network
        let view = try Tensor(
            viewing: UnsafeMutableRawPointer(mutating: images),
            shape: [labels.count, 3, network.inputHeight, network.inputWidth], dtype: .float32)
        return try compute(images: view, labels: labels, state: state, into: gradient)
    }

    /// Computes one slot.
    ///
    /// - Parameter images: `[batch, 3, height, width]`, float32.
    /// - Throws: ``TrainingError`` with code `shapeMismatch` when the gradient's buffer does not fit, and
    ///   the errors of networks, losses and tensors.
    public func compute(
        images: Tensor, labels: [Int], state: TrainingState, into gradient: FloatBuffer
    ) throws -> SlotResult {
        guard gradient.count == state.layout.elementCount else {
            throw TrainingError(
                .shapeMismatch,
                "a gradient buffer of \(gradient.count) elements was given; the network has "
                    + "\(state.layout.elementCount)")
        }
        try Engine.setIntraOpThreads(configuration.threadsPerSlot)
        let step = state.step + 1
        let frozen = state.layout.entries.map { $0.isFrozen(at: step) }
        let leaves = try zip(state.preparedParameters(), frozen).map { parameter, isFrozen in
            try parameter.detach().requiresGradient(!isFrozen)
        }
        let statistics = try BatchStatistics(state.network, device: configuration.device)
        return try withGradient {
            let input = try images.to(device: configuration.device).contiguous(.channelsLast)
            let embeddings = try state.network.forward(
                input, parameters: leaves, batchNorm: .training(statistics),
                autocast: configuration.precision.autocast)  // [batch, dimension]
            let result = try loss(
                embeddings, labels: labels, random: randomness(of: labels, step: state.step))
            let trained = zip(leaves, frozen).filter { !$1 }.map(\.0)
            try store(
                try gradients(of: result.loss, withRespectTo: trained), frozen, state.layout,
                gradient)
            let values = try embeddings.floats()
            return SlotResult(
                loss: Float(try result.loss.item()), fractionPositive: result.fractionPositive,
                activeCount: result.activeCount, validCount: result.validCount,
                gradient: gradient, batchStatistics: try statistics.values(), embeddings: values,
                embeddingMeanNorm: Self.meanNorm(values, rows: labels.count))
        }
    }

    /// What a loss draws from: of the step and the slot's identities, so that whoever computes the
    /// slot draws the same.
    private func randomness(of labels: [Int], step: Int) -> CounterRandom {
        var hash = XXH64()
        for label in labels { hash.update(UInt64(bitPattern: Int64(label))) }
        return CounterRandom(
            seed: configuration.seed, step: UInt64(step), item: hash.finish(), purpose: .mining)
    }

    /// Copies gradients to their places, row-major; those of frozen parameters are zeros.
    private func store(
        _ gradients: [Tensor], _ frozen: [Bool], _ layout: FlatLayout, _ buffer: FloatBuffer
    ) throws(TensorError) {
        var gradients = gradients.makeIterator()
        for (entry, isFrozen) in zip(layout.entries, frozen) {
            let place = try Tensor(
                viewing: buffer.base + entry.offset, shape: entry.shape, dtype: .float32,
                keepingAlive: buffer)
            if isFrozen {
                try place.zero_()
            } else {
                try place.relayout_(from: gradients.next()!)
            }
        }
    }

    static func meanNorm(_ values: [Float], rows: Int) -> Double {
        let dimension = values.count / max(rows, 1)
        var sum = 0.0
        for row in 0..<rows {
            var square = 0.0
            for value in values[row * dimension..<(row + 1) * dimension] {
                square += Double(value) * Double(value)
            }
            sum += square.squareRoot()
        }
        return sum / Double(max(rows, 1))
    }
}

import Basics
import Foundation
import MetricLearning
import Networks
public import Tensors

/// What one slot contributes to a step.
///
/// Where mining spans the step, the loss and what is counted beside it are those of the whole step.
public struct SlotResult: Sendable {
    /// The slot's own loss, not scaled by the number of slots.
    public let loss: Float
    /// Share of valid terms that are active.
    public let fractionPositive: Double
    /// Active terms.
    public let activeCount: Int
    /// Valid terms.
    public let validCount: Int
    /// Of a sum of losses each one's own, without its weight; empty for one loss.
    public let lossParts: [Float]
    /// What each row adds, `[batch]`, as `LossResult.rowLosses`: NaN for one without a term; empty where
    /// no term is a row's.
    public let rowLosses: [Float]
    /// The gradient of the loss, in ``FlatLayout`` order.
    public let gradient: FloatBuffer
    /// Each batch norm's mean and unbiased variance, in buffer order.
    public let batchStatistics: [Float]
    /// Row-major `[batch, embeddingDimension]`.
    public let embeddings: [Float]
    /// Mean L2 norm of the embeddings' rows.
    public let embeddingMeanNorm: Double
    /// Root mean squared distance of two rows, of unit length where the loss looks at directions alone.
    public let spread: Double

    /// What of it is infinite or no number, in a few words; nil when nothing is.
    public var whatIsNotFinite: String? {
        if !loss.isFinite { return "the loss is \(loss)" }
        if !embeddings.allSatisfy(\.isFinite) { return "embeddings are not finite" }
        return gradient.isFinite ? nil : "the gradient is not finite"
    }
}

/// Computes slots: forward, loss and backward of one mini-batch on a state that stays as it is.
///
/// A slot's result is a pure function of images, labels and state. Several computers, or one from
/// several threads, may run at once on one state; each call uses the calling OS thread and
/// ``TrainingConfiguration/threadsPerSlot`` intra-op threads.
public final class SlotComputer: Sendable {
    /// What the run computes.
    public let configuration: TrainingConfiguration
    let loss: MetricLoss

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
        try compute(
            images: view(images, count: labels.count), labels: labels, state: state, into: gradient)
    }

    /// Images in memory, which stay where they are.
    func view(_ images: UnsafePointer<Float>, count: Int) throws(TensorError) -> Tensor {
        let network = configuration.network
        return try Tensor(
            viewing: UnsafeMutableRawPointer(mutating: images),
            shape: [count, 3, network.inputHeight, network.inputWidth], dtype: .float32)
    }

    /// Computes one slot.
    ///
    /// - Parameter images: `[batch, 3, height, width]`, float32.
    /// - Throws: ``TrainingError`` with code `shapeMismatch` when the gradient's buffer does not fit, and
    ///   the errors of networks, losses and tensors.
    public func compute(
        images: Tensor, labels: [Int], state: TrainingState, into gradient: FloatBuffer
    ) throws -> SlotResult {
        try checkSize(of: gradient, for: state)
        try Engine.setIntraOpThreads(configuration.threadsPerSlot)
        return try withGradient {
            let pass = try SlotPass(images, state, configuration)
            let result = try loss(
                pass.embeddings, labels: labels, classes: pass.classes,
                references: state.references(),
                random: randomness(of: labels, step: state.step))
            try pass.storeGradient(of: result.loss, in: gradient)
            let values = try pass.embeddings.floats()
            return SlotResult(
                loss: Float(try result.loss.item()), fractionPositive: result.fractionPositive,
                activeCount: result.activeCount, validCount: result.validCount,
                lossParts: result.parts.map(Float.init),
                rowLosses: result.rowLosses.map(Float.init),
                gradient: gradient,
                batchStatistics: try pass.statistics.values(), embeddings: values,
                embeddingMeanNorm: Self.meanNorm(values, rows: labels.count),
                spread: spread(of: values, rows: labels.count))
        }
    }

    func spread(of embeddings: [Float], rows: Int) -> Double {
        EmbeddingSpread.rootMeanSquare(
            embeddings, rows: rows, ofUnitRows: configuration.loss.looksAtDirections)
    }

    func checkSize(of gradient: FloatBuffer, for state: TrainingState) throws(TrainingError) {
        guard gradient.count == state.layout.elementCount else {
            throw TrainingError(
                .shapeMismatch,
                "a gradient buffer of \(gradient.count) elements was given; the network has "
                    + "\(state.layout.elementCount)")
        }
    }

    /// What a loss draws from: of the step and the identities, so that whoever computes the loss draws
    /// the same.
    func randomness(of labels: [Int], step: Int) -> CounterRandom {
        var hash = XXH64()
        for label in labels { hash.update(UInt64(bitPattern: Int64(label))) }
        return CounterRandom(
            seed: configuration.seed, step: UInt64(step), item: hash.finish(), purpose: .mining)
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

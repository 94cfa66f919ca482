public import Tensors

/// A loss and what is reported beside it.
public struct LossResult: Sendable {
    /// One element, with its graph.
    public let loss: Tensor
    /// Share of valid terms that are active; 0 when none is valid.
    public let fractionPositive: Double
    /// Terms that still pull: see ``MetricLoss`` for the threshold of each loss.
    public let activeCount: Int
    /// Triplets (batch_all), anchors (batch_hard) or positive pairs (semi-hard) that count.
    public let validCount: Int
}

/// A metric-learning loss over one mini-batch, as a graph of LibTorch operators.
///
/// - `batch_all`: t = d(a,p) - d(a,n) through the margin, for all valid triplets; with a number or
///   `soft` the mean over those above 1e-16, with `none` the mean over all. No valid triplet: 0.
///   Memory is (positive pairs) x batch, not batch cubed.
/// - `batch_hard`: the mean over all anchors; an anchor without positives has positive distance 0,
///   one without negatives adds 0 (also with `none`, where the earlier system returned minus
///   infinity). Active: above 1e-5.
/// - `batch_hard_000`: an anchor without negatives takes its row's largest distance instead.
/// - `tf_batch_semi_hard`: the mean over ordered positive pairs of the margin on d(a,p) - d(a,n); an
///   anchor without negatives has d(a,n) = 0; no positive pair: 0 where TensorFlow has NaN.
///
/// Where several entries share a maximum or minimum, its gradient is shared evenly among them.
///
/// - SeeAlso: Hermans, Beyer, Leibe, arXiv:1703.07737; Schroff, Kalenichenko, Philbin,
///   arXiv:1503.03832.
public struct MetricLoss: Sendable {
    /// What decides the loss.
    public let configuration: LossConfiguration

    /// Makes a loss.
    public init(_ configuration: LossConfiguration) {
        self.configuration = configuration
    }

    /// The loss of a mini-batch.
    ///
    /// - Parameters:
    ///   - embeddings: `[count, dimension]`, float32.
    ///   - labels: one identity for each row.
    /// - Throws: ``MetricLearningError`` with code `shapeMismatch`, or a `TensorError`.
    public func callAsFunction(_ embeddings: Tensor, labels: [Int]) throws -> LossResult {
        guard embeddings.rank == 2, embeddings.size(0) == labels.count, !labels.isEmpty else {
            throw MetricLearningError(
                .shapeMismatch,
                "embeddings are \(embeddings.shape) and there are \(labels.count) labels; "
                    + "one label a row is needed")
        }
        let rows = try configuration.normalizesRows ? unitRows(embeddings) : embeddings
        let distances = try configuration.distance.matrix(rows)  // [batch, batch]
        let pairs = BatchPairs(labels: labels)
        switch configuration.name {
        case .batchAll: return try batchAll(distances, pairs)
        case .batchHard: return try batchHard(distances, pairs)
        case .batchHard000: return try batchHardWithOldCorners(distances, pairs)
        case .tfBatchSemiHard: return try semiHard(distances, pairs)
        }
    }

    private func batchAll(_ distances: Tensor, _ pairs: BatchPairs) throws -> LossResult {
        guard pairs.tripletCount > 0 else { return try nothing(distances) }
        let rows = try pairs.anchorRows(of: distances)  // [pairs, batch]
        let positive = try pairs.positives(in: rows)  // [pairs, 1]
        let negative = try pairs.pairNegatives(like: rows)  // [pairs, batch], bool
        let terms = try Tensor.where(negative, margin(positive - rows), 0)
        let active = try count(terms, above: 1e-16)
        let divisor = configuration.margin == .none ? pairs.tripletCount : max(active, 1)
        return LossResult(
            loss: try terms.sum() / Double(divisor),
            fractionPositive: Double(active) / Double(pairs.tripletCount), activeCount: active,
            validCount: pairs.tripletCount)
    }

    private func batchHard(_ distances: Tensor, _ pairs: BatchPairs) throws -> LossResult {
        let positive = try hardestPositives(distances, pairs)  // [batch]
        let nearest = try nearestNegatives(distances, pairs)  // [batch]
        let has = try pairs.hasNegative(like: distances)  // [batch], bool
        let terms = try margin(positive - Tensor.where(has, nearest, 0))
        return try meanOverAnchors(Tensor.where(has, terms, 0))
    }

    private func batchHardWithOldCorners(
        _ distances: Tensor, _ pairs: BatchPairs
    ) throws -> LossResult {
        let positive = try hardestPositives(distances, pairs)
        let nearest = try nearestNegatives(distances, pairs)
        let has = try pairs.hasNegative(like: distances)
        let negative = try Tensor.where(has, nearest, distances.amax([1]))
        return try meanOverAnchors(margin(positive - negative))
    }

    /// `[batch]`; 0 for a row without positives.
    private func hardestPositives(
        _ distances: Tensor, _ pairs: BatchPairs
    ) throws(TensorError) -> Tensor {
        try Tensor.where(pairs.positives(like: distances), distances, 0).amax([1])
    }

    /// `[batch]`; infinity for a row without negatives.
    private func nearestNegatives(
        _ distances: Tensor, _ pairs: BatchPairs
    ) throws(TensorError) -> Tensor {
        try Tensor.where(pairs.negatives(like: distances), distances, .infinity).amin([1])
    }

    private func meanOverAnchors(_ terms: Tensor) throws -> LossResult {
        let active = try count(terms, above: 1e-5)
        return LossResult(
            loss: try terms.sum() / Double(terms.count),
            fractionPositive: Double(active) / Double(terms.count), activeCount: active,
            validCount: terms.count)
    }

    private func semiHard(_ distances: Tensor, _ pairs: BatchPairs) throws -> LossResult {
        let pairCount = pairs.anchors.count
        guard pairCount > 0 else { return try nothing(distances) }
        let rows = try pairs.anchorRows(of: distances)  // [pairs, batch]
        let positive = try pairs.positives(in: rows)  // [pairs, 1]
        let negative = try pairs.pairNegatives(like: rows)  // [pairs, batch], bool
        let farther = try (rows .> positive) .& negative
        let nearest = try Tensor.where(farther, rows, .infinity).amin([1])  // [pairs]
        let farthest = try Tensor.where(negative, rows, 0).amax([1])
        let chosen = try Tensor.where(farther.any(1), nearest, farthest)
        let terms = try margin(positive.flatten() - chosen)
        let active = try count(terms, above: 1e-5)
        return LossResult(
            loss: try terms.sum() / Double(pairCount),
            fractionPositive: Double(active) / Double(pairCount), activeCount: active,
            validCount: pairCount)
    }

    /// A loss of 0 that still has a graph.
    private func nothing(_ distances: Tensor) throws -> LossResult {
        LossResult(
            loss: try distances.sum() * 0, fractionPositive: 0, activeCount: 0, validCount: 0)
    }

    private func margin(_ difference: Tensor) throws(TensorError) -> Tensor {
        switch configuration.margin {
        case .value(let value): try (difference + value).relu()
        case .soft: try difference.softplus()
        case .none: difference
        }
    }

    private func count(_ terms: Tensor, above threshold: Double) throws(TensorError) -> Int {
        Int(try (terms.detach() .> threshold).sum().item())
    }

    private func unitRows(_ rows: Tensor) throws(TensorError) -> Tensor {
        try rows * rows.square().sum([1], keepDims: true).clamp(min: 1e-12).rsqrt()
    }
}

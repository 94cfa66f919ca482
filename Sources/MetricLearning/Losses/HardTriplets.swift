import Basics
import Tensors

/// `batch_hard` and `batch_hard_000`, as a graph of LibTorch's operators over the matrix of
/// distances.
///
/// Where several entries share a maximum or minimum, its gradient is shared evenly among them.
///
/// - SeeAlso: Hermans, Beyer, Leibe, arXiv:1703.07737.
struct HardTriplets {
    let margin: Margin
    let reducer: Reducer
    let activeThreshold: Double

    /// An anchor without positives has positive distance 0, one without negatives adds 0 (also with
    /// margin `none`, where the earlier system returned minus infinity).
    func callAsFunction(_ distances: Tensor, _ pairs: BatchPairs) throws -> LossResult {
        let positive = try hardestPositives(distances, pairs)  // [batch]
        let nearest = try nearestNegatives(distances, pairs)  // [batch]
        let has = try pairs.hasNegative(like: distances)  // [batch], bool
        let terms = try terms(positive - Tensor.where(has, nearest, 0))
        return try reduced(Tensor.where(has, terms, 0))
    }

    /// An anchor without negatives takes its row's largest distance instead.
    func withOldCorners(_ distances: Tensor, _ pairs: BatchPairs) throws -> LossResult {
        let positive = try hardestPositives(distances, pairs)
        let nearest = try nearestNegatives(distances, pairs)
        let has = try pairs.hasNegative(like: distances)
        let negative = try Tensor.where(has, nearest, distances.amax([1]))
        return try reduced(terms(positive - negative))
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

    private func reduced(_ terms: Tensor) throws -> LossResult {
        var tally = LossTally(threshold: activeThreshold)
        tally.add(
            sum: 0, valid: terms.count,
            active: Int(try (terms.detach() .> activeThreshold).sum().item()))
        return LossResult(
            loss: try terms.sum() / reducer.divisor(of: tally),
            fractionPositive: tally.fractionPositive, activeCount: tally.active,
            validCount: tally.valid,
            rowLosses: try terms.detach().to(dtype: .float64).values(as: Double.self))
    }

    private func terms(_ difference: Tensor) throws(TensorError) -> Tensor {
        switch margin {
        case .number(let value): try (difference + value).relu()
        case .soft: try difference.softplus()
        case .none: difference
        }
    }
}

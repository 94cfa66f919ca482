import Basics
import Foundation

/// `batch_sample`: the margin of d(a,p) - d(a,n), for every anchor, with one positive drawn with
/// probability proportional to exp(d) and one negative to exp(-d).
///
/// The gradient flows through the two drawn distances alone. An anchor without positives has
/// positive distance 0, one without negatives adds 0.
struct SampledTriplets: AnchorLoss {
    let margin: Margin
    /// For each anchor two numbers in [0, 1): the positive's and the negative's.
    let draws: [Double]

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        guard let negative = draw(negatives, draws[2 * anchor.row + 1], sign: -1) else {
            return tally.add(0)
        }
        let positive = draw(positives, draws[2 * anchor.row], sign: 1)
        let near = positive.map { positives.distances[$0] } ?? 0
        let term = margin.term(near - negatives.distances[negative])
        tally.add(term.value)
        if let positive { positives.gradient[positive] = term.slope }
        negatives.gradient[negative] = -term.slope
    }

    /// The first pair at which the sum of weights exceeds the drawn share of their total.
    private func draw(_ pairs: PairList, _ share: Double, sign: Double) -> Int? {
        let total = logSumExp(pairs.count) { sign * pairs.distances[$0] }
        var sum = 0.0
        for place in 0..<pairs.count {
            sum += exp(sign * pairs.distances[place] - total)
            if sum > share { return place }
        }
        return pairs.isEmpty ? nil : pairs.count - 1
    }
}

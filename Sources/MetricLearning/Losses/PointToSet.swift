import Basics
import Foundation

/// `weighted_triplet`, `hap2s_exponential`, `hap2s_polynomial`: the margin of the weighted mean of
/// an anchor's positive distances less that of its negative ones, for every anchor.
///
/// Weights grow with the distance of positives and fall with that of negatives, and the gradient
/// flows through them too. They are normalised in the log domain; with ``isCompatible`` as in the
/// ports of the paper, which add 1e-6 to the sum of weights (where all negatives are far, this
/// drags their mean to 0) and cap weights. An anchor without positives has positive distance 0; one
/// without negatives adds 0, with ``isCompatible`` it has negative distance 0.
///
/// - SeeAlso: Yu et al., "Hard-aware point-to-set deep metric for person re-identification",
///   arXiv:1807.11206.
struct PointToSet: AnchorLoss {
    /// How a distance becomes the logarithm of a weight.
    enum Weight {
        /// d / sigma for positives, -d / sigma for negatives.
        case exponential(sigma: Double)
        /// alpha log(1 + d) for positives, -2 alpha log(1 + d) for negatives.
        case polynomial(alpha: Double)
    }

    let weight: Weight
    let margin: Margin
    var isCompatible = false

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        guard isCompatible || !anchor.negatives.isEmpty else { return tally.add(0) }
        let near = mean(of: anchor.positives, arePositives: true)
        let far = mean(of: anchor.negatives, arePositives: false)
        let term = margin.term(near - far)
        tally.add(term.value)
        for place in 0..<anchor.positives.count { anchor.positives.gradient[place] *= term.slope }
        for place in 0..<anchor.negatives.count { anchor.negatives.gradient[place] *= -term.slope }
    }

    /// The weighted mean; leaves its gradient with the pairs.
    private func mean(of pairs: PairList, arePositives: Bool) -> Double {
        guard !pairs.isEmpty else { return 0 }
        var shift = 0.0
        if !isCompatible {
            shift = -.infinity
            for distance in pairs.distances {
                shift = max(shift, logWeight(distance, arePositives).value)
            }
        }
        var (weights, sum) = (0.0, 0.0)
        for place in 0..<pairs.count {
            let distance = pairs.distances[place]
            let weight = exp(logWeight(distance, arePositives).value - shift)
            weights += weight
            sum += weight * distance
            pairs.gradient[place] = weight
        }
        if isCompatible { weights += 1e-6 }
        let mean = sum / weights
        for place in 0..<pairs.count {
            let distance = pairs.distances[place]
            let slope = logWeight(distance, arePositives).slope
            pairs.gradient[place] *= (1 + slope * (distance - mean)) / weights
        }
        return mean
    }

    /// The logarithm of a weight and its derivative; constant from the cap on.
    private func logWeight(
        _ distance: Double, _ isPositive: Bool
    ) -> (value: Double, slope: Double) {
        switch weight {
        case .exponential(let sigma):
            let rate = (isPositive ? 1 : -1) / sigma
            let value = rate * distance
            return isCompatible && value > 50 ? (50, 0) : (value, rate)
        case .polynomial(let alpha):
            let power = isPositive ? alpha : -2 * alpha
            if isCompatible, distance > 99 { return (power * log(100), 0) }
            return (power * log1p(distance), power / (1 + distance))
        }
    }
}

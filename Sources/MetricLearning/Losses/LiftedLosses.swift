import Basics
import Foundation

/// `lifted`: max(J, 0)^2 / 2 for every ordered positive pair, where
/// J = d(a,p) + log(sum over negatives n of a and of p of exp(margin - d)).
///
/// The mean is TensorFlow's form of the paper's loss. A pair whose rows have no negatives adds 0.
///
/// - SeeAlso: Oh Song et al., "Deep metric learning via lifted structured feature embedding",
///   arXiv:1511.06452.
struct LiftedLoss: AnchorLoss {
    let margin: Double

    var hasSummaries: Bool { true }

    /// The logarithm of the anchor's own part of the sum.
    func summary(of anchor: Anchor) -> Double {
        logSumExp(anchor.negatives.count) { margin - anchor.negatives.distances[$0] }
    }

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let own = summaries[anchor.row]
        var push = 0.0
        for place in 0..<anchor.positives.count {
            let both = logAddExp(own, summaries[anchor.positives.rows[place]])
            let excess = max(anchor.positives.distances[place] + both, 0)
            tally.add(excess * excess / 2)
            anchor.positives.gradient[place] = excess
            // The pair counts in the other order too, with the same negatives.
            if excess > 0 { push += 2 * excess * exp(own - both) }
        }
        guard push > 0 else { return }
        for place in 0..<anchor.negatives.count {
            anchor.negatives.gradient[place] =
                -push * exp(margin - anchor.negatives.distances[place] - own)
        }
    }
}

/// `generalized_lifted`: max(log(sum of exp d(a,p)) + log(sum of exp(margin - d(a,n))), 0) for every
/// anchor.
///
/// An anchor without positives or without negatives adds 0: the logarithm of an empty sum.
///
/// - SeeAlso: Hermans, Beyer, Leibe, arXiv:1703.07737, section 3.
struct GeneralizedLiftedLoss: AnchorLoss {
    let margin: Double

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        let pull = logSumExp(positives.count) { positives.distances[$0] }
        let push = logSumExp(negatives.count) { margin - negatives.distances[$0] }
        tally.add(max(pull + push, 0))
        guard pull + push > 0 else { return }
        for place in 0..<positives.count {
            positives.gradient[place] = exp(positives.distances[place] - pull)
        }
        for place in 0..<negatives.count {
            negatives.gradient[place] = -exp(margin - negatives.distances[place] - push)
        }
    }
}

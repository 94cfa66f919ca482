import Basics
import Foundation

// A similarity is one less the cosine distance, so its derivative is that of the distance turned.

/// `multi_similarity`: what an anchor's positives are too far and its negatives too near.
///
/// Term of every anchor: log(1 + sum over positives of exp(-alpha (s - base))) / alpha
/// + log(1 + sum over negatives of exp(beta (s - base))) / beta.
///
/// - SeeAlso: Wang et al., "Multi-similarity loss with general pair weighting for deep metric
///   learning", arXiv:1904.06627.
struct MultiSimilarityLoss: AnchorLoss {
    let alpha: Double
    let beta: Double
    let base: Double

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        func pull(_ place: Int) -> Double { alpha * (base - 1 + positives.distances[place]) }
        func push(_ place: Int) -> Double { beta * (1 - negatives.distances[place] - base) }
        let pulls = logAddExp(0, logSumExp(positives.count, pull))
        let pushes = logAddExp(0, logSumExp(negatives.count, push))
        tally.add(pulls / alpha + pushes / beta)
        for place in 0..<positives.count {
            positives.gradient[place] = exp(pull(place) - pulls)
        }
        for place in 0..<negatives.count {
            negatives.gradient[place] = -exp(push(place) - pushes)
        }
    }
}

/// `circle`: an anchor's pairs, each weighted by how far it is from its optimum.
///
/// Term of every anchor: log(1 + sum over negatives of exp(gamma max(s_n + m, 0) (s_n - m))
/// * sum over positives of exp(-gamma max(1 + m - s_p, 0) (s_p - 1 + m))).
/// The factors max(...) weigh the pairs and have no gradient. An anchor without positives or
/// without negatives adds 0.
///
/// - SeeAlso: Sun et al., "Circle loss: a unified perspective of pair similarity optimization",
///   arXiv:2002.10857.
struct CircleLoss: AnchorLoss {
    let margin: Double
    let gamma: Double

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        func pull(_ place: Int) -> (logit: Double, weight: Double) {
            let distance = positives.distances[place]
            let weight = gamma * max(margin + distance, 0)
            return (weight * (distance - margin), weight)
        }
        func push(_ place: Int) -> (logit: Double, weight: Double) {
            let similarity = 1 - negatives.distances[place]
            let weight = gamma * max(similarity + margin, 0)
            return (weight * (similarity - margin), weight)
        }
        guard !positives.isEmpty, !negatives.isEmpty else { return tally.add(0) }
        let pulls = logSumExp(positives.count) { pull($0).logit }
        let pushes = logSumExp(negatives.count) { push($0).logit }
        tally.add(softplus(pulls + pushes))
        let slope = sigmoid(pulls + pushes)
        for place in 0..<positives.count {
            let (logit, weight) = pull(place)
            positives.gradient[place] = slope * exp(logit - pulls) * weight
        }
        for place in 0..<negatives.count {
            let (logit, weight) = push(place)
            negatives.gradient[place] = -slope * exp(logit - pushes) * weight
        }
    }
}

/// `supervised_contrastive`: the mean over an anchor's positives of
/// log(sum over all other rows of exp(s / temperature)) - s / temperature, for every anchor.
///
/// An anchor without positives adds 0.
///
/// - SeeAlso: Khosla et al., "Supervised contrastive learning", arXiv:2004.11362, the form with the
///   sum outside the logarithm.
struct SupervisedContrastiveLoss: AnchorLoss {
    let temperature: Double

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        guard !positives.isEmpty else { return tally.add(0) }
        func logit(_ pairs: PairList, _ place: Int) -> Double {
            (1 - pairs.distances[place]) / temperature
        }
        let all = logAddExp(
            logSumExp(positives.count) { logit(positives, $0) },
            logSumExp(negatives.count) { logit(negatives, $0) })
        let share = 1 / Double(positives.count)
        var term = 0.0
        for place in 0..<positives.count {
            let own = logit(positives, place)
            term += share * (all - own)
            positives.gradient[place] = (share - exp(own - all)) / temperature
        }
        tally.add(term)
        for place in 0..<negatives.count {
            negatives.gradient[place] = -exp(logit(negatives, place) - all) / temperature
        }
    }
}

/// `nt_xent`: every ordered positive pair as a class among the anchor's negatives.
///
/// Term: log(exp(s_p / temperature) + sum over negatives of exp(s_n / temperature))
/// - s_p / temperature.
///
/// - SeeAlso: Chen et al., "A simple framework for contrastive learning of visual representations",
///   arXiv:2002.05709.
struct NTXentLoss: AnchorLoss {
    let temperature: Double

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        func push(_ place: Int) -> Double { (1 - negatives.distances[place]) / temperature }
        let pushes = logSumExp(negatives.count, push)
        var share = 0.0
        for place in 0..<positives.count {
            let own = (1 - positives.distances[place]) / temperature
            let odds = pushes - own
            tally.add(softplus(odds))
            positives.gradient[place] = sigmoid(odds) / temperature
            share += sigmoid(odds)
        }
        for place in 0..<negatives.count {
            negatives.gradient[place] = -share * exp(push(place) - pushes) / temperature
        }
    }
}

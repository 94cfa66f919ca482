import Basics
import Foundation

/// `softmax`, `normalized_softmax`, `arcface`, `cosface`: cross-entropy of every row's identity among
/// all identities.
///
/// Logits are similarities times ``scale``; a margin makes the row's own similarity smaller first.
/// With smoothing e the target is 1 - e for the row's own identity, and e / C more for each of the C.
///
/// - SeeAlso: Deng, Guo, Xue, Zafeiriou, "ArcFace", arXiv:1801.07698; Wang et al., "CosFace",
///   arXiv:1801.09414; Zhai, Wu, "Classification is a strong baseline for deep metric learning",
///   arXiv:1811.12649; Szegedy et al., arXiv:1512.00567, section 7, for the smoothing.
struct IdentitySoftmax: ClassLoss {
    /// What a row's own similarity s becomes.
    enum Margin {
        /// s.
        case none
        /// s - margin.
        case cosine(Double)
        /// cos(acos(s) + margin); beyond pi - margin, where that would rise again,
        /// s - margin sin(margin), as in the authors' code.
        case angle(Double)

        /// The similarity and its derivative.
        ///
        /// At an angle of 0 the derivative by the angle has no direction, and the part that grows
        /// without bounds is left out.
        func of(_ similarity: Double) -> (value: Double, slope: Double) {
            switch self {
            case .none: return (similarity, 1)
            case .cosine(let margin): return (similarity - margin, 1)
            case .angle(let margin):
                let cosine = min(max(similarity, -1), 1)
                guard cosine >= -cos(margin) else { return (cosine - margin * sin(margin), 1) }
                let sine = ((1 - cosine) * (1 + cosine)).squareRoot()
                let growth = sine > 1e-7 ? cosine / sine : 0
                return (
                    cosine * cos(margin) - sine * sin(margin), cos(margin) + sin(margin) * growth
                )
            }
        }
    }

    let scale: Double
    var margin = Margin.none
    var smoothing = 0.0

    func differentiate(_ table: SimilarityTable, _ tally: inout LossTally) {
        let share = smoothing / Double(table.classCount)
        for (place, label) in table.labels.enumerated() {
            let row = table.row(place)
            for at in row.indices where at != label { row[at] *= scale }
            let (value, slope) = margin.of(row[label])
            let own = scale * value
            row[label] = -.infinity
            let others = logSumExp(row.count) { row[$0] }
            row[label] = own
            let mean = row.reduce(0, +) / Double(row.count)
            tally.add(softplus(others - own) + smoothing * (own - mean))
            tally.endRow()
            let all = logAddExp(others, own)
            for at in row.indices { row[at] = scale * (exp(row[at] - all) - share) }
            row[label] = scale * slope * (smoothing - share - sigmoid(others - own))
        }
    }
}

/// `proxy_anchor`: every identity's vector pulls the rows of its identity and pushes all others.
///
/// Term of every identity: log(1 + sum over others' rows of exp(alpha (s + margin))), and for the P
/// of C identities that the mini-batch shows, C / P times log(1 + sum over their rows of
/// exp(-alpha (s - margin))): the mean over identities is the paper's loss.
/// No term is a row's.
///
/// - SeeAlso: Kim, Kim, Cho, Kwak, "Proxy anchor loss for deep metric learning", arXiv:2003.13911.
struct ProxyAnchorLoss: ClassLoss {
    let margin: Double
    let alpha: Double

    func differentiate(_ table: SimilarityTable, _ tally: inout LossTally) {
        let count = table.classCount
        let pull = Double(count) / Double(Set(table.labels).count)
        /// Every similarity's exponent, and which of 2 C sums it belongs to: pushes, then pulls.
        func forEach(_ body: (_ at: Int, _ sum: Int, _ exponent: Double) -> Void) {
            for (place, label) in table.labels.enumerated() {
                for identity in 0..<count {
                    let at = place * count + identity
                    let similarity = table.values[at]
                    if label == identity {
                        body(at, count + identity, alpha * (margin - similarity))
                    } else {
                        body(at, identity, alpha * (similarity + margin))
                    }
                }
            }
        }
        // The 1 in each logarithm is exp(0).
        var largest = [Double](repeating: 0, count: 2 * count)
        forEach { _, sum, exponent in largest[sum] = max(largest[sum], exponent) }
        var sums = largest.map { exp(-$0) }
        forEach { _, sum, exponent in sums[sum] += exp(exponent - largest[sum]) }
        let logs = zip(largest, sums).map { $0 + log($1) }
        for identity in 0..<count { tally.add(pull * logs[count + identity] + logs[identity]) }
        forEach { at, sum, exponent in
            let share = alpha * exp(exponent - logs[sum])
            table.values[at] = sum < count ? share : -pull * share
        }
    }
}

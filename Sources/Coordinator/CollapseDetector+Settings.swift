internal import Basics
internal import ClusterCore
internal import Foundation

extension CollapseDetector {
    /// Watches a run's loss; nil where its value does not say whether embeddings have collapsed.
    init?(_ loss: LossConfiguration) {
        // Beside a loss against the memory it is the loss's own value that is watched, before its weight.
        guard loss.plus.isEmpty, loss.weight > 0, loss.memory == 0 || loss.weight == 1 else {
            return nil
        }
        switch loss.name {
        case .batchAll, .batchHard, .batchHard000, .batchSample, .weightedTriplet,
            .tfBatchSemiHard, .semiHard, .hap2sExponential, .hap2sPolynomial, .triplet:
            break
        default: return nil
        }
        switch loss.margin {
        case .none: return nil
        case .soft: self.init(rest: loss.weight * log(2), scale: 1)
        case .number(let margin):
            guard margin > 0 else { return nil }
            let isSquare = loss.distance == .sqeuclidean
            self.init(
                rest: loss.weight * margin, scale: isSquare ? margin.squareRoot() : margin)
        }
    }
}

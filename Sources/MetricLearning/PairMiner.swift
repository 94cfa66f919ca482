import Basics

extension PairMiner {
    /// Positives must be farther, negatives nearer than these distances.
    func limits(
        positives: PairList, negatives: PairList, epsilon: Double
    ) -> (positivesAbove: Double, negativesBelow: Double) {
        switch self {
        case .all: (-.infinity, .infinity)
        case .multiSimilarity:
            (
                (negatives.distances.min() ?? .infinity) - epsilon,
                (positives.distances.max() ?? -.infinity) + epsilon
            )
        }
    }
}

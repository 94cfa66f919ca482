/// Which of an anchor's pairs a loss gets to see.
public enum PairMiner: Hashable, Sendable {
    /// All of them.
    case all
    /// Positives that are hardly nearer than the nearest negative, negatives that are hardly farther
    /// than the farthest positive; none where the anchor has no pair of the other kind.
    ///
    /// - SeeAlso: Wang et al., "Multi-similarity loss", arXiv:1904.06627, section 3.2.
    case multiSimilarity(epsilon: Double)

    /// Reads a name as settings write it.
    ///
    /// - Throws: ``MetricLearningError`` with code `unknownName`.
    public init(name: String, epsilon: Double) throws(MetricLearningError) {
        switch name {
        case "all": self = .all
        case "multi_similarity": self = .multiSimilarity(epsilon: epsilon)
        default:
            throw MetricLearningError(
                .unknownName, "loss.miner is '\(name)'; known are all, multi_similarity")
        }
    }

    /// Positives must be farther, negatives nearer than these distances.
    func limits(
        positives: PairList, negatives: PairList
    ) -> (positivesAbove: Double, negativesBelow: Double) {
        switch self {
        case .all: (-.infinity, .infinity)
        case .multiSimilarity(let epsilon):
            (
                (negatives.distances.min() ?? .infinity) - epsilon,
                (positives.distances.max() ?? -.infinity) + epsilon
            )
        }
    }
}

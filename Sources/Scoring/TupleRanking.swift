/// One candidate of a tuple with its distance from the anchor.
public struct RankedCandidate: Equatable, Sendable {
    /// Row of the candidate.
    public let row: Int
    /// Distance from the anchor.
    public let distance: Double
    /// Whether it shows the anchor's object.
    public let isPositive: Bool
}

extension TupleScorer {
    /// The candidates of a tuple from near to far, for pictures of what the model sees.
    ///
    /// Among equal distances the positive comes last, as in the strict accuracies; then the order of
    /// the tuple counts. Distances that are not finite come at the very end.
    ///
    /// - Throws: ``ScoringError`` with code `indexOutOfRange` when the tuple names a missing row.
    public func ranking(of tuple: TupleIndices, in embeddings: EmbeddingMatrix) throws(ScoringError)
        -> [RankedCandidate]
    {
        try check(tuple, "the tuple", embeddings.rows)
        let candidates = embeddings.values.withUnsafeBufferPointer { values in
            func row(_ index: Int) -> UnsafeBufferPointer<Float> {
                let start = index * embeddings.dimension
                return UnsafeBufferPointer(rebasing: values[start..<start + embeddings.dimension])
            }
            return (tuple.negatives + [tuple.positive]).enumerated().map { place, index in
                RankedCandidate(
                    row: index, distance: distance.distance(row(tuple.anchor), row(index)),
                    isPositive: place == tuple.negatives.count)
            }
        }
        let keyed = candidates.enumerated().map { place, candidate in
            (candidate.distance.isFinite ? candidate.distance : .infinity, place, candidate)
        }
        return keyed.sorted { ($0.0, $0.1) < ($1.0, $1.1) }.map(\.2)
    }
}

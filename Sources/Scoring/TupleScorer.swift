public import Basics

/// One evaluation question, which of the candidates shows the anchor's object.
public struct TupleIndices: Hashable, Sendable {
    /// Row of the anchor.
    public let anchor: Int
    /// Row of the candidate that shows the anchor's object.
    public let positive: Int
    /// Rows of the other candidates.
    public let negatives: [Int]

    /// Names the rows of a tuple.
    public init(anchor: Int, positive: Int, negatives: [Int]) {
        self.anchor = anchor
        self.positive = positive
        self.negatives = negatives
    }
}

/// Scores tuples over embeddings; a pure function.
///
/// A tuple without negatives (two images) says nothing and is skipped. Distances are float64 sums
/// in a fixed order (``Distance``), so a model whose embeddings are all equal has exact ties and
/// gets 0 in the strict accuracies. A distance that is not finite never counts as success, in the
/// strict forms nor in the forms with ties, and makes `mean_loss` and `fraction_positive` NaN.
///
/// ```swift
/// let loss = TupleLoss(LossConfiguration(name: .batchHard, margin: .number(0.5)))
/// let scorer = TupleScorer(loss: loss)
/// var scores = try scorer.score(tuples, over: 0..<700, of: embeddings)
/// try scores.merge(scorer.score(tuples, over: 700..<1493, of: embeddings))
/// try scores.metrics()[.generalAccuracy]
/// ```
public struct TupleScorer: Hashable, Sendable {
    /// The loss behind `mean_loss` and `fraction_positive`.
    public let loss: TupleLoss
    /// What the accuracies compare: the distance of the loss that is scored.
    public var distance: Distance { loss.configuration.distance }

    /// Scores with the run's loss.
    public init(loss: TupleLoss) { self.loss = loss }

    /// Scores some of a set's tuples.
    ///
    /// - Parameters:
    ///   - tuples: all tuples of the set, in its order.
    ///   - range: which of them; all where it is nil.
    ///   - embeddings: one row for every image that the tuples name.
    /// - Returns: a part that merges with the others of the set to the same bits, however the set
    ///   was cut.
    /// - Throws: ``ScoringError`` with code `indexOutOfRange` when a tuple names a missing row.
    /// - Complexity: O(B² · dimension) a tuple of B images.
    public func score(
        _ tuples: [TupleIndices], over range: Range<Int>? = nil, of embeddings: EmbeddingMatrix
    ) throws(ScoringError) -> TupleScores {
        let range = range ?? 0..<tuples.count
        precondition(
            0 <= range.lowerBound && range.upperBound <= tuples.count,
            "tuples \(range) asked of a set with \(tuples.count)")
        for index in range { try check(tuples[index], "tuple \(index)", embeddings.rows) }
        return embeddings.values.withUnsafeBufferPointer { values in
            var scores = TupleScores(tupleCount: tuples.count)
            var leaves: [TupleScores.Leaf] = []
            leaves.reserveCapacity(range.count)
            for index in range { leaves.append(leaf(tuples[index], values, embeddings.dimension)) }
            scores.append(leaves, from: range.lowerBound)
            return scores
        }
    }

    func check(_ tuple: TupleIndices, _ name: String, _ rows: Int) throws(ScoringError) {
        for row in [tuple.anchor, tuple.positive] + tuple.negatives where row < 0 || row >= rows {
            throw ScoringError(
                .indexOutOfRange, "\(name) names image \(row), but there are \(rows) embeddings")
        }
    }

    private func leaf(_ tuple: TupleIndices, _ values: UnsafeBufferPointer<Float>, _ dimension: Int)
        -> TupleScores.Leaf
    {
        guard !tuple.negatives.isEmpty else { return .skipped }
        let rows = ([tuple.anchor, tuple.positive] + tuple.negatives).map { row in
            UnsafeBufferPointer(rebasing: values[row * dimension..<(row + 1) * dimension])
        }
        let ranks = rows.dropFirst().map { distance.rank(rows[0], $0) }
        let positive = ranks[0]
        // Only finite values are compared: infinity would make a broken negative look far away.
        let negatives = ranks.dropFirst().filter(\.isFinite)
        let usable = positive.isFinite ? negatives : []
        let nearer = usable.count { positive < $0 }
        let notFarther = usable.count { positive <= $0 }
        let count = tuple.negatives.count
        let labels = [0, 0] + Array(repeating: 1, count: count)
        let value = loss.evaluate(rows, labels: labels)
        var norms = 0.0
        for row in rows { norms += norm(row) }
        return .scored(
            TupleScores.Counts(
                tuples: 1, skipped: 0, general: nearer == count ? 1 : 0,
                generalTies: notFarther == count ? 1 : 0, ranks: 1 + count - nearer,
                nonFinite: usable.count == count ? 0 : 1),
            TupleScores.Sums(
                easy: Double(nearer) / Double(count), easyTies: Double(notFarther) / Double(count),
                loss: value.loss, fractionPositive: value.fractionPositive,
                norm: norms / Double(rows.count)))
    }
}

import Basics

/// What some or all tuples of a set scored; parts merge to the bits of the whole.
///
/// Counts are integers. Means over tuples are sums in float64, added in the order of ``FoldTree``
/// over the tuple's number, and a part keeps the sums of the whole subtrees it holds. What is added
/// to what therefore depends on the set alone, never on how it was cut.
public struct TupleScores: Equatable, Codable, Sendable {
    private enum CodingKeys: String, CodingKey { case tupleCount, counts, nodes }

    /// Exact counts.
    struct Counts: Equatable, Codable {
        var tuples = 0
        var skipped = 0
        var general = 0
        var generalTies = 0
        /// Ranks of the positives; the nearest candidate has 1.
        var ranks = 0
        var nonFinite = 0

        static func += (left: inout Counts, right: Counts) {
            left.tuples += right.tuples
            left.skipped += right.skipped
            left.general += right.general
            left.generalTies += right.generalTies
            left.ranks += right.ranks
            left.nonFinite += right.nonFinite
        }
    }

    /// Sums over tuples of what is averaged.
    struct Sums: Equatable, Codable {
        var easy: Double
        var easyTies: Double
        var loss: Double
        var fractionPositive: Double
        var norm: Double

        static func + (left: Sums, right: Sums) -> Sums {
            Sums(
                easy: left.easy + right.easy, easyTies: left.easyTies + right.easyTies,
                loss: left.loss + right.loss,
                fractionPositive: left.fractionPositive + right.fractionPositive,
                norm: left.norm + right.norm)
        }
    }

    /// What one tuple scored.
    enum Leaf {
        case skipped
        case scored(Counts, Sums)
    }

    /// The sum over a whole subtree; nil where all its tuples were skipped.
    private struct Node: Equatable, Codable {
        var low: Int
        var high: Int
        var sums: Sums?
    }

    /// Tuples the whole set has.
    public let tupleCount: Int
    private var counts = Counts()
    /// Disjoint, in ascending order, no two of them siblings.
    private var nodes: [Node] = []

    /// An empty part of a set.
    public init(tupleCount: Int) { self.tupleCount = tupleCount }

    /// Whether every tuple of the set is in.
    public var isComplete: Bool { heldCount == tupleCount }

    /// Tuples with an embedding that is not finite; they count as failures.
    public var nonFiniteTuples: Int { counts.nonFinite }

    private var heldCount: Int { nodes.reduce(0) { $0 + $1.high - $1.low } }

    mutating func append(_ leaves: [Leaf], from first: Int) {
        for (offset, leaf) in leaves.enumerated() {
            var node = Node(low: first + offset, high: first + offset + 1, sums: nil)
            switch leaf {
            case .skipped: counts += Counts(skipped: 1)
            case .scored(let one, let sums):
                counts += one
                node.sums = sums
            }
            nodes.append(node)
        }
        collapse()
    }

    /// Reads a part, refusing one whose sums are not of whole subtrees.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        tupleCount = try container.decode(Int.self, forKey: .tupleCount)
        counts = try container.decode(Counts.self, forKey: .counts)
        nodes = try container.decode([Node].self, forKey: .nodes)
        var end = 0
        for node in nodes {
            guard node.low >= end, node.low < node.high, node.high <= tupleCount,
                Self.isSubtree(SlotRun(node.low, node.high), of: tupleCount)
            else {
                throw ScoringError(
                    .foreignPart,
                    "[\(node.low),\(node.high)) is no part of a set of \(tupleCount) tuples")
            }
            end = node.high
        }
        guard counts.tuples >= 0, counts.skipped >= 0, heldCount - counts.tuples == counts.skipped
        else {
            throw ScoringError(
                .foreignPart,
                "a part holds \(heldCount) tuples, but counts \(counts.tuples) scored and "
                    + "\(counts.skipped) skipped ones")
        }
    }

    private static func isSubtree(_ wanted: SlotRun, of tupleCount: Int) -> Bool {
        var run = SlotRun(0, tupleCount)
        while run != wanted {
            guard run.count >= 2 else { return false }
            let (left, right) = FoldTree.split(run)
            run = wanted.low < right.low ? left : right
            guard run.low <= wanted.low, wanted.high <= run.high else { return false }
        }
        return true
    }

    /// Adds a part of the same set.
    ///
    /// - Throws: ``ScoringError`` with code `foreignPart` when the part is of a set of another size,
    ///   `overlappingParts` when a tuple is in both.
    public mutating func merge(_ other: TupleScores) throws(ScoringError) {
        guard other.tupleCount == tupleCount else {
            throw ScoringError(
                .foreignPart,
                "a part of a set of \(other.tupleCount) tuples cannot join one of \(tupleCount)")
        }
        let merged = (nodes + other.nodes).sorted { $0.low < $1.low }
        for (left, right) in zip(merged, merged.dropFirst()) where right.low < left.high {
            throw ScoringError(.overlappingParts, "tuple \(right.low) is in two parts")
        }
        nodes = merged
        counts += other.counts
        collapse()
    }

    /// The set's metrics.
    ///
    /// A mean over no tuple has no value and is left out; `tuples` and `skipped_tuples` are always
    /// there. `mean_loss`, `fraction_positive` and `embedding_mean_norm` are NaN when an embedding is
    /// not finite.
    ///
    /// - Throws: ``ScoringError`` with code `incompleteParts` while tuples are missing.
    public func metrics() throws(ScoringError) -> [MetricName: Double] {
        guard isComplete else {
            throw ScoringError(
                .incompleteParts, "\(heldCount) of \(tupleCount) tuples are scored so far")
        }
        var metrics: [MetricName: Double] = [
            .tuples: Double(counts.tuples), .skippedTuples: Double(counts.skipped),
        ]
        guard counts.tuples > 0, let sums = nodes.first?.sums else { return metrics }
        let count = Double(counts.tuples)
        metrics[.generalAccuracy] = Double(counts.general) / count
        metrics[.generalAccuracyTies] = Double(counts.generalTies) / count
        metrics[.averageRankingPosition] = Double(counts.ranks) / 2 / count
        metrics[.easyAccuracy] = sums.easy / count
        metrics[.easyAccuracyTies] = sums.easyTies / count
        metrics[.meanLoss] = sums.loss / count
        metrics[.fractionPositive] = sums.fractionPositive / count
        metrics[.embeddingMeanNorm] = sums.norm / count
        return metrics.mapValues { $0.isFinite ? $0 : .nan }
    }

    /// Replaces siblings by their parent, as far up as possible.
    private mutating func collapse() {
        guard tupleCount > 0 else { return }
        var rest = nodes[...]
        var result: [Node] = []
        visit(SlotRun(0, tupleCount), &rest, &result)
        precondition(rest.isEmpty, "tuple \(rest.first!.low) is outside 0..<\(tupleCount)")
        nodes = result
    }

    /// Moves the nodes inside `run` from `rest` to `result`, as one node where they fill it.
    private func visit(_ run: SlotRun, _ rest: inout ArraySlice<Node>, _ result: inout [Node]) {
        guard let first = rest.first, first.low < run.high else { return }
        if first.low == run.low && first.high == run.high {
            result.append(rest.removeFirst())
            return
        }
        let (left, right) = FoldTree.split(run)
        let start = result.count
        visit(left, &rest, &result)
        visit(right, &rest, &result)
        guard result.count == start + 2, result[start].low == left.low,
            result[start].high == left.high, result[start + 1].low == right.low,
            result[start + 1].high == right.high
        else { return }
        let sums: Sums? =
            switch (result[start].sums, result[start + 1].sums) {
            case (let left?, let right?): left + right
            case (let left, let right): left ?? right
            }
        result.replaceSubrange(start..., with: [Node(low: run.low, high: run.high, sums: sums)])
    }
}

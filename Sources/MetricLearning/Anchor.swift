import Basics

/// The pairs of one anchor of one kind: their distances, and where a loss writes its gradient.
///
/// Memory belongs to ``AnchorPass``, which reuses it for the next anchor.
struct PairList {
    /// Rows of the mini-batch, ascending.
    private(set) var rows: UnsafeMutableBufferPointer<Int>
    /// The distance of each from the anchor.
    private(set) var distances: UnsafeMutableBufferPointer<Double>
    /// The derivative of the sum of terms by each distance; 0 before a loss runs.
    private(set) var gradient: UnsafeMutableBufferPointer<Double>

    var count: Int { rows.count }
    var isEmpty: Bool { rows.isEmpty }

    /// Room for so many pairs.
    static func allocated(_ capacity: Int) -> PairList {
        PairList(
            rows: .allocate(capacity: capacity), distances: .allocate(capacity: capacity),
            gradient: .allocate(capacity: capacity))
    }

    func deallocate() {
        rows.deallocate()
        distances.deallocate()
        gradient.deallocate()
    }

    /// The first `count` pairs, with a gradient of zero.
    func first(_ count: Int) -> PairList {
        let list = PairList(
            rows: .init(rebasing: rows[..<count]), distances: .init(rebasing: distances[..<count]),
            gradient: .init(rebasing: gradient[..<count]))
        list.gradient.update(repeating: 0)
        return list
    }

    /// The pairs whose distance passes, moved to the front.
    func filtered(_ passes: (Double) -> Bool) -> PairList {
        var kept = 0
        for place in rows.indices where passes(distances[place]) {
            rows[kept] = rows[place]
            distances[kept] = distances[place]
            kept += 1
        }
        return first(kept)
    }
}

/// One row of a mini-batch with its mined pairs.
struct Anchor {
    let row: Int
    let positives: PairList
    let negatives: PairList
}

/// A loss that is a sum of terms, each of one anchor and its distances.
///
/// Memory and time are those of the matrix of distances, whatever the number of triplets.
protocol AnchorLoss: Sendable {
    /// Whether ``summary(of:)`` says anything.
    var hasSummaries: Bool { get }

    /// A number of each anchor that terms of other anchors need.
    func summary(of anchor: Anchor) -> Double

    /// Adds the anchor's terms, and to its pairs the derivative of the sum of all terms by their
    /// distances.
    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally)
}

extension AnchorLoss {
    var hasSummaries: Bool { false }
    func summary(of anchor: Anchor) -> Double { 0 }
}

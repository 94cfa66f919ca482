import Basics

/// `batch_hard` against rows that are no anchors: the margin of an anchor's farthest positive less its
/// nearest negative, for every anchor.
///
/// Where several are as far or as near, the gradient is shared evenly among them. An anchor without
/// positives or without negatives adds 0: earlier steps need not have shown its identity.
struct HardestReferences: AnchorLoss {
    let margin: Margin

    func add(_ anchor: Anchor, summaries: [Double], to tally: inout LossTally) {
        let (positives, negatives) = (anchor.positives, anchor.negatives)
        guard let far = positives.distances.max(), let near = negatives.distances.min() else {
            return tally.add(0)
        }
        let term = margin.term(far - near)
        tally.add(term.value)
        share(term.slope, at: far, of: positives)
        share(-term.slope, at: near, of: negatives)
    }

    private func share(_ slope: Double, at distance: Double, of pairs: PairList) {
        let count = pairs.distances.count { $0 == distance }
        for place in 0..<pairs.count where pairs.distances[place] == distance {
            pairs.gradient[place] = slope / Double(count)
        }
    }
}

import Basics
import Tensors

/// Goes over a mini-batch anchor by anchor, on one thread, in float64, in the order of its rows.
///
/// An anchor's pairs are the mini-batch's other rows, or all of given rows that are no anchors. Needs the
/// table of distances, its gradient, and a few rows besides.
struct AnchorPass {
    let labels: [Int]
    let configuration: LossConfiguration
    /// The identities of the rows that anchors are compared with; nil for the anchors themselves.
    var references: [Int]?

    /// A loss's value, and its gradient handed to autograd.
    func result(
        of loss: some AnchorLoss, _ pairs: some DistanceTable
    ) throws(TensorError) -> LossResult {
        let gradient = try Tensor.zeros(
            [labels.count, references?.count ?? labels.count], dtype: .float64)
        let tally = run(
            loss, try pairs.distances.unsafeMutableBytes().bindMemory(to: Double.self),
            try gradient.unsafeMutableBytes().bindMemory(to: Double.self))
        withExtendedLifetime(pairs) {}
        let divisor = configuration.reducer.divisor(of: tally)
        let product = try pairs.handOver(gradient.mul_(1 / divisor))
        return LossResult(
            loss: try product - product.detach() + tally.sum / divisor,
            fractionPositive: tally.fractionPositive,
            activeCount: tally.active, validCount: tally.valid, rowLosses: tally.rowLosses)
    }

    private func run(
        _ loss: some AnchorLoss, _ distances: UnsafeMutableBufferPointer<Double>,
        _ gradient: UnsafeMutableBufferPointer<Double>
    ) -> LossTally {
        let others = references ?? labels
        let (width, haveAnchors) = (others.count, references == nil)
        let room = (positives: PairList.allocated(width), negatives: PairList.allocated(width))
        defer {
            room.positives.deallocate()
            room.negatives.deallocate()
        }
        func anchor(_ row: Int) -> Anchor {
            var (positives, negatives) = (0, 0)
            let label = labels[row]
            for other in 0..<width {
                let distance = distances[row * width + other]
                if others[other] != label {
                    room.negatives.rows[negatives] = other
                    room.negatives.distances[negatives] = distance
                    negatives += 1
                } else if other != row || !haveAnchors {
                    room.positives.rows[positives] = other
                    room.positives.distances[positives] = distance
                    positives += 1
                }
            }
            let all = (room.positives.first(positives), room.negatives.first(negatives))
            guard configuration.miner != .all else {
                return Anchor(row: row, positives: all.0, negatives: all.1)
            }
            let limits = configuration.miner.limits(
                positives: all.0, negatives: all.1, epsilon: configuration.minerEpsilon)
            return Anchor(
                row: row, positives: all.0.filtered { $0 > limits.positivesAbove },
                negatives: all.1.filtered { $0 < limits.negativesBelow })
        }
        let summaries =
            !loss.hasSummaries ? [] : labels.indices.map { loss.summary(of: anchor($0)) }
        var tally = LossTally(threshold: configuration.activeThreshold)
        for row in labels.indices {
            let anchor = anchor(row)
            loss.add(anchor, summaries: summaries, to: &tally)
            tally.endRow()
            for pairs in [anchor.positives, anchor.negatives] {
                for place in 0..<pairs.count {
                    gradient[row * width + pairs.rows[place]] = pairs.gradient[place]
                }
            }
        }
        return tally
    }
}

internal import ClusterCore
internal import MetricLearning
internal import Protocol

extension WireSlotSummary {
    /// What goes to the coordinator.
    init(_ summary: BatchSummary) {
        self.init()
        lengths = summary.lengths.message
        distances = summary.distances.message
        positiveDistances = summary.positiveDistances.message
        negativeDistances = summary.negativeDistances.message
        losses = summary.losses.message
        top1 = summary.top1
        precision = summary.precision
        precisionRank = UInt32(summary.precisionRank)
    }
}

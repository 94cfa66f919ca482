public import Basics
public import Protocol

/// What the embeddings of a whole step look like; a slot is the whole step where that is mined over.
public struct StepSummary: Equatable, Sendable {
    /// L2 norms of the embeddings.
    public internal(set) var lengths = Histogram()
    /// Euclidean distances of the pairs within each slot.
    public internal(set) var distances = Histogram()
    /// Those of one identity.
    public internal(set) var positiveDistances = Histogram()
    /// Those of two.
    public internal(set) var negativeDistances = Histogram()
    /// What each row adds to the loss, of those that have a term.
    public internal(set) var losses = Histogram()
    /// Share of embeddings whose nearest in the slot is of their identity.
    public internal(set) var top1 = 0.0
    /// Mean share of one's own identity among the ``precisionRank`` nearest.
    public internal(set) var precision = 0.0
    /// How many are looked at, K - 1.
    public internal(set) var precisionRank = 1

    /// Adds up what slots say; nil unless each says something.
    init?(_ slots: [WireSlotDone]) {
        guard !slots.isEmpty, slots.allSatisfy(\.hasSummary) else { return nil }
        for slot in slots.map(\.summary) {
            lengths.add(Histogram(slot.lengths))
            distances.add(Histogram(slot.distances))
            positiveDistances.add(Histogram(slot.positiveDistances))
            negativeDistances.add(Histogram(slot.negativeDistances))
            losses.add(Histogram(slot.losses))
            top1 += slot.top1 / Double(slots.count)
            precision += slot.precision / Double(slots.count)
            precisionRank = max(precisionRank, Int(slot.precisionRank))
        }
    }
}

extension Histogram {
    /// Reads a message; what no histogram can hold counts as nothing.
    public init(_ message: WireHistogramCounts) {
        guard message.buckets.count == message.counts.count else {
            self.init()
            return
        }
        let buckets = zip(message.buckets, message.counts).map { (Int($0), Int(clamping: $1)) }
        self =
            Histogram(
                min: message.min, max: message.max, sum: message.sum,
                sumOfSquares: message.sumOfSquares,
                buckets: Dictionary(buckets) { first, _ in first }) ?? Histogram()
    }

    /// The message of a histogram.
    public var message: WireHistogramCounts {
        var message = WireHistogramCounts()
        guard count > 0 else { return message }
        message.min = min
        message.max = max
        message.sum = sum
        message.sumOfSquares = sumOfSquares
        message.buckets = buckets.keys.sorted().map { Int32($0) }
        message.counts = buckets.keys.sorted().map { UInt64(buckets[$0]!) }
        return message
    }
}

extension WireSlotSummary {
    /// Whether it is no longer than any of ours.
    var isWithinBounds: Bool {
        [lengths, distances, positiveDistances, negativeDistances, losses].allSatisfy {
            $0.buckets.count <= 2 * Histogram.bucketMax + 1 && $0.counts.count == $0.buckets.count
        }
    }
}

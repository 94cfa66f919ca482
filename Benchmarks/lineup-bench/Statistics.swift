import Basics

/// Numbers of one kind over rounds: their median and how far to trust it.
struct Series: Codable {
    /// One number a round, in order.
    let values: [Double]
    /// The middle one.
    let median: Double
    /// Lower end of the median's 95 % bootstrap interval.
    let low: Double
    /// Its upper end.
    let high: Double

    /// Resamples the rounds with replacement, always in the same way.
    init(_ values: [Double]) {
        precondition(!values.isEmpty, "a median of no rounds")
        self.values = values
        median = Self.median(values)
        let resamples = 10_000
        var random = CounterRandom(seed: 95, item: UInt64(values.count), purpose: .audit)
        let medians = (0..<resamples).map { _ in
            Self.median(values.map { _ in values[Int.random(in: values.indices, using: &random)] })
        }.sorted()
        low = medians[resamples * 25 / 1000]
        high = medians[resamples * 975 / 1000 - 1]
    }

    static func median(_ values: [Double]) -> Double {
        let sorted = values.sorted()
        let middle = sorted.count / 2
        return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    }
}

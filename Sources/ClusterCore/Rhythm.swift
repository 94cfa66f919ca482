/// How regularly a worker is heard: mean and mean deviation of the gaps between its messages, as TCP
/// judges round trips.
///
/// Jacobson and Karels, Congestion Avoidance and Control (1988), section 2. Whole nanoseconds, so that
/// a flight record replays to the same decisions.
struct Rhythm: Codable, Sendable, Equatable {
    private(set) var count = 0
    private(set) var mean = 0
    private(set) var deviation = 0
    private(set) var lastAt: Duration?

    /// Gaps before silence is judged by them.
    private static let countMin = 4
    /// A worker that was halted for long is not given as long again.
    private static let gapMax = 1_000_000_000

    init() {}

    /// A worker's record, read again.
    init(count: Int, mean: Int, deviation: Int, lastAt: Duration?) {
        self.count = count
        self.mean = mean
        self.deviation = deviation
        self.lastAt = lastAt
    }

    /// A message came; nil for one from which on another rhythm begins.
    mutating func heard(_ now: Duration?) {
        defer { lastAt = now }
        guard let now, let lastAt else { return }
        let (seconds, attoseconds) = (now - lastAt).components
        let gap =
            seconds > 0 ? Self.gapMax : max(0, Int(attoseconds / 1_000_000_000))
        if count == 0 {
            (mean, deviation) = (gap, gap / 2)
        } else {
            deviation += (abs(gap - mean) - deviation) / 4
            mean += (gap - mean) / 8
        }
        count = min(count + 1, Self.countMin)
    }

    /// How long nothing may be heard before something seems to be wrong.
    func limit(in bounds: ClosedRange<Duration>) -> Duration {
        guard count >= Self.countMin else { return bounds.upperBound }
        let limit = Duration.nanoseconds(2 * mean + 4 * deviation)
        return min(max(limit, bounds.lowerBound), bounds.upperBound)
    }
}

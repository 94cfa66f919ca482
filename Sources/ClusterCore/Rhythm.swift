/// How regularly a worker is heard: mean and mean deviation of the gaps between its messages, as TCP
/// judges round trips, and the longest of the last ones, since some come once a step.
///
/// Jacobson and Karels, Congestion Avoidance and Control (1988), section 2. Whole nanoseconds, so that
/// a flight record replays to the same decisions.
struct Rhythm: Codable, Sendable, Equatable {
    private(set) var count = 0
    private(set) var mean = 0
    private(set) var deviation = 0
    /// Falls by half in 89 gaps.
    private(set) var longest = 0
    private(set) var lastAt: Duration?

    /// Gaps before silence is judged by them: in its first steps a worker finds its memory.
    private static let countMin = 50
    /// A worker that was halted for long is not given as long again.
    private static let gapMax = 1_000_000_000

    init() {}

    /// A worker's record, read again.
    init(count: Int, mean: Int, deviation: Int, longest: Int, lastAt: Duration?) {
        self.count = count
        self.mean = mean
        self.deviation = deviation
        self.longest = longest
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
        longest = max(gap, longest - longest / 128)
        count = min(count + 1, Self.countMin)
    }

    /// How long nothing may be heard before something seems to be wrong.
    func limit(in bounds: ClosedRange<Duration>) -> Duration {
        guard count >= Self.countMin else { return bounds.upperBound }
        let limit = Duration.nanoseconds(max(2 * mean + 4 * deviation, longest + longest / 2))
        return min(max(limit, bounds.lowerBound), bounds.upperBound)
    }
}

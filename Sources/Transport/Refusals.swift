internal import Logging
internal import Synchronization

/// Counts what is refused, and says so at a limited rate: hostile peers must not fill a disk.
public final class Refusals: Sendable {
    private struct State {
        var counts: [String: Int] = [:]
        var total = 0
        var nextLineAt: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    private let logger: Logger
    /// At most one line in this time.
    public static let interval = Duration.seconds(10)

    /// - Parameter label: the logger's.
    public init(label: String) {
        logger = Logger(label: label)
    }

    /// How many messages and connections were refused.
    public var total: Int { state.withLock { $0.total } }

    /// Counts one, and says it unless something was said a short time ago.
    ///
    /// - Parameters:
    ///   - why: one of a few constants.
    ///   - detail: what people would ask next: whose, from where. A stranger may have written it:
    ///     what does not print is left out.
    public func note(_ why: String, _ detail: @autoclosure () -> String = "") {
        let line = state.withLock { state -> String? in
            state.total += 1
            state.counts[why, default: 0] += 1
            let now = ContinuousClock.now
            if let next = state.nextLineAt, now < next { return nil }
            let detail = String(
                detail().unicodeScalars.filter { (0x20..<0x7f).contains($0.value) }.prefix(300)
                    .map { Character($0) })
            return Self.line(&state, now) + (detail.isEmpty ? "" : "; the last: \(detail)")
        }
        if let line { logger.warning("\(line)") }
    }

    /// Says what was counted since the last line, once its time has come or where it is the last.
    public func report(isLast: Bool = false) {
        let line = state.withLock { state -> String? in
            let now = ContinuousClock.now
            guard let next = state.nextLineAt, !state.counts.isEmpty, isLast || now >= next
            else { return nil }
            return Self.line(&state, now)
        }
        if let line { logger.warning("\(line)") }
    }

    private static func line(_ state: inout State, _ now: ContinuousClock.Instant) -> String {
        defer {
            state.counts = [:]
            state.nextLineAt = now + interval
        }
        let counts = state.counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
            .map { $0.value == 1 ? $0.key : "\($0.key) (\($0.value) times)" }
        return "refused: " + counts.joined(separator: ", ")
    }
}

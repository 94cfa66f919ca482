import Foundation
import Synchronization

/// Shows on standard error how far a piece of work is, with its rate and the time left.
///
/// On a terminal one line is redrawn, at most ten times a second; elsewhere a plain line appears
/// every five seconds and at the end. Any thread may report.
///
/// ```swift
/// let meter = ProgressMeter("cropping", total: frames.count, unit: "frames")
/// for frame in frames { crop(frame); meter.advance() }
/// meter.finish()
/// ```
public final class ProgressMeter: Sendable {
    private struct State {
        var done = 0
        var skipped = 0
        var lastShown: ContinuousClock.Instant?
        var finished = false
    }

    private let label: String
    private let total: Int
    private let unit: String
    private let isTerminal: Bool
    private let isQuiet: Bool
    private let started = ContinuousClock.now
    private let state = Mutex(State())

    /// Starts the clock; nothing is shown before the first ``advance(by:skipped:)``.
    ///
    /// - Parameters:
    ///   - total: pieces of work in all.
    ///   - unit: what a piece is called, in the plural.
    ///   - isQuiet: shows nothing at all.
    public init(_ label: String, total: Int, unit: String, isQuiet: Bool = false) {
        self.label = label
        self.total = total
        self.unit = unit
        self.isQuiet = isQuiet
        isTerminal = isatty(2) == 1
    }

    /// Counts finished pieces.
    ///
    /// - Parameter skipped: how many of them were there already; the rate leaves them out.
    public func advance(by count: Int = 1, skipped: Int = 0) {
        let now = ContinuousClock.now
        let text: String? = state.withLock { state in
            state.done += count
            state.skipped += skipped
            let pause: Duration = isTerminal ? .milliseconds(100) : .seconds(5)
            guard now - (state.lastShown ?? started) >= pause else { return nil }
            state.lastShown = now
            return line(state, now)
        }
        if let text { show(text, isLast: false) }
    }

    /// Shows the final line once; further calls do nothing.
    public func finish() {
        let now = ContinuousClock.now
        let text: String? = state.withLock { state in
            guard !state.finished else { return nil }
            state.finished = true
            return line(state, now)
        }
        if let text { show(text, isLast: true) }
    }

    private func line(_ state: State, _ now: ContinuousClock.Instant) -> String {
        Self.line(
            label: label, done: state.done, skipped: state.skipped, total: total, unit: unit,
            seconds: (now - started) / .seconds(1), barWidth: isTerminal ? 24 : 0)
    }

    /// The text of one line; a pure function so that it can be tested.
    package static func line(
        label: String, done: Int, skipped: Int, total: Int, unit: String, seconds: Double,
        barWidth: Int
    ) -> String {
        let share = total > 0 ? min(Double(done) / Double(total), 1) : 1
        var parts = ["\(label) \(done)/\(total) \(unit)"]
        if barWidth > 0 {
            let filled = Int(share * Double(barWidth))
            let bar =
                String(repeating: "#", count: filled)
                + String(repeating: ".", count: barWidth - filled)
            parts = ["\(label) [\(bar)] \(done)/\(total) \(unit)"]
        }
        parts.append("\(Int(share * 100)) %")
        let rate = seconds > 0 ? Double(done - skipped) / seconds : 0
        if rate > 0 {
            parts.append("\(rate < 10 ? String(format: "%.1f", rate) : "\(Int(rate))")/s")
        }
        if done >= total {
            parts.append("took \(clock(seconds))")
        } else if rate > 0 {
            parts.append("\(clock(Double(total - done) / rate)) left")
        }
        if skipped > 0 { parts.append("\(skipped) were there") }
        return parts.joined(separator: "  ")
    }

    private static func clock(_ seconds: Double) -> String {
        let whole = Int(seconds.rounded(.up))
        return whole >= 3600
            ? String(format: "%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60)
            : String(format: "%d:%02d", whole / 60, whole % 60)
    }

    private func show(_ text: String, isLast: Bool) {
        guard !isQuiet else { return }
        let framed = isTerminal ? "\r\(text)\u{1B}[K\(isLast ? "\n" : "")" : "\(text)\n"
        FileHandle.standardError.write(Data(framed.utf8))
    }
}

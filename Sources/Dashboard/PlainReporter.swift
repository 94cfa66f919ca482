/// Turns a stream of views into plain lines, each said once.
public struct PlainReporter: Sendable {
    private var lastStep: Int?
    private var lastState = ""
    private var lastEvents: [String] = []
    private var lastWarnings: Set<String> = []
    private var saidScores: Set<String> = []

    /// Nothing has been said yet.
    public init() {}

    /// The lines that are new in this view: progress when it moved, scores, warnings, events.
    public mutating func lines(for view: ClusterView) -> [String] {
        var lines: [String] = []
        for event in newEvents(view.events) { lines.append("event: " + Self.clean(event)) }
        for warning in view.warnings where !lastWarnings.contains(warning) {
            lines.append("warning: " + Self.clean(warning))
        }
        lastWarnings = Set(view.warnings)
        for score in view.scores {
            let values = score.values.map { "\($0.metric) \(Spoken.fixed($0.value, 4))" }
            let line =
                "score: step \(score.step)  \(Self.clean(score.set))  "
                + values.joined(separator: "  ")
            if saidScores.insert(line).inserted { lines.append(line) }
        }
        if view.step != lastStep || view.state != lastState {
            lines.append(TerminalRenderer.plainLine(view))
        }
        lastStep = view.step
        lastState = view.state
        return lines
    }

    /// Views carry the last few events; those after the longest overlap with the last view are new.
    private mutating func newEvents(_ events: [String]) -> ArraySlice<String> {
        defer { lastEvents = events }
        var overlap = min(lastEvents.count, events.count)
        while overlap > 0, lastEvents.suffix(overlap) != events.prefix(overlap) { overlap -= 1 }
        return events.dropFirst(overlap)
    }

    private static func clean(_ text: String) -> String {
        StyledLine(text).rendered(columns: .max, colour: false)
    }
}

import Foundation

/// Turns a ``ClusterView`` into lines of text; draws nothing itself.
public enum TerminalRenderer {
    /// Most workers on the screen; what is beyond them is counted.
    public static let workersMax = 16
    /// Most checkpoints whose scores are on the screen.
    public static let scoredStepsMax = 6

    /// The screen for an interactive terminal.
    ///
    /// - Parameters:
    ///   - columns: width of the terminal; no line is longer.
    ///   - colour: whether to add escape sequences.
    /// - Returns: lines without newline, at most `rows` of them.
    public static func render(
        _ view: ClusterView, columns: Int, rows: Int = .max, colour: Bool
    ) -> [String] {
        var lines = head(view, columns: columns)
        lines += workers(view, columns: columns)
        lines += scores(view)
        for warning in view.warnings { lines.append(StyledLine("warning: " + warning, .warning)) }
        if !view.events.isEmpty {
            lines.append(StyledLine())
            for event in view.events.suffix(5) { lines.append(StyledLine(event, .faint)) }
        }
        return lines.prefix(max(1, rows)).map {
            $0.rendered(columns: max(1, columns), colour: colour)
        }
    }

    /// The same in one line for a pipe: no escape sequences, no cut.
    public static func plainLine(_ view: ClusterView) -> String {
        var parts = ["\(view.state): step \(view.step)/\(view.totalSteps)"]
        if let loss = view.loss { parts.append("loss \(Spoken.fixed(loss, 4))") }
        if let share = view.fractionPositive {
            parts.append("fraction_positive \(Spoken.fixed(share, 3))")
        }
        if let rate = view.learningRate { parts.append("learning_rate \(Spoken.short(rate))") }
        if let rate = view.samplesPerSecond { parts.append("\(Spoken.fixed(rate, 1)) samples/s") }
        if let left = view.secondsLeft, !view.isFinal {
            parts.append("\(Spoken.duration(left)) left")
        }
        let trainers = view.workers.filter { $0.role == "trainer" && $0.isConnected }
        let evaluators = view.workers.filter { $0.role == "evaluator" && $0.isConnected }
        parts.append("\(trainers.count) trainers, \(evaluators.count) evaluators")
        var line = StyledLine()
        line.add(parts.joined(separator: "  "))
        return line.rendered(columns: .max, colour: false)
    }

    private static func head(_ view: ClusterView, columns: Int) -> [StyledLine] {
        var title = StyledLine(view.run.isEmpty ? "run" : view.run, .strong)
        title.add("  " + view.state, view.state == "training" ? .good : .warning)
        var progress = "step \(view.step)/\(view.totalSteps)"
        let share =
            view.totalSteps > 0 ? min(1, Double(view.step) / Double(view.totalSteps)) : 0
        progress += "  \(Spoken.fixed(share * 100, 1)) %"
        if let left = view.secondsLeft, !view.isFinal {
            progress += "  \(Spoken.duration(left)) left"
        }
        if title.count + 2 + progress.count <= columns {
            title.pad(to: columns - progress.count)
        } else {
            title.add("  ")
        }
        title.add(progress, .strong)

        let width = max(1, min(columns, 200) - 2)
        let done = Int((Double(width) * share).rounded(.down))
        var bar = StyledLine("[")
        bar.add(String(repeating: "=", count: done), .good)
        bar.add(String(repeating: " ", count: width - done) + "]")

        var numbers = StyledLine()
        func add(_ name: String, _ value: String?) {
            guard let value else { return }
            if numbers.count > 0 { numbers.add("   ") }
            numbers.add(name + " ", .faint)
            numbers.add(value)
        }
        add("loss", view.loss.map { Spoken.fixed($0, 4) })
        add("fraction_positive", view.fractionPositive.map { Spoken.fixed($0, 3) })
        add("learning rate", view.learningRate.map(Spoken.short))
        add("samples/s", view.samplesPerSecond.map { Spoken.fixed($0, 1) })
        return [title, bar] + (numbers.count > 0 ? [numbers] : [])
    }

    private static func workers(_ view: ClusterView, columns: Int) -> [StyledLine] {
        guard !view.workers.isEmpty else { return [] }
        let shown = Array(view.workers.prefix(workersMax))
        var columnsOfTable: [(title: String, cell: (ClusterView.Worker) -> (String, Style))] = [
            ("worker", { ($0.name, .plain) }), ("role", { ($0.role, .plain) }),
        ]
        // Where machines and devices are all the same they are the first to go on a narrow screen.
        if columns >= 90 { columnsOfTable.append(("host", { ($0.host, .plain) })) }
        if columns >= 70 { columnsOfTable.append(("device", { ($0.device, .plain) })) }
        columnsOfTable += [
            ("phase", { ($0.isConnected ? $0.phase : "lost", $0.isConnected ? .plain : .bad) }),
            ("lag", { (String($0.lagSteps), $0.lagSteps > 1 ? .warning : .plain) }),
            ("slots", { ($0.role == "trainer" ? String($0.slots) : "", .plain) }),
            (
                "heard",
                { worker in
                    (
                        Spoken.duration(worker.silentSeconds) + " ago",
                        worker.silentSeconds > 5 ? .bad : .faint
                    )
                }
            ),
        ]
        var lines = [StyledLine(), StyledLine()]
        lines += shown.map { _ in StyledLine() }
        var start = 0
        for column in columnsOfTable {
            let cells = shown.map(column.cell)
            lines[1].pad(to: start)
            lines[1].add(column.title, .faint)
            for (row, cell) in cells.enumerated() {
                lines[row + 2].pad(to: start)
                lines[row + 2].add(cell.0, cell.1)
            }
            start += max(column.title.count, cells.map(\.0.count).max() ?? 0) + 2
        }
        if view.workers.count > shown.count {
            lines.append(StyledLine("and \(view.workers.count - shown.count) more", .faint))
        }
        return lines
    }

    private static func scores(_ view: ClusterView) -> [StyledLine] {
        guard !view.scores.isEmpty else { return [] }
        let sets = ClusterView.Score.ordered(Set(view.scores.map(\.set)))
        let steps = Set(view.scores.map(\.step)).sorted().suffix(scoredStepsMax)
        var title = StyledLine("scores", .faint)
        for (index, set) in sets.enumerated() {
            title.pad(to: 10 + index * 17)
            title.add(set, .faint)
        }
        title.add("   (\(ClusterView.Score.legend(of: sets)))", .faint)
        var lines = [StyledLine(), title]
        for step in steps {
            var line = StyledLine(String(step))
            for (index, set) in sets.enumerated() {
                line.pad(to: 10 + index * 17)
                let score = view.scores.last { $0.step == step && $0.set == set }
                line.add(score?.text ?? "-")
            }
            lines.append(line)
        }
        return lines
    }
}

import Basics
import Foundation

/// A ledger as text for a terminal of any width.
public enum LedgerReport {
    /// The sets in the order in which they are shown; others follow by name.
    private static let setOrder = ["train_eval", "val_eval", "easy_val_eval"]
    /// Sets of images, which are shown beside each other.
    private static let imageSets = ["train_images", "val_images"]
    private static let metricOrder = [
        "general_accuracy", "easy_accuracy", "mean_loss", "fraction_positive",
    ]

    /// The report: run, metrics of the sets over the checkpoints, workers, checkpoints, last events.
    ///
    /// - Parameters:
    ///   - width: columns of the terminal; at least 40 are used.
    ///   - lastStep: the last committed step, for its loss.
    public static func text(_ snapshot: LedgerSnapshot, width: Int, lastStep: StepRecord?) -> String
    {
        let width = max(40, width)
        var lines = runLines(snapshot, lastStep)
        lines += section("Evaluations", evaluations(snapshot, width: width))
        lines += section("Checkpoints", table(checkpoints(snapshot), width: width))
        lines += section("Workers", table(workers(snapshot), width: width))
        lines += section("Last events", events(snapshot, width: width))
        return lines.joined(separator: "\n") + "\n"
    }

    private static func section(_ title: String, _ lines: [String]) -> [String] {
        ["", title] + (lines.isEmpty ? ["  none"] : lines.map { "  " + $0 })
    }

    private static func runLines(_ snapshot: LedgerSnapshot, _ last: StepRecord?) -> [String] {
        let run = snapshot.run
        var lines = [
            "run \(run.run): \(run.state.rawValue), step \(run.lastStep), term \(run.term)",
            "history \(run.history.hex)",
        ]
        if let last {
            lines.append(
                "loss \(number(last.loss))  fraction_positive \(number(last.fractionPositive))  "
                    + "learning rate \(number(last.learningRate))")
        }
        return lines
    }

    private static func evaluations(_ snapshot: LedgerSnapshot, width: Int) -> [String] {
        var values: [String: [Int: [String: Double]]] = [:]
        for evaluation in snapshot.evaluations {
            values[evaluation.set, default: [:]][evaluation.step, default: [:]][
                evaluation.metric] = evaluation.value
        }
        let others = values.keys.filter { !(setOrder + imageSets).contains($0) }.sorted()
        var lines: [String] = []
        for set in setOrder + others {
            guard let steps = values[set] else { continue }
            let names = Set(steps.values.flatMap(\.keys))
            let shown = metricOrder.filter(names.contains)
            let columns = shown.isEmpty ? names.sorted() : shown
            var rows = [["step"] + columns]
            for step in steps.keys.sorted() {
                rows.append(
                    [String(step)] + columns.map { steps[step]?[$0].map(number) ?? "-" })
            }
            lines.append(set)
            lines += table(rows, width: width - 2).map { "  " + $0 }
        }
        return lines + images(values, width: width)
    }

    /// Loss and top-1 of images that are trained on beside those of images that are held out.
    private static func images(
        _ values: [String: [Int: [String: Double]]], width: Int
    ) -> [String] {
        let sets = imageSets.filter { values[$0] != nil }
        guard !sets.isEmpty else { return [] }
        let columns = ["mean_loss", "top1"].flatMap { metric in sets.map { ($0, metric) } }
        // `train mean_loss`, so that a narrow terminal shows all.
        var rows = [["step"] + columns.map { "\($0.0.dropLast("_images".count)) \($0.1)" }]
        for step in Set(sets.flatMap { values[$0]!.keys }).sorted() {
            rows.append(
                [String(step)] + columns.map { values[$0.0]?[step]?[$0.1].map(number) ?? "-" })
        }
        return [sets.joined(separator: " and ")] + table(rows, width: width - 2).map { "  " + $0 }
    }

    private static func checkpoints(_ snapshot: LedgerSnapshot) -> [[String]] {
        guard !snapshot.checkpoints.isEmpty else { return [] }
        return [["step", "weights", "state", "MB", "file"]]
            + snapshot.checkpoints.map {
                [
                    String($0.step), $0.digest.hex,
                    $0.state.rawValue + ($0.deleted.map { " \(clock($0))" } ?? ""),
                    fixed(Double($0.bytes) / 1e6, 1), $0.file,
                ]
            }
    }

    private static func workers(_ snapshot: LedgerSnapshot) -> [[String]] {
        guard !snapshot.workers.isEmpty else { return [] }
        return [["worker", "role", "device", "joined", "stay", "process", "host", "why it left"]]
            + snapshot.workers.map {
                [
                    $0.worker, $0.role, $0.device, clock($0.joined),
                    $0.left.map { [joined = $0.joined] in fixed($0 - joined, 0) + " s" } ?? "here",
                    String($0.process), $0.host, $0.why ?? "",
                ]
            }
    }

    private static func events(_ snapshot: LedgerSnapshot, width: Int) -> [String] {
        snapshot.events.suffix(10).flatMap { event in
            let mark = event.severity == .info ? "" : " \(event.severity.rawValue.uppercased())"
            let step = event.step.map { " step \($0)" } ?? ""
            return wrapped(
                "\(clock(event.time))\(mark)\(step) \(event.kind): \(event.text)",
                width: width - 2)
        }
    }

    /// Columns side by side; those that do not fit are left out from the right.
    static func table(_ rows: [[String]], width: Int) -> [String] {
        guard let columns = rows.first?.count else { return [] }
        let widths = (0..<columns).map { column in rows.map { $0[column].count }.max() ?? 0 }
        var shown = 0
        var used = 0
        while shown < columns, shown == 0 || used + 2 + widths[shown] <= width - 2 {
            used += widths[shown] + (shown == 0 ? 0 : 2)
            shown += 1
        }
        return rows.map { row in
            let cells = (0..<shown).map { column in
                let padding = String(
                    repeating: " ", count: widths[column] - row[column].count)
                let isNumber = rows.dropFirst().allSatisfy { Double($0[column]) != nil }
                return isNumber ? padding + row[column] : row[column] + padding
            }
            var line = cells.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            return line
        }
    }

    /// A text in lines of at most `width` columns, the later ones indented.
    static func wrapped(_ text: String, width: Int) -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, line.count + 1 + word.count > width {
                lines.append(line)
                line = "    "
            }
            line += (line.isEmpty || line.last == " " ? "" : " ") + word
        }
        return lines + [line]
    }

    private static func clock(_ seconds: Double) -> String {
        guard seconds.isFinite else { return "?" }
        return Date(timeIntervalSince1970: seconds).ISO8601Format()
    }

    private static func number(_ value: Double) -> String {
        guard value.isFinite else { return value.isNaN ? "NaN" : "\(value)" }
        return value != 0 && abs(value) < 0.001 ? String(format: "%.3g", value) : fixed(value, 4)
    }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        String(format: "%.\(digits)f", value)
    }
}

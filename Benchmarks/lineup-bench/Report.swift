import Foundation

/// One side of a comparison.
struct Side: Codable {
    let name: String
    let series: Series
}

/// How two sides compare, round by round.
struct Ratio: Codable {
    /// Such as "cluster / bare loop".
    let of: String
    let series: Series
    /// What the project wants of it, in words; nil where nothing is wanted.
    let wanted: String?
    /// Whether it is so; nil where nothing is wanted.
    let isMet: Bool?
}

/// One measured comparison.
struct Measurement: Codable {
    let name: String
    /// What was measured and how, in one line.
    let what: String
    let unit: String
    let sides: [Side]
    let ratios: [Ratio]
    /// What a reader has to know besides.
    let notes: [String]
    let seconds: Double
}

/// Everything that one call measured, and where.
struct Report: Codable {
    var format = 1
    let machine: Machine
    var measurements: [Measurement] = []
    var skipped: [String] = []

    func write(to path: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(fileURLWithPath: path), options: .atomic)
    }
}

extension Measurement {
    /// The lines that a person reads.
    var text: String {
        var lines = ["", "\(name): \(what)"]
        let rounds = sides.first?.series.values.count ?? 0
        lines.append("  median of \(rounds) rounds [95 % interval of the median], \(unit)")
        for side in sides { lines.append("  " + Self.row(side.name, side.series)) }
        for ratio in ratios {
            var row = Self.row(ratio.of, ratio.series)
            if let wanted = ratio.wanted, let isMet = ratio.isMet {
                row += "   wanted: \(wanted): " + (isMet ? "yes" : "NO")
            }
            lines.append("  " + row)
        }
        lines += notes.map { "  \($0)" }
        return lines.joined(separator: "\n")
    }

    private static func row(_ name: String, _ series: Series) -> String {
        let padded = name.padding(toLength: max(34, name.count), withPad: " ", startingAt: 0)
        return padded + " " + number(series.median)
            + "  [\(number(series.low)), \(number(series.high))]"
    }

    private static func number(_ value: Double) -> String {
        let digits = abs(value) >= 100 ? 1 : abs(value) >= 10 ? 2 : abs(value) >= 0.1 ? 4 : 6
        return String(format: "%9.\(digits)f", value)
    }
}

/// Says one line on standard error.
func say(_ line: String) {
    FileHandle.standardError.write(Data("bench: \(line)\n".utf8))
}

/// Puts results on standard output, where a pipe sees them at once.
func tell(_ text: String) {
    FileHandle.standardOutput.write(Data((text + "\n").utf8))
}

/// Why a benchmark could not go on.
struct BenchFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// How progress can be shown where it goes to.
public enum TerminalMode: Sendable, Equatable {
    /// A screen that is drawn over.
    case interactive(columns: Int, rows: Int, colour: Bool)
    /// Plain lines, one after another.
    case plain

    /// Decides from what is known about standard error.
    ///
    /// - Parameters:
    ///   - isTerminal: whether it is one.
    ///   - size: columns and rows, nil when the terminal does not say.
    ///   - environment: of it `TERM`, `NO_COLOR` (no-color.org: any value but the empty one), `COLUMNS`
    ///     and `LINES` count.
    public static func detect(
        isTerminal: Bool, size: (columns: Int, rows: Int)?, environment: [String: String]
    ) -> TerminalMode {
        let term = environment["TERM"] ?? ""
        guard isTerminal, !term.isEmpty, term != "dumb" else { return .plain }
        let columns = [size?.columns, environment["COLUMNS"].flatMap { Int($0) }]
            .compactMap { $0 }.first { $0 > 0 }
        let rows = [size?.rows, environment["LINES"].flatMap { Int($0) }]
            .compactMap { $0 }.first { $0 > 0 }
        return .interactive(
            columns: columns ?? 80, rows: rows ?? 24,
            colour: (environment["NO_COLOR"] ?? "").isEmpty)
    }
}

/// Draws one screen over the last, without flicker and without touching what stood above.
///
/// Each frame moves the cursor to the last frame's first line, rewrites every line up to its end and
/// clears what is left below; the last frame stays on the terminal when the program ends.
public struct TerminalScreen: Sendable {
    private var drawnLines = 0

    /// A screen on which nothing is drawn yet.
    public init() {}

    /// The bytes that replace the last frame by these lines.
    ///
    /// - Parameter rows: height of the terminal; more lines would scroll, and could not be replaced.
    public mutating func frame(_ lines: [String], rows: Int) -> String {
        let shown = lines.prefix(max(1, rows - 1))
        var text = drawnLines > 0 ? "\u{1B}[\(drawnLines)F" : ""
        for line in shown { text += line + "\u{1B}[K\n" }
        text += "\u{1B}[J"
        drawnLines = shown.count
        return text
    }
}

/// Emphasis of a piece of text on a terminal.
enum Style: Sendable {
    case plain, strong, faint, good, warning, bad

    /// The digits of its escape sequence (ECMA-48, Select Graphic Rendition).
    var code: String {
        switch self {
        case .plain: "0"
        case .strong: "1"
        case .faint: "2"
        case .good: "32"
        case .warning: "33"
        case .bad: "31"
        }
    }
}

/// A line of styled pieces, cut to a width before any escape sequence is added.
struct StyledLine {
    private var pieces: [(text: String, style: Style)] = []

    init(_ text: String = "", _ style: Style = .plain) { add(text, style) }

    /// Characters on the screen.
    var count: Int { pieces.reduce(0) { $0 + $1.text.count } }

    /// Appends a piece; what a terminal would act on is replaced, since names come from the network.
    mutating func add(_ text: String, _ style: Style = .plain) {
        guard !text.isEmpty else { return }
        let shown = String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .surrogate, .lineSeparator, .paragraphSeparator: "?"
                    default: scalar
                    }
                }))
        pieces.append((shown, style))
    }

    /// Appends spaces up to a column.
    mutating func pad(to column: Int) {
        if count < column { add(String(repeating: " ", count: column - count)) }
    }

    /// The text in at most `columns` characters; `~` marks a cut.
    func rendered(columns: Int, colour: Bool) -> String {
        let isCut = count > columns
        var left = isCut ? columns - 1 : columns
        var line = ""
        for (text, style) in pieces where left > 0 {
            let shown = text.prefix(left)
            left -= shown.count
            if colour, style != .plain {
                line += "\u{1B}[\(style.code)m\(shown)\u{1B}[0m"
            } else {
                line += shown
            }
        }
        return isCut && columns > 0 ? line + "~" : line
    }
}

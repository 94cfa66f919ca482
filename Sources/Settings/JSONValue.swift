/// A JSON value that keeps integers, numbers and booleans apart.
public indirect enum JSONValue: Sendable, Equatable {
    /// The literal `null`.
    case null
    /// `true` or `false`.
    case bool(Bool)
    /// A number written without fraction or exponent that fits 64 bits.
    case integer(Int)
    /// Any other number.
    case number(Double)
    /// A string.
    case string(String)
    /// Values in order.
    case array([JSONValue])
    /// Named values; their order carries no meaning.
    case object([String: JSONValue])

    /// The one text of this value: keys sorted by their UTF-8 bytes, no space, shortest numbers.
    public var canonicalText: String {
        var text = ""
        write(to: &text, indent: nil, depth: 0)
        return text
    }

    /// The same with line breaks and two spaces a level, for people.
    public var prettyText: String {
        var text = ""
        write(to: &text, indent: 2, depth: 0)
        return text + "\n"
    }

    private func write(to text: inout String, indent: Int?, depth: Int) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += String(value)
        case .number(let value): text += value.description
        case .string(let value): Self.writeQuoted(value, to: &text)
        case .array(let values):
            text += "["
            for (index, value) in values.enumerated() {
                if index > 0 { text += indent == nil ? "," : ", " }
                value.write(to: &text, indent: indent, depth: depth + 1)
            }
            text += "]"
        case .object(let members):
            text += "{"
            let keys = members.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
            for (index, key) in keys.enumerated() {
                if index > 0 { text += "," }
                Self.breakLine(in: &text, indent: indent, depth: depth + 1)
                Self.writeQuoted(key, to: &text)
                text += indent == nil ? ":" : ": "
                members[key]?.write(to: &text, indent: indent, depth: depth + 1)
            }
            if !keys.isEmpty { Self.breakLine(in: &text, indent: indent, depth: depth) }
            text += "}"
        }
    }

    private static func breakLine(in text: inout String, indent: Int?, depth: Int) {
        guard let indent else { return }
        text += "\n" + String(repeating: " ", count: indent * depth)
    }

    private static func writeQuoted(_ value: String, to text: inout String) {
        text += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            case let control where control.value < 0x20:
                let digits = String(control.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        text += "\""
    }
}

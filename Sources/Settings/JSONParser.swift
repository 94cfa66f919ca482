/// Reads one JSON document (RFC 8259) and remembers on which line each key stands.
///
/// Stricter than most: a key that appears twice in one object is an error, since one of the two
/// values would be lost in silence. Nesting is limited, so that no input can exhaust the stack.
struct JSONParser {
    private static let depthMax = 64

    private let bytes: [UInt8]
    private let name: String
    private var at = 0
    private var line = 1
    /// Line of each key, by its dotted path.
    private(set) var lines: [String: Int] = [:]

    /// - Parameter name: what messages call the text, such as `params.json`.
    init(_ bytes: some Sequence<UInt8>, name: String) {
        self.bytes = Array(bytes)
        self.name = name
    }

    /// The document's value.
    mutating func parse() throws(SettingsError) -> JSONValue {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { at = 3 }
        let value = try parseValue(path: "", depth: 0)
        skipSpace()
        guard at == bytes.count else { throw failure("expected the end of the text") }
        return value
    }

    private mutating func parseValue(path: String, depth: Int) throws(SettingsError) -> JSONValue {
        guard depth < Self.depthMax else { throw failure("nested deeper than \(Self.depthMax)") }
        skipSpace()
        guard at < bytes.count else { throw failure("expected a value") }
        switch bytes[at] {
        case UInt8(ascii: "{"): return try parseObject(path: path, depth: depth)
        case UInt8(ascii: "["): return try parseArray(path: path, depth: depth)
        case UInt8(ascii: "\""): return .string(try parseString())
        case UInt8(ascii: "t"): return try parseWord("true", .bool(true))
        case UInt8(ascii: "f"): return try parseWord("false", .bool(false))
        case UInt8(ascii: "n"): return try parseWord("null", .null)
        default: return try parseNumber()
        }
    }

    private mutating func parseObject(
        path: String, depth: Int
    ) throws(SettingsError) -> JSONValue {
        at += 1
        var members: [String: JSONValue] = [:]
        skipSpace()
        if take("}") { return .object(members) }
        while true {
            skipSpace()
            guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else {
                throw failure("expected a key in double quotes")
            }
            let keyLine = line
            let key = try parseString()
            let keyPath = path.isEmpty ? key : path + "." + key
            guard members[key] == nil else { throw failure("the key '\(keyPath)' appears twice") }
            lines[keyPath] = keyLine
            skipSpace()
            guard take(":") else { throw failure("expected ':' after the key '\(keyPath)'") }
            members[key] = try parseValue(path: keyPath, depth: depth + 1)
            skipSpace()
            if take(",") { continue }
            if take("}") { return .object(members) }
            throw failure("expected ',' or '}' after the value of '\(keyPath)'")
        }
    }

    private mutating func parseArray(
        path: String, depth: Int
    ) throws(SettingsError) -> JSONValue {
        at += 1
        var values: [JSONValue] = []
        skipSpace()
        if take("]") { return .array(values) }
        while true {
            values.append(try parseValue(path: path, depth: depth + 1))
            skipSpace()
            if take(",") { continue }
            if take("]") { return .array(values) }
            throw failure("expected ',' or ']' in a list")
        }
    }

    private mutating func parseString() throws(SettingsError) -> String {
        at += 1
        var text: [UInt8] = []
        while at < bytes.count {
            let byte = bytes[at]
            at += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let value = String(validating: text, as: UTF8.self) else {
                    throw failure("a string is not valid UTF-8")
                }
                return value
            case UInt8(ascii: "\\"): text.append(contentsOf: try parseEscape().utf8)
            case 0..<0x20: throw failure("a string is not closed on its line")
            default: text.append(byte)
            }
        }
        throw failure("a string is not closed")
    }

    private mutating func parseEscape() throws(SettingsError) -> String {
        guard at < bytes.count else { throw failure("a string is not closed") }
        let byte = bytes[at]
        at += 1
        switch byte {
        case UInt8(ascii: "\""): return "\""
        case UInt8(ascii: "\\"): return "\\"
        case UInt8(ascii: "/"): return "/"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"):
            var units = [try parseHexUnit()]
            if UTF16.isLeadSurrogate(units[0]), at + 1 < bytes.count,
                bytes[at] == UInt8(ascii: "\\"), bytes[at + 1] == UInt8(ascii: "u")
            {
                at += 2
                units.append(try parseHexUnit())
            }
            guard let value = String(validating: units, as: UTF16.self) else {
                throw failure("a \\u escape is half of a surrogate pair")
            }
            return value
        default: throw failure("unknown escape in a string")
        }
    }

    private mutating func parseHexUnit() throws(SettingsError) -> UInt16 {
        guard at + 4 <= bytes.count,
            let text = String(validating: bytes[at..<at + 4], as: UTF8.self),
            text.allSatisfy(\.isHexDigit), let value = UInt16(text, radix: 16)
        else { throw failure("\\u needs four hexadecimal digits") }
        at += 4
        return value
    }

    private mutating func parseWord(
        _ word: String, _ value: JSONValue
    ) throws(SettingsError) -> JSONValue {
        guard bytes[at...].starts(with: word.utf8) else { throw failure("expected a value") }
        at += word.utf8.count
        return value
    }

    private mutating func parseNumber() throws(SettingsError) -> JSONValue {
        let start = at
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        let others: [UInt8] = Array("+-.eE".utf8)
        while at < bytes.count, digits.contains(bytes[at]) || others.contains(bytes[at]) { at += 1 }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        guard let value = Self.number(text) else {
            throw failure(text.isEmpty ? "expected a value" : "'\(text)' is not a number")
        }
        return value
    }

    /// A number in JSON's own grammar, else nil: no leading zeros or plus, no bare point.
    static func number(_ text: String) -> JSONValue? {
        let body = text.hasPrefix("-") ? text.dropFirst() : text[...]
        let whole = body.prefix { $0.isASCII && $0.isNumber }
        guard !whole.isEmpty, whole == "0" || whole.first != "0" else { return nil }
        let rest = body.dropFirst(whole.count)
        if rest.isEmpty, let value = Int(text) { return .integer(value) }
        if rest.first == "." {
            guard let next = rest.dropFirst().first, next.isASCII, next.isNumber else { return nil }
        }
        guard rest.last.map({ $0.isASCII && $0.isNumber }) ?? true,
            let value = Double(text), value.isFinite
        else { return nil }
        return .number(value)
    }

    private mutating func skipSpace() {
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "\n"):
                line += 1
                at += 1
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): at += 1
            default: return
            }
        }
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    private func failure(_ what: String) -> SettingsError {
        SettingsError(.malformed, "\(name) line \(line) is not valid JSON: \(what)")
    }
}

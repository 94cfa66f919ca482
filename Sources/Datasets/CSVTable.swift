import Images

/// A comma-separated file with a header, read strictly.
///
/// Fields may be quoted; a quote inside is doubled; a line break inside a field is refused, so that
/// a row is always a line and an error can name it.
struct CSVTable {
    let name: String
    let columns: [String]
    private let bytes: [UInt8]
    private let bodyStart: Int

    /// Reads the header.
    init(bytes: [UInt8], name: String) throws(DatasetError) {
        self.bytes = bytes
        self.name = name
        guard !bytes.isEmpty else {
            throw DatasetError(.malformed, "\(name) is empty; expected a header line")
        }
        var header = Row(bytes: bytes)
        bodyStart = try Self.readLine(bytes, from: 0, line: 1, name: name, into: &header.fields)
        columns = header.fields.indices.map { header[$0] }
        var seen: Set<String> = []
        for column in columns where !seen.insert(column).inserted {
            throw DatasetError(.malformed, "\(name):1: column '\(column)' is there twice")
        }
    }

    /// Checks the header against the columns that are known.
    ///
    /// - Returns: for each of `known` its place, or nil where it is absent.
    func places(known: [String], required: Set<String>) throws(DatasetError) -> [Int?] {
        for column in columns where !known.contains(column) {
            throw DatasetError(
                .malformed,
                "\(name):1: unknown column '\(column)'; known are \(known.joined(separator: ", "))")
        }
        for column in known where required.contains(column) && !columns.contains(column) {
            throw DatasetError(
                .malformed,
                "\(name):1: column '\(column)' is missing; the header is "
                    + "'\(columns.joined(separator: ","))'")
        }
        return known.map { columns.firstIndex(of: $0) }
    }

    /// One row; its fields are read from the file's bytes when they are asked for.
    struct Row {
        /// Line in the file, from 1.
        fileprivate(set) var line = 1
        fileprivate var fields: [Field] = []
        fileprivate let bytes: [UInt8]

        /// A field's text.
        subscript(place: Int) -> String {
            let field = fields[place]
            guard field.hasQuotes else {
                return String(decoding: bytes[field.start..<field.end], as: UTF8.self)
            }
            // Each doubled quote stands for one.
            var value: [UInt8] = []
            var at = field.start
            while at < field.end {
                value.append(bytes[at])
                at += bytes[at] == CSVTable.quote ? 2 : 1
            }
            return String(decoding: value, as: UTF8.self)
        }

        /// Whether a field is empty.
        func isEmpty(_ place: Int) -> Bool { fields[place].start == fields[place].end }

        /// A field as a whole number; nil when it is none.
        func integer(_ place: Int) -> Int? {
            let field = fields[place]
            var at = field.start
            let isNegative = at < field.end && bytes[at] == UInt8(ascii: "-")
            if isNegative { at += 1 }
            guard at < field.end, field.end - at <= 18 else { return nil }
            var value = 0
            while at < field.end {
                let digit = Int(bytes[at]) - 48
                guard (0...9).contains(digit) else { return nil }
                value = value * 10 + digit
                at += 1
            }
            return isNegative ? -value : value
        }
    }

    fileprivate struct Field {
        var start: Int
        var end: Int
        var hasQuotes: Bool
    }

    /// Calls `body` with each row.
    func forEachRow(_ body: (Row) throws(DatasetError) -> Void) throws(DatasetError) {
        var place = bodyStart
        var row = Row(bytes: bytes)
        row.fields.reserveCapacity(columns.count)
        while place < bytes.count {
            row.line += 1
            place = try Self.readLine(
                bytes, from: place, line: row.line, name: name, into: &row.fields)
            guard row.fields.count == columns.count else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(row.line): \(row.fields.count) fields; expected "
                        + "\(columns.count) as in the header")
            }
            try body(row)
        }
    }

    /// One field as it is written: quoted where it has to be.
    static func field(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == comma || $0 == quote }) else { return text }
        var result = "\""
        for character in text {
            if character == "\"" { result.append("\"") }
            result.append(character)
        }
        return result + "\""
    }

    private static let comma = UInt8(ascii: ",")
    fileprivate static let quote = UInt8(ascii: "\"")
    private static let newline = UInt8(ascii: "\n")
    private static let carriageReturn = UInt8(ascii: "\r")

    /// Splits one line and returns where the next begins.
    private static func readLine(
        _ bytes: [UInt8], from start: Int, line: Int, name: String,
        into fields: inout [Field]
    ) throws(DatasetError) -> Int {
        fields.removeAll(keepingCapacity: true)
        var end = start
        while end < bytes.count, bytes[end] != newline { end += 1 }
        guard end < bytes.count else {
            throw DatasetError(
                .malformed,
                "\(name):\(line): the last line has no end; the file was cut off or not written "
                    + "to its end")
        }
        let next = end + 1
        if end > start, bytes[end - 1] == carriageReturn { end -= 1 }
        var place = start
        while true {
            if place < end, bytes[place] == quote {
                place += 1
                let first = place
                var hasQuotes = false
                while true {
                    guard place < end else {
                        throw DatasetError(
                            .malformed, "\(name):\(line): a quoted field has no closing quote")
                    }
                    if bytes[place] == quote {
                        guard place + 1 < end, bytes[place + 1] == quote else { break }
                        hasQuotes = true
                        place += 1
                    }
                    place += 1
                }
                fields.append(Field(start: first, end: place, hasQuotes: hasQuotes))
                place += 1
                guard place == end || bytes[place] == comma else {
                    throw DatasetError(
                        .malformed, "\(name):\(line): text follows a closing quote; expected ','")
                }
            } else {
                let first = place
                while place < end, bytes[place] != comma { place += 1 }
                fields.append(Field(start: first, end: place, hasQuotes: false))
            }
            guard place < end else { return next }
            place += 1
        }
    }
}

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
        var fields: [String] = []
        bodyStart = try Self.readLine(bytes, from: 0, line: 1, name: name, into: &fields)
        columns = fields
        var seen: Set<String> = []
        for column in fields where !seen.insert(column).inserted {
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

    /// Calls `body` with each row's fields and line number.
    func forEachRow(
        _ body: (_ fields: [String], _ line: Int) throws(DatasetError) -> Void
    ) throws(DatasetError) {
        var place = bodyStart
        var line = 1
        var fields: [String] = []
        fields.reserveCapacity(columns.count)
        while place < bytes.count {
            line += 1
            place = try Self.readLine(bytes, from: place, line: line, name: name, into: &fields)
            guard fields.count == columns.count else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(line): \(fields.count) fields; expected \(columns.count) "
                        + "as in the header")
            }
            try body(fields, line)
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
    private static let quote = UInt8(ascii: "\"")
    private static let newline = UInt8(ascii: "\n")
    private static let carriageReturn = UInt8(ascii: "\r")

    /// Splits one line and returns where the next begins.
    private static func readLine(
        _ bytes: [UInt8], from start: Int, line: Int, name: String, into fields: inout [String]
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
                var value: [UInt8] = []
                place += 1
                while true {
                    guard place < end else {
                        throw DatasetError(
                            .malformed, "\(name):\(line): a quoted field has no closing quote")
                    }
                    if bytes[place] == quote {
                        guard place + 1 < end, bytes[place + 1] == quote else { break }
                        place += 1
                    }
                    value.append(bytes[place])
                    place += 1
                }
                place += 1
                guard place == end || bytes[place] == comma else {
                    throw DatasetError(
                        .malformed, "\(name):\(line): text follows a closing quote; expected ','")
                }
                fields.append(String(decoding: value, as: UTF8.self))
            } else {
                let first = place
                while place < end, bytes[place] != comma { place += 1 }
                fields.append(String(decoding: bytes[first..<place], as: UTF8.self))
            }
            guard place < end else { return next }
            place += 1
        }
    }
}

/// The little JSON that a safetensors header may hold, with order and duplicates kept.
///
/// Foundation's decoders lose the order of keys and accept a key twice, which a header must not.
enum HeaderJSON {
    case text(String)
    case integer(Int)
    case list([HeaderJSON])
    case pairs([(key: String, value: HeaderJSON)])

    /// Parses a whole buffer; trailing spaces are allowed, anything else after the value is not.
    static func parse(_ bytes: UnsafeRawBufferPointer) throws(Failure) -> HeaderJSON {
        var parser = Parser(bytes: bytes)
        let value = try parser.value(depth: 0)
        parser.skipSpace()
        guard parser.at == bytes.count else { throw parser.failure("the end") }
        return value
    }

    /// Where and why parsing ended.
    struct Failure: Error {
        let offset: Int
        let expected: String
    }

    private struct Parser {
        static let depthMax = 4
        let bytes: UnsafeRawBufferPointer
        var at = 0

        init(bytes: UnsafeRawBufferPointer) {
            self.bytes = bytes
        }

        func failure(_ expected: String) -> Failure { Failure(offset: at, expected: expected) }

        mutating func skipSpace() {
            while at < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[at]) { at += 1 }
        }

        mutating func take(_ character: Unicode.Scalar) -> Bool {
            skipSpace()
            guard at < bytes.count, bytes[at] == UInt8(character.value) else { return false }
            at += 1
            return true
        }

        mutating func value(depth: Int) throws(Failure) -> HeaderJSON {
            guard depth < Self.depthMax else { throw failure("no deeper nesting") }
            skipSpace()
            guard at < bytes.count else { throw failure("a value") }
            switch bytes[at] {
            case UInt8(ascii: "\""): return .text(try text())
            case UInt8(ascii: "{"): return .pairs(try pairs(depth: depth))
            case UInt8(ascii: "["): return .list(try list(depth: depth))
            case UInt8(ascii: "0")...UInt8(ascii: "9"): return .integer(try integer())
            default: throw failure("a text, a whole number, a list or an object")
            }
        }

        mutating func pairs(depth: Int) throws(Failure) -> [(key: String, value: HeaderJSON)] {
            at += 1
            var found: [(key: String, value: HeaderJSON)] = []
            if take("}") { return found }
            repeat {
                skipSpace()
                guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else {
                    throw failure("a key in quotes")
                }
                let key = try text()
                guard take(":") else { throw failure("':'") }
                found.append((key, try value(depth: depth + 1)))
            } while take(",")
            guard take("}") else { throw failure("',' or '}'") }
            return found
        }

        mutating func list(depth: Int) throws(Failure) -> [HeaderJSON] {
            at += 1
            var found: [HeaderJSON] = []
            if take("]") { return found }
            repeat { found.append(try value(depth: depth + 1)) } while take(",")
            guard take("]") else { throw failure("',' or ']'") }
            return found
        }

        mutating func integer() throws(Failure) -> Int {
            var value = 0
            while at < bytes.count, let digit = Int(exactly: bytes[at]), (48...57).contains(digit) {
                let (times, first) = value.multipliedReportingOverflow(by: 10)
                let (sum, second) = times.addingReportingOverflow(digit - 48)
                guard !first, !second else { throw failure("a number below 2^63") }
                value = sum
                at += 1
            }
            if at < bytes.count, [0x2E, 0x65, 0x45].contains(bytes[at]) {  // . e E
                throw failure("a whole number")
            }
            return value
        }

        mutating func text() throws(Failure) -> String {
            at += 1
            var collected: [UInt8] = []
            while at < bytes.count {
                let byte = bytes[at]
                at += 1
                switch byte {
                case UInt8(ascii: "\""):
                    guard let text = String(validating: collected, as: UTF8.self) else {
                        throw failure("valid UTF-8")
                    }
                    return text
                case UInt8(ascii: "\\"):
                    collected.append(contentsOf: try escaped())
                case 0..<0x20:
                    throw failure("no control character in a text")
                default:
                    collected.append(byte)
                }
            }
            throw failure("the closing quote of a text")
        }

        mutating func escaped() throws(Failure) -> [UInt8] {
            guard at < bytes.count else { throw failure("an escaped character") }
            let byte = bytes[at]
            at += 1
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
            case UInt8(ascii: "b"): return [0x08]
            case UInt8(ascii: "f"): return [0x0C]
            case UInt8(ascii: "n"): return [0x0A]
            case UInt8(ascii: "r"): return [0x0D]
            case UInt8(ascii: "t"): return [0x09]
            case UInt8(ascii: "u"):
                var units = [try unit()]
                if UTF16.isLeadSurrogate(units[0]), at + 1 < bytes.count,
                    bytes[at] == UInt8(ascii: "\\"), bytes[at + 1] == UInt8(ascii: "u")
                {
                    at += 2
                    units.append(try unit())
                }
                guard let text = String(validating: units, as: UTF16.self) else {
                    throw failure("a valid \\u escape")
                }
                return Array(text.utf8)
            default: throw failure("a known escape")
            }
        }

        mutating func unit() throws(Failure) -> UInt16 {
            guard at + 4 <= bytes.count,
                let digits = String(validating: bytes[at..<at + 4], as: UTF8.self),
                digits.allSatisfy(\.isHexDigit), let value = UInt16(digits, radix: 16)
            else { throw failure("four hexadecimal digits") }
            at += 4
            return value
        }
    }

    /// A text with quotes and escapes.
    static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\r": result += "\\r"
            case "\t": result += "\\t"
            case "\u{0}"..<"\u{20}":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

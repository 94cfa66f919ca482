/// Changes valid bytes a little, by what they are: plain bytes, text, or protobuf.
struct Mutator {
    /// What the bytes are.
    enum Form {
        case bytes
        case text
        case protobuf
    }

    /// Longest result.
    static let bytesMax = 1 << 20

    private static let words = [
        "-9223372036854775808", "9223372036854775807", "9223372036854775808", "-1", "0", "1e309",
        "NaN", "null", "4294967296", "0.1e-400", "\u{0}", "\u{FEFF}", "\"", "[", "{", "]]>", "<!",
        "&#x110000;", "&lt", "\\ud800", ",", "\n", "\r\n", "../", "/", "'", "é",
    ]

    /// Applies one to four changes; `others` are valid bytes of the same kind, to splice with.
    static func mutate(
        _ bytes: [UInt8], _ form: Form, others: [[UInt8]], using random: inout FuzzRandom
    ) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<(1 + random.below(4)) {
            switch form {
            case .protobuf where random.chance(700): bytes = changedField(bytes, 0, &random)
            case .text where random.chance(600): changeWord(&bytes, &random)
            default: changeBytes(&bytes, others, &random)
            }
        }
        return bytes.count > bytesMax ? Array(bytes.prefix(bytesMax)) : bytes
    }

    private static func range(_ count: Int, _ random: inout FuzzRandom) -> Range<Int> {
        let low = random.below(count + 1)
        return low..<min(count, low + random.below(random.chance(100) ? count + 1 : 17))
    }

    private static func changeBytes(
        _ bytes: inout [UInt8], _ others: [[UInt8]], _ random: inout FuzzRandom
    ) {
        guard !bytes.isEmpty else {
            bytes = [UInt8(truncatingIfNeeded: random.next())]
            return
        }
        let place = random.below(bytes.count)
        switch random.below(8) {
        case 0: bytes[place] ^= 1 << UInt8(random.below(8))
        case 1: bytes[place] = random.pick([0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x0A])
        case 2: bytes.removeSubrange(range(bytes.count, &random))
        case 3:
            let piece = bytes[range(bytes.count, &random)]
            bytes.insert(contentsOf: piece, at: place)
        case 4:
            let noise = (0..<(1 + random.below(16))).map { _ in
                UInt8(truncatingIfNeeded: random.next())
            }
            bytes.insert(contentsOf: noise, at: place)
        case 5: bytes.removeLast(bytes.count - place)
        case 6:
            withUnsafeBytes(of: random.number().littleEndian) { number in
                for (offset, byte) in number.enumerated() where place + offset < bytes.count {
                    bytes[place + offset] = byte
                }
            }
        default:
            guard !others.isEmpty else { return }
            let other = random.pick(others)
            bytes.removeSubrange(place...)
            bytes += other.suffix(random.below(other.count + 1))
        }
    }

    /// Replaces a run of digits, or puts a word somewhere, or repeats an opening many times.
    private static func changeWord(_ bytes: inout [UInt8], _ random: inout FuzzRandom) {
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        if random.chance(600),
            let first = bytes.indices.filter({ digits.contains(bytes[$0]) })
                .randomElement(using: &random)
        {
            var end = first
            while end < bytes.count, digits.contains(bytes[end]) { end += 1 }
            bytes.replaceSubrange(first..<end, with: Array(random.pick(words).utf8))
        } else if random.chance(50) {
            let opening = Array(random.pick(["[", "{\"a\":", "<a>", "\"", "(", "<![CDATA["]).utf8)
            let place = random.below(bytes.count + 1)
            let many = 1 << random.below(14)
            bytes.insert(
                contentsOf: (0..<many).flatMap { _ in opening }, at: place)
        } else {
            bytes.insert(
                contentsOf: Array(random.pick(words).utf8), at: random.below(bytes.count + 1))
        }
    }

    // MARK: Protobuf

    private struct Field {
        var key: UInt64
        var value: [UInt8]
    }

    /// Changes one field, also of a message within the message.
    private static func changedField(
        _ bytes: [UInt8], _ depth: Int, _ random: inout FuzzRandom
    ) -> [UInt8] {
        guard var fields = fields(of: bytes), !fields.isEmpty else { return bytes }
        let place = random.below(fields.count)
        let wire = fields[place].key & 7
        switch random.below(10) {
        case 0: fields.remove(at: place)
        case 1: fields.insert(fields[place], at: random.below(fields.count + 1))
        case 2: fields[place].key = UInt64(1 + random.below(52)) << 3 | wire
        default:
            switch wire {
            case 0: fields[place].value = varint(random.number())
            case 1: fields[place].value = word(random.number(), 8)
            case 5: fields[place].value = word(random.number(), 4)
            default:
                let inner = fields[place].value
                if depth < 4, random.chance(700), self.fields(of: inner) != nil {
                    fields[place].value = changedField(inner, depth + 1, &random)
                } else {
                    fields[place].value = changedText(inner, &random)
                }
            }
        }
        return fields.flatMap { field -> [UInt8] in
            let key = varint(field.key)
            return field.key & 7 == 2
                ? key + varint(UInt64(field.value.count)) + field.value : key + field.value
        }
    }

    private static func changedText(_ text: [UInt8], _ random: inout FuzzRandom) -> [UInt8] {
        switch random.below(5) {
        case 0: return []
        case 1: return Array(repeating: UInt8(ascii: "x"), count: 1 << random.below(17))
        case 2: return text + text
        case 3: return text + [0xC3, 0x28]
        default: return (0..<random.below(40)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }
    }

    /// The fields of a message; nil for bytes that are none.
    private static func fields(of bytes: [UInt8]) -> [Field]? {
        var at = 0
        var found: [Field] = []
        func number() -> UInt64? {
            var value: UInt64 = 0
            for shift in stride(from: UInt64(0), to: 64, by: 7) {
                guard at < bytes.count else { return nil }
                let byte = bytes[at]
                at += 1
                value |= UInt64(byte & 0x7F) << shift
                if byte < 0x80 { return value }
            }
            return nil
        }
        while at < bytes.count {
            guard let key = number(), key >> 3 > 0 else { return nil }
            let start: Int
            switch key & 7 {
            case 0:
                start = at
                guard number() != nil else { return nil }
            case 1: (start, at) = (at, at + 8)
            case 5: (start, at) = (at, at + 4)
            case 2:
                guard let length = number(), length <= UInt64(bytes.count - at) else { return nil }
                (start, at) = (at, at + Int(length))
            default: return nil
            }
            guard at <= bytes.count else { return nil }
            found.append(Field(key: key, value: Array(bytes[start..<at])))
        }
        return found
    }

    private static func varint(_ number: UInt64) -> [UInt8] {
        var rest = number
        var bytes: [UInt8] = []
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    private static func word(_ number: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) }
    }
}

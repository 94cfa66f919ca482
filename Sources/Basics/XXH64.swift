/// The 64-bit xxHash of a byte stream, used for every digest that must be fast.
///
/// Not cryptographic: it finds accidents, not forgeries.
///
/// - SeeAlso: Collet, "xxHash fast digest algorithm", version 0.1.1, section "XXH64".
public struct XXH64: Sendable {
    private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9
    private static let prime4: UInt64 = 0x85EB_CA77_C2B2_AE63
    private static let prime5: UInt64 = 0x27D4_EB2F_1656_67C5

    private let seed: UInt64
    private var lane1: UInt64
    private var lane2: UInt64
    private var lane3: UInt64
    private var lane4: UInt64
    private var pending: [UInt8] = []
    private var byteCount: UInt64 = 0

    /// Starts a stream; equal seeds and bytes give equal digests.
    public init(seed: UInt64 = 0) {
        self.seed = seed
        lane1 = seed &+ Self.prime1 &+ Self.prime2
        lane2 = seed &+ Self.prime2
        lane3 = seed
        lane4 = seed &- Self.prime1
    }

    /// The digest of one buffer.
    public static func digest(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
        var hash = XXH64(seed: seed)
        hash.update(bytes)
        return hash.finish()
    }

    /// The digest of a string's UTF-8 bytes.
    public static func digest(_ text: String, seed: UInt64 = 0) -> UInt64 {
        var text = text
        return text.withUTF8 { digest(UnsafeRawBufferPointer($0), seed: seed) }
    }

    /// Adds a string's UTF-8 bytes.
    public mutating func update(_ text: String) {
        var text = text
        text.withUTF8 { update(UnsafeRawBufferPointer($0)) }
    }

    /// Adds eight bytes, little-endian.
    public mutating func update(_ value: UInt64) {
        withUnsafeBytes(of: value.littleEndian) { update($0) }
    }

    /// Adds bytes; how a stream is cut into calls does not change its digest.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        byteCount &+= UInt64(bytes.count)
        guard var cursor = bytes.baseAddress else { return }
        var left = bytes.count
        if !pending.isEmpty {
            let missing = min(32 - pending.count, left)
            pending.append(contentsOf: UnsafeRawBufferPointer(start: cursor, count: missing))
            cursor += missing
            left -= missing
            guard pending.count == 32 else { return }
            pending.withUnsafeBytes { consumeStripes($0.baseAddress!, count: 1) }
            pending.removeAll(keepingCapacity: true)
        }
        let stripes = left / 32
        if stripes > 0 { consumeStripes(cursor, count: stripes) }
        let tail = left - stripes * 32
        if tail > 0 {
            pending.append(
                contentsOf: UnsafeRawBufferPointer(start: cursor + stripes * 32, count: tail))
        }
    }

    /// The digest of everything added so far.
    public func finish() -> UInt64 {
        var hash: UInt64
        if byteCount >= 32 {
            hash =
                rotate(lane1, 1) &+ rotate(lane2, 7) &+ rotate(lane3, 12) &+ rotate(lane4, 18)
            for lane in [lane1, lane2, lane3, lane4] {
                hash = (hash ^ Self.round(0, lane)) &* Self.prime1 &+ Self.prime4
            }
        } else {
            hash = seed &+ Self.prime5
        }
        hash &+= byteCount
        pending.withUnsafeBytes { tail in
            var at = 0
            while at + 8 <= tail.count {
                let word = UInt64(
                    littleEndian: tail.loadUnaligned(fromByteOffset: at, as: UInt64.self))
                hash = rotate(hash ^ Self.round(0, word), 27) &* Self.prime1 &+ Self.prime4
                at += 8
            }
            if at + 4 <= tail.count {
                let word = UInt32(
                    littleEndian: tail.loadUnaligned(fromByteOffset: at, as: UInt32.self))
                hash =
                    rotate(hash ^ (UInt64(word) &* Self.prime1), 23) &* Self.prime2 &+ Self.prime3
                at += 4
            }
            while at < tail.count {
                hash = rotate(hash ^ (UInt64(tail[at]) &* Self.prime5), 11) &* Self.prime1
                at += 1
            }
        }
        hash = (hash ^ (hash >> 33)) &* Self.prime2
        hash = (hash ^ (hash >> 29)) &* Self.prime3
        return hash ^ (hash >> 32)
    }

    private mutating func consumeStripes(_ start: UnsafeRawPointer, count: Int) {
        var (a, b, c, d) = (lane1, lane2, lane3, lane4)
        var cursor = start
        for _ in 0..<count {
            a = Self.round(a, UInt64(littleEndian: cursor.loadUnaligned(as: UInt64.self)))
            b = Self.round(
                b, UInt64(littleEndian: cursor.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
            c = Self.round(
                c, UInt64(littleEndian: cursor.loadUnaligned(fromByteOffset: 16, as: UInt64.self)))
            d = Self.round(
                d, UInt64(littleEndian: cursor.loadUnaligned(fromByteOffset: 24, as: UInt64.self)))
            cursor += 32
        }
        (lane1, lane2, lane3, lane4) = (a, b, c, d)
    }

    @inline(__always)
    private static func round(_ lane: UInt64, _ word: UInt64) -> UInt64 {
        rotate(lane &+ word &* prime2, 31) &* prime1
    }
}

@inline(__always)
private func rotate(_ value: UInt64, _ bits: UInt64) -> UInt64 {
    (value << bits) | (value >> (64 - bits))
}

extension UInt64 {
    /// Sixteen lower-case hexadecimal digits, the form in which every digest is shown.
    public var hex: String {
        let digits = String(self, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Reads the form that ``hex`` writes; nil for anything else.
    public init?(hex text: String) {
        guard text.utf8.count == 16, let value = UInt64(text, radix: 16) else { return nil }
        self = value
    }
}

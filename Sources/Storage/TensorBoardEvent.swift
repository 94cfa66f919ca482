package import Basics
import Foundation

/// One event of a TensorBoard file, as far as Lineup writes and reads it.
///
/// Encodes the protobuf messages `tensorboard.Event`, `Summary` and `SessionLog` by hand: five
/// fields need no generator.
package struct TensorBoardEvent: Equatable {
    package enum Content: Equatable {
        /// The first event of a file.
        case version(String)
        /// Values by tag.
        case scalars([Scalar])
        /// Distributions by tag; not read back.
        case histograms([Distribution])
        /// A writer starts: whatever readers have from this step on no longer counts.
        case start
        /// Something that Lineup does not write.
        case other
    }

    package struct Scalar: Equatable {
        package let tag: String
        package let value: Float

        package init(tag: String, value: Float) {
            self.tag = tag
            self.value = value
        }
    }

    package struct Distribution: Equatable {
        package let tag: String
        package let values: Histogram

        package init(tag: String, values: Histogram) {
            self.tag = tag
            self.values = values
        }
    }

    package let time: Double
    package let step: Int
    package let content: Content

    /// The protobuf form.
    package var encoded: [UInt8] {
        var event = ProtobufBytes()
        event.fixed64(field: 1, time.bitPattern)
        // Zero is what readers take when the field is missing; protobuf's own writer leaves it out.
        if step != 0 { event.varint(field: 2, UInt64(bitPattern: Int64(step))) }
        switch content {
        case .version(let text): event.bytes(field: 3, Array(text.utf8))
        case .scalars(let scalars):
            var summary = ProtobufBytes()
            for scalar in scalars {
                var value = ProtobufBytes()
                value.bytes(field: 1, Array(scalar.tag.utf8))
                value.fixed32(field: 2, scalar.value.bitPattern)
                summary.bytes(field: 1, value.content)
            }
            event.bytes(field: 5, summary.content)
        case .histograms(let histograms):
            var summary = ProtobufBytes()
            for distribution in histograms where distribution.values.count > 0 {
                var value = ProtobufBytes()
                value.bytes(field: 1, Array(distribution.tag.utf8))
                value.bytes(field: 5, Self.encoded(distribution.values))
                summary.bytes(field: 1, value.content)
            }
            event.bytes(field: 5, summary.content)
        case .start:
            var log = ProtobufBytes()
            log.varint(field: 1, 1)  // SessionLog.START
            event.bytes(field: 7, log.content)
        case .other: break
        }
        return event.content
    }

    /// A `HistogramProto`.
    private static func encoded(_ histogram: Histogram) -> [UInt8] {
        var message = ProtobufBytes()
        let head = [
            histogram.min, histogram.max, Double(histogram.count), histogram.sum,
            histogram.sumOfSquares,
        ]
        for (place, value) in head.enumerated() {
            message.fixed64(field: place + 1, value.bitPattern)
        }
        var (limits, counts): ([Double], [Double]) = ([], [])
        var last: Int?
        for bucket in histogram.buckets.keys.sorted() {
            // A reader takes a bucket to begin where the one before it ends.
            if last != bucket - 1 {
                limits.append(Histogram.upperLimit(ofBucket: bucket - 1))
                counts.append(0)
            }
            limits.append(Histogram.upperLimit(ofBucket: bucket))
            counts.append(Double(histogram.buckets[bucket]!))
            last = bucket
        }
        for (field, values) in [(6, limits), (7, counts)] {
            let packed = values.flatMap { value in
                withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) }
            }
            message.bytes(field: field, packed)
        }
        return message.content
    }

    /// Reads the protobuf form; nil when it is none.
    package init?(decoding bytes: ArraySlice<UInt8>) {
        guard let fields = ProtobufField.all(in: bytes) else { return nil }
        var time = 0.0
        var step = 0
        var content = Content.other
        for field in fields {
            switch (field.number, field.value) {
            case (1, .fixed64(let bits)): time = Double(bitPattern: bits)
            case (2, .varint(let bits)): step = Int(truncatingIfNeeded: bits)
            case (3, .bytes(let text)): content = .version(String(decoding: text, as: UTF8.self))
            case (5, .bytes(let summary)):
                guard let scalars = Self.scalars(in: summary) else { return nil }
                content = .scalars(scalars)
            case (7, .bytes(let log)):
                guard let fields = ProtobufField.all(in: log) else { return nil }
                let starts = fields.contains { $0.number == 1 && $0.value == .varint(1) }
                content = starts ? .start : .other
            default: break
            }
        }
        self.init(time: time, step: step, content: content)
    }

    package init(time: Double, step: Int, content: Content) {
        self.time = time
        self.step = step
        self.content = content
    }

    private static func scalars(in summary: ArraySlice<UInt8>) -> [Scalar]? {
        guard let fields = ProtobufField.all(in: summary) else { return nil }
        var found: [Scalar] = []
        for case (1, .bytes(let bytes)) in fields.map({ ($0.number, $0.value) }) {
            guard let parts = ProtobufField.all(in: bytes) else { return nil }
            var tag = ""
            var value: Float?
            for part in parts {
                switch (part.number, part.value) {
                case (1, .bytes(let text)): tag = String(decoding: text, as: UTF8.self)
                case (2, .fixed32(let bits)): value = Float(bitPattern: bits)
                default: break
                }
            }
            if let value { found.append(Scalar(tag: tag, value: value)) }
        }
        return found
    }
}

/// The frames of a TFRecord file: length, its checksum, bytes, their checksum.
package enum RecordFrame {
    /// The longest record that is read.
    package static let bytesMax = 64 << 20

    package static func encode(_ record: [UInt8]) -> [UInt8] {
        let length = withUnsafeBytes(of: UInt64(record.count).littleEndian) { Array($0) }
        let lengthSum = CRC32C.masked(length)
        let recordSum = CRC32C.masked(record)
        return length + withUnsafeBytes(of: lengthSum.littleEndian) { Array($0) } + record
            + withUnsafeBytes(of: recordSum.littleEndian) { Array($0) }
    }

    /// The whole records of a file, up to its end or the first that is torn or damaged.
    package static func decode(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var records: [ArraySlice<UInt8>] = []
        var at = 0
        func word<Word: FixedWidthInteger>(_ offset: Int, _: Word.Type) -> Word {
            bytes.withUnsafeBytes {
                Word(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Word.self))
            }
        }
        while bytes.count - at >= 16 {
            let length = word(at, UInt64.self)
            guard length <= UInt64(bytesMax), Int(length) <= bytes.count - at - 16,
                word(at + 8, UInt32.self) == CRC32C.masked(bytes[at..<at + 8])
            else { break }
            let start = at + 12
            let end = start + Int(length)
            guard word(end, UInt32.self) == CRC32C.masked(bytes[start..<end]) else { break }
            records.append(bytes[start..<end])
            at = end + 4
        }
        return records
    }
}

/// A protobuf message that is being written, field by field.
struct ProtobufBytes {
    private(set) var content: [UInt8] = []

    mutating func varint(field: Int, _ value: UInt64) {
        varint(UInt64(field << 3))
        varint(value)
    }

    mutating func fixed64(field: Int, _ value: UInt64) {
        varint(UInt64(field << 3 | 1))
        withUnsafeBytes(of: value.littleEndian) { content.append(contentsOf: $0) }
    }

    mutating func bytes(field: Int, _ value: [UInt8]) {
        varint(UInt64(field << 3 | 2))
        varint(UInt64(value.count))
        content.append(contentsOf: value)
    }

    mutating func fixed32(field: Int, _ value: UInt32) {
        varint(UInt64(field << 3 | 5))
        withUnsafeBytes(of: value.littleEndian) { content.append(contentsOf: $0) }
    }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            content.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        content.append(UInt8(rest))
    }
}

/// One field of a protobuf message that is being read.
struct ProtobufField {
    enum Value: Equatable {
        case varint(UInt64)
        case fixed64(UInt64)
        case bytes(ArraySlice<UInt8>)
        case fixed32(UInt32)
    }

    let number: Int
    let value: Value

    /// All fields of a message; nil when it is damaged.
    static func all(in bytes: ArraySlice<UInt8>) -> [ProtobufField]? {
        var fields: [ProtobufField] = []
        var at = bytes.startIndex
        func varint() -> UInt64? {
            var value: UInt64 = 0
            for shift in stride(from: 0, to: 70, by: 7) {
                guard at < bytes.endIndex else { return nil }
                let byte = bytes[at]
                at += 1
                value |= UInt64(byte & 0x7F) << UInt64(shift)
                if byte < 0x80 { return value }
            }
            return nil
        }
        func fixed(_ count: Int) -> UInt64? {
            guard bytes.endIndex - at >= count else { return nil }
            var value: UInt64 = 0
            for index in 0..<count { value |= UInt64(bytes[at + index]) << UInt64(8 * index) }
            at += count
            return value
        }
        while at < bytes.endIndex {
            guard let key = varint(), let number = Int(exactly: key >> 3) else { return nil }
            switch key & 7 {
            case 0:
                guard let value = varint() else { return nil }
                fields.append(ProtobufField(number: number, value: .varint(value)))
            case 1:
                guard let value = fixed(8) else { return nil }
                fields.append(ProtobufField(number: number, value: .fixed64(value)))
            case 2:
                guard let count = varint(), count <= UInt64(bytes.endIndex - at) else {
                    return nil
                }
                let end = at + Int(count)
                fields.append(ProtobufField(number: number, value: .bytes(bytes[at..<end])))
                at = end
            case 5:
                guard let value = fixed(4) else { return nil }
                fields.append(
                    ProtobufField(number: number, value: .fixed32(UInt32(value))))
            default: return nil
            }
        }
        return fields
    }
}

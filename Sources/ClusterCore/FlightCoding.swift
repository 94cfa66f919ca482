public import Basics
internal import Foundation
internal import Protocol

/// A state machine whose inputs are values: what it was told can be written down and told again.
public protocol RecordedMachine: Codable, Sendable {
    /// What it is told.
    associatedtype Input: Sendable
    /// What it decides.
    associatedtype Action: Sendable

    /// Whose machine it is.
    static var role: FlightRole { get }

    /// Decides what follows from one input.
    mutating func handle(_ input: Input, now: Duration) -> [Action]

    /// Writes an input down.
    static func write(_ input: Input, into writer: inout FlightWriter)

    /// Reads an input.
    ///
    /// - Parameter earlier: decisions that may be answered, the last at the end.
    /// - Throws: ``FlightError`` for what no machine of this version has written.
    static func read(_ reader: inout FlightReader, earlier: [Action]) throws -> Input

    /// An input in a few words.
    static func summary(of input: Input) -> String

    /// A decision in a few words; decisions with equal ones count as equal in a comparison.
    static func summary(of action: Action) -> String

    /// Whether a later input answers this decision by naming it.
    static func isAnswered(_ action: Action) -> Bool

    /// Whether this input answers such a decision.
    static func isAnswer(_ input: Input) -> Bool
}

/// Whose decisions a record holds.
public enum FlightRole: UInt32, Sendable {
    case coordinator = 1
    case trainer = 2
    case evaluator = 3
}

/// A record that cannot be read or kept.
public struct FlightError: LineupError {
    /// What is wrong, in one line.
    public let message: String
    /// A record is what somebody names.
    public var isBadInput: Bool { true }

    /// Names what is wrong.
    public init(_ message: String) { self.message = message }
}

/// Writes numbers and texts one after another, little-endian.
public struct FlightWriter: Sendable {
    /// What was written.
    public private(set) var bytes: [UInt8] = []

    /// The next message as it came, which then need not be encoded again.
    public var frame: [UInt8]?

    /// Starts with nothing.
    public init() {}

    /// Forgets what was written, and keeps the memory.
    public mutating func reset() { bytes.removeAll(keepingCapacity: true) }

    mutating func put(_ byte: UInt8) { bytes.append(byte) }

    mutating func put(_ number: Int) { put(UInt64(bitPattern: Int64(number))) }

    mutating func put(_ number: UInt64) {
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            bytes.append(UInt8(truncatingIfNeeded: number >> shift))
        }
    }

    mutating func put(_ text: String) {
        put(text.utf8.count)
        bytes.append(contentsOf: text.utf8)
    }

    mutating func put(_ data: Data) {
        put(data.count)
        bytes.append(contentsOf: data)
    }

    mutating func put(_ body: WireBody) {
        guard let frame else { return put(WireCodec.encode(body, run: 0)) }
        put(frame.count)
        bytes.append(contentsOf: frame)
    }
}

/// Reads what a ``FlightWriter`` wrote.
public struct FlightReader: Sendable {
    private let bytes: ArraySlice<UInt8>
    private var at: Int

    /// Reads from the first byte on.
    public init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        at = bytes.startIndex
    }

    mutating func byte() throws -> UInt8 {
        guard at < bytes.endIndex else { throw FlightError("an event ends too early") }
        defer { at += 1 }
        return bytes[at]
    }

    mutating func word() throws -> UInt64 {
        var number: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 8) {
            number |= UInt64(try byte()) << shift
        }
        return number
    }

    mutating func number() throws -> Int { Int(Int64(bitPattern: try word())) }

    mutating func flag() throws -> Bool { try byte() != 0 }

    mutating func data() throws -> Data {
        let count = try number()
        guard count >= 0, count <= bytes.endIndex - at else {
            throw FlightError("an event ends too early")
        }
        defer { at += count }
        return Data(bytes[at..<at + count])
    }

    mutating func text() throws -> String { String(decoding: try data(), as: UTF8.self) }

    mutating func body() throws -> WireBody {
        let frame = Array(try data())
        guard let body = try unsafe frame.withUnsafeBytes({ try unsafe WireCodec.decode($0) }).body
        else {
            throw FlightError("a message without a body")
        }
        return body
    }
}

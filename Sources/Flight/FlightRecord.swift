internal import Basics
public import ClusterCore
public import Foundation

/// A flight record as its files hold it, oldest first.
public struct FlightRecord: Sendable {
    /// One input, and the digest of what was decided.
    public struct Event: Sendable {
        /// The machine's time.
        public let time: Duration
        /// The input, as ``RecordedMachine/write(_:into:)`` left it.
        public let input: ArraySlice<UInt8>
        /// Number and digest of the decisions; nil for none, or where the process ended before.
        public internal(set) var actions: (count: Int, digest: UInt64)?
    }

    /// Whose machine it is.
    public let role: FlightRole
    /// The machine's state before the first event, as JSON.
    public let state: Data
    /// Wall clock at the first event.
    public let began: Date
    /// The machine's time then.
    public let beganAt: Duration
    /// What the machine was told.
    public private(set) var events: [Event]
    private let sequence: UInt64

    /// Reads a record from one of its two files; the other is taken in where it is there.
    ///
    /// - Throws: ``FlightError`` for a file that is no record.
    public init(file: String) throws {
        var found = [try FlightRecord(one: file)]
        for (end, other) in [("-a.flight", "-b.flight"), ("-b.flight", "-a.flight")]
        where file.hasSuffix(end) {
            if let sibling = try? FlightRecord(one: file.dropLast(end.count) + other) {
                found.append(sibling)
            }
        }
        found.sort { $0.sequence < $1.sequence }
        var whole = found[0]
        if found.count == 2 {
            if found[1].sequence == whole.sequence + 1, found[1].role == whole.role {
                whole.events += found[1].events
            } else {
                whole = found[1]
            }
        }
        self = whole
    }

    private init(one file: String) throws {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw FlightError("\(file) cannot be read; name a file that ends in .flight")
        }
        let bytes = [UInt8](data)
        func number(_ offset: Int, _ count: Int = 8) -> UInt64 {
            (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        }
        typealias Field = FlightSegment.Field
        guard bytes.count >= FlightSegment.headBytes,
            number(Field.magic) == FlightSegment.magic
        else { throw FlightError("\(file) is no flight record") }
        guard number(Field.version, 4) == UInt64(FlightSegment.version),
            let role = FlightRole(rawValue: UInt32(number(Field.role, 4)))
        else { throw FlightError("\(file) is a record of another version of lineup") }
        let room = UInt64(bytes.count - FlightSegment.headBytes)
        let stateBytes = number(Field.stateBytes)
        guard stateBytes <= room else { throw FlightError("\(file) is truncated") }
        let start = FlightSegment.headBytes + Int(stateBytes)
        self.role = role
        sequence = number(Field.sequence)
        began = Date(
            timeIntervalSince1970: Double(Int64(bitPattern: number(Field.wallClock))) / 1e9)
        beganAt = .nanoseconds(Int64(bitPattern: number(Field.machineClock)))
        state = Data(bytes[FlightSegment.headBytes..<start])
        events = Self.events(in: bytes[start...], valid: number(Field.eventBytes))
    }

    /// The events up to the first that is not whole.
    private static func events(in bytes: ArraySlice<UInt8>, valid: UInt64) -> [Event] {
        let end = bytes.startIndex + Int(min(valid, UInt64(bytes.count)))
        var at = bytes.startIndex
        var events: [Event] = []
        func number(_ place: Int, _ count: Int) -> UInt64 {
            (0..<count).reduce(0) { $0 | UInt64(bytes[place + $1]) << UInt64(8 * $1) }
        }
        while at + FlightSegment.eventHeadBytes + 8 <= end {
            let count = Int(number(at, 4))
            let next = at + FlightSegment.eventHeadBytes + count
            guard count >= 8, next <= end else { break }
            let check = bytes[at + 8..<next].withUnsafeBytes { FlightSegment.check($0) }
            guard UInt64(check) == number(at + 4, 4),
                let kind = FlightSegment.Kind(rawValue: bytes[at + 8])
            else { break }
            let first = number(at + 9, 8)
            switch kind {
            case .input:
                events.append(
                    Event(
                        time: .nanoseconds(Int64(bitPattern: first)), input: bytes[at + 17..<next],
                        actions: nil))
            case .actions:
                guard count == 16, !events.isEmpty else { break }
                events[events.count - 1].actions = (
                    Int(clamping: first), number(at + 17, 8)
                )
            }
            at = next
        }
        return events
    }
}

/// Tells a machine again what a record says it was told.
public struct FlightReplay<Machine: RecordedMachine> {
    /// One input and what follows from it.
    public struct Step: Sendable {
        /// The machine's time.
        public let time: Duration
        /// The input, in a few words.
        public let input: String
        /// The decisions of now, in a few words.
        public let actions: [String]
        /// Whether they are those of then; nil where the process ended before it had decided.
        public let isSame: Bool?
    }

    /// The machine as far as it has been told.
    public private(set) var machine: Machine
    private let events: [FlightRecord.Event]
    private var next = 0
    private var earlier: [Machine.Action] = []

    /// Starts from the record's state.
    ///
    /// - Throws: ``FlightError`` when the state is not of this version's machine.
    public init(_ record: FlightRecord) throws {
        do {
            machine = try FlightCoder.decoder.decode(Machine.self, from: record.state)
        } catch {
            throw FlightError("the state in the record is of another version of lineup: \(error)")
        }
        events = record.events
    }

    /// Tells the next input; nil at the end.
    public mutating func step() throws -> Step? {
        guard next < events.count else { return nil }
        let event = events[next]
        next += 1
        var reader = FlightReader(event.input)
        let input = try Machine.read(&reader, earlier: earlier)
        let actions = machine.handle(input, now: event.time)
        earlier += actions.filter(Machine.isAnswered)
        if earlier.count > 8 { earlier.removeFirst(earlier.count - 8) }
        let isLast = next == events.count
        let isSame: Bool? =
            if let recorded = event.actions {
                recorded.count == actions.count
                    && recorded.digest == FlightDigest.of(actions, Machine.self)
            } else {
                isLast ? nil : actions.isEmpty
            }
        return Step(
            time: event.time, input: Machine.summary(of: input),
            actions: actions.map(Machine.summary), isSame: isSame)
    }
}

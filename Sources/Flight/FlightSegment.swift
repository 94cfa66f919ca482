internal import Basics
internal import ClusterCore
internal import Foundation

/// One file of a flight record: a machine's state, and what it was told from there on.
///
/// The file is mapped: what is written is the kernel's at once, and is there whatever ends the process,
/// `kill -9` and traps included. An event is written whole before the count of bytes that are valid
/// covers it.
///
/// Layout, little-endian: a head of 128 bytes (magic, version, role, sequence, wall clock and machine's
/// clock in nanoseconds, bytes of the state, room for events, valid bytes of events), the state as
/// JSON, then events: length (4 bytes), check (4, the low half of XXH64), kind (1), content.
final class FlightSegment {
    static let magic: UInt64 = 0x544C_464C_5055_4E4C  // "LNUPLFLT"
    static let version: UInt32 = 2
    static let headBytes = 128
    static let eventHeadBytes = 9

    /// Places of the head's fields.
    enum Field {
        static let magic = 0
        static let version = 8
        static let role = 12
        static let sequence = 16
        static let wallClock = 24
        static let machineClock = 32
        static let stateBytes = 40
        static let capacity = 48
        static let eventBytes = 56
    }

    /// What an event is.
    enum Kind: UInt8 {
        /// Time in nanoseconds (8 bytes), then the input.
        case input = 1
        /// Number of decisions (8 bytes) and the digest of their summaries (8).
        case actions = 2
    }

    let path: String
    private let memory: UnsafeMutableRawBufferPointer
    private let start: Int
    private let capacity: Int
    private let descriptor: Int32
    private var used = 0 {
        didSet { put(UInt64(used), at: Field.eventBytes) }
    }

    /// Makes a file with room for a state and events; reserves the room, so that a disk that fills up
    /// later ends nothing.
    ///
    /// - Throws: ``FlightError`` when there is no room to spare.
    init(
        path: String, role: FlightRole, sequence: UInt64, now: Duration, state: Data, capacity: Int
    ) throws {
        self.path = path
        self.capacity = capacity
        start = Self.headBytes + state.count
        let size = start + capacity
        // Nobody else's file, whatever lies there: the folder may be one that others can write.
        unlink(path)
        let descriptor = open(
            path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw FlightError("\(path) cannot be made: \(String(cString: strerror(errno)))")
        }
        // Held as long as the file is written: nobody removes it as an old one.
        flock(descriptor, LOCK_EX | LOCK_NB)
        self.descriptor = descriptor
        var space = statvfs()
        // A small share of what is free: the run's own files need the rest.
        guard fstatvfs(descriptor, &space) == 0,
            UInt64(space.f_bavail) * UInt64(space.f_frsize) > 32 * UInt64(size),
            posix_fallocate(descriptor, 0, size) == 0
        else {
            unlink(path)
            close(descriptor)
            throw FlightError("\(path): its disk has no \(size >> 10) KiB to spare")
        }
        guard let mapped = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            mapped != MAP_FAILED
        else {
            let why = String(cString: strerror(errno))
            unlink(path)
            close(descriptor)
            throw FlightError("\(path) cannot be mapped: \(why)")
        }
        memory = UnsafeMutableRawBufferPointer(start: mapped, count: size)
        put(Self.version, at: Field.version)
        put(role.rawValue, at: Field.role)
        put(sequence, at: Field.sequence)
        put(Int64(Date().timeIntervalSince1970 * 1e9), at: Field.wallClock)
        put(now.nanoseconds, at: Field.machineClock)
        put(UInt64(state.count), at: Field.stateBytes)
        put(UInt64(capacity), at: Field.capacity)
        put(UInt64(0), at: Field.eventBytes)
        state.withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: memory[Self.headBytes..<start])
                .copyMemory(from: bytes)
        }
        // Last: a file without it is none.
        put(Self.magic, at: Field.magic)
    }

    deinit {
        munmap(memory.baseAddress, memory.count)
        close(descriptor)
    }

    private func put<Number: FixedWidthInteger>(_ number: Number, at offset: Int) {
        memory.storeBytes(of: number.littleEndian, toByteOffset: offset, as: Number.self)
    }

    /// Bytes of the file that hold something.
    var byteCount: Int { start + used }

    /// Bytes of the state that the file begins with.
    var stateBytes: Int { start - Self.headBytes }

    /// Bytes of events.
    var eventBytes: Int { used }

    /// Lets go of the events after so many bytes.
    func end(at bytes: Int) { used = bytes }

    /// Whether it is time to think of the next file.
    var isThreeQuartersFull: Bool { 4 * used > 3 * capacity }

    /// Whether an event of so many bytes, and `reserve` more, still fit.
    func hasRoom(for count: Int, reserve: Int) -> Bool {
        used + Self.eventHeadBytes + count + reserve <= capacity
    }

    /// Writes an event that starts with a number; one that does not fit is left out.
    func append(_ kind: Kind, _ number: UInt64, _ content: [UInt8]) {
        let count = 8 + content.count
        guard hasRoom(for: count, reserve: 0) else { return }
        let at = start + used
        put(UInt32(count), at: at)
        put(kind.rawValue, at: at + 8)
        put(number, at: at + 9)
        content.withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: memory[at + 17..<at + 17 + bytes.count])
                .copyMemory(from: bytes)
        }
        put(
            Self.check(UnsafeRawBufferPointer(rebasing: memory[at + 8..<at + 9 + count])),
            at: at + 4)
        used += Self.eventHeadBytes + count
    }

    static func check(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        UInt32(truncatingIfNeeded: XXH64.digest(bytes))
    }
}

extension Duration {
    /// Whole nanoseconds; clocks here have no finer ones.
    var nanoseconds: Int64 {
        components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
    }
}

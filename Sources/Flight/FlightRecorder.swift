internal import Basics
public import ClusterCore
internal import Foundation
internal import Synchronization

/// Tells a state machine its inputs and keeps the last of them, with what it decided, in files that
/// outlive the process.
///
/// Two files take turns; each begins with the machine's whole state, so that what is kept can be told
/// again from there, and at least one file's worth of events is. A large state is written down on
/// another thread before it is needed. Where there is no room for the files the machine runs without.
///
/// ```swift
/// let recorder = FlightRecorder<TrainerStateMachine>(path: "RUN/flight/trainer-host-17", bytes: 1 << 20)
/// let actions = recorder.tell(.tick, now: now, machine: &machine)
/// ```
public final class FlightRecorder<Machine: RecordedMachine> {
    /// Room that is kept for what answers a decision, so that both are in one file.
    private static var reserve: Int { 4 << 10 }

    /// The files' path without `-a.flight` and `-b.flight`.
    public let path: String
    private let bytes: Int
    private var segment: FlightSegment?
    private var sequence: UInt64 = 0
    private var writer = FlightWriter()
    /// What the next file begins with, while this one fills up.
    private var next: NextFile?
    /// A state of so many bytes is written down in no time.
    private static var smallState: Int { 64 << 10 }
    /// Room for events is at least so many times that for a state.
    private static var eventsPerState: Int { 4 }
    /// Why nothing is recorded; nil while it is.
    public private(set) var problem: String? {
        didSet { if let problem { report(problem) } }
    }
    private let report: (String) -> Void
    private var isClosed = false

    /// Prepares a record; nothing is written before the first input.
    ///
    /// - Parameters:
    ///   - bytes: room for events in each of the two files.
    ///   - kept: older records of the folder that stay, by files.
    ///   - report: is told once why nothing is recorded any more.
    public init(
        path: String, bytes: Int, keepingFiles kept: Int = 32,
        report: @escaping (String) -> Void = { _ in }
    ) {
        self.path = path
        self.bytes = bytes
        self.report = report
        let folder = (path as NSString).deletingLastPathComponent
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
            try FlightFolder.check(folder)
            FlightFolder.prune(folder, keeping: kept)
        } catch let error as FlightError {
            set(error.message)
        } catch {
            set("\(folder) cannot be made: \(error.localizedDescription)")
        }
    }

    // An observer is not called from an initialiser.
    private func set(_ why: String) { problem = why }

    /// Tells the machine an input and returns what it decides.
    ///
    /// - Parameter frame: the message that the input is, as it came; nil where it is none, or not at hand.
    public func tell(
        _ input: Machine.Input, now: Duration, machine: inout Machine, frame: [UInt8]? = nil
    ) -> [Machine.Action] {
        guard problem == nil, !isClosed else { return machine.handle(input, now: now) }
        writer.reset()
        writer.frame = frame
        Machine.write(input, into: &writer)
        let reserve = Machine.isAnswer(input) ? 0 : Self.reserve
        if segment?.hasRoom(for: 8 + writer.bytes.count, reserve: reserve) != true {
            begin(machine, now: now)
        } else if next == nil, !Machine.isAnswer(input), segment!.isThreeQuartersFull,
            segment!.stateBytes > Self.smallState
        {
            next = NextFile(
                state: StateInWriting(machine), since: now, beginsAt: segment!.eventBytes)
        }
        // Before it is told: an input that ends the process is the last in the file.
        append(.input, UInt64(bitPattern: now.nanoseconds), writer.bytes)
        let actions = machine.handle(input, now: now)
        if !actions.isEmpty {
            let digest = withUnsafeBytes(of: FlightDigest.of(actions, Machine.self).littleEndian) {
                Array($0)
            }
            append(.actions, UInt64(actions.count), digest)
        }
        return actions
    }

    private func append(_ kind: FlightSegment.Kind, _ number: UInt64, _ content: [UInt8]) {
        segment?.append(kind, number, content)
        next?.events.append((kind, number, content))
    }

    private func begin(_ machine: Machine, now: Duration) {
        let prepared = next
        next = nil
        do {
            let state = try prepared?.state.bytes() ?? FlightCoder.encoder.encode(machine)
            let events = prepared?.events ?? []
            let needed =
                (prepared?.eventBytes ?? 0) + writer.bytes.count + Self.reserve + 1024
            let segment = try FlightSegment(
                path: path + (sequence.isMultiple(of: 2) ? "-a.flight" : "-b.flight"),
                role: Machine.role, sequence: sequence, now: prepared?.since ?? now,
                state: state, capacity: max(bytes, Self.eventsPerState * state.count, needed))
            for (kind, number, content) in events { segment.append(kind, number, content) }
            // From now on the new file has them.
            if let prepared { self.segment?.end(at: prepared.beginsAt) }
            self.segment = segment
            sequence += 1
        } catch {
            segment = nil
            problem = "\(error)"
        }
    }

    /// Copies what is there beside it, while the record goes on.
    ///
    /// - Returns: one of the copies, which `lineup flight` takes; nil where nothing is recorded.
    public func copy() -> String? {
        let stamp = Int(Date().timeIntervalSince1970)
        var made: String?
        for end in ["-a.flight", "-b.flight"]
        where FileManager.default.fileExists(atPath: path + end) {
            let target = "\(path)-\(stamp)\(end)"
            try? FileManager.default.removeItem(atPath: target)
            guard (try? FileManager.default.copyItem(atPath: path + end, toPath: target)) != nil
            else { continue }
            made = target
        }
        return made
    }

    /// Ends a worker's record, which is kept where something went wrong that is not the operator's.
    ///
    /// - Returns: one of its files, where they are kept.
    public func close<Success>(after end: Result<Success, any Error>) -> String? {
        guard case .failure(let error) = end else { return close(keep: false) }
        return close(keep: (error as? any LineupError)?.isBadInput != true)
    }

    /// Ends the record.
    ///
    /// - Returns: one of its files, where they are kept.
    public func close(keep: Bool) -> String? {
        let (file, byteCount) = (segment?.path, segment?.byteCount)
        segment = nil
        isClosed = true
        if keep {
            if let file, let byteCount { truncate(file, byteCount) }
            return file
        }
        for end in ["-a.flight", "-b.flight"] { unlink(path + end) }
        return nil
    }
}

/// A state, and what was told since, which the file before holds too as long as it is the last.
private struct NextFile {
    let state: StateInWriting
    let since: Duration
    /// Where the file before will end, in bytes of its events.
    let beginsAt: Int
    var events: [(FlightSegment.Kind, UInt64, [UInt8])] = []

    var eventBytes: Int {
        events.reduce(0) { $0 + FlightSegment.eventHeadBytes + 8 + $1.2.count }
    }
}

/// A machine's state at a moment, written down on another thread.
private final class StateInWriting: Sendable {
    private let result = Mutex<Result<Data, any Error>?>(nil)
    private let isDone = DispatchSemaphore(value: 0)

    init(_ machine: some RecordedMachine) {
        Thread.detachNewThread { [self] in
            let encoded = Result { try FlightCoder.encoder.encode(machine) }
            result.withLock { $0 = encoded }
            isDone.signal()
        }
    }

    /// The state, once it is written down; asked for once.
    func bytes() throws -> Data {
        isDone.wait()
        return try result.withLock { $0! }.get()
    }
}

/// Decisions in 64 bits, as far as their summaries tell them apart.
enum FlightDigest {
    static func of<Machine: RecordedMachine>(
        _ actions: [Machine.Action], _: Machine.Type
    ) -> UInt64 {
        var hash = XXH64()
        for action in actions {
            hash.update(Machine.summary(of: action))
            hash.update("\n")
        }
        return hash.finish()
    }
}

/// How a machine's state is written.
enum FlightCoder {
    static var encoder: JSONEncoder {
        let encoder = JSONEncoder()
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return encoder
    }

    static var decoder: JSONDecoder {
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return decoder
    }
}

/// A folder of records.
public enum FlightFolder {
    /// Where workers leave records that have no run's folder at hand.
    public static var ofThisMachine: String {
        NSTemporaryDirectory() + "lineup-flight-\(getuid())"
    }

    /// Refuses a folder that another user has made in its place.
    static func check(_ folder: String) throws {
        var status = stat()
        guard lstat(folder, &status) == 0, status.st_mode & S_IFMT == S_IFDIR,
            status.st_uid == geteuid()
        else {
            throw FlightError("\(folder) is not a folder of this user; name another with --flight")
        }
    }

    /// Removes the oldest files beyond a number.
    static func prune(_ folder: String, keeping kept: Int) {
        let files = FileManager.default
        let names = (try? files.contentsOfDirectory(atPath: folder)) ?? []
        let dated = names.filter { $0.hasSuffix(".flight") }.map { name -> (Date, String) in
            let path = folder + "/" + name
            let attributes = try? files.attributesOfItem(atPath: path)
            return (attributes?[.modificationDate] as? Date ?? .distantPast, path)
        }
        for (_, path) in dated.sorted(by: { $0 < $1 }).dropLast(kept) where !isWritten(path) {
            unlink(path)
        }
    }

    /// Whether a process that lives records into the file.
    private static func isWritten(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return flock(descriptor, LOCK_EX | LOCK_NB) != 0
    }
}

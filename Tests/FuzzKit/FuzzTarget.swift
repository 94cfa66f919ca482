import Foundation
import Synchronization

/// What is fed with frames.
protocol FuzzTarget {
    /// As given on the command line.
    static var name: String { get }
    /// Its share of all frames, in parts of 10,000.
    static var share: Int { get }
    /// Frames fed to one freshly made thing.
    static var episodeFrames: Int { get }

    /// Sets up what all episodes share.
    init() throws

    /// Feeds frames, each noted in the log before it is fed.
    ///
    /// - Throws: ``FuzzFailure`` when a promise is broken; a trap ends the process.
    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws

    /// How far the frames came: what happened how often.
    var reached: Tally { get }
}

extension FuzzTarget {
    var reached: Tally { Tally() }
}

/// Counts by name.
final class Tally {
    private var counts: [String: Int] = [:]

    func count(_ name: String) { counts[name, default: 0] += 1 }

    subscript(_ name: String) -> Int { counts[name] ?? 0 }

    var text: String {
        counts.keys.sorted().map { "\($0) \(counts[$0]!)" }.joined(separator: ", ")
    }
}

/// A promise that a frame broke.
struct FuzzFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// The frame that is being fed, in a file that outlives the process.
final class FuzzLog {
    private static let frameBytesMax = 1 << 20
    private static let headBytes = 64
    private let memory: UnsafeMutableRawBufferPointer
    private(set) var frames = 0
    private(set) var episodeFrame = 0

    /// Maps a file; without one the log is kept in memory alone.
    init(file: String?) throws {
        let size = Self.headBytes + Self.frameBytesMax
        let descriptor = file.map { open($0, O_RDWR | O_CREAT, 0o600) } ?? -1
        if file != nil, descriptor < 0 || ftruncate(descriptor, size) != 0 {
            throw FuzzFailure("cannot map \(file ?? "")")
        }
        let flags = descriptor < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED
        guard let mapped = mmap(nil, size, PROT_READ | PROT_WRITE, flags, descriptor, 0),
            mapped != MAP_FAILED
        else { throw FuzzFailure("cannot map \(size) bytes") }
        if descriptor >= 0 { close(descriptor) }
        memory = UnsafeMutableRawBufferPointer(start: mapped, count: size)
    }

    deinit { munmap(memory.baseAddress, memory.count) }

    func begin(target: Int, episode: Int) {
        episodeFrame = 0
        memory.storeBytes(of: UInt64(target), toByteOffset: 0, as: UInt64.self)
        memory.storeBytes(of: UInt64(episode), toByteOffset: 8, as: UInt64.self)
    }

    /// Notes a frame that is about to be fed.
    func feed(_ frame: some Collection<UInt8>) {
        frames += 1
        episodeFrame += 1
        let count = min(frame.count, Self.frameBytesMax)
        memory.storeBytes(of: UInt64(episodeFrame), toByteOffset: 16, as: UInt64.self)
        memory.storeBytes(of: UInt64(count), toByteOffset: 24, as: UInt64.self)
        memory.storeBytes(of: UInt64(frames), toByteOffset: 32, as: UInt64.self)
        UnsafeMutableRawBufferPointer(rebasing: memory[Self.headBytes..<Self.headBytes + count])
            .copyBytes(from: frame.prefix(count))
    }

    func feed(_ text: String) { feed(text.utf8) }

    var target: Int { Int(memory.load(fromByteOffset: 0, as: UInt64.self)) }
    var episode: Int { Int(memory.load(fromByteOffset: 8, as: UInt64.self)) }
    var frameInEpisode: Int { Int(memory.load(fromByteOffset: 16, as: UInt64.self)) }
    var frameNumber: Int { Int(memory.load(fromByteOffset: 32, as: UInt64.self)) }

    /// The frame noted last.
    var frame: [UInt8] {
        let count = Int(memory.load(fromByteOffset: 24, as: UInt64.self))
        return Array(memory[Self.headBytes..<Self.headBytes + min(count, Self.frameBytesMax)])
    }
}

/// Runs targets; every frame follows from a seed, a target and the number of an episode.
public struct Fuzzing: Sendable {
    /// Most memory that may be resident, in bytes.
    public static let residentBytesMax = 1 << 30

    private static var all: [any FuzzTarget.Type] {
        [
            ControlTarget.self, DataHeaderTarget.self, CoordinatorTarget.self, TrainerTarget.self,
            EvaluatorTarget.self, ExchangeTarget.self, CheckpointTarget.self,
            CheckpointStreamTarget.self,
            SettingsTarget.self, AnnotationTarget.self, CatalogueTarget.self,
            SmallFilesTarget.self, LedgerTarget.self, SocketTarget.self, BulkTarget.self,
            BlocksTarget.self, DetailsTarget.self,
        ]
    }

    /// Names of the targets.
    public static var targets: [String] { all.map { $0.name } }

    /// Frames to feed, over all targets chosen.
    public var frames: Int
    /// Where everything begins.
    public var seed: UInt64
    /// The targets by name; empty takes all.
    public var chosen: [String]
    /// One episode alone.
    public var episode: Int?
    /// Where the frame that is being fed is noted; it outlives a crash.
    public var logFile: String?

    /// Describes a run.
    public init(
        frames: Int, seed: UInt64, chosen: [String] = [], episode: Int? = nil,
        logFile: String? = nil
    ) {
        self.frames = frames
        self.seed = seed
        self.chosen = chosen
        self.episode = episode
        self.logFile = logFile
    }

    /// What a run came to.
    public struct Report: Sendable {
        /// One line for each target.
        public var lines: [String] = []
        /// The first broken promise.
        public var failure: String?
    }

    /// Feeds everything; a trap ends the process and leaves its frame in the log.
    public func run() throws -> Report {
        let log = try FuzzLog(file: logFile)
        let clock = ContinuousClock()
        var report = Report()
        let targets = Self.all.enumerated().filter { chosen.isEmpty || chosen.contains($1.name) }
        let shares = targets.reduce(0) { $0 + $1.element.share }
        for (number, type) in targets {
            let wanted = max(1, frames * type.share / shares + 1)
            let before = log.frames
            var next = episode ?? 0
            let start = clock.now
            let target = try type.init()
            // Of one episode its own frames alone; else until the share is fed.
            while log.frames - before < (episode == nil ? wanted : 1) {
                var random = FuzzRandom(seed: seed, target: type.name, episode: next)
                log.begin(target: number, episode: next)
                next += 1
                do {
                    try target.episode(&random, frames: type.episodeFrames, log: log)
                    try Self.checkMemory()
                } catch {
                    report.failure = "\(error)\n" + Self.told(log, seed: seed)
                    return report
                }
            }
            let seconds = (clock.now - start) / .seconds(1)
            let count = log.frames - before
            let told = target.reached.text
            report.lines.append(
                "\(type.name): \(count) frames, \(Int(Double(count) / max(seconds, 1e-9))) a second"
                    + (told.isEmpty ? "" : "; \(told)"))
        }
        report.lines.append("\(log.frames) frames, at most \(Self.peakBytes >> 20) MiB resident")
        return report
    }

    /// What a process that crashed was fed last, from its log.
    public static func lastFrame(in file: String, seed: UInt64) throws -> String {
        told(try FuzzLog(file: file), seed: seed)
    }

    /// Frames that a running process has been fed.
    public static func progress(in file: String) throws -> Int {
        try FuzzLog(file: file).frameNumber
    }

    private static func told(_ log: FuzzLog, seed: UInt64) -> String {
        let name = all[min(log.target, all.count - 1)].name
        let frame = log.frame
        let hex = frame.prefix(4096).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        let rest = frame.count > 4096 ? " and \(frame.count - 4096) bytes more" : ""
        return
            "target \(name), seed \(seed), episode \(log.episode), frame \(log.frameInEpisode) of "
            + "\(frame.count) bytes: \(hex)\(rest)\n"
            + "again: lineup-fuzz --seed \(seed) --target \(name) --episode \(log.episode)"
    }

    private static func checkMemory() throws {
        guard peakBytes <= residentBytesMax else {
            throw FuzzFailure("\(peakBytes >> 20) MiB are resident")
        }
    }

    private static var peakBytes: Int {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage.ru_maxrss << 10
    }
}

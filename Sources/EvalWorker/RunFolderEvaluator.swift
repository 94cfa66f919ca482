import Basics
import ClusterCore
import Foundation
public import Storage

/// Where an evaluator's time comes from; a test gives its own.
public struct EvaluatorClock: Sendable {
    /// Seconds on a clock that never goes back.
    public var now: @Sendable () -> Double
    /// Waits; may return early.
    public var sleep: @Sendable (_ seconds: Double) -> Void

    /// Names both parts.
    public init(now: @escaping @Sendable () -> Double, sleep: @escaping @Sendable (Double) -> Void)
    {
        self.now = now
        self.sleep = sleep
    }

    /// The machine's clock.
    public static let system = EvaluatorClock(
        now: { Double(clock_gettime_nsec()) * 1e-9 }, sleep: { Thread.sleep(forTimeInterval: $0) })

    private static func clock_gettime_nsec() -> UInt64 { DispatchTime.now().uptimeNanoseconds }
}

/// Scores the checkpoints of a run directory without a coordinator.
///
/// It looks for checkpoints that have no result yet, claims their sets, scores them and writes
/// `RUN/evaluations/<step>-<set>.json`. It never opens the ledger. Any number of evaluators may watch
/// one directory, from any number of hosts; each result appears once.
///
/// The idle clock runs while there is nothing to do and starts again with every new checkpoint and
/// whenever work ends.
public struct RunFolderEvaluator: Sendable {
    /// How to watch.
    public struct Options: Sendable {
        /// The run's folder.
        public var run: String
        /// Sets to score, in the order of the settings.
        public var sets: [String]
        /// Score what is there and end.
        public var once: Bool
        /// Seconds between looks.
        public var pollSeconds: Double
        /// Seconds without work or a new checkpoint after which to end.
        public var timeoutSeconds: Double
        /// Seconds after which a claim that was not renewed is another's to take.
        public var leaseSeconds: Double
        /// Whether a numerics class other than that of the run's first evaluator is refused.
        public var refusesOtherClass: Bool

        /// Names every part.
        public init(
            run: String, sets: [String], once: Bool = false, pollSeconds: Double,
            timeoutSeconds: Double, leaseSeconds: Double = 60, refusesOtherClass: Bool = true
        ) {
            self.run = run
            self.sets = sets
            self.once = once
            self.pollSeconds = pollSeconds
            self.timeoutSeconds = timeoutSeconds
            self.leaseSeconds = leaseSeconds
            self.refusesOtherClass = refusesOtherClass
        }
    }

    /// What a watch came to.
    public struct Outcome: Equatable, Sendable {
        /// Why it ended.
        public enum Reason: String, Sendable {
            /// Asked to score what is there and end.
            case once
            /// The run has ended and its last checkpoint is scored.
            case runFinished
            /// No new checkpoint for the time given.
            case timedOut
            /// Asked to stop.
            case stopped
        }

        /// Why it ended.
        public var reason: Reason
        /// Results written, in order.
        public var written: [EvaluationTask] = []
        /// Tasks that another evaluator was working on at the end.
        public var leftToOthers: [EvaluationTask] = []
        /// One line for everything that could not be scored.
        public var failures: [String] = []

        /// 0 when all went well, 75 when asked to stop, else 1.
        public var exitCode: Int32 {
            if !failures.isEmpty { return 1 }
            return reason == .stopped ? 75 : 0
        }
    }

    /// Something to tell the operator.
    public enum Report: Equatable, Sendable {
        /// A checkpoint was claimed.
        case scoring(step: Int, sets: [String])
        /// A result was written.
        case scored(EvaluationFile)
        /// Something could not be scored; one line.
        case failed(String)
        /// There is nothing to do at the moment.
        case waiting(checkpoints: Int)
    }

    /// Scores sets on a checkpoint and tells each outcome; returns when all are done.
    public typealias Score =
        @Sendable (
            _ checkpoint: CheckpointReader, _ sets: [String], _ stop: StopRequest,
            _ completed: @escaping @Sendable (String, Result<SetResult, any Error>) -> Void
        ) -> Void

    private let options: Options
    private let numericsClass: String
    private let datasetDigest: UInt64
    private let identity: ProcessIdentity
    private let clock: EvaluatorClock
    private let stop: StopRequest
    private let score: Score
    private let report: @Sendable (Report) -> Void

    /// Watches with a scorer of its sets.
    public init(
        _ options: Options, scorer: CheckpointScorer, stop: StopRequest = StopRequest(),
        report: @escaping @Sendable (Report) -> Void
    ) {
        self.init(
            options, numericsClass: scorer.numericsClass, datasetDigest: scorer.datasetDigest,
            stop: stop, report: report
        ) { checkpoint, sets, stop, completed in
            scorer.score(checkpoint, sets: sets, stop: stop, completed: completed)
        }
    }

    /// Watches with any scoring function.
    package init(
        _ options: Options, numericsClass: String, datasetDigest: UInt64,
        identity: ProcessIdentity = .current, clock: EvaluatorClock = .system,
        stop: StopRequest = StopRequest(), report: @escaping @Sendable (Report) -> Void = { _ in },
        score: @escaping Score
    ) {
        self.options = options
        self.numericsClass = numericsClass
        self.datasetDigest = datasetDigest
        self.identity = identity
        self.clock = clock
        self.stop = stop
        self.report = report
        self.score = score
    }

    /// Watches until there is a reason to end.
    ///
    /// - Throws: ``EvalWorkerError`` with code `notARun` when the folder is not there, `setting` for
    ///   a set whose name cannot be part of a file name or another numerics class, `io` when results cannot be written.
    public func run() throws -> Outcome {
        try checkOptions()
        try checkClass()
        let watch = RunFolderWatch(
            options: options, numericsClass: numericsClass, datasetDigest: datasetDigest,
            identity: identity, stop: stop, score: score, report: report)
        let renewing = ClaimRenewal(watch.claims, everySeconds: options.leaseSeconds / 4)
        defer { renewing.end() }
        var idleSince = clock.now()
        var isWaiting = false
        while true {
            // Looked at before the checkpoints: those that are there afterwards are all.
            let runHasFinished = RunFiles.stamp(options.run + "/finished") != nil
            let look = try watch.look()
            if look.didWork || look.sawNewCheckpoint { idleSince = clock.now() }
            if stop.isStopped { return watch.outcome(.stopped, look) }
            if look.didWork { continue }
            if options.once { return watch.outcome(.once, look) }
            if runHasFinished && look.open.isEmpty { return watch.outcome(.runFinished, look) }
            let left = options.timeoutSeconds - (clock.now() - idleSince)
            if left <= 0 { return watch.outcome(.timedOut, look) }
            if !isWaiting || look.sawNewCheckpoint {
                report(.waiting(checkpoints: look.checkpoints))
            }
            isWaiting = true
            pause(min(left, options.pollSeconds))
        }
    }

    /// Compares with the class of the run's first evaluator, which this may be.
    private func checkClass() throws(EvalWorkerError) {
        let folder = EvaluationFile.folder(run: options.run)
        try RunFiles.createFolder(folder)
        let path = folder + "/numerics-class"
        let mine = numericsClass + "\n"
        if try RunFiles.linkIfAbsent(Data(mine.utf8), as: path, durable: true) != nil { return }
        let first = String(
            decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
        let isSame =
            !first.isEmpty && NumericsDescription(mine).covers(NumericsDescription(first))
        guard !isSame, options.refusesOtherClass else { return }
        throw EvalWorkerError(
            .setting,
            "the run's sets are scored in the numerics class '\(first.dropLast())', this evaluator "
                + "is of '\(numericsClass)'; use the same kind of machine and device, or start the "
                + "run with numerics.mode=statistical")
    }

    /// Sleeps in short pieces, so that a request to stop is heard.
    private func pause(_ seconds: Double) {
        let end = clock.now() + seconds
        while !stop.isStopped {
            let left = end - clock.now()
            if left <= 0 { return }
            clock.sleep(min(left, 0.2))
        }
    }

    private func checkOptions() throws(EvalWorkerError) {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: options.run, isDirectory: &isFolder),
            isFolder.boolValue
        else {
            throw EvalWorkerError(
                .notARun, "there is no run folder \(options.run); name the folder of a run")
        }
        for set in options.sets where set.isEmpty || set.contains("/") {
            throw EvalWorkerError(
                .setting, "evaluation.sets has '\(set)', which cannot be part of a file name")
        }
        guard options.pollSeconds > 0 else {
            throw EvalWorkerError(
                .setting, "evaluation.poll_seconds is \(options.pollSeconds); expected more than 0")
        }
    }
}

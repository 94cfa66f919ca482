import EvalWorker
import Foundation
import Scoring
import Storage
import Synchronization

/// A run's folder with tiny checkpoints, removed at the end.
final class TestRun: Sendable {
    static let sets = ["train_eval", "val_eval", "easy_val_eval"]
    static let datasetDigest: UInt64 = 0xDA7A

    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "/lineup-eval-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    var store: CheckpointStore { CheckpointStore(directory: path + "/checkpoints") }

    /// Writes the checkpoint of a step; its only weight is the step.
    @discardableResult func writeCheckpoint(_ step: Int, datasetDigest: UInt64 = datasetDigest)
        throws -> String
    {
        try store.prepare()
        let weight = [Float(step)]
        try weight.withUnsafeBytes { bytes in
            let tensor = CheckpointTensor(name: "network/weight", shape: [1], bytes: bytes)
            let metadata = CheckpointMetadata(
                step: step, settingsDigest: 1, datasetDigest: datasetDigest, numericsClass: "test",
                history: 0)
            _ = try store.write(SerialisedCheckpoint([tensor], metadata: metadata))
        }
        return store.path(step: step)
    }

    func finish() {
        _ = FileManager.default.createFile(atPath: path + "/finished", contents: Data())
    }

    /// Names of the results, sorted.
    var results: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: path + "/evaluations")) ?? []).filter
        { $0.hasSuffix(".json") }.sorted()
    }

    /// What is left of claims and private files.
    var leftovers: [String] {
        let folders = ["/evaluations", "/evaluations/claims"]
        return folders.flatMap { folder in
            ((try? FileManager.default.contentsOfDirectory(atPath: path + folder)) ?? []).filter {
                $0.hasPrefix(".") || $0.hasSuffix(".claim")
            }
        }
    }

    func options(once: Bool = false, timeout: Double = 100, lease: Double = 60)
        -> RunFolderEvaluator.Options
    {
        RunFolderEvaluator.Options(
            run: path, sets: Self.sets, once: once, pollSeconds: 2, timeoutSeconds: timeout,
            leaseSeconds: lease)
    }

    func evaluator(
        _ options: RunFolderEvaluator.Options, clock: TestClock = TestClock(),
        identity: ProcessIdentity = .current, stop: StopRequest = StopRequest(),
        numericsClass: String = "test", log: TestLog = TestLog(),
        score: @escaping RunFolderEvaluator.Score = TestRun.score
    ) -> RunFolderEvaluator {
        RunFolderEvaluator(
            options, numericsClass: numericsClass, datasetDigest: Self.datasetDigest,
            identity: identity, clock: clock.clock, stop: stop, report: { log.add($0) },
            score: score)
    }

    /// Scores each set as the checkpoint's step.
    static let score: RunFolderEvaluator.Score = { checkpoint, sets, _, completed in
        for set in sets { completed(set, .success(result(set, checkpoint.metadata.step))) }
    }

    static func result(_ set: String, _ step: Int) -> SetResult {
        SetResult(
            set: set, metrics: [.generalAccuracy: Double(step) / 3, .tuples: 7, .meanLoss: .nan],
            started: 1_700_000_000.25, finished: 1_700_000_001.5, images: 9)
    }
}

/// A clock that only sleeping moves.
final class TestClock: Sendable {
    private let time = Mutex(1000.0)
    private let asleep: @Sendable (Double) -> Void

    /// - Parameter asleep: is told the time, seconds since the start, after each sleep.
    init(asleep: @escaping @Sendable (Double) -> Void = { _ in }) { self.asleep = asleep }

    var seconds: Double { time.withLock { $0 - 1000 } }

    func advance(_ seconds: Double) { time.withLock { $0 += seconds } }

    var clock: EvaluatorClock {
        EvaluatorClock(
            now: { self.time.withLock { $0 } },
            sleep: { seconds in
                self.advance(seconds)
                self.asleep(self.seconds)
            })
    }
}

/// What an evaluator reported.
final class TestLog: Sendable {
    private let reports = Mutex<[RunFolderEvaluator.Report]>([])

    func add(_ report: RunFolderEvaluator.Report) { reports.withLock { $0.append(report) } }

    var all: [RunFolderEvaluator.Report] { reports.withLock { $0 } }
}

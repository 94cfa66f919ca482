import Basics
import Foundation
import Storage
import Synchronization

/// What a ``RunFolderEvaluator`` knows of its run between looks.
final class RunFolderWatch: @unchecked Sendable {
    // @unchecked: one thread calls `look`; what scoring threads change is in `results`.

    /// What one look at the folder found and did.
    struct Look {
        var checkpoints = 0
        var sawNewCheckpoint = false
        var didWork = false
        /// Tasks of checkpoints that are there, without a result, not given up here.
        var open: [EvaluationTask] = []
    }

    private struct Results {
        var written: [EvaluationTask] = []
        var failures: [String] = []
        /// What this process could not score, with the version of the checkpoint it tried.
        var givenUp: [EvaluationTask: RunFiles.Stamp] = [:]
    }

    let claims: ClaimFolder
    private let options: RunFolderEvaluator.Options
    private let numericsClass: String
    private let datasetDigest: UInt64
    private let identity: ProcessIdentity
    private let stop: StopRequest
    private let score: RunFolderEvaluator.Score
    private let report: @Sendable (RunFolderEvaluator.Report) -> Void
    private let store: CheckpointStore
    private let results = Mutex(Results())
    private var seen: Set<Int> = []

    init(
        options: RunFolderEvaluator.Options, numericsClass: String, datasetDigest: UInt64,
        identity: ProcessIdentity, stop: StopRequest, score: @escaping RunFolderEvaluator.Score,
        report: @escaping @Sendable (RunFolderEvaluator.Report) -> Void
    ) {
        self.options = options
        self.numericsClass = numericsClass
        self.datasetDigest = datasetDigest
        self.identity = identity
        self.stop = stop
        self.score = score
        self.report = report
        store = CheckpointStore(directory: options.run + "/checkpoints")
        let folder = EvaluationFile.folder(run: options.run)
        claims = ClaimFolder(
            folder: folder + "/claims", identity: identity, leaseSeconds: options.leaseSeconds)
        for folder in [folder, folder + "/claims"] {
            RunFiles.removeLeftovers(in: folder, olderThan: 10 * options.leaseSeconds)
        }
    }

    /// What the watch came to.
    func outcome(_ reason: RunFolderEvaluator.Outcome.Reason, _ look: Look)
        -> RunFolderEvaluator.Outcome
    {
        results.withLock { results in
            RunFolderEvaluator.Outcome(
                reason: reason, written: results.written,
                leftToOthers: look.open.filter(claims.isHeldElsewhere), failures: results.failures)
        }
    }

    /// Lists the checkpoints and scores what is free of the oldest that has something free.
    func look() throws -> Look {
        let steps = try store.steps()
        var look = Look(checkpoints: steps.count)
        look.sawNewCheckpoint = !seen.isSuperset(of: steps)
        seen.formUnion(steps)
        let done = Set(EvaluationFile.tasks(run: options.run))
        for step in steps {
            let open = options.sets.map { EvaluationTask(step: step, set: $0) }.filter {
                !done.contains($0) && !isGivenUp($0)
            }
            guard !open.isEmpty else { continue }
            if !look.didWork && !stop.isStopped { look.didWork = try work(step, open) }
            look.open += open.filter { !isGivenUp($0) }
        }
        return look
    }

    /// Scores what can be claimed of a checkpoint.
    private func work(_ step: Int, _ open: [EvaluationTask]) throws -> Bool {
        var claimed: [EvaluationTask] = []
        defer { for task in claimed { claims.release(task) } }
        for task in open where try claims.take(task) { claimed.append(task) }
        // Another may have finished between the look at the results and the claim.
        let free = claimed.filter {
            RunFiles.stamp(EvaluationFile.path(run: options.run, $0)) == nil
        }
        guard !free.isEmpty else { return false }
        guard let checkpoint = openCheckpoint(step, free) else { return true }
        report(.scoring(step: step, sets: free.map(\.set)))
        let digest = checkpoint.digests.weights
        score(checkpoint, free.map(\.set), stop) { [self] set, outcome in
            record(EvaluationTask(step: step, set: set), outcome, digest)
        }
        return true
    }

    private func openCheckpoint(_ step: Int, _ tasks: [EvaluationTask]) -> CheckpointReader? {
        do { return try store.open(step: step, verifying: .weights) } catch {
            // Retention may have removed it since it was listed.
            if error.code == .notFound { return nil }
            fail(tasks, "checkpoint of step \(step) not scored: \(error.message)")
            return nil
        }
    }

    private func record(
        _ task: EvaluationTask, _ outcome: Result<SetResult, any Error>, _ weights: UInt64
    ) {
        do {
            let file = EvaluationFile(
                step: task.step, result: try outcome.get(), weightsDigest: weights,
                datasetDigest: datasetDigest, numericsClass: numericsClass,
                evaluator: identity.label)
            let isNew = try file.write(run: options.run)
            claims.release(task)
            guard isNew else { return }
            results.withLock { $0.written.append(task) }
            report(.scored(file))
        } catch let error as EvalWorkerError where error.code == .stopped { return } catch {
            let why = (error as? any LineupError)?.message ?? "\(error)"
            fail([task], "step \(task.step), set '\(task.set)' not scored: \(why)")
        }
    }

    private func fail(_ tasks: [EvaluationTask], _ line: String) {
        results.withLock { results in
            results.failures.append(line)
            for task in tasks { results.givenUp[task] = stamp(task) }
        }
        report(.failed(line))
    }

    /// Whether this process has failed at this very file; a new file gets a new try.
    private func isGivenUp(_ task: EvaluationTask) -> Bool {
        guard let tried = results.withLock({ $0.givenUp[task] }) else { return false }
        return tried == stamp(task)
    }

    private func stamp(_ task: EvaluationTask) -> RunFiles.Stamp {
        RunFiles.stamp(store.path(step: task.step))
            ?? RunFiles.Stamp(device: 0, inode: 0, bytes: 0, modified: 0)
    }
}

/// Renews claims from a thread of its own, so that long work keeps them.
final class ClaimRenewal: @unchecked Sendable {
    // @unchecked: `hasEnded` is touched only under `condition`.
    private let condition = NSCondition()
    private var hasEnded = false

    init(_ claims: ClaimFolder, everySeconds: Double) {
        let thread = Thread { [self] in
            condition.lock()
            while !hasEnded {
                if !condition.wait(until: Date(timeIntervalSinceNow: everySeconds)) && !hasEnded {
                    claims.renew()
                }
            }
            condition.unlock()
        }
        thread.name = "claims"
        thread.start()
    }

    func end() {
        condition.lock()
        hasEnded = true
        condition.signal()
        condition.unlock()
    }
}

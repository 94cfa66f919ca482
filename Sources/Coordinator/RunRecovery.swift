internal import Basics
internal import ClusterCore
internal import Datasets
internal import Foundation
internal import Settings
internal import Storage

/// Brings ledger and checkpoint folder into one picture when a coordinator starts.
struct RunRecovery {
    /// The run's row.
    let run: RunRecord
    /// What the state machine starts from.
    let recovery: CoordinatorRecovery
    /// What people should know of it.
    private(set) var notes: [CoordinatorAction] = []

    /// Creates the run in an empty ledger, or reads what is there, and begins a term.
    ///
    /// - Parameter acceptsNumerics: whether the run goes on in other numerics classes than it had, from
    ///   its last whole checkpoint on.
    init(
        folder: RunFolder, ledger: Ledger, dataSet: DataSet, acceptsNumerics: Bool = false
    ) throws {
        let listed = CheckpointStore(directory: folder.checkpoints)
        let snapshots = CheckpointStore(directory: folder.recovery)
        try listed.prepare()
        try snapshots.prepare()
        if let existing = try ledger.reader.run() {
            guard existing.datasetDigest == dataSet.digest else {
                throw CoordinatorError(
                    .differs,
                    "data set \(dataSet.root) has digest \(dataSet.digest.hex), the run was begun "
                        + "on one with \(existing.datasetDigest.hex); name the run's own data with "
                        + "--data-root, or start a new run")
            }
        } else {
            try ledger.createRun(
                RunRecord(
                    run: folder.name + "-" + UInt64.random(in: .min ... .max).hex,
                    created: Ledger.secondsSince1970(), settings: folder.settings.canonicalJSON,
                    settingsDigest: folder.settings.digest, datasetDigest: dataSet.digest))
        }
        let workers = try ledger.reader.workers()
        let liveTrainers = workers.filter { $0.role == "trainer" && $0.left == nil }
        let quarantined = workers.filter {
            $0.why == CoordinatorStateMachine.quarantineReason
        }
        let term = try ledger.beginTerm()
        guard var run = try ledger.reader.run() else {
            throw CoordinatorError(.noRun, "ledger \(ledger.path) records no run")
        }
        if run.settingsDigest != folder.settings.digest {
            try ledger.updateSettings(
                folder.settings.canonicalJSON, digest: folder.settings.digest)
        }
        var found: [DurableCheckpoint] = []
        var notes: [CoordinatorAction] = []
        for (store, isRecovery) in [(listed, false), (snapshots, true)] {
            for step in try store.steps() where step <= run.lastStep {
                do throws(StorageError) {
                    let checkpoint = try DurableCheckpoint(
                        store: store, step: step, isRecovery: isRecovery)
                    guard try ledger.reader.history(afterStep: step) == checkpoint.history else {
                        notes.append(Self.skipped(store.path(step: step), "is of another history"))
                        continue
                    }
                    found.append(checkpoint)
                } catch {
                    guard error.code == .corrupt else { throw error }
                    notes.append(Self.skipped(store.path(step: step), error.message))
                }
            }
        }
        if acceptsNumerics, run.trainingClass != nil || run.evaluationClass != nil {
            let start = found.map(\.step).max() ?? 0
            notes.append(try Self.acceptNumerics(of: run, from: start, ledger: ledger))
            run = try ledger.reader.run() ?? run
        }
        self.run = run
        for checkpoint in found where !checkpoint.isRecovery {
            try Self.ensureRow(checkpoint, store: listed, ledger: ledger)
        }
        notes += try Self.mendRows(
            of: listed, whole: Set(found.filter { !$0.isRecovery }.map(\.step)), ledger: ledger)
        try ledger.takeIn(
            try FolderEvaluation.all(run: folder.path) { error in
                notes.append(
                    .event(kind: "evaluation_file", severity: .warning, text: error.message))
            })
        var scored: [Int: Set<String>] = [:]
        var (rankingValues, decisionScores): ([Int: Double], [Int: Double]) = ([:], [:])
        let (ranked, decided) = (folder.settings.checkpoint, folder.settings.schedule)
        for row in try ledger.reader.evaluations() {
            scored[row.step, default: []].insert(row.set)
            if row.set == ranked.keepBestSet, row.metric == ranked.keepBestMetric.rawValue {
                rankingValues[row.step] = row.value
            }
            if row.set == decided.decisionSet, row.metric == decided.decisionMetric.rawValue {
                decisionScores[row.step] = row.value
            }
        }
        let deleted = try ledger.reader.checkpoints().filter { $0.state == .deleted }
        self.notes = notes
        recovery = CoordinatorRecovery(
            term: UInt64(term), committedStep: run.lastStep, committedHistory: run.history,
            checkpoints: found.sorted {
                ($0.step, $0.isRecovery ? 0 : 1) < ($1.step, $1.isRecovery ? 0 : 1)
            },
            scored: scored, numericsClass: run.trainingClass ?? "",
            evaluationClass: run.evaluationClass ?? "",
            committedDigest: try ledger.reader.digest(ofStep: run.lastStep) ?? 0,
            previousHistory: try ledger.reader.history(afterStep: max(0, run.lastStep - 1)) ?? 0,
            liveTrainers: liveTrainers.map(\.worker), quarantined: quarantined.map(\.worker),
            rankingValues: rankingValues, decisionScores: decisionScores,
            deletedDigests: Dictionary(
                uniqueKeysWithValues: deleted.map { ($0.step, $0.stateDigest) }),
            supersededStep: try ledger.reader.lastSupersededStep())
    }

    /// Lets whoever trains next decide the classes, and sets steps aside that are to be done again.
    ///
    /// - Parameter step: the one whose state is there.
    private static func acceptNumerics(
        of run: RunRecord, from step: Int, ledger: Ledger
    ) throws -> CoordinatorAction {
        var text =
            "the run goes on from step \(step) in the numerics class of whoever trains first; it had "
            + (run.trainingClass ?? "none")
        if run.lastStep > step {
            try ledger.supersede(fromStep: step + 1)
            text += "; rows of steps \(step + 1) to \(run.lastStep) are superseded"
        }
        try ledger.forgetNumericsClasses()
        return .event(kind: "numerics_accepted", severity: .warning, text: text)
    }

    /// Rows of files that are gone or damaged say so.
    ///
    /// - Parameter whole: steps whose files verify.
    private static func mendRows(
        of store: CheckpointStore, whole: Set<Int>, ledger: Ledger
    ) throws -> [CoordinatorAction] {
        let there = Set(try store.steps())
        var notes: [CoordinatorAction] = []
        for row in try ledger.reader.checkpoints()
        where row.state != .deleted && !whole.contains(row.step) {
            if there.contains(row.step) {
                try ledger.setCheckpointState(step: row.step, .damaged)
            } else {
                try ledger.setCheckpointState(step: row.step, .deleted)
                notes.append(
                    .event(
                        kind: "checkpoint_gone", severity: .warning,
                        text: "checkpoint \(row.file) is not there any more; somebody removed it"))
            }
        }
        return notes
    }

    private static func skipped(_ path: String, _ why: String) -> CoordinatorAction {
        .event(
            kind: "checkpoint_skipped", severity: .warning,
            text: "checkpoint \(path) is not used: \(why)")
    }

    /// A crash may fall between the rename of a checkpoint and its row.
    private static func ensureRow(
        _ checkpoint: DurableCheckpoint, store: CheckpointStore, ledger: Ledger
    ) throws {
        let reader = try store.open(step: checkpoint.step, verifying: .header)
        try ledger.insertCheckpoint(
            CheckpointRecord(
                step: checkpoint.step, file: checkpoint.file, bytes: checkpoint.byteCount,
                digest: reader.digests.weights, stateDigest: reader.digests.state,
                written: Ledger.secondsSince1970()))
    }
}

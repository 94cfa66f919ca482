import Basics
import Foundation
import GRDB
import Synchronization

/// The record of a run, as its one coordinator writes it.
///
/// Every write is one durable transaction: when a call returns, what it wrote survives a loss of
/// power. A write in a term that another coordinator has ended throws `staleTerm` and changes
/// nothing. Calls block the calling thread for a disk flush, so they belong on the coordinator's
/// own thread.
///
/// ```swift
/// let ledger = try Ledger(path: "RUN/ledger.sqlite")
/// try ledger.createRun(run)
/// let term = try ledger.beginTerm()
/// let history = try ledger.commitStep(step, miniBatches: miniBatches)
/// ```
public final class Ledger: Sendable {
    /// The file name within a run's folder.
    public static let fileName = "ledger.sqlite"
    /// The lock file's name within a run's folder.
    public static let lockName = "coordinator.lock"

    /// Where the ledger lies.
    public let path: String
    /// Reads through the writer's own connection: works where no other connection can.
    public let reader: LedgerReader
    /// Whether the ledger lies on a network file system and so cannot be read by other processes.
    public let isExclusive: Bool
    private let queue: DatabaseQueue
    private let lock: RunLock
    private let currentTerm = Mutex<Int?>(nil)
    private let now: @Sendable () -> Double

    /// Opens a ledger for writing, makes it when it does not exist, and brings it up to date.
    ///
    /// A ledger that SQLite finds damaged (`PRAGMA quick_check`), or that is empty where it cannot be, is
    /// set aside with its log as `FILE.damaged-1`, byte for byte, and nothing is begun in its place.
    ///
    /// - Parameters:
    ///   - lockPath: the lock file; beside the ledger unless the ledger lies outside the run.
    ///   - isBegun: whether the run has checkpoints: then a ledger that is missing or empty is no new
    ///     one.
    ///   - now: seconds since 1970, for what the ledger dates itself.
    ///   - fileSystem: tells where WAL works between processes.
    /// - Throws: ``StorageError`` with code `locked` when another coordinator has it,
    ///   `newerVersion`, `notFound`, `corrupt`, `io` or `diskFull`.
    public init(
        path: String, lockPath: String? = nil, isBegun: Bool = false,
        now: @escaping @Sendable () -> Double = Ledger.secondsSince1970,
        fileSystem: (String) -> FileSystemKind = FileSystemKind.of(path:)
    ) throws(StorageError) {
        let folder = (path as NSString).deletingLastPathComponent
        let directory = folder.isEmpty ? "." : folder
        try SystemFiles().createDirectory(directory)
        lock = try RunLock(path: lockPath ?? directory + "/" + Self.lockName)
        isExclusive = fileSystem(directory) == .network
        self.path = path
        self.now = now
        try Self.checkBeginning(path, isBegun: isBegun)
        let existed = FileManager.default.fileExists(atPath: path)
        do {
            if existed, !isExclusive { try Self.checkPages(path) }
            queue = try Self.open(path, exclusive: isExclusive, isBegun: isBegun)
        } catch let error as DatabaseError
            where isBegun && [.SQLITE_CORRUPT, .SQLITE_NOTADB].contains(error.resultCode)
        {
            throw try Self.setAside(path, why: error.message ?? "SQLite cannot read it")
        } catch {
            throw StorageError.database("cannot be opened", path, error)
        }
        if !existed { try SystemFiles().synchroniseDirectory(directory) }
        reader = LedgerReader(path: path, queue: queue)
    }

    private static func open(
        _ path: String, exclusive: Bool, isBegun: Bool
    ) throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.label = "ledger"
        configuration.busyMode = .timeout(10)
        configuration.prepareDatabase { database in
            // Exclusive before WAL: SQLite then needs no shared memory, which does not exist
            // between hosts ("Use of WAL Without Shared-Memory" in its manual).
            if exclusive { try database.execute(sql: "PRAGMA locking_mode = EXCLUSIVE") }
            let mode = try String.fetchOne(database, sql: "PRAGMA journal_mode = WAL")
            guard mode == "wal" else {
                throw StorageError(
                    .io,
                    "ledger \(path): journal mode is '\(mode ?? "none")', WAL was asked for; "
                        + "put it on another file system with ledger.path")
            }
            try database.execute(sql: "PRAGMA synchronous = FULL")
        }
        let queue = try DatabaseQueue(path: path, configuration: configuration)
        if exclusive { try checkPages(of: queue) }
        let migrator = LedgerSchema.migrator
        try queue.write { database in
            try LedgerReader.checkVersion(database, migrator, path: path, mayBeEmpty: !isBegun)
        }
        try migrator.migrate(queue)
        return queue
    }

    /// Looks for damaged pages before a connection is made that may write: when that one ends it takes the
    /// log in or deletes it, whatever it found.
    private static func checkPages(_ path: String) throws {
        var configuration = Configuration()
        configuration.readonly = true
        configuration.busyMode = .timeout(10)
        try checkPages(of: DatabaseQueue(path: path, configuration: configuration))
    }

    /// What is well-formed and wrong is not seen.
    private static func checkPages(of queue: DatabaseQueue) throws {
        let found = try queue.read { try String.fetchOne($0, sql: "PRAGMA quick_check(1)") }
        guard let found, found != "ok" else { return }
        let line = found.split(separator: "\n").joined(separator: " ")
        throw DatabaseError(resultCode: .SQLITE_CORRUPT, message: line)
    }

    /// A ledger is begun only where there was none; a crash may leave an empty file of a new one.
    private static func checkBeginning(_ path: String, isBegun: Bool) throws(StorageError) {
        func byteCount(_ path: String) -> Int? {
            let attributes = try? FileManager.default.attributesOfItem(atPath: path)
            return (attributes?[.size] as? NSNumber)?.intValue
        }
        let bytes = byteCount(path)
        let logBytes = byteCount(path + "-wal") ?? 0
        if bytes ?? 0 > 0 || !isBegun && logBytes == 0 { return }
        guard bytes != nil || logBytes > 0 else {
            throw StorageError(
                .notFound,
                "there is no ledger at \(path), and the run has checkpoints: put its ledger back (one "
                    + "that was damaged is kept beside it as .damaged-1), or start a new run")
        }
        throw try setAside(path, why: "it is empty, and the run has begun")
    }

    /// Moves a damaged ledger and its log out of the way.
    ///
    /// - Returns: the error that says so.
    private static func setAside(_ path: String, why: String) throws(StorageError) -> StorageError {
        let files = SystemFiles()
        let aside = files.nameAside(path)
        // The ledger first: alone in its place, without the log, it would pass for a sound older one.
        for part in ["", "-wal", "-shm"] where files.exists(path + part) {
            try files.rename(path + part, to: aside + part)
        }
        let folder = (path as NSString).deletingLastPathComponent
        try files.synchroniseDirectory(folder.isEmpty ? "." : folder)
        return StorageError(
            .corrupt,
            "ledger \(path) is damaged: \(why); it is kept as \(aside), and nothing was changed: put a "
                + "sound copy in its place, or start a new run")
    }

    /// The wall clock, as the ledger writes times.
    @Sendable
    public static func secondsSince1970() -> Double { Date().timeIntervalSince1970 }

    /// The term that this coordinator began; nil before ``beginTerm()``.
    public var term: Int? { currentTerm.withLock { $0 } }

    /// Records what the run is; called once, before the first term.
    ///
    /// - Throws: ``StorageError`` with code `conflict` when the ledger already has a run.
    public func createRun(_ run: RunRecord) throws(StorageError) {
        try write("recording the run") { database in
            if let existing = try database.row("SELECT run FROM runs") {
                let name: String = try existing.get("run")
                throw StorageError(
                    .conflict,
                    "ledger \(self.path) already records run \(name); resume that run or use "
                        + "another folder")
            }
            try database.run(
                """
                INSERT INTO runs (run, created, term, last_step, history, settings,
                    settings_digest, dataset_digest, training_class, evaluation_class, state)
                VALUES (?, ?, 0, 0, ?, ?, ?, ?, ?, ?, ?)
                """,
                [
                    run.run, run.created, UInt64(0).hex, run.settings, run.settingsDigest.hex,
                    run.datasetDigest.hex, run.trainingClass, run.evaluationClass,
                    RunRecord.State.running.rawValue,
                ])
        }
    }

    /// Begins this coordinator's term: every coordinator before it can write no more.
    ///
    /// - Returns: the term; the first is 1.
    @discardableResult
    public func beginTerm() throws(StorageError) -> Int {
        let term = try write("beginning a term") { database in
            guard
                let row = try database.row(
                    "UPDATE runs SET term = term + 1, state = ? RETURNING term",
                    [RunRecord.State.running.rawValue])
            else { throw self.noRun }
            let term: Int = try row.get("term")
            // Whoever was here when the last coordinator died has to join again.
            try database.run(
                """
                UPDATE workers SET "left" = ?, why = 'the coordinator ended'
                WHERE "left" IS NULL
                """, [self.now()])
            return term
        }
        currentTerm.withLock { $0 = term }
        return term
    }

    /// Makes a step happen: the one transaction that commits it.
    ///
    /// - Parameter detailed: the step's rows for `logging.detailed`.
    /// - Returns: the history digest after the step.
    /// - Throws: ``StorageError``, and nothing is written: with code `staleTerm`, or with code
    ///   `stepOutOfOrder` when the step is not the one after the last committed one.
    @discardableResult
    public func commitStep(
        _ step: StepRecord, miniBatches: [MiniBatchRecord], detailed: DetailedRecord? = nil
    ) throws(StorageError) -> UInt64 {
        try writeInTerm("committing step \(step.step)") { database, term in
            guard let run = try database.row("SELECT last_step, history FROM runs") else {
                throw self.noRun
            }
            let last: Int = try run.get("last_step")
            guard step.step == last + 1 else {
                throw StorageError(
                    .stepOutOfOrder,
                    "ledger \(self.path): step \(step.step) cannot be committed, the last "
                        + "committed step is \(last); commit step \(last + 1)")
            }
            let history = Self.history(after: try run.digest("history"), effect: step.digest)
            try self.insert(
                step.sealed(history: history, term: term, committed: self.now()), into: database)
            for miniBatch in miniBatches {
                guard miniBatch.step == step.step else {
                    throw StorageError(
                        .invalidValue,
                        "ledger \(self.path): a mini-batch of step \(miniBatch.step) came with "
                            + "step \(step.step)")
                }
            }
            for part in miniBatches.insertionParts {
                try MiniBatchRecord.insertion.insert(part, into: database) { $0.bind(&$1) }
            }
            if let detailed { try self.insert(detailed, of: step.step, into: database) }
            try database.run(
                "UPDATE runs SET last_step = ?, history = ? WHERE term = ?",
                [step.step, history.hex, term])
            return history
        }
    }

    /// Sets the rows from a step on aside, and those of its checkpoints and evaluations: other
    /// arithmetic has done the step again, and the ledger ends with the step before.
    ///
    /// - Throws: ``StorageError``, and nothing is changed: with code `staleTerm`, or `stepOutOfOrder` for
    ///   a step that is not in the ledger.
    public func supersede(fromStep step: Int) throws(StorageError) {
        try writeInTerm("superseding the steps from \(step) on") { database, term in
            guard step > 0, try database.row("SELECT step FROM steps WHERE step = ?", [step]) != nil
            else {
                throw StorageError(
                    .stepOutOfOrder,
                    "ledger \(self.path): step \(step) cannot be superseded, it is not there")
            }
            for table in LedgerSchema.supersededTables {
                try database.run(
                    "INSERT INTO superseded_\(table) SELECT ?, * FROM \(table) WHERE step >= ?",
                    [self.now(), step])
                try database.run("DELETE FROM \(table) WHERE step >= ?", [step])
            }
            try database.run("DELETE FROM detailed WHERE step >= ?", [step])
            let before = try database.row("SELECT history FROM steps WHERE step = ?", [step - 1])
            try database.run(
                "UPDATE runs SET last_step = ?, history = ? WHERE term = ?",
                [step - 1, try before?.get("history") ?? UInt64(0).hex, term])
        }
    }

    /// Whoever trains or scores next decides what the run's numerics classes are.
    ///
    /// - Throws: ``StorageError``, and nothing is changed.
    public func forgetNumericsClasses() throws(StorageError) {
        try writeInTerm("forgetting the numerics classes") { database, term in
            try database.run(
                "UPDATE runs SET training_class = NULL, evaluation_class = NULL WHERE term = ?",
                [term])
        }
    }

    /// The history digest after a step: XXH64 over 16 bytes, the digest before and the effect's.
    public static func history(after history: UInt64, effect: UInt64) -> UInt64 {
        var hash = XXH64()
        hash.update(history)
        hash.update(effect)
        return hash.finish()
    }

    private func insert(_ step: StepRecord, into database: Database) throws {
        try database.run(
            """
            INSERT INTO steps (step, loss, fraction_positive, active_count, learning_rate, samples,
                digest, history, scalars, state_digest, term, committed, compute_seconds,
                exchange_seconds, commit_seconds, total_seconds)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            [
                step.step, step.loss.stored, step.fractionPositive.stored, step.activeCount,
                step.learningRate.stored, step.samples, step.digest.hex, step.history.hex,
                step.scalars, step.stateDigest, step.term, step.committed, step.seconds.compute,
                step.seconds.exchange, step.seconds.commit, step.seconds.total,
            ])
    }

    /// Records that a worker joined.
    public func workerJoined(_ worker: WorkerRecord) throws(StorageError) {
        try record([.joined(worker)])
    }

    /// Records that a worker left; a worker that is not here changes nothing.
    public func workerLeft(
        _ worker: String, at time: Double, why: String
    ) throws(StorageError) {
        try record([.left(worker, at: time, why: why)])
    }

    /// Records an event.
    public func insertEvent(_ event: EventRecord) throws(StorageError) {
        try record([.event(event)])
    }

    /// Records what happened, in order and in one transaction.
    public func record(_ notes: [LedgerNote]) throws(StorageError) {
        let what =
            notes.count == 1 ? "recording \(notes[0].name)" : "recording \(notes.count) events"
        try writeInTerm(what) { database, term in
            for note in notes { try self.insert(note, into: database, term: term) }
        }
    }

    private func insert(_ note: LedgerNote, into database: Database, term: Int) throws {
        switch note {
        case .joined(let worker):
            try database.run(
                """
                INSERT INTO workers (worker, role, process, host, device, numerics_class, term,
                    joined) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                """,
                [
                    worker.worker, worker.role, worker.process, worker.host, worker.device,
                    worker.numericsClass, term, worker.joined,
                ])
        case .prepared(let worker, let numericsClass):
            try database.run(
                """
                UPDATE workers SET numerics_class = ? WHERE worker = ? AND "left" IS NULL
                """, [numericsClass, worker])
        case .left(let worker, let time, let why):
            try database.run(
                """
                UPDATE workers SET "left" = ?, why = ? WHERE worker = ? AND "left" IS NULL
                """, [time, why, worker])
        case .event(let event): try insert(event, into: database, term: term)
        }
    }

    /// Records a checkpoint that is durable; one that is recorded already must be equal.
    ///
    /// - Throws: ``StorageError`` with code `conflict` when the row exists with other digests.
    @discardableResult
    public func insertCheckpoint(
        _ checkpoint: CheckpointRecord
    ) throws(StorageError) -> InsertOutcome {
        try writeInTerm("recording checkpoint \(checkpoint.step)") { database, _ in
            if let row = try database.row(
                "SELECT * FROM checkpoints WHERE step = ?", [checkpoint.step])
            {
                let existing = try CheckpointRecord(row: row)
                guard existing.digest == checkpoint.digest,
                    existing.stateDigest == checkpoint.stateDigest
                else {
                    throw StorageError(
                        .conflict,
                        "ledger \(self.path): checkpoint \(checkpoint.step) has weights "
                            + "\(existing.digest.hex) and state \(existing.stateDigest.hex), the "
                            + "new one \(checkpoint.digest.hex) and "
                            + "\(checkpoint.stateDigest.hex); its row is not changed")
                }
                // The file may have been deleted or damaged and is now back.
                try database.run(
                    "UPDATE checkpoints SET state = ?, deleted = NULL WHERE step = ?",
                    [checkpoint.state.rawValue, checkpoint.step])
                return .identical
            }
            try database.run(
                """
                INSERT INTO checkpoints (step, file, bytes, digest, state_digest, state, written)
                VALUES (?, ?, ?, ?, ?, ?, ?)
                """,
                [
                    checkpoint.step, checkpoint.file, checkpoint.bytes, checkpoint.digest.hex,
                    checkpoint.stateDigest.hex, checkpoint.state.rawValue, checkpoint.written,
                ])
            return .inserted
        }
    }

    /// Records whether a checkpoint's file is still there; no result changes.
    public func setCheckpointState(
        step: Int, _ state: CheckpointRecord.State
    ) throws(StorageError) {
        try writeInTerm("recording that checkpoint \(step) is \(state.rawValue)") { database, _ in
            try database.run(
                "UPDATE checkpoints SET state = ?, deleted = ? WHERE step = ?",
                [state.rawValue, state == .deleted ? self.now() : nil, step])
        }
    }

    /// Records values of a set at a checkpoint, each exactly once, in one transaction.
    ///
    /// A value that is there already is compared; where its bits differ the old one stays and an
    /// error event is recorded.
    ///
    /// - Returns: what became of each value, in the order given.
    @discardableResult
    public func insertEvaluations(
        _ evaluations: [EvaluationRecord]
    ) throws(StorageError) -> [InsertOutcome] {
        try writeInTerm("recording evaluations") { database, term in
            var outcomes: [InsertOutcome] = []
            outcomes.reserveCapacity(evaluations.count)
            for part in evaluations.insertionParts {
                outcomes += try self.insert(part, into: database, term: term)
            }
            return outcomes
        }
    }

    /// Inserts all of some values with one statement, or each with its own where one is there already
    /// or they are few.
    private func insert(
        _ evaluations: ArraySlice<EvaluationRecord>, into database: Database, term: Int
    ) throws -> [InsertOutcome] {
        let insertion = EvaluationRecord.insertion
        if evaluations.count == RowInsertion.rowsAtOnce {
            do {
                try insertion.insert(evaluations, into: database) { $0.bind(&$1) }
                return Array(repeating: .inserted, count: evaluations.count)
            } catch DatabaseError.SQLITE_CONSTRAINT {
                // SQLite takes back the whole statement, and no more.
            }
        }
        return try evaluations.map { evaluation in
            try insertion.insertIfNew(database, bind: evaluation.bind)
                ? .inserted : try compare(evaluation, in: database, term: term)
        }
    }

    /// Records one value; see ``insertEvaluations(_:)``.
    @discardableResult
    public func insertEvaluation(
        _ evaluation: EvaluationRecord
    ) throws(StorageError) -> InsertOutcome {
        try insertEvaluations([evaluation])[0]
    }

    /// What the row that is there already says of a value.
    private func compare(
        _ evaluation: EvaluationRecord, in database: Database, term: Int
    ) throws -> InsertOutcome {
        let key: StatementArguments = [evaluation.step, evaluation.set, evaluation.metric]
        guard
            let row = try database.row(
                "SELECT * FROM evaluations WHERE step = ? AND \"set\" = ? AND metric = ?", key)
        else {
            throw StorageError(
                .database,
                "ledger \(path): \(evaluation.metric) of \(evaluation.set) at step "
                    + "\(evaluation.step) is neither written nor there")
        }
        let existing = try EvaluationRecord(row: row)
        if existing.value.stored.bitPattern == evaluation.value.stored.bitPattern {
            return .identical
        }
        // Other arithmetic may give other numbers.
        let isSameClass = existing.numericsClass == evaluation.numericsClass
        let text =
            "\(evaluation.metric) of \(evaluation.set) at step \(evaluation.step) is "
            + "\(existing.value) by \(existing.evaluator) and \(evaluation.value) by "
            + "\(evaluation.evaluator)\(isSameClass ? "" : ", of another numerics class"); the first "
            + "stays"
        try insert(
            EventRecord(
                time: now(), kind: "evaluation_differs", severity: isSameClass ? .error : .info,
                step: evaluation.step, text: text),
            into: database, term: term)
        return .differing
    }

    private func insert(_ event: EventRecord, into database: Database, term: Int) throws {
        try database.run(
            """
            INSERT INTO events (time, kind, severity, step, text, payload, term)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            [
                event.time, event.kind, event.severity.rawValue, event.step, event.text,
                event.payload, term,
            ])
    }

    /// Records how far the run has come.
    public func setState(_ state: RunRecord.State) throws(StorageError) {
        try writeInTerm("recording that the run is \(state.rawValue)") { database, _ in
            try database.run(
                "UPDATE runs SET state = ?, finished = ?",
                [state.rawValue, state == .finished ? self.now() : nil])
        }
    }

    /// Records the numerics class that the first worker of a role brought.
    public func setNumericsClasses(
        training: String? = nil, evaluation: String? = nil
    ) throws(StorageError) {
        try writeInTerm("recording the numerics classes") { database, _ in
            try database.run(
                """
                UPDATE runs SET training_class = coalesce(?, training_class),
                    evaluation_class = coalesce(?, evaluation_class)
                """, [training, evaluation])
        }
    }

    /// Records settings that a resumed run may change.
    public func updateSettings(_ settings: String, digest: UInt64) throws(StorageError) {
        try writeInTerm("recording the settings") { database, _ in
            try database.run(
                "UPDATE runs SET settings = ?, settings_digest = ?", [settings, digest.hex])
        }
    }

    /// Ends the writer; what was written is durable before.
    public func close() throws(StorageError) {
        do {
            try queue.close()
        } catch {
            throw StorageError.database("closing", path, error)
        }
    }

    var noRun: StorageError {
        StorageError(.notFound, "ledger \(path) records no run; start one with lineup train")
    }

    /// Runs a transaction that only the coordinator of the newest term may run.
    func writeInTerm<Value>(
        _ what: String, _ body: (Database, Int) throws -> Value
    ) throws(StorageError) -> Value {
        guard let term else {
            throw StorageError(
                .staleTerm, "ledger \(path): \(what): no term has begun; call beginTerm first")
        }
        return try write(what) { database in
            guard let row = try database.row("SELECT term FROM runs") else { throw self.noRun }
            let newest: Int = try row.get("term")
            guard newest == term else {
                throw StorageError(
                    .staleTerm,
                    "ledger \(self.path): \(what) in term \(term): term \(newest) has begun, "
                        + "another coordinator has taken over; this one must end")
            }
            return try body(database, term)
        }
    }

    private func write<Value>(
        _ what: String, _ body: (Database) throws -> Value
    ) throws(StorageError) -> Value {
        do {
            // GRDB begins an immediate transaction: no other writer can come between.
            return try queue.write(body)
        } catch {
            throw StorageError.database(what, path, error)
        }
    }
}

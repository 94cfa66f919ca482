import Basics
import Foundation
import GRDB

/// Reads the ledger of a run, also while its coordinator writes; changes nothing.
public final class LedgerReader: Sendable {
    /// Where the ledger lies.
    public let path: String
    private let queue: DatabaseQueue

    init(path: String, queue: DatabaseQueue) {
        self.path = path
        self.queue = queue
    }

    /// Opens a ledger.
    ///
    /// - Parameters:
    ///   - run: the run's folder, or the ledger file itself.
    /// - Throws: ``StorageError`` with code `notFound`, `corrupt`, `newerVersion`, `locked` or `io`.
    public convenience init(run: String) throws(StorageError) {
        try self.init(path: Self.ledgerPath(run: run))
    }

    /// Opens a ledger file.
    public convenience init(path: String) throws(StorageError) {
        guard FileManager.default.fileExists(atPath: path) else {
            throw StorageError(
                .notFound,
                "there is no ledger at \(path); name a run's folder, or start the run with "
                    + "lineup train")
        }
        do {
            let queue = try Self.open(path)
            self.init(path: path, queue: queue)
        } catch {
            throw StorageError.database("cannot be read", path, error)
        }
    }

    /// Where the ledger of a run lies: `ledger.path` of its settings, else in its folder.
    public static func ledgerPath(run: String) throws(StorageError) -> String {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: run, isDirectory: &isFolder) else {
            throw StorageError(
                .notFound, "there is no run at \(run); name the folder of a run")
        }
        guard isFolder.boolValue else { return run }
        let inside = run + "/" + Ledger.fileName
        if FileManager.default.fileExists(atPath: inside) { return inside }
        guard let data = FileManager.default.contents(atPath: run + "/settings.json"),
            let settings = try? JSONSerialization.jsonObject(with: data) as? [String: Any]
        else { return inside }
        let section = settings["ledger"] as? [String: Any]
        let named = section?["path"] as? String ?? settings["ledger.path"] as? String ?? ""
        if named.isEmpty { return inside }
        return named.hasPrefix("/") ? named : run + "/" + named
    }

    private static func open(_ path: String) throws -> DatabaseQueue {
        var configuration = Configuration()
        configuration.readonly = true
        configuration.label = "ledger reader"
        configuration.busyMode = .timeout(2)
        do {
            return try checked(try DatabaseQueue(path: path, configuration: configuration), path)
        } catch let error as DatabaseError
            where [.SQLITE_CANTOPEN, .SQLITE_READONLY].contains(error.resultCode)
        {
            // The folder cannot be written to and nobody has the ledger open, so SQLite has
            // nowhere to coordinate. Without a write-ahead log the file alone is the whole ledger.
            let log = path + "-wal"
            let attributes = try? FileManager.default.attributesOfItem(atPath: log)
            let logBytes = (attributes?[.size] as? NSNumber)?.intValue ?? 0
            guard logBytes == 0 else {
                throw StorageError(
                    .io,
                    "ledger \(path): its folder cannot be written to, and \(logBytes) bytes of "
                        + "recent steps are still in \(log); copy both files to a folder of yours "
                        + "and name that one")
            }
            let uri = URL(fileURLWithPath: path).absoluteString + "?immutable=1"
            return try checked(try DatabaseQueue(path: uri, configuration: configuration), path)
        }
    }

    private static func checked(_ queue: DatabaseQueue, _ path: String) throws -> DatabaseQueue {
        try queue.read { database in
            try checkVersion(database, LedgerSchema.migrator, path: path, mayBeEmpty: false)
        }
        return queue
    }

    /// Refuses what is no ledger, or a newer lineup's.
    static func checkVersion(
        _ database: Database, _ migrator: DatabaseMigrator, path: String, mayBeEmpty: Bool
    ) throws {
        let tables = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master") ?? 0
        if tables == 0 && mayBeEmpty { return }
        let identifier = try Int.fetchOne(database, sql: "PRAGMA application_id") ?? 0
        guard identifier == LedgerSchema.applicationID else {
            throw StorageError(
                .corrupt,
                "\(path) is an SQLite file with \(tables) tables but no ledger of lineup; "
                    + "name a run's folder")
        }
        if try migrator.hasBeenSuperseded(database) {
            let applied = try migrator.appliedIdentifiers(database)
            let newest = applied.compactMap { Int($0) }.max() ?? 0
            throw StorageError(
                .newerVersion,
                "ledger \(path): schema version \(newest), this lineup knows up to "
                    + "\(migrator.migrations.count); use the version that wrote it")
        }
    }

    /// Ends reading.
    public func close() throws(StorageError) {
        do {
            try queue.close()
        } catch {
            throw StorageError.database("closing", path, error)
        }
    }

    // MARK: Rows

    /// The run; nil before a coordinator has recorded one.
    public func run() throws(StorageError) -> RunRecord? {
        try read { try $0.row("SELECT * FROM runs").map { try RunRecord(row: $0) } }
    }

    /// Committed steps, ascending.
    public func steps(in range: ClosedRange<Int> = 0...Int.max) throws(StorageError) -> [StepRecord]
    {
        try read {
            try $0.rows(
                "SELECT * FROM steps WHERE step BETWEEN ? AND ? ORDER BY step",
                [range.lowerBound, range.upperBound]
            ).map { try StepRecord(row: $0) }
        }
    }

    /// What each committed step after `step` was given, in the form in which it was stored.
    public func scalars(after step: Int) throws(StorageError) -> [Int: String] {
        try read {
            try $0.rows(
                "SELECT step, scalars FROM steps WHERE step > ? AND scalars IS NOT NULL", [step]
            )
            .reduce(into: [:]) { found, row in
                if let text: String = try row.optional("scalars") {
                    found[try row.get("step")] = text
                }
            }
        }
    }

    /// The digest of a committed step's effect, to compare a redone step with; nil if not committed.
    public func digest(ofStep step: Int) throws(StorageError) -> UInt64? {
        try read {
            try $0.row("SELECT digest FROM steps WHERE step = ?", [step])?.digest("digest")
        }
    }

    /// The history digest after a step: 0 after step 0; nil if the step is not committed.
    public func history(afterStep step: Int) throws(StorageError) -> UInt64? {
        if step == 0 { return 0 }
        return try read {
            try $0.row("SELECT history FROM steps WHERE step = ?", [step])?.digest("history")
        }
    }

    /// The last step whose row was superseded, 0 when none was.
    public func lastSupersededStep() throws(StorageError) -> Int {
        try read { try Int.fetchOne($0, sql: "SELECT max(step) FROM superseded_steps") ?? 0 }
    }

    /// Computations of slots, by step, slot and attempt; of all steps where none are named.
    public func miniBatches(
        in range: ClosedRange<Int> = 0...Int.max
    ) throws(StorageError) -> [MiniBatchRecord] {
        try read {
            try $0.rows(
                "SELECT * FROM mini_batches WHERE step BETWEEN ? AND ? ORDER BY step, slot, attempt",
                [range.lowerBound, range.upperBound]
            ).map { try MiniBatchRecord(row: $0) }
        }
    }

    /// All workers in order of joining.
    public func workers() throws(StorageError) -> [WorkerRecord] {
        try read {
            try $0.rows("SELECT * FROM workers ORDER BY id").map { try WorkerRecord(row: $0) }
        }
    }

    /// All checkpoints, ascending, the deleted ones included.
    public func checkpoints() throws(StorageError) -> [CheckpointRecord] {
        try read {
            try $0.rows("SELECT * FROM checkpoints ORDER BY step")
                .map { try CheckpointRecord(row: $0) }
        }
    }

    /// All evaluations, by step, set and metric.
    public func evaluations() throws(StorageError) -> [EvaluationRecord] {
        try read {
            try $0.rows("SELECT * FROM evaluations ORDER BY step, \"set\", metric")
                .map { try EvaluationRecord(row: $0) }
        }
    }

    /// The last events, oldest first.
    public func events(last count: Int = .max) throws(StorageError) -> [EventRecord] {
        try read {
            try $0.rows("SELECT * FROM events ORDER BY id DESC LIMIT ?", [count]).reversed()
                .map { try EventRecord(row: $0) }
        }
    }

    /// Everything, as one consistent picture.
    ///
    /// - Parameters:
    ///   - includesSteps: whether steps and mini-batches are read, of which there may be many.
    public func snapshot(includesSteps: Bool = true) throws(StorageError) -> LedgerSnapshot {
        try read { database in
            guard let run = try database.row("SELECT * FROM runs") else { throw self.noRun }
            let none: [Row] = []
            let steps =
                includesSteps ? try database.rows("SELECT * FROM steps ORDER BY step") : none
            let miniBatches =
                includesSteps
                ? try database.rows("SELECT * FROM mini_batches ORDER BY step, slot, attempt")
                : none
            return LedgerSnapshot(
                run: try RunRecord(row: run),
                steps: try steps.map { try StepRecord(row: $0) },
                checkpoints: try database.rows("SELECT * FROM checkpoints ORDER BY step")
                    .map { try CheckpointRecord(row: $0) },
                evaluations: try database.rows(
                    "SELECT * FROM evaluations ORDER BY step, \"set\", metric"
                ).map { try EvaluationRecord(row: $0) },
                workers: try database.rows("SELECT * FROM workers ORDER BY id")
                    .map { try WorkerRecord(row: $0) },
                events: try database.rows("SELECT * FROM events ORDER BY id")
                    .map { try EventRecord(row: $0) },
                miniBatches: try miniBatches.map { try MiniBatchRecord(row: $0) })
        }
    }

    /// The value of a pragma of this connection.
    package func pragma(_ name: String) throws(StorageError) -> Int? {
        try read { try Int.fetchOne($0, sql: "PRAGMA \(name)") }
    }

    /// The digest of the run's results.
    ///
    /// - Parameters:
    ///   - files: evaluations that wait beside the ledger; those that it has already count once.
    public func resultDigest(
        adding files: [FolderEvaluation] = []
    ) throws(StorageError) -> ResultDigest {
        try read { database in
            let evaluations = try database.rows("SELECT * FROM evaluations").map {
                try EvaluationRecord(row: $0)
            }
            let checkpoints = try database.rows("SELECT * FROM checkpoints").map {
                try CheckpointRecord(row: $0)
            }
            return try ResultDigest(
                database, evaluations: EvaluationRecord.merged(evaluations, files, checkpoints))
        }
    }

    var noRun: StorageError {
        StorageError(.notFound, "ledger \(path) records no run yet; wait for its coordinator")
    }

    func read<Value>(
        _ body: (Database) throws -> Value
    ) throws(StorageError) -> Value {
        do {
            return try queue.read(body)
        } catch {
            throw StorageError.database("cannot be read", path, error)
        }
    }
}

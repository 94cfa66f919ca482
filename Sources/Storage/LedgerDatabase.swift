import Basics
import GRDB

extension StorageError {
    /// Makes a storage error of whatever SQLite or GRDB threw.
    static func database(_ what: String, _ path: String, _ error: any Error) -> StorageError {
        if let error = error as? StorageError { return error }
        guard let error = error as? DatabaseError else {
            return StorageError(.database, "ledger \(path): \(what): \(error)", cause: "\(error)")
        }
        let text = error.message ?? "SQLite error \(error.extendedResultCode.rawValue)"
        let code: Code
        let advice: String
        switch error.resultCode {
        case .SQLITE_FULL:
            (code, advice) = (.diskFull, "make room on its file system")
        case .SQLITE_IOERR:
            (code, advice) = (.io, "check the disk or the file server")
        case .SQLITE_CORRUPT, .SQLITE_NOTADB:
            (code, advice) = (.corrupt, "it is not a sound SQLite file; use a copy of it")
        case .SQLITE_BUSY, .SQLITE_LOCKED:
            (code, advice) = (
                .locked,
                "its coordinator holds it; on a network file system ask the coordinator instead "
                    + "(lineup watch)"
            )
        case .SQLITE_CANTOPEN, .SQLITE_READONLY, .SQLITE_PERM:
            (code, advice) = (.io, "check the folder and its permissions")
        default:
            (code, advice) = (.database, "this is a mistake in lineup; please report it")
        }
        return StorageError(
            code, "ledger \(path): \(what): \(text); \(advice)", cause: "\(error)")
    }
}

extension Database {
    /// Runs a prepared statement that is kept for the next call.
    func run(_ sql: String, _ arguments: StatementArguments) throws {
        try cachedStatement(sql: sql).execute(arguments: arguments)
    }

    /// Fetches rows with a prepared statement that is kept for the next call.
    func rows(_ sql: String, _ arguments: StatementArguments = []) throws -> [Row] {
        try Row.fetchAll(cachedStatement(sql: sql), arguments: arguments)
    }

    /// Fetches the first row with a prepared statement that is kept for the next call.
    func row(_ sql: String, _ arguments: StatementArguments = []) throws -> Row? {
        try Row.fetchOne(cachedStatement(sql: sql), arguments: arguments)
    }
}

extension Row {
    /// A column's value; nil when it is NULL.
    ///
    /// GRDB's own subscripts trap on a value of another type, which a file may hold.
    func optional<Value: DatabaseValueConvertible>(_ name: String) throws -> Value? {
        guard hasColumn(name) else { throw mismatch(name, "no such column") }
        let stored: DatabaseValue = self[name]
        if stored.isNull { return nil }
        guard let value = Value.fromDatabaseValue(stored) else { throw mismatch(name, stored) }
        return value
    }

    /// A column's value.
    func get<Value: DatabaseValueConvertible>(_ name: String) throws -> Value {
        guard let value: Value = try optional(name) else { throw mismatch(name, "NULL") }
        return value
    }

    /// A digest column.
    func digest(_ name: String) throws -> UInt64 {
        let text: String = try get(name)
        guard let value = UInt64(hex: text) else { throw mismatch(name, text) }
        return value
    }

    /// A floating-point column in which NULL stands for NaN, which SQLite cannot hold.
    func real(_ name: String) throws -> Double {
        try optional(name) ?? Double.nan
    }

    /// A column with one of few texts.
    func choice<Choice: RawRepresentable>(
        _ name: String, _: Choice.Type
    ) throws -> Choice where Choice.RawValue == String {
        let text: String = try get(name)
        guard let value = Choice(rawValue: text) else { throw mismatch(name, text) }
        return value
    }

    private func mismatch(_ name: String, _ found: Any) -> StorageError {
        StorageError(
            .corrupt,
            "column '\(name)' of the ledger holds \(found), which no lineup writes there; "
                + "use a copy from before it was changed")
    }
}

extension Double {
    /// The value as SQLite keeps it: one NaN, and no minus zero.
    var stored: Double {
        if isNaN { return .nan }
        return self == 0 ? 0 : self
    }
}

extension RunRecord {
    init(row: Row) throws {
        self.init(
            run: try row.get("run"), created: try row.get("created"),
            settings: try row.get("settings"),
            settingsDigest: try row.digest("settings_digest"),
            datasetDigest: try row.digest("dataset_digest"),
            trainingClass: try row.optional("training_class"),
            evaluationClass: try row.optional("evaluation_class"))
        term = try row.get("term")
        lastStep = try row.get("last_step")
        history = try row.digest("history")
        state = try row.choice("state", State.self)
        finished = try row.optional("finished")
    }
}

extension StepRecord {
    init(row: Row) throws {
        self = StepRecord(
            step: try row.get("step"), loss: try row.real("loss"),
            fractionPositive: try row.real("fraction_positive"),
            activeCount: try row.get("active_count"),
            learningRate: try row.real("learning_rate"), samples: try row.get("samples"),
            digest: try row.digest("digest"), scalars: try row.optional("scalars"),
            stateDigest: try row.optional("state_digest"),
            seconds: StepSeconds(
                compute: try row.real("compute_seconds"),
                exchange: try row.real("exchange_seconds"),
                commit: try row.real("commit_seconds"), total: try row.real("total_seconds"))
        ).sealed(
            history: try row.digest("history"), term: try row.get("term"),
            committed: try row.get("committed"))
    }
}

extension MiniBatchRecord {
    init(row: Row) throws {
        self.init(
            step: try row.get("step"), slot: try row.get("slot"), attempt: try row.get("attempt"),
            worker: try row.get("worker"),
            seconds: try row.optional("seconds"), outcome: try row.choice("outcome", Outcome.self))
    }
}

extension WorkerRecord {
    init(row: Row) throws {
        self.init(
            worker: try row.get("worker"), role: try row.get("role"),
            process: try row.get("process"), host: try row.get("host"),
            device: try row.get("device"), numericsClass: try row.optional("numerics_class"),
            joined: try row.get("joined"))
        term = try row.get("term")
        left = try row.optional("left")
        why = try row.optional("why")
    }
}

extension CheckpointRecord {
    init(row: Row) throws {
        self.init(
            step: try row.get("step"), file: try row.get("file"), bytes: try row.get("bytes"),
            digest: try row.digest("digest"), stateDigest: try row.digest("state_digest"),
            written: try row.get("written"))
        state = try row.choice("state", State.self)
        // A ledger of the first version that nobody has written to since has no such column.
        deleted = row.hasColumn("deleted") ? try row.optional("deleted") : nil
    }
}

extension EvaluationRecord {
    init(row: Row) throws {
        self.init(
            step: try row.get("step"), set: try row.get("set"), metric: try row.get("metric"),
            value: try row.real("value"),
            started: try row.get("started"), finished: try row.get("finished"),
            evaluator: try row.get("evaluator"),
            numericsClass: try row.optional("numerics_class"))
    }
}

extension EventRecord {
    init(row: Row) throws {
        self.init(
            time: try row.get("time"), kind: try row.get("kind"),
            severity: try row.choice("severity", Severity.self), step: try row.optional("step"),
            text: try row.get("text"), payload: try row.optional("payload"))
        term = try row.get("term")
    }
}

import Basics
public import Foundation
import GRDB

/// Writes the JSON of a ledger piece by piece, so that a run of millions of steps needs little memory.
///
/// Foundation's encoder holds the whole tree and takes 30 times as long.
struct LedgerJSON {
    enum Value {
        case integer(Int)
        case real(Double?)
        case text(String?)
        case fields([(name: String, value: Value)])
    }

    private static let pieceBytes = 1 << 18
    private var piece = ""
    private let emit: (Data) throws -> Void

    init(emit: @escaping (Data) throws -> Void) {
        self.emit = emit
    }

    mutating func begin(_ run: RunRecord) {
        piece += "{\"run\":"
        append(run.json)
    }

    /// Writes one list, taking its elements one at a time.
    mutating func list(
        _ name: String, next: () throws -> [(name: String, value: Value)]?
    ) throws {
        piece += ",\"\(name)\":["
        var isFirst = true
        while let fields = try next() {
            if !isFirst { piece += "," }
            isFirst = false
            append(fields)
            if piece.utf8.count >= Self.pieceBytes { try flush() }
        }
        piece += "]"
    }

    mutating func list<Element>(
        _ name: String, _ elements: [Element],
        _ fields: (Element) -> [(name: String, value: Value)]
    ) throws {
        var rest = elements.makeIterator()
        try list(name) { rest.next().map(fields) }
    }

    mutating func end() throws {
        piece += "}"
        try flush()
    }

    private mutating func flush() throws {
        try emit(Data(piece.utf8))
        piece.removeAll(keepingCapacity: true)
    }

    private mutating func append(_ fields: [(name: String, value: Value)]) {
        piece += "{"
        for (index, field) in fields.enumerated() {
            if index > 0 { piece += "," }
            piece += "\""
            piece += field.name
            piece += "\":"
            append(field.value)
        }
        piece += "}"
    }

    private mutating func append(_ value: Value) {
        switch value {
        case .integer(let number): piece += String(number)
        case .real(nil), .text(nil): piece += "null"
        case .real(let number?) where number.isFinite: piece += number.description
        case .real(let number?):
            piece += number.isNaN ? "\"NaN\"" : number < 0 ? "\"-Infinity\"" : "\"Infinity\""
        case .text(let text?): piece += HeaderJSON.quoted(text)
        case .fields(let fields): append(fields)
        }
    }
}

extension RunRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("run", .text(run)), ("created", .real(created)), ("term", .integer(term)),
            ("last_step", .integer(lastStep)), ("history", .text(history.hex)),
            ("settings", .text(settings)), ("settings_digest", .text(settingsDigest.hex)),
            ("dataset_digest", .text(datasetDigest.hex)), ("training_class", .text(trainingClass)),
            ("evaluation_class", .text(evaluationClass)), ("state", .text(state.rawValue)),
            ("finished", .real(finished)),
        ]
    }
}

extension StepRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("step", .integer(step)), ("loss", .real(loss)),
            ("fraction_positive", .real(fractionPositive)), ("active_count", .integer(activeCount)),
            ("learning_rate", .real(learningRate)), ("samples", .integer(samples)),
            ("digest", .text(digest.hex)), ("history", .text(history.hex)),
            ("scalars", .text(scalars)), ("state_digest", .text(stateDigest)),
            ("term", .integer(term)), ("committed", .real(committed)),
            (
                "seconds",
                .fields([
                    ("compute", .real(seconds.compute)), ("exchange", .real(seconds.exchange)),
                    ("commit", .real(seconds.commit)), ("total", .real(seconds.total)),
                ])
            ),
        ]
    }
}

extension CheckpointRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("step", .integer(step)), ("file", .text(file)), ("bytes", .integer(bytes)),
            ("digest", .text(digest.hex)), ("state_digest", .text(stateDigest.hex)),
            ("state", .text(state.rawValue)), ("written", .real(written)),
            ("deleted", .real(deleted)),
        ]
    }
}

extension EvaluationRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("step", .integer(step)), ("set", .text(set)), ("metric", .text(metric)),
            ("value", .real(value)), ("started", .real(started)), ("finished", .real(finished)),
            ("evaluator", .text(evaluator)), ("numerics_class", .text(numericsClass)),
        ]
    }
}

extension WorkerRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("worker", .text(worker)), ("role", .text(role)), ("process", .integer(process)),
            ("host", .text(host)), ("device", .text(device)),
            ("numerics_class", .text(numericsClass)), ("term", .integer(term)),
            ("joined", .real(joined)), ("left", .real(left)), ("why", .text(why)),
        ]
    }
}

extension EventRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("time", .real(time)), ("kind", .text(kind)), ("severity", .text(severity.rawValue)),
            ("step", step.map { .integer($0) } ?? .text(nil)), ("text", .text(text)),
            ("payload", .text(payload)), ("term", .integer(term)),
        ]
    }
}

extension MiniBatchRecord {
    var json: [(name: String, value: LedgerJSON.Value)] {
        [
            ("step", .integer(step)), ("slot", .integer(slot)), ("attempt", .integer(attempt)),
            ("worker", .text(worker)), ("seconds", .real(seconds)),
            ("outcome", .text(outcome.rawValue)),
        ]
    }
}

extension LedgerReader {
    /// Writes everything as one line of JSON, in one consistent picture; docs/ledger.md has its shape.
    ///
    /// What JSON has no number for is the text `"NaN"`, `"Infinity"` or `"-Infinity"`.
    ///
    /// - Parameters:
    ///   - files: evaluations that wait beside the ledger.
    ///   - emit: takes the pieces in order.
    /// - Throws: ``StorageError``, or what `emit` threw, with code `io`.
    /// - Complexity: memory does not grow with steps and mini-batches.
    public func writeJSON(
        adding files: [FolderEvaluation] = [], _ emit: (Data) throws -> Void
    ) throws(StorageError) {
        try read { database in
            guard let row = try database.row("SELECT * FROM runs") else { throw self.noRun }
            try withoutActuallyEscaping(emit) { emit in
                var json = LedgerJSON(emit: emit)
                json.begin(try RunRecord(row: row))
                let steps = try Row.fetchCursor(
                    database, sql: "SELECT * FROM steps ORDER BY step")
                try json.list("steps") {
                    try steps.next().map { try StepRecord(row: $0).json }
                }
                let checkpoints = try database.rows("SELECT * FROM checkpoints ORDER BY step")
                    .map { try CheckpointRecord(row: $0) }
                try json.list("checkpoints", checkpoints) { $0.json }
                let evaluations = try database.rows("SELECT * FROM evaluations")
                    .map { try EvaluationRecord(row: $0) }
                let merged = EvaluationRecord.merged(evaluations, files, checkpoints)
                try json.list("evaluations", merged) { $0.json }
                let workers = try Row.fetchCursor(
                    database, sql: "SELECT * FROM workers ORDER BY id")
                try json.list("workers") {
                    try workers.next().map { try WorkerRecord(row: $0).json }
                }
                let events = try Row.fetchCursor(database, sql: "SELECT * FROM events ORDER BY id")
                try json.list("events") { try events.next().map { try EventRecord(row: $0).json } }
                let miniBatches = try Row.fetchCursor(
                    database, sql: "SELECT * FROM mini_batches ORDER BY step, slot, attempt")
                try json.list("mini_batches") {
                    try miniBatches.next().map { try MiniBatchRecord(row: $0).json }
                }
                try json.end()
            }
        }
    }
}

import Foundation
import GRDB

/// Rows of `logging.detailed` that no file has yet.
extension Ledger {
    /// Keeps a step's rows in the transaction that commits it.
    func insert(_ detailed: DetailedRecord, of step: Int, into database: Database) throws {
        guard detailed.step == step, detailed.objection == nil else {
            throw StorageError(
                .invalidValue,
                "ledger \(path): with step \(step) came rows of step \(detailed.step): "
                    + (detailed.objection ?? "another step"))
        }
        try insert(detailed, into: database)
    }

    private func insert(
        _ detailed: DetailedRecord, into database: Database, unlessThere: Bool = false
    ) throws {
        let names = try JSONEncoder().encode(detailed.names)
        try database.run(
            """
            INSERT \(unlessThere ? "OR IGNORE " : "")INTO detailed
                (step, names, losses, embeddings) VALUES (?, ?, ?, ?)
            """,
            [
                detailed.step, String(decoding: names, as: UTF8.self),
                detailed.losses.littleEndianBytes, detailed.embeddings.littleEndianBytes,
            ])
    }

    /// Takes rows of committed steps back from a file; those that are here stay as they are.
    ///
    /// - Throws: ``StorageError``, and nothing is changed: with code `staleTerm`, or `invalidValue` for a
    ///   step that is not committed.
    public func putBack(_ detailed: [DetailedRecord]) throws(StorageError) {
        try writeInTerm("taking back the rows of \(detailed.count) steps") { database, _ in
            guard let run = try database.row("SELECT last_step FROM runs") else { throw self.noRun }
            let last: Int = try run.get("last_step")
            for record in detailed {
                guard (1...max(1, last)).contains(record.step), record.objection == nil else {
                    throw StorageError(
                        .invalidValue,
                        "ledger \(self.path): rows of step \(record.step) cannot be taken back, the "
                            + "last committed step is \(last)")
                }
                try self.insert(record, into: database, unlessThere: true)
            }
        }
    }

    /// Forgets rows of which a file is ready.
    ///
    /// - Parameter place: puts the file in its place, durably; no other coordinator can begin meanwhile.
    /// - Throws: ``StorageError``, and nothing is forgotten: with code `staleTerm`, then nothing is placed
    ///   either; or what `place` throws.
    public func removeDetailed(
        _ steps: ClosedRange<Int>, placing place: () throws -> Void
    ) throws(StorageError) {
        try writeInTerm("forgetting rows that are in a file") { database, _ in
            try place()
            try database.run(
                "DELETE FROM detailed WHERE step BETWEEN ? AND ?",
                [steps.lowerBound, steps.upperBound])
        }
    }
}

extension LedgerReader {
    /// Steps whose rows no file has yet, ascending.
    public func detailedSteps() throws(StorageError) -> [Int] {
        try read {
            try $0.rows("SELECT step FROM detailed ORDER BY step").map { try $0.get("step") }
        }
    }

    /// Rows that no file has yet, of some steps, ascending.
    ///
    /// - Throws: ``StorageError``, with code `corrupt` for what no lineup writes.
    public func detailed(in steps: ClosedRange<Int>) throws(StorageError) -> [DetailedRecord] {
        try read {
            try $0.rows(
                "SELECT * FROM detailed WHERE step BETWEEN ? AND ? ORDER BY step",
                [steps.lowerBound, steps.upperBound]
            ).map { try DetailedRecord(row: $0, path: self.path) }
        }
    }
}

extension DetailedRecord {
    init(row: Row, path: String) throws {
        let names: String = try row.get("names")
        self.init(
            step: try row.get("step"),
            names: (try? JSONDecoder().decode([String].self, from: Data(names.utf8))) ?? [],
            embeddings: [Float](littleEndianBytes: try row.get("embeddings")),
            losses: [Float](littleEndianBytes: try row.get("losses")))
        if let objection {
            throw StorageError(
                .corrupt,
                "ledger \(path): the rows of step \(step) are \(objection); use a copy of the ledger "
                    + "from before it was changed")
        }
    }
}

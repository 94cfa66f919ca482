import Basics
import Foundation
import GRDB

/// What a run computed, in 64 bits: equal for equal runs, whoever computed them and however often
/// they were interrupted.
///
/// Covers the columns that the table `schema` calls results. Each part is the XXH64 of its rows in
/// key order: for every column a tag byte widened to eight (0 NULL, 1 integer, 2 real, 3 text), then
/// the value's eight little-endian bytes, or a text's length and UTF-8 bytes.
public struct ResultDigest: Equatable, Sendable {
    /// Last step and history.
    public let run: UInt64
    /// Losses, effects and scalars of all steps.
    public let steps: UInt64
    /// Weights and states of all checkpoints.
    public let checkpoints: UInt64
    /// Values of all evaluations.
    public let evaluations: UInt64

    /// All parts in one.
    public var total: UInt64 {
        var hash = XXH64()
        for part in [run, steps, checkpoints, evaluations] { hash.update(part) }
        return hash.finish()
    }
}

extension ResultDigest {
    /// Digests a ledger.
    ///
    /// - Parameters:
    ///   - evaluations: the values, by step, set and metric; those of the ledger and any that wait
    ///     beside it.
    init(_ database: Database, evaluations: [EvaluationRecord]) throws {
        run = try Self.digest(database, table: "runs", key: "run")
        steps = try Self.digest(database, table: "steps", key: "step")
        checkpoints = try Self.digest(database, table: "checkpoints", key: "step")
        var hash = XXH64()
        for evaluation in evaluations {
            hash.add(evaluation.step.databaseValue)
            hash.add(evaluation.set.databaseValue)
            hash.add(evaluation.metric.databaseValue)
            hash.add(evaluation.value.stored.databaseValue)
        }
        self.evaluations = hash.finish()
    }

    private static func digest(
        _ database: Database, table: String, key: String
    ) throws -> UInt64 {
        let columns = LedgerSchema.columns.filter { $0.table == table && $0.kind == .result }
        let names = columns.map { "\"\($0.name)\"" }.joined(separator: ", ")
        let rows = try Row.fetchCursor(
            database, sql: "SELECT \(names) FROM \(table) ORDER BY \(key)")
        var hash = XXH64()
        while let row = try rows.next() {
            for value in row.databaseValues { hash.add(value) }
        }
        return hash.finish()
    }
}

extension XXH64 {
    /// Adds one value of SQLite.
    fileprivate mutating func add(_ value: DatabaseValue) {
        switch value.storage {
        case .null:
            update(UInt64(0))
        case .int64(let number):
            update(UInt64(1))
            update(UInt64(bitPattern: number))
        case .double(let number) where number.isNaN:
            update(UInt64(0))
        case .double(let number):
            update(UInt64(2))
            update(number.bitPattern)
        case .string(let text):
            update(UInt64(3))
            update(UInt64(text.utf8.count))
            update(text)
        case .blob(let bytes):
            update(UInt64(4))
            update(UInt64(bytes.count))
            bytes.withUnsafeBytes { update($0) }
        }
    }
}

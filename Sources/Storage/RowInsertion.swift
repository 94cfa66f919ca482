import GRDB
import GRDBSQLite

/// How many rows are inserted: some with one statement, the rest one by one.
///
/// Values are bound with SQLite's own functions: GRDB's boxes for them take longer than SQLite does.
struct RowInsertion {
    /// Rows that one statement inserts.
    static let rowsAtOnce = 16

    private let one: String
    private let some: String

    /// - Parameter columns: all of the table's.
    init(into table: String, columns: Int) {
        let row = "(" + Array(repeating: "?", count: columns).joined(separator: ", ") + ")"
        one = "INSERT INTO \(table) VALUES \(row)"
        some = one + String(repeating: ", \(row)", count: Self.rowsAtOnce - 1)
    }

    /// Inserts a row unless its key is there.
    ///
    /// - Returns: whether it was not.
    func insertIfNew(
        _ database: Database, bind: (inout StatementValues) -> Void
    ) throws -> Bool {
        try database.insert(one + " ON CONFLICT DO NOTHING", bind: bind)
        return database.changesCount > 0
    }

    /// Inserts rows, at most ``rowsAtOnce``.
    ///
    /// - Throws: `DatabaseError`, `SQLITE_CONSTRAINT` where the key of one is there. The rows of the
    ///   statement that fails are not inserted: none, where there are ``rowsAtOnce``.
    func insert<Row>(
        _ rows: ArraySlice<Row>, into database: Database,
        bind: (Row, inout StatementValues) -> Void
    ) throws {
        if rows.count == Self.rowsAtOnce {
            return try database.insert(some) { values in
                for row in rows { bind(row, &values) }
            }
        }
        for row in rows { try database.insert(one) { bind(row, &$0) } }
    }
}

extension Database {
    fileprivate func insert(_ sql: String, bind: (inout StatementValues) -> Void) throws {
        let statement = try cachedStatement(sql: sql).sqliteStatement
        defer {
            sqlite3_reset(statement)
            sqlite3_clear_bindings(statement)
        }
        var values = StatementValues(statement)
        bind(&values)
        let code = values.code == SQLITE_OK ? sqlite3_step(statement) : values.code
        guard code == SQLITE_DONE else {
            throw DatabaseError(
                resultCode: ResultCode(rawValue: code), message: lastErrorMessage, sql: sql)
        }
    }
}

/// Binds values to a statement's parameters, one after another.
struct StatementValues {
    private let statement: SQLiteStatement
    private var index: Int32 = 0
    /// The first error, or `SQLITE_OK`.
    fileprivate private(set) var code = SQLITE_OK
    /// SQLITE_TRANSIENT, a cast that Swift does not import: SQLite copies the text.
    private static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

    fileprivate init(_ statement: SQLiteStatement) { self.statement = statement }

    private mutating func note(_ result: Int32) { if code == SQLITE_OK { code = result } }

    mutating func bind(_ value: Int) {
        index += 1
        note(sqlite3_bind_int64(statement, index, Int64(value)))
    }

    mutating func bind(_ value: Double?) {
        index += 1
        note(
            value.map { sqlite3_bind_double(statement, index, $0) }
                ?? sqlite3_bind_null(statement, index))
    }

    mutating func bind(_ text: String?) {
        index += 1
        guard var text else { return note(sqlite3_bind_null(statement, index)) }
        note(
            text.withUTF8 { bytes in
                bytes.withMemoryRebound(to: CChar.self) {
                    sqlite3_bind_text(
                        statement, index, $0.baseAddress, Int32(clamping: $0.count), Self.copied)
                }
            })
    }
}

extension Array {
    /// The rows, in parts that one statement inserts.
    var insertionParts: [ArraySlice<Element>] {
        stride(from: 0, to: count, by: RowInsertion.rowsAtOnce).map {
            self[$0..<Swift.min($0 + RowInsertion.rowsAtOnce, count)]
        }
    }
}

extension EvaluationRecord {
    static let insertion = RowInsertion(into: "evaluations", columns: 8)

    func bind(_ values: inout StatementValues) {
        values.bind(step)
        values.bind(set)
        values.bind(metric)
        values.bind(value.stored)
        values.bind(started)
        values.bind(finished)
        values.bind(evaluator)
        values.bind(numericsClass)
    }
}

extension MiniBatchRecord {
    static let insertion = RowInsertion(into: "mini_batches", columns: 6)

    func bind(_ values: inout StatementValues) {
        values.bind(step)
        values.bind(slot)
        values.bind(attempt)
        values.bind(worker)
        values.bind(seconds)
        values.bind(outcome.rawValue)
    }
}

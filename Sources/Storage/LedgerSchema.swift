import GRDB

/// The tables of the ledger and their versions.
enum LedgerSchema {
    /// "Line" as four bytes: how `file(1)` and we know a ledger from any other database.
    static let applicationID = 0x4C69_6E65

    /// Whether a column enters `lineup ledger digest`.
    enum Kind: String {
        /// A function of settings, data and numerics class.
        case result
        /// What the run was given.
        case input
        /// How this execution of the run went.
        case telemetry
    }

    struct Column {
        let table: String
        let name: String
        let kind: Kind
        let meaning: String
        /// Version of the schema that brought it.
        let since: Int

        init(
            _ table: String, _ name: String, _ kind: Kind, _ meaning: String, since: Int = 1
        ) {
            self.table = table
            self.name = name
            self.kind = kind
            self.meaning = meaning
            self.since = since
        }
    }

    /// Tables whose rows may be superseded: each has a twin for those that were.
    static let supersededTables = ["steps", "mini_batches", "checkpoints", "evaluations"]

    /// Every column, in the order of the tables.
    static let columns: [Column] =
        current
        + supersededTables.flatMap { table in
            [
                Column(
                    "superseded_" + table, "superseded", .telemetry,
                    "when it was superseded, seconds since 1970", since: 4)
            ]
                + current.filter { $0.table == table }.map {
                    Column("superseded_" + table, $0.name, .telemetry, $0.meaning, since: 4)
                }
        }

    private static let current: [Column] = [
        Column("runs", "run", .telemetry, "name that no other run has"),
        Column("runs", "created", .telemetry, "when it was created, seconds since 1970"),
        Column("runs", "term", .telemetry, "how often a coordinator has started"),
        Column("runs", "last_step", .result, "last committed step, 0 before the first"),
        Column("runs", "history", .result, "digest that chains the effects of all committed steps"),
        Column("runs", "settings", .input, "resolved settings, JSON"),
        Column("runs", "settings_digest", .input, "digest of the settings"),
        Column("runs", "dataset_digest", .input, "digest of the data set"),
        Column("runs", "training_class", .input, "numerics class of training"),
        Column("runs", "evaluation_class", .input, "numerics class of evaluation"),
        Column("runs", "state", .telemetry, "running, drained, finished or failed"),
        Column("runs", "finished", .telemetry, "when it finished, seconds since 1970"),
        Column("steps", "step", .result, "step, the first is 1"),
        Column("steps", "loss", .result, "mean of the slots' losses; NULL stands for NaN"),
        Column(
            "steps", "fraction_positive", .result, "share of valid triplets with a loss above 0"),
        Column("steps", "active_count", .result, "triplets with a loss above 0"),
        Column("steps", "learning_rate", .result, "learning rate of the step"),
        Column("steps", "samples", .result, "images that the step used"),
        Column("steps", "digest", .result, "digest of the step's effect"),
        Column("steps", "history", .result, "digest that chains the effects up to this step"),
        Column("steps", "scalars", .result, "the coordinator's scalars of the effect"),
        Column(
            "steps", "state_digest", .telemetry, "digest of the state before the step, where taken"),
        Column("steps", "term", .telemetry, "term that committed it"),
        Column("steps", "committed", .telemetry, "when it was committed, seconds since 1970"),
        Column(
            "steps", "compute_seconds", .telemetry, "the slots, as the slowest trainer saw them"),
        Column("steps", "exchange_seconds", .telemetry, "from the last slot to the last READY"),
        Column("steps", "commit_seconds", .telemetry, "from the last READY to the commit"),
        Column("steps", "total_seconds", .telemetry, "from the commit before to this one"),
        Column("mini_batches", "step", .telemetry, "step"),
        Column("mini_batches", "slot", .telemetry, "slot within the step, from 0"),
        Column("mini_batches", "attempt", .telemetry, "which lease of the slot, from 0"),
        Column("mini_batches", "worker", .telemetry, "worker that held the lease"),
        Column("mini_batches", "seconds", .telemetry, "how long it computed"),
        Column("mini_batches", "outcome", .telemetry, "used, lost or duplicate"),
        Column(
            "detailed", "step", .telemetry, "committed step whose rows no file has yet", since: 5),
        Column("detailed", "names", .telemetry, "its images' files, JSON", since: 5),
        Column(
            "detailed", "losses", .telemetry, "what each adds to the loss, float32, little-endian",
            since: 5),
        Column(
            "detailed", "embeddings", .telemetry, "row by row, float32, little-endian", since: 5),
        Column("workers", "id", .telemetry, "row number, in order of joining"),
        Column("workers", "worker", .telemetry, "worker's name in the cluster"),
        Column("workers", "role", .telemetry, "trainer, evaluator or coordinator"),
        Column("workers", "process", .telemetry, "process id on its host"),
        Column("workers", "host", .telemetry, "host"),
        Column("workers", "device", .telemetry, "device"),
        Column("workers", "numerics_class", .telemetry, "numerics class"),
        Column("workers", "term", .telemetry, "term in which it joined"),
        Column("workers", "joined", .telemetry, "when it joined, seconds since 1970"),
        Column("workers", "left", .telemetry, "when it left; NULL while it is here"),
        Column("workers", "why", .telemetry, "why it left"),
        Column("checkpoints", "step", .result, "step whose state it holds"),
        Column("checkpoints", "file", .telemetry, "file, relative to the run's folder"),
        Column("checkpoints", "bytes", .telemetry, "bytes of the file"),
        Column("checkpoints", "digest", .result, "digest of the weights alone"),
        Column("checkpoints", "state_digest", .result, "digest of all tensors"),
        Column("checkpoints", "state", .telemetry, "durable, deleted or damaged"),
        Column("checkpoints", "written", .telemetry, "when it became durable, seconds since 1970"),
        Column(
            "checkpoints", "deleted", .telemetry, "when its file was deleted, seconds since 1970",
            since: 2),
        Column("evaluations", "step", .result, "checkpoint's step"),
        Column(
            "evaluations", "set", .result,
            "train_eval, val_eval, easy_val_eval, train_images or val_images"),
        Column("evaluations", "metric", .result, "name of the metric"),
        Column("evaluations", "value", .result, "value; NULL stands for NaN"),
        Column("evaluations", "started", .telemetry, "first image read, seconds since 1970"),
        Column("evaluations", "finished", .telemetry, "last image scored, seconds since 1970"),
        Column("evaluations", "evaluator", .telemetry, "worker that scored it"),
        Column("evaluations", "numerics_class", .telemetry, "numerics class it was scored in"),
        Column("events", "id", .telemetry, "row number, in order of recording"),
        Column("events", "time", .telemetry, "when, seconds since 1970"),
        Column("events", "kind", .telemetry, "constant name"),
        Column("events", "severity", .telemetry, "info, warning or error"),
        Column("events", "step", .telemetry, "step it belongs to, if any"),
        Column("events", "text", .telemetry, "one sentence"),
        Column("events", "payload", .telemetry, "values, JSON"),
        Column("events", "term", .telemetry, "term in which it was recorded"),
    ]

    /// The migrations; one that has been released is never edited.
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(sql: "PRAGMA application_id = \(applicationID)")
            try database.execute(sql: tables)
            try describe(columnsSince: 1, in: database)
        }
        migrator.registerMigration("2") { database in
            try database.execute(sql: "ALTER TABLE checkpoints ADD COLUMN deleted REAL")
            try describe(columnsSince: 2, in: database)
        }
        // Rows lie in the order of their key: one tree to write in the place of two.
        migrator.registerMigration("3") { database in
            try database.execute(
                sql: """
                    ALTER TABLE evaluations RENAME TO evaluations_before;
                    CREATE TABLE evaluations (
                        step INTEGER NOT NULL, "set" TEXT NOT NULL, metric TEXT NOT NULL,
                        value REAL, started REAL NOT NULL, finished REAL NOT NULL,
                        evaluator TEXT NOT NULL, numerics_class TEXT,
                        PRIMARY KEY (step, "set", metric)
                    ) WITHOUT ROWID;
                    INSERT INTO evaluations SELECT * FROM evaluations_before;
                    DROP TABLE evaluations_before;
                    """)
        }
        // What one of these tables gets later, its twin gets too.
        migrator.registerMigration("4") { database in
            for table in supersededTables {
                try database.execute(
                    sql: """
                        CREATE TABLE superseded_\(table) AS SELECT 0.0 AS superseded, * FROM \(table)
                        WHERE 0
                        """)
            }
            try describe(columnsSince: 4, in: database)
        }
        // The large column is the last: what comes before it is read without it.
        migrator.registerMigration("5") { database in
            try database.execute(
                sql: """
                    CREATE TABLE detailed (
                        step INTEGER PRIMARY KEY NOT NULL, names TEXT NOT NULL,
                        losses BLOB NOT NULL, embeddings BLOB NOT NULL
                    )
                    """)
            try describe(columnsSince: 5, in: database)
        }
        return migrator
    }

    private static func describe(columnsSince version: Int, in database: Database) throws {
        for column in columns where column.since == version {
            try database.execute(
                sql: "INSERT INTO schema VALUES (?, ?, ?, ?)",
                arguments: [column.table, column.name, column.kind.rawValue, column.meaning])
        }
    }

    private static let tables = """
        CREATE TABLE schema (
            table_name TEXT NOT NULL, column_name TEXT NOT NULL, kind TEXT NOT NULL,
            meaning TEXT NOT NULL, PRIMARY KEY (table_name, column_name)
        );
        CREATE TABLE runs (
            run TEXT PRIMARY KEY NOT NULL, created REAL NOT NULL, term INTEGER NOT NULL,
            last_step INTEGER NOT NULL, history TEXT NOT NULL, settings TEXT NOT NULL,
            settings_digest TEXT NOT NULL, dataset_digest TEXT NOT NULL, training_class TEXT,
            evaluation_class TEXT, state TEXT NOT NULL, finished REAL
        );
        CREATE TABLE steps (
            step INTEGER PRIMARY KEY NOT NULL, loss REAL, fraction_positive REAL,
            active_count INTEGER NOT NULL, learning_rate REAL, samples INTEGER NOT NULL,
            digest TEXT NOT NULL, history TEXT NOT NULL, scalars TEXT, state_digest TEXT,
            term INTEGER NOT NULL, committed REAL NOT NULL, compute_seconds REAL,
            exchange_seconds REAL, commit_seconds REAL, total_seconds REAL
        );
        CREATE TABLE mini_batches (
            step INTEGER NOT NULL, slot INTEGER NOT NULL, attempt INTEGER NOT NULL,
            worker TEXT NOT NULL, seconds REAL, outcome TEXT NOT NULL,
            PRIMARY KEY (step, slot, attempt)
        ) WITHOUT ROWID;
        CREATE TABLE workers (
            id INTEGER PRIMARY KEY NOT NULL, worker TEXT NOT NULL, role TEXT NOT NULL,
            process INTEGER NOT NULL, host TEXT NOT NULL, device TEXT NOT NULL,
            numerics_class TEXT, term INTEGER NOT NULL, joined REAL NOT NULL, "left" REAL, why TEXT
        );
        CREATE INDEX workers_by_name ON workers (worker);
        CREATE TABLE checkpoints (
            step INTEGER PRIMARY KEY NOT NULL, file TEXT NOT NULL, bytes INTEGER NOT NULL,
            digest TEXT NOT NULL, state_digest TEXT NOT NULL, state TEXT NOT NULL,
            written REAL NOT NULL
        );
        CREATE TABLE evaluations (
            step INTEGER NOT NULL, "set" TEXT NOT NULL, metric TEXT NOT NULL, value REAL,
            started REAL NOT NULL, finished REAL NOT NULL, evaluator TEXT NOT NULL,
            numerics_class TEXT, PRIMARY KEY (step, "set", metric)
        );
        CREATE TABLE events (
            id INTEGER PRIMARY KEY NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL,
            severity TEXT NOT NULL, step INTEGER, text TEXT NOT NULL, payload TEXT,
            term INTEGER NOT NULL
        );
        """
}

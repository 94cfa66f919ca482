import Basics
import Foundation
import GRDB
import Storage
import Synchronization
import Testing

@Suite struct LedgerTests {
    @Test func stepsAreCommittedInOrderAndChained() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        var history: UInt64 = 0
        for step in 1...5 {
            let expected = Ledger.history(after: history, effect: stepRecord(step).digest)
            history = try ledger.commitStep(stepRecord(step), miniBatches: miniBatches(step))
            #expect(history == expected)
        }
        expectError(.stepOutOfOrder, "step 5", "last committed step is 5") {
            try ledger.commitStep(stepRecord(5), miniBatches: [])
        }
        expectError(.stepOutOfOrder, "step 7", "commit step 6") {
            try ledger.commitStep(stepRecord(7), miniBatches: [])
        }
        let reader = ledger.reader
        #expect(try reader.run()?.lastStep == 5)
        #expect(try reader.run()?.history == history)
        #expect(try reader.history(afterStep: 5) == history)
        #expect(try reader.history(afterStep: 0) == 0)
        #expect(try reader.history(afterStep: 6) == nil)
        #expect(try reader.digest(ofStep: 3) == stepRecord(3).digest)
        #expect(try reader.digest(ofStep: 6) == nil)
        #expect(try reader.steps(in: 2...3).map(\.step) == [2, 3])
        #expect(try reader.miniBatches().count == 20)
        #expect(try reader.miniBatches()[4] == miniBatches(2)[0])
    }

    @Test func aStepAndItsMiniBatchesAreOneTransaction() throws {
        let ledger = try started(try TemporaryFolder())
        let twice = miniBatches(1) + miniBatches(1)
        expectError(.database, "committing step 1") {
            try ledger.commitStep(stepRecord(1), miniBatches: twice)
        }
        expectError(.invalidValue, "mini-batch of step 2") {
            try ledger.commitStep(stepRecord(1), miniBatches: miniBatches(2))
        }
        #expect(try ledger.reader.steps().isEmpty)
        #expect(try ledger.reader.miniBatches().isEmpty)
        #expect(try ledger.reader.run()?.lastStep == 0)
        try ledger.commitStep(stepRecord(1), miniBatches: miniBatches(1))
    }

    @Test func whatIsSupersededIsSetAsideAndTheRunGoesOnAsIfItHadNotBeen() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        let other = try started(try TemporaryFolder())
        func again(_ step: Int) -> StepRecord {
            var record = stepRecord(step)
            record.loss = -1
            record.digest ^= 1
            return record
        }
        for step in 1...5 {
            try ledger.commitStep(stepRecord(step), miniBatches: miniBatches(step))
            if step < 3 { try other.commitStep(stepRecord(step), miniBatches: miniBatches(step)) }
        }
        for step in [2, 4] { try ledger.insertCheckpoint(checkpoint(step)) }
        try other.insertCheckpoint(checkpoint(2))
        var late = evaluation(0.5)
        late.step = 4
        try ledger.insertEvaluations([late])
        for step in [0, 6] {
            expectError(.stepOutOfOrder, "step \(step) cannot be superseded") {
                try ledger.supersede(fromStep: step)
            }
        }
        #expect(try ledger.reader.lastSupersededStep() == 0)

        try ledger.supersede(fromStep: 3)
        #expect(try ledger.reader.run()?.lastStep == 2)
        #expect(try ledger.reader.lastSupersededStep() == 5)
        for ledger in [ledger, other] {
            for step in 3...4 {
                try ledger.commitStep(again(step), miniBatches: miniBatches(step, worker: "t2"))
            }
            var newer = checkpoint(4)
            newer.digest = 77
            try ledger.insertCheckpoint(newer)
        }
        #expect(try ledger.reader.steps().map(\.loss) == [1.5, 2.5, -1, -1])
        #expect(try ledger.reader.resultDigest() == other.reader.resultDigest())
        #expect(try ledger.reader.evaluations().isEmpty)
        #expect(try ledger.reader.miniBatches(in: 3...3).map(\.worker) == ["t2", "t2", "t2", "t2"])
        let queue = try DatabaseQueue(path: folder("ledger.sqlite"))
        let kept = try queue.read { database in
            try Row.fetchAll(database, sql: "SELECT * FROM superseded_steps ORDER BY step")
        }
        #expect(kept.map { $0["step"] } == [3, 4, 5])
        #expect(kept.map { $0["digest"] } == (3...5).map { stepRecord($0).digest.hex })
        let counts = try queue.read { database in
            try ["mini_batches", "checkpoints", "evaluations"].map {
                try Int.fetchOne(database, sql: "SELECT count(*) FROM superseded_\($0)")
            }
        }
        #expect(counts == [12, 1, 1])
    }

    @Test func aStepsRowsAreInItsTransactionUntilAFileHasThem() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        var wrong = detailedRecord(2)
        expectError(.invalidValue, "rows of step 2") {
            try ledger.commitStep(stepRecord(1), miniBatches: [], detailed: wrong)
        }
        (wrong.step, wrong.losses) = (1, [1])
        expectError(.invalidValue, "3 names, 1 losses and 6 numbers") {
            try ledger.commitStep(stepRecord(1), miniBatches: [], detailed: wrong)
        }
        #expect(try ledger.reader.steps().isEmpty && ledger.reader.detailedSteps().isEmpty)
        for step in 1...3 {
            try ledger.commitStep(
                stepRecord(step), miniBatches: [], detailed: detailedRecord(step))
        }
        let found = try ledger.reader.detailed(in: 2...2)
        #expect(found.map(\.step) == [2] && found[0].names == ["é 2.jpg", "b\"", "c"])
        #expect(found[0].embeddings == [2, 1, 2, 3, 4, .leastNonzeroMagnitude])
        #expect(found[0].losses[..<2] == [0.5, 2] && found[0].losses[2].isNaN)
        // A file that is not placed changes nothing.
        expectError(.io, "no disk") {
            try ledger.removeDetailed(1...2) { throw StorageError(.io, "no disk") }
        }
        #expect(try ledger.reader.detailedSteps() == [1, 2, 3])
        try ledger.removeDetailed(1...2) {}
        #expect(try ledger.reader.detailedSteps() == [3])
        var other = detailedRecord(3)
        other.losses = [9, 9, 9]
        try ledger.putBack([detailedRecord(2), other])
        #expect(try ledger.reader.detailedSteps() == [2, 3])
        #expect(try ledger.reader.detailed(in: 3...3)[0].losses[0] == 0.5)
        expectError(.invalidValue, "step 4", "last committed step is 3") {
            try ledger.putBack([detailedRecord(4)])
        }
        try ledger.supersede(fromStep: 3)
        #expect(try ledger.reader.detailedSteps() == [2])
        try ledger.commitStep(stepRecord(3), miniBatches: [], detailed: other)
        #expect(try ledger.reader.detailed(in: 3...3)[0].losses == [9, 9, 9])
        try ledger.close()
        try DatabaseQueue(path: folder("ledger.sqlite")).write {
            try $0.execute(sql: "UPDATE detailed SET losses = x'00' WHERE step = 2")
        }
        let reader = try LedgerReader(run: folder.path)
        expectError(.corrupt, "step 2", "0 losses") { _ = try reader.detailed(in: 1...9) }
    }

    private func detailedRecord(_ step: Int) -> DetailedRecord {
        DetailedRecord(
            step: step, names: ["é \(step).jpg", "b\"", "c"],
            embeddings: [Float(step), 1, 2, 3, 4, .leastNonzeroMagnitude],
            losses: [0.5, Float(step), .nan])
    }

    @Test func aDifferingScoreOfAnotherClassIsNoError() throws {
        let ledger = try started(try TemporaryFolder())
        var first = evaluation(0.5)
        first.numericsClass = "cpu"
        var second = evaluation(0.25, by: "e2")
        second.numericsClass = "cuda"
        #expect(try ledger.insertEvaluation(first) == .inserted)
        #expect(try ledger.insertEvaluation(second) == .differing)
        second.numericsClass = "cpu"
        #expect(try ledger.insertEvaluation(second) == .differing)
        #expect(try ledger.reader.events().map(\.severity) == [.info, .error])
        #expect(try ledger.reader.evaluations().map(\.value) == [0.5])
    }

    @Test func aWorkersClassIsKnownOnceItIsPrepared() throws {
        let ledger = try started(try TemporaryFolder())
        var record = worker("t1")
        record.numericsClass = nil
        try ledger.workerJoined(record)
        try ledger.workerLeft("t1", at: 11, why: "asked")
        try ledger.workerJoined(record)
        try ledger.record([
            .prepared("t1", numericsClass: "c"), .prepared("t2", numericsClass: "d"),
        ])
        #expect(try ledger.reader.workers().map(\.numericsClass) == [nil, "c"])
    }

    @Test func lossesKeepEveryBit() throws {
        let ledger = try started(try TemporaryFolder())
        var random = CounterRandom(seed: 7, purpose: .audit)
        var values = (0..<200).map { _ in
            Double(Float(bitPattern: UInt32.random(in: 0...UInt32.max, using: &random)))
        }
        values += (0..<200).map { _ in Double(bitPattern: random.next()) }
        values += [0, 1, .infinity, -.infinity, .nan, .leastNonzeroMagnitude, 0.1, 1e300, 5e15]
        for (index, value) in values.enumerated() {
            var record = stepRecord(index + 1)
            record.loss = value
            try ledger.commitStep(record, miniBatches: [])
        }
        for (record, value) in zip(try ledger.reader.steps(), values) {
            if value.isNaN {
                #expect(record.loss.isNaN)
            } else {
                #expect(record.loss.bitPattern == value.bitPattern, "\(value)")
            }
        }
        let snapshot = try LedgerSnapshot(json: ledger.reader.snapshot().json())
        for (record, value) in zip(snapshot.steps, values) {
            #expect(value.isNaN ? record.loss.isNaN : record.loss.bitPattern == value.bitPattern)
        }
    }

    @Test func anOlderTermWritesNothing() throws {
        let folder = try TemporaryFolder()
        let old = try started(folder)
        try old.commitStep(stepRecord(1), miniBatches: [])
        // Another lock file: the lock has failed, as it may on some file servers.
        let new = try Ledger(path: folder("ledger.sqlite"), lockPath: folder("other.lock"))
        #expect(try new.beginTerm() == 2)
        let refusals: [() throws -> Void] = [
            { try old.commitStep(stepRecord(2), miniBatches: miniBatches(2)) },
            { try old.workerJoined(worker("t9")) },
            { try old.insertEvaluation(evaluation(0.5)) },
            { try old.insertCheckpoint(checkpoint(1)) },
            { try old.insertEvent(EventRecord(time: 1, kind: "k", text: "t")) },
            { try old.setState(.finished) },
            { try old.putBack([detailedRecord(1)]) },
            { try old.removeDetailed(1...1) { Issue.record("a file was placed") } },
        ]
        for refusal in refusals {
            expectError(.staleTerm, "term 1", "term 2 has begun") { try refusal() }
        }
        try new.commitStep(stepRecord(2), miniBatches: [])
        let snapshot = try new.reader.snapshot()
        #expect(snapshot.steps.map(\.term) == [1, 2])
        #expect(snapshot.workers.isEmpty && snapshot.events.isEmpty)
        #expect(snapshot.run.state == .running)
    }

    @Test func nothingIsWrittenBeforeATerm() throws {
        let folder = try TemporaryFolder()
        let ledger = try Ledger(path: folder("ledger.sqlite"))
        try ledger.createRun(runRecord())
        expectError(.staleTerm, "beginTerm") {
            try ledger.commitStep(stepRecord(1), miniBatches: [])
        }
        expectError(.conflict, "run r1") { try ledger.createRun(runRecord()) }
    }

    @Test func aRunHasOneCoordinator() throws {
        let folder = try TemporaryFolder()
        let host = ProcessInfo.processInfo.hostName
        do {
            let ledger = try started(folder)
            expectError(
                .locked, "process \(ProcessInfo.processInfo.processIdentifier)", "host \(host)"
            ) { _ = try Ledger(path: folder("ledger.sqlite")) }
            try ledger.commitStep(stepRecord(1), miniBatches: [])
        }
        #expect(try Ledger(path: folder("ledger.sqlite")).beginTerm() == 2)
    }

    @Test func aTermClosesTheWorkersOfTheLast() throws {
        let folder = try TemporaryFolder()
        do {
            let ledger = try started(folder)
            for name in ["t1", "t2"] { try ledger.workerJoined(worker(name)) }
            try ledger.workerLeft("t1", at: 50, why: "drained")
            try ledger.workerLeft("t9", at: 50, why: "unknown")
        }
        let ledger = try Ledger(path: folder("ledger.sqlite"), now: { 99 })
        try ledger.beginTerm()
        try ledger.workerJoined(worker("t1"))
        let workers = try ledger.reader.workers()
        #expect(workers.map(\.worker) == ["t1", "t2", "t1"])
        #expect(workers.map(\.left) == [50, 99, nil])
        #expect(workers.map(\.why) == ["drained", "the coordinator ended", nil])
        #expect(workers.map(\.term) == [1, 1, 2])
    }

    @Test func anEvaluationIsRecordedOnce() throws {
        let ledger = try started(try TemporaryFolder())
        #expect(try ledger.insertEvaluation(evaluation(0.75)) == .inserted)
        #expect(try ledger.insertEvaluation(evaluation(0.75, by: "e2")) == .identical)
        #expect(try ledger.insertEvaluation(evaluation(0.75.nextUp, by: "e2")) == .differing)
        let nan = evaluation(.nan, metric: "mean_loss")
        #expect(try ledger.insertEvaluations([nan, nan]) == [.inserted, .identical])
        let zero = evaluation(0, metric: "tuples")
        let minus = evaluation(-0.0, metric: "tuples")
        #expect(try ledger.insertEvaluations([zero, minus]) == [.inserted, .identical])
        let rows = try ledger.reader.evaluations()
        #expect(rows.map(\.metric) == ["general_accuracy", "mean_loss", "tuples"])
        #expect(rows[0].value == 0.75 && rows[0].evaluator == "e1")
        let events = try ledger.reader.events()
        #expect(events.map(\.kind) == ["evaluation_differs"])
        #expect(events[0].severity == .error && events[0].step == 20)
        #expect(events[0].text.contains("0.75 by e1"))
    }

    @Test func aBatchMayHoldWhatIsThere() throws {
        let ledger = try started(try TemporaryFolder())
        func batch(_ values: Range<Int>) -> [EvaluationRecord] {
            values.map { evaluation(Double($0), metric: "metric_\($0)") }
        }
        #expect(try ledger.insertEvaluations(batch(0..<20)).allSatisfy { $0 == .inserted })
        let other = evaluation(-1, metric: "metric_7")
        let outcomes = try ledger.insertEvaluations(batch(18..<60) + [other])
        #expect(outcomes.map { $0 == .identical ? 1 : 0 }.reduce(0, +) == 2)
        #expect(outcomes[0...2] == [.identical, .identical, .inserted])
        #expect(outcomes.last == .differing)
        let nameless = batch(60..<76).map { row in
            var row = row
            row.evaluator = ""
            row.numericsClass = Int(row.value).isMultiple(of: 2) ? "" : nil
            return row
        }
        #expect(try ledger.insertEvaluations(nameless).allSatisfy { $0 == .inserted })
        let rows = try ledger.reader.evaluations()
        #expect(rows.filter { $0.evaluator.isEmpty } == nameless)
        #expect(rows.count == 76)
        #expect(rows.allSatisfy { $0.metric == "metric_\(Int($0.value))" })
    }

    @Test func notesAreOneTransaction() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        let event = EventRecord(time: 1, kind: "members", text: "two")
        try ledger.record([
            .joined(worker("t1")), .joined(worker("t2")), .left("t1", at: 20, why: "drained"),
            .event(event),
        ])
        #expect(try ledger.reader.workers().map(\.left) == [20, nil])
        #expect(try ledger.reader.events().map(\.text) == ["two"])
        let queue = try DatabaseQueue(path: ledger.path)
        try queue.write { try $0.execute(sql: "ALTER TABLE events RENAME TO elsewhere") }
        expectError(.database, "recording 2 events") {
            try ledger.record([.joined(worker("t3")), .event(event)])
        }
        #expect(try ledger.reader.workers().map(\.worker) == ["t1", "t2"])
    }

    @Test func aCheckpointIsRecordedOnce() throws {
        let ledger = try started(try TemporaryFolder())
        #expect(try ledger.insertCheckpoint(checkpoint(20)) == .inserted)
        try ledger.setCheckpointState(step: 20, .deleted)
        #expect(try ledger.reader.checkpoints().map(\.state) == [.deleted])
        #expect(try ledger.reader.checkpoints()[0].deleted != nil)
        #expect(try ledger.insertCheckpoint(checkpoint(20)) == .identical)
        #expect(try ledger.reader.checkpoints().map(\.state) == [.durable])
        #expect(try ledger.reader.checkpoints()[0].deleted == nil)
        var other = checkpoint(20)
        other.digest ^= 1
        expectError(.conflict, "checkpoint 20") { try ledger.insertCheckpoint(other) }
        #expect(try ledger.reader.checkpoints() == [checkpoint(20)])
    }

    @Test func aDeletionIsNoResult() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        for step in [0, 20, 40] { try ledger.insertCheckpoint(checkpoint(step)) }
        let before = try ledger.reader.resultDigest().total
        try ledger.setCheckpointState(step: 20, .deleted)
        #expect(try ledger.reader.resultDigest().total == before)
        let text = LedgerReport.text(try ledger.reader.snapshot(), width: 120, lastStep: nil)
        #expect(text.contains("deleted 20"))
        // A coordinator whose term is over deletes nothing.
        let queue = try DatabaseQueue(path: ledger.path)
        try queue.write { try $0.execute(sql: "UPDATE runs SET term = term + 1") }
        expectError(.staleTerm, "another coordinator") {
            try ledger.setCheckpointState(step: 40, .deleted)
        }
        #expect(
            try ledger.reader.checkpoints().map(\.state) == [.durable, .deleted, .durable])
    }

    /// Copies of the files at any moment are what a loss of power leaves.
    @Test func everyCommittedStepSurvivesACrash() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        for step in 1...30 {
            try ledger.commitStep(stepRecord(step), miniBatches: miniBatches(step))
            let copy = try TemporaryFolder()
            for name in ["ledger.sqlite", "ledger.sqlite-wal"] {
                try FileManager.default.copyItem(atPath: folder(name), toPath: copy(name))
            }
            let survivor = try Ledger(path: copy("ledger.sqlite"))
            #expect(try survivor.reader.run()?.lastStep == step)
            #expect(try survivor.reader.steps().count == step)
            try survivor.beginTerm()
            try survivor.commitStep(stepRecord(step + 1), miniBatches: [])
        }
    }

    @Test func commitsAreFlushedAndLogged() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        let probe = try DatabaseQueue(path: ledger.path)
        #expect(try probe.read { try String.fetchOne($0, sql: "PRAGMA journal_mode") } == "wal")
        #expect(try ledger.pragma("synchronous") == 2)
        #expect(try ledger.pragma("application_id") == 0x4C69_6E65)
    }

    @Test func onANetworkFileSystemTheLedgerIsExclusive() throws {
        let folder = try TemporaryFolder()
        let ledger = try Ledger(path: folder("ledger.sqlite"), fileSystem: { _ in .network })
        try ledger.createRun(runRecord())
        try ledger.beginTerm()
        try ledger.commitStep(stepRecord(1), miniBatches: [])
        #expect(ledger.isExclusive)
        #expect(try folder.names().contains("ledger.sqlite-wal"))
        #expect(try !folder.names().contains("ledger.sqlite-shm"))
        expectError(.locked, "lineup watch") {
            _ = try LedgerReader(run: folder.path).run()
        }
        #expect(try ledger.reader.snapshot().steps.count == 1)
    }

    @Test func fileSystemsAreToldApart() {
        #expect(FileSystemKind.of(magic: 0x6969) == .network)
        #expect(FileSystemKind.of(magic: 0xFF53_4D42) == .network)
        #expect(FileSystemKind.of(magic: 0xEF53) == .local)
        #expect(FileSystemKind.of(magic: 0x0102_1994) == .local)
        #expect(FileSystemKind.of(path: "/proc/self/none/none") == .local)
    }

    @Test func equalRunsHaveEqualDigests() throws {
        let folders = try (0..<2).map { _ in try TemporaryFolder() }
        var digests: [ResultDigest] = []
        for (index, folder) in folders.enumerated() {
            let clock = Double(index) * 1000
            let ledger = try Ledger(path: folder("ledger.sqlite"), now: { clock })
            var run = runRecord()
            run.run = "r\(index)"
            try ledger.createRun(run)
            for _ in 0...index { try ledger.beginTerm() }
            try ledger.workerJoined(worker("t\(index)"))
            for step in 1...3 {
                var record = stepRecord(step)
                record.seconds = StepSeconds(
                    compute: clock, exchange: 1, commit: 2, total: 3)
                try ledger.commitStep(record, miniBatches: miniBatches(step, worker: "t\(index)"))
            }
            var durable = checkpoint(2)
            durable.written = clock
            try ledger.insertCheckpoint(durable)
            try ledger.insertEvaluation(evaluation(0.5, by: "e\(index)"))
            digests.append(try ledger.reader.resultDigest())
        }
        #expect(digests[0] == digests[1])
        #expect(digests[0].total == digests[1].total)
    }

    @Test func everyResultEntersTheDigest() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        for step in 1...3 { try ledger.commitStep(stepRecord(step), miniBatches: []) }
        try ledger.insertCheckpoint(checkpoint(2))
        try ledger.insertEvaluation(evaluation(0.5))
        let before = try ledger.reader.resultDigest().total
        let queue = try DatabaseQueue(path: ledger.path)
        let changes: [(String, String)] = [
            (
                "UPDATE steps SET loss = loss + 1e-15 WHERE step = 2",
                "UPDATE steps SET loss = 2.5 WHERE step = 2"
            ),
            (
                "UPDATE steps SET digest = '0000000000000000' WHERE step = 1",
                "UPDATE steps SET digest = '\(stepRecord(1).digest.hex)' WHERE step = 1"
            ),
            (
                "UPDATE checkpoints SET digest = '0000000000000000'",
                "UPDATE checkpoints SET digest = '\(checkpoint(2).digest.hex)'"
            ),
            ("UPDATE evaluations SET value = 0.25", "UPDATE evaluations SET value = 0.5"),
            ("UPDATE runs SET last_step = 9", "UPDATE runs SET last_step = 3"),
        ]
        for (change, undo) in changes {
            try queue.write { try $0.execute(sql: change) }
            #expect(try ledger.reader.resultDigest().total != before, "\(change)")
            try queue.write { try $0.execute(sql: undo) }
            #expect(try ledger.reader.resultDigest().total == before, "\(undo)")
        }
        try queue.write {
            try $0.execute(sql: "UPDATE steps SET total_seconds = 9, state_digest = 'x'")
            try $0.execute(sql: "UPDATE evaluations SET evaluator = 'x', finished = 9")
        }
        #expect(try ledger.reader.resultDigest().total == before)
    }

    @Test func theSchemaTableNamesEveryColumn() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        let queue = try DatabaseQueue(path: ledger.path)
        try queue.read { database in
            let described = try String.fetchAll(
                database,
                sql: "SELECT table_name || '.' || column_name FROM schema ORDER BY 1")
            let actual = try String.fetchAll(
                database,
                sql: """
                    SELECT m.name || '.' || p.name FROM sqlite_master m
                    JOIN pragma_table_info(m.name) p
                    WHERE m.type = 'table' AND m.name NOT IN ('schema', 'grdb_migrations')
                    ORDER BY 1
                    """)
            #expect(described == actual)
            let kinds = try Set(String.fetchAll(database, sql: "SELECT kind FROM schema"))
            #expect(kinds == ["result", "input", "telemetry"])
        }
    }
}

extension Ledger {
    /// The value of a pragma on the writer's own connection.
    func pragma(_ name: String) throws -> Int? { try reader.pragma(name) }
}

func runRecord() -> RunRecord {
    RunRecord(
        run: "r1", created: 1_700_000_000.25, settings: "{\"seed\":1}", settingsDigest: 1,
        datasetDigest: .max, trainingClass: "cpu")
}

func started(_ folder: TemporaryFolder) throws -> Ledger {
    let ledger = try Ledger(path: folder("ledger.sqlite"))
    try ledger.createRun(runRecord())
    #expect(try ledger.beginTerm() == 1)
    return ledger
}

func stepRecord(_ step: Int) -> StepRecord {
    StepRecord(
        step: step, loss: Double(Float(step) + 0.5), fractionPositive: 0.3, activeCount: 7 * step,
        learningRate: 1e-3, samples: 64, digest: UInt64(step) &* 0x9E37_79B9_7F4A_7C15,
        scalars: "3f50624dd2f1a9fc",
        seconds: StepSeconds(compute: 0.5, exchange: 0.1, commit: 0.01, total: 0.61))
}

func miniBatches(_ step: Int, worker: String = "t1") -> [MiniBatchRecord] {
    (0..<4).map { MiniBatchRecord(step: step, slot: $0, worker: worker, seconds: 0.1) }
}

func worker(_ name: String) -> WorkerRecord {
    WorkerRecord(
        worker: name, role: "trainer", process: 42, host: "node1", device: "cpu",
        numericsClass: "cpu", joined: 10)
}

func checkpoint(_ step: Int) -> CheckpointRecord {
    CheckpointRecord(
        step: step, file: "checkpoints/" + CheckpointStore.fileName(step: step), bytes: 1000,
        digest: 0xFEDC_BA98_7654_3210, stateDigest: 2, written: 1_700_000_010)
}

func evaluation(
    _ value: Double, metric: String = "general_accuracy", by evaluator: String = "e1"
) -> EvaluationRecord {
    EvaluationRecord(
        step: 20, set: "val_eval", metric: metric, value: value, started: 1, finished: 2,
        evaluator: evaluator)
}

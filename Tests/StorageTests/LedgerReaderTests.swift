import Basics
import Foundation
import GRDB
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite struct LedgerReaderTests {
    @Test func readsWhileTheCoordinatorWrites() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        let reader = try LedgerReader(run: folder.path)
        for step in 1...20 {
            try ledger.commitStep(stepRecord(step), miniBatches: miniBatches(step))
            #expect(try reader.run()?.lastStep == step)
        }
        #expect(try reader.snapshot() == ledger.reader.snapshot())
        #expect(try reader.resultDigest() == ledger.reader.resultDigest())
    }

    @Test func readsWhatACoordinatorHasClosed() throws {
        let folder = try TemporaryFolder()
        do {
            let ledger = try started(folder)
            try ledger.commitStep(stepRecord(1), miniBatches: [])
            try ledger.close()
        }
        #expect(try LedgerReader(run: folder.path).run()?.lastStep == 1)
        #expect(try LedgerReader(path: folder("ledger.sqlite")).run()?.lastStep == 1)
        #expect(try LedgerReader(run: folder("ledger.sqlite")).run()?.lastStep == 1)
    }

    @Test(.enabled(if: geteuid() != 0, "root may write to any folder"))
    func readsInAFolderThatCannotBeWrittenTo() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        try ledger.commitStep(stepRecord(1), miniBatches: [])
        let copy = try TemporaryFolder()
        for name in ["ledger.sqlite", "ledger.sqlite-wal"] {
            try FileManager.default.copyItem(atPath: folder(name), toPath: copy(name))
        }
        chmod(copy.path, 0o500)
        defer { chmod(copy.path, 0o700) }
        expectError(.io, "recent steps are still in") { _ = try LedgerReader(run: copy.path) }
        chmod(copy.path, 0o700)
        try ledger.close()
        try FileManager.default.removeItem(atPath: copy.path)
        try FileManager.default.createDirectory(
            atPath: copy.path, withIntermediateDirectories: false)
        try FileManager.default.copyItem(
            atPath: folder("ledger.sqlite"), toPath: copy("ledger.sqlite"))
        chmod(copy.path, 0o500)
        #expect(try LedgerReader(run: copy.path).run()?.lastStep == 1)
        #expect(try copy.names() == ["ledger.sqlite"])
    }

    @Test func whatIsNoLedgerIsRefusedInOneLine() throws {
        let folder = try TemporaryFolder()
        expectError(.notFound, "no run at") { _ = try LedgerReader(run: folder("none")) }
        expectError(.notFound, "no ledger at") { _ = try LedgerReader(run: folder.path) }
        let path = folder("ledger.sqlite")
        for bytes in [
            Data(repeating: 0x5A, count: 5000),
            Data("SQLite format 3\0".utf8) + Data(repeating: 0x5A, count: 5000),
        ] {
            try bytes.write(to: URL(fileURLWithPath: path))
            expectError(.corrupt, path) { _ = try LedgerReader(run: folder.path) }
            expectError(.corrupt, path) { _ = try Ledger(path: path) }
            #expect(FileManager.default.contents(atPath: path) == bytes)
        }
        try Data().write(to: URL(fileURLWithPath: path))
        expectError(.corrupt, "no ledger of lineup") { _ = try LedgerReader(run: folder.path) }
        try FileManager.default.removeItem(atPath: path)
        try DatabaseQueue(path: path).write { try $0.execute(sql: "CREATE TABLE t (x)") }
        expectError(.corrupt, "no ledger of lineup") { _ = try LedgerReader(run: folder.path) }
        expectError(.corrupt, "no ledger of lineup") { _ = try Ledger(path: path) }
    }

    @Test func aNewerSchemaIsRefused() throws {
        let folder = try TemporaryFolder()
        do {
            let ledger = try started(folder)
            try ledger.close()
        }
        try DatabaseQueue(path: folder("ledger.sqlite")).write {
            try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('7')")
        }
        expectError(.newerVersion, "schema version 7", "knows up to 5") {
            _ = try LedgerReader(run: folder.path)
        }
        expectError(.newerVersion, "schema version 7") {
            _ = try Ledger(path: folder("ledger.sqlite"))
        }
    }

    @Test func valuesThatNoLineupWritesAreRefused() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        try ledger.commitStep(stepRecord(1), miniBatches: [])
        let queue = try DatabaseQueue(path: ledger.path)
        for change in [
            "UPDATE steps SET digest = 'xyz'", "UPDATE steps SET loss = 'high'",
            "UPDATE steps SET active_count = 1e300", "UPDATE runs SET state = 'sleeping'",
        ] {
            try queue.write { try $0.execute(sql: change) }
            expectError(.corrupt, "column '") { _ = try ledger.reader.snapshot() }
            try queue.write {
                try $0.execute(
                    sql: """
                        UPDATE steps SET digest = '0000000000000001', loss = 1, active_count = 1;
                        UPDATE runs SET state = 'running'
                        """)
            }
        }
        #expect(try ledger.reader.snapshot().steps.count == 1)
    }

    @Test func theSettingsSayWhereTheLedgerIs() throws {
        let run = try TemporaryFolder()
        let disk = try TemporaryFolder()
        let ledger = try started(disk)
        try Data("{\"ledger\":{\"path\":\"\(ledger.path)\"}}".utf8)
            .write(to: URL(fileURLWithPath: run("settings.json")))
        #expect(try LedgerReader(run: run.path).run()?.run == "r1")
    }

    @Test func jsonHasItsDocumentedShape() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        try ledger.workerJoined(worker("t1"))
        try ledger.commitStep(stepRecord(1), miniBatches: miniBatches(1))
        try ledger.insertCheckpoint(checkpoint(1))
        try ledger.insertEvaluation(evaluation(.nan))
        try ledger.insertEvent(EventRecord(time: 5, kind: "k", step: 1, text: "t", payload: "{}"))
        let snapshot = try ledger.reader.snapshot()
        let json = snapshot.json()
        #expect(!json.contains(UInt8(ascii: "\n")))
        var streamed = Data()
        try ledger.reader.writeJSON { streamed.append($0) }
        #expect(streamed == json)
        // The hand-written form says what Foundation's encoder says.
        let encoder = JSONEncoder()
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
        let encoded = try JSONSerialization.jsonObject(with: encoder.encode(snapshot))
        #expect(
            try #require(encoded as? NSDictionary)
                == #require(JSONSerialization.jsonObject(with: json) as? NSDictionary))
        let root = try #require(JSONSerialization.jsonObject(with: json) as? [String: Any])
        #expect(
            root.keys.sorted() == [
                "checkpoints", "evaluations", "events", "mini_batches", "run", "steps", "workers",
            ])
        func keys(_ name: String) throws -> [String] {
            try #require((root[name] as? [[String: Any]])?.first).keys.sorted()
        }
        #expect(
            try keys("steps") == [
                "active_count", "committed", "digest", "fraction_positive", "history",
                "learning_rate", "loss", "samples", "scalars", "seconds", "state_digest", "step",
                "term",
            ])
        #expect(
            try keys("checkpoints") == [
                "bytes", "deleted", "digest", "file", "state", "state_digest", "step", "written",
            ])
        #expect(
            try keys("evaluations") == [
                "evaluator", "finished", "metric", "numerics_class", "set", "started", "step",
                "value",
            ])
        #expect(
            try keys("workers") == [
                "device", "host", "joined", "left", "numerics_class", "process", "role", "term",
                "why", "worker",
            ])
        #expect(
            try keys("events") == ["kind", "payload", "severity", "step", "term", "text", "time"])
        #expect(
            try keys("mini_batches") == [
                "attempt", "outcome", "seconds", "slot", "step", "worker",
            ])
        let back = try LedgerSnapshot(json: json)
        #expect(back.json() == json)
        #expect(back.steps == snapshot.steps && back.workers == snapshot.workers)
        expectError(.corrupt) { _ = try LedgerSnapshot(json: Data("{}".utf8)) }
    }

    @Test func theReportFitsItsTerminal() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        for name in ["t1", "t2"] { try ledger.workerJoined(worker(name)) }
        try ledger.commitStep(stepRecord(1), miniBatches: [])
        for step in [0, 20] { try ledger.insertCheckpoint(checkpoint(step)) }
        for set in ["val_eval", "train_eval", "mine"] {
            for (metric, value) in [("general_accuracy", 0.5123), ("mean_loss", .nan)] {
                var record = evaluation(value, metric: metric)
                record.set = set
                try ledger.insertEvaluation(record)
            }
        }
        try ledger.insertEvent(
            EventRecord(
                time: 0, kind: "trainer_lost", severity: .warning, step: 1,
                text: String(repeating: "a long story of a trainer ", count: 8)))
        let snapshot = try ledger.reader.snapshot()
        for width in [20, 40, 60, 80, 200] {
            let text = LedgerReport.text(
                snapshot, width: width, lastStep: snapshot.steps.last)
            let lines = text.split(separator: "\n")
            if width >= 60 {
                #expect(lines.allSatisfy { $0.count <= width }, "\(width): \(text)")
            }
            for word in ["train_eval", "0.5123", "NaN", "t2", "trainer_lost", "WARNING", "1.5"] {
                #expect(text.contains(word), "'\(word)' at width \(width)")
            }
            let order = ["train_eval", "val_eval", "mine"].compactMap {
                text.range(of: "  \($0)\n")?.lowerBound
            }
            #expect(order.count == 3 && order == order.sorted())
        }
    }

    @Test func lossesOfImagesStandBesideEachOther() throws {
        let folder = try TemporaryFolder()
        let ledger = try started(folder)
        try ledger.commitStep(stepRecord(1), miniBatches: [])
        for step in [0, 20] { try ledger.insertCheckpoint(checkpoint(step)) }
        for (step, set, loss, top1) in [
            (0, "train_images", 3.5, 0.02), (0, "val_images", 3.6, 0.01),
            (20, "val_images", 1.25, 0.5), (20, "train_images", 0.75, 0.625),
        ] {
            for (metric, value) in [("mean_loss", loss), ("top1", top1), ("images", 40)] {
                var record = evaluation(value, metric: metric)
                record.step = step
                record.set = set
                try ledger.insertEvaluation(record)
            }
        }
        let text = LedgerReport.text(try ledger.reader.snapshot(), width: 80, lastStep: nil)
        let lines = text.split(separator: "\n").map(String.init)
        let title = try #require(lines.firstIndex(of: "  train_images and val_images"))
        #expect(
            lines[title + 1..<title + 4].map { $0.split(separator: " ").joined(separator: " ") }
                == [
                    "step train mean_loss val mean_loss train top1 val top1",
                    "0 3.5000 3.6000 0.0200 0.0100", "20 0.7500 1.2500 0.6250 0.5000",
                ])
    }
}

@Suite struct FolderEvaluationTests {
    private static func write(
        _ run: TemporaryFolder, _ name: String, digest: String = "fedcba9876543210",
        value: String = "0.875"
    ) throws {
        let folder = run("evaluations")
        try FileManager.default.createDirectory(
            atPath: folder, withIntermediateDirectories: true)
        let text = """
            {"format": 1, "step": 20, "set": "val_eval", "weights_digest": "\(digest)",
             "dataset_digest": "0000000000000001", "numerics_class": "cpu",
             "evaluator": "host:7", "started": 1.5, "finished": 2.5, "images": 3,
             "non_finite_tuples": 0, "metrics": {"general_accuracy": \(value), "mean_loss": null}}
            """
        try Data(text.utf8).write(to: URL(fileURLWithPath: folder + "/" + name))
    }

    @Test func filesAreTakenInOnce() throws {
        let run = try TemporaryFolder()
        let ledger = try started(run)
        try ledger.insertCheckpoint(checkpoint(20))
        try Self.write(run, "20-val_eval.json")
        try Self.write(run, "claims.json", value: "[")
        let files = try FolderEvaluation.all(run: run.path)
        #expect(files.map(\.fileName) == ["20-val_eval.json"])
        var shown = try ledger.reader.snapshot()
        shown.add(files)
        let digest = try ledger.reader.resultDigest(adding: files)
        #expect(try ledger.takeIn(files) == 2)
        #expect(try ledger.takeIn(files) == 0)
        #expect(try ledger.reader.resultDigest() == digest)
        #expect(try ledger.reader.resultDigest(adding: files) == digest)
        let rows = try ledger.reader.evaluations()
        #expect(rows.map(\.metric) == ["general_accuracy", "mean_loss"])
        #expect(rows[0].value == 0.875 && rows[1].value.isNaN)
        #expect(rows[0].evaluator == "host:7" && rows[0].started == 1.5)
        #expect(shown.evaluations[0] == rows[0])
    }

    @Test func scoresOfOtherWeightsAreRefused() throws {
        let run = try TemporaryFolder()
        let ledger = try started(run)
        try ledger.insertCheckpoint(checkpoint(20))
        try Self.write(run, "20-val_eval.json", digest: "0000000000000001")
        #expect(try ledger.takeIn(FolderEvaluation.all(run: run.path)) == 0)
        #expect(try ledger.reader.evaluations().isEmpty)
        #expect(try ledger.reader.events().map(\.kind) == ["evaluation_refused"])
    }

    @Test func damagedFilesAreNamed() throws {
        let run = try TemporaryFolder()
        try Self.write(run, "20-val_eval.json", value: "}")
        try Self.write(run, "40-val_eval.json")
        var messages: [String] = []
        #expect(try FolderEvaluation.all(run: run.path) { messages.append($0.message) }.isEmpty)
        #expect(messages.count == 2)
        #expect(messages[1].contains("expected 20-val_eval.json"))
        #expect(try FolderEvaluation.all(run: run("none")).isEmpty)
    }
}

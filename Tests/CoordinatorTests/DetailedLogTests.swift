import Coordinator
import Foundation
import HDF5
import Settings
import Storage
import Testing

/// `logging.detailed` on a real ledger and real files.
@Suite struct DetailedLogTests {
    /// A run of four images a step, and of six from step 131 on.
    private final class Bench {
        let run = NSTemporaryDirectory() + "detailed-tests-\(UUID().uuidString)"
        private(set) var ledger: Ledger
        private(set) var log: DetailedLog
        var settings = Settings()

        init() throws {
            settings.logging.detailed = true
            settings.network.embeddingDim = 3
            settings.batch.identities = 2
            settings.batch.imagesPerIdentity = 2
            settings.batch.miniBatchesPerStep = 1
            settings.batch.phases = "130:3x2"
            ledger = try Ledger(path: run + "/ledger.sqlite")
            try ledger.createRun(
                RunRecord(
                    run: "r", created: 1, settings: "{}", settingsDigest: 1, datasetDigest: 2))
            try ledger.beginTerm()
            log = try DetailedLog(run: run, settings: settings, ledger: ledger)
        }

        deinit { try? FileManager.default.removeItem(atPath: run) }

        /// The coordinator dies, and another begins where the ledger stands.
        func crash() throws -> [String] {
            try ledger.close()
            ledger = try Ledger(path: run + "/ledger.sqlite", lockPath: run + "/\(UUID()).lock")
            try ledger.beginTerm()
            log = try DetailedLog(run: run, settings: settings, ledger: ledger)
            return try log.takeUp(lastStep: ledger.reader.run()!.lastStep)
        }

        func commit(_ steps: ClosedRange<Int>, salt: Float = 0, movesFiles: Bool = true) throws {
            for step in steps {
                try ledger.commitStep(
                    StepRecord(
                        step: step, loss: 1, fractionPositive: 1, activeCount: 1,
                        learningRate: 1, samples: 4, digest: UInt64(step),
                        seconds: StepSeconds(compute: 0, exchange: 0, commit: 0, total: 0)),
                    miniBatches: [], detailed: Self.record(step, salt: salt))
                if movesFiles { try log.writeFull(lastStep: step) }
            }
        }

        static func record(_ step: Int, salt: Float) -> DetailedRecord {
            let rows = step > 130 ? 6 : 4
            return DetailedRecord(
                step: step, names: (0..<rows).map { "é/\(step)-\($0).jpg" },
                embeddings: (0..<rows * 3).map { Float(step) + Float($0) / 32 + salt },
                losses: (0..<rows).map { $0 == 1 ? .nan : Float($0 * step) + salt })
        }

        var files: [String] {
            get throws {
                let names = try? FileManager.default.contentsOfDirectory(atPath: run + "/detailed")
                return (names ?? []).sorted()
            }
        }

        /// Checks that a file holds these steps and no others, and all of them whole.
        func expect(
            _ name: String, _ steps: ClosedRange<Int>, salt: (Int) -> Float = { _ in 0 },
            at location: SourceLocation = #_sourceLocation
        ) throws {
            let file = try HDF5File(reading: run + "/detailed/" + name)
            let records = steps.map { Self.record($0, salt: salt($0)) }
            let rows = records[0].names.count
            #expect(
                try file.names == ["embeddings", "fids", "losses", "steps"],
                sourceLocation: location)
            #expect(try file.integers(of: "steps") == Array(steps), sourceLocation: location)
            #expect(
                try file.shape(of: "embeddings") == [steps.count, rows, 3],
                sourceLocation: location)
            #expect(
                try file.shape(of: "losses") == [steps.count, rows], sourceLocation: location)
            #expect(try file.shape(of: "fids") == [steps.count, rows], sourceLocation: location)
            #expect(
                try file.floats(of: "embeddings") == records.flatMap(\.embeddings),
                sourceLocation: location)
            #expect(
                try file.floats(of: "losses").map { $0.isNaN ? -1 : $0 }
                    == records.flatMap(\.losses).map { $0.isNaN ? -1 : $0 },
                sourceLocation: location)
            #expect(
                try file.texts(of: "fids") == records.flatMap(\.names), sourceLocation: location)
        }
    }

    private static let files = [
        "steps-000000001-000000100.h5", "steps-000000101-000000130.h5",
        "steps-000000131-000000230.h5",
    ]

    @Test func everyStepIsInOneFileOrInTheLedger() throws {
        let bench = try Bench()
        try bench.commit(1...99)
        #expect(try bench.files.isEmpty)
        #expect(try bench.ledger.reader.detailedSteps() == Array(1...99))
        try bench.commit(100...137)
        #expect(try bench.files == Array(Self.files[..<2]))
        #expect(try bench.ledger.reader.detailedSteps() == Array(131...137))
        try bench.log.writeAll()
        #expect(try bench.files == Self.files)
        #expect(try bench.ledger.reader.detailedSteps().isEmpty)
        try bench.expect(Self.files[0], 1...100)
        try bench.expect(Self.files[1], 101...130)
        try bench.expect(Self.files[2], 131...137)
        // A run that goes on takes the last one up.
        #expect(try bench.crash().isEmpty)
        try bench.commit(138...140)
        try bench.log.writeAll()
        #expect(try bench.files == Self.files)
        try bench.expect(Self.files[2], 131...140)
    }

    /// A crash before a file is written, while it is, and after it was renamed but before the ledger has
    /// forgotten its rows.
    @Test func aCrashLeavesEveryStepOnce() throws {
        let bench = try Bench()
        try bench.commit(1...100, movesFiles: false)
        try FileManager.default.createDirectory(
            atPath: bench.run + "/detailed", withIntermediateDirectories: true)
        let part = bench.run + "/detailed/" + Self.files[0] + ".part"
        try Data("half a file".utf8).write(to: URL(fileURLWithPath: part))
        #expect(try bench.crash().isEmpty)
        #expect(try bench.files == [Self.files[0]])
        try bench.expect(Self.files[0], 1...100)
        #expect(try bench.ledger.reader.detailedSteps().isEmpty)

        try bench.ledger.putBack((1...100).map { Bench.record($0, salt: 0) })
        #expect(try bench.crash().isEmpty)
        try bench.expect(Self.files[0], 1...100)
        #expect(try bench.ledger.reader.detailedSteps().isEmpty)

        // The same at the end of a run, with a file that is not full.
        try bench.commit(101...110)
        try bench.log.writeAll()
        try bench.ledger.putBack((101...110).map { Bench.record($0, salt: 0) })
        #expect(try bench.crash().isEmpty)
        try bench.commit(111...130)
        #expect(try bench.files == Array(Self.files[..<2]))
        try bench.expect(Self.files[1], 101...130)
        #expect(try bench.ledger.reader.detailedSteps().isEmpty)
    }

    @Test func stepsThatAreSupersededAreSetAside() throws {
        let bench = try Bench()
        try bench.commit(1...110)
        try bench.log.writeAll()
        try bench.ledger.supersede(fromStep: 51)
        // The coordinator dies before it looks at the files.
        #expect(
            try bench.crash() == Self.files[..<2].map { $0 + ".superseded-1" })
        #expect(try bench.ledger.reader.detailedSteps() == Array(1...50))
        try bench.commit(51...105, salt: 0.5)
        try bench.log.writeAll()
        #expect(
            try bench.files
                == Self.files[..<2].flatMap { [$0, $0 + ".superseded-1"] })
        try bench.expect(Self.files[0], 1...100) { $0 > 50 ? 0.5 : 0 }
        try bench.expect(Self.files[1], 101...105) { _ in 0.5 }
        try bench.expect(Self.files[0] + ".superseded-1", 1...100)
        #expect(try bench.log.takeUp(lastStep: 105).isEmpty)
    }

    /// Whoever comes after a newer coordinator places no file, and whoever has it off writes what is left.
    @Test func anOlderTermPlacesNoFile() throws {
        let bench = try Bench()
        try bench.commit(1...5)
        let old = bench.log
        let newer = try Ledger(
            path: bench.run + "/ledger.sqlite", lockPath: bench.run + "/other.lock")
        try newer.beginTerm()
        let error = #expect(throws: StorageError.self) { try old.writeAll() }
        #expect(error?.code == .staleTerm)
        #expect(try bench.files == [Self.files[0] + ".part"])
        bench.settings.logging.detailed = false
        let log = try DetailedLog(run: bench.run, settings: bench.settings, ledger: newer)
        #expect(!log.isOn)
        try log.writeAll()
        #expect(try bench.files == [Self.files[0]])
        try bench.expect(Self.files[0], 1...5)
    }

    @Test func largeStepsShareFewerOrAreRefused() throws {
        let bench = try Bench()
        // 6 x 65,537 numbers are 1.5 MiB: 21 such steps fill 32 MiB.
        bench.settings.network.embeddingDim = 65_536
        bench.settings.batch.phases = nil
        bench.settings.batch.identities = 3
        let log = try DetailedLog(
            run: bench.run, settings: bench.settings, ledger: bench.ledger)
        #expect(log.steps(with: 1) == 1...21 && log.steps(with: 22) == 22...42)
        bench.settings.batch.miniBatchesPerStep = 256
        let error = #expect(throws: CoordinatorError.self) {
            try DetailedLog(run: bench.run, settings: bench.settings, ledger: bench.ledger)
        }
        #expect(error?.code == .badSetting)
        #expect(error?.message.contains("384 MiB") == true, "\(error!)")
    }
}

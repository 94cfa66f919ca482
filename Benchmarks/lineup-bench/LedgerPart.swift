import ArgumentParser
import Foundation
import Storage
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

extension Part {
    static let ledger = Part(name: "ledger", what: ledgerWhat, measure: measureLedger)

    private static let ledgerWhat =
        "metric rows a second, each batch of 10,000 one durable transaction; then a writer beside 8 "
        + "readers, and a writer that is killed and resumed"
    private static let batchRows = 10_000
    private static let kills = 12

    @Sendable
    private static func measureLedger(_ bench: Bench) throws -> Measurement {
        let start = ContinuousClock.now
        let rounds = bench.rounds ?? 9
        var rates: [Double] = []
        for round in 0..<rounds {
            let ledger = try Ledger.forBench(bench.folder + "/ledger-\(round)")
            let batches = (0..<20).map { rows(from: $0 * batchRows, count: batchRows) }
            let begun = ContinuousClock.now
            for batch in batches { try ledger.insertEvaluations(batch) }
            let seconds = (ContinuousClock.now - begun).inSeconds
            rates.append(Double(batches.count * batchRows) / seconds)
            try ledger.close()
        }
        let ratio = Series(rates.map { $0 / 250_000 })
        return Measurement(
            name: "ledger", what: ledgerWhat, unit: "rows a second",
            sides: [Side(name: "rows a second", series: Series(rates))],
            ratios: [
                Ratio(
                    of: "rows a second / 250,000", series: ratio, wanted: "at least 1",
                    isMet: ratio.median >= 1)
            ], notes: [try soak(bench), try killAndResume(bench)],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// Rows with keys of their own: three sets of nine metrics a step.
    fileprivate static func rows(from first: Int, count: Int) -> [EvaluationRecord] {
        (first..<first + count).map { number in
            EvaluationRecord(
                step: number / 27,
                set: ["train_eval", "val_eval", "easy_val_eval"][number / 9 % 3],
                metric: "metric_\(number % 9)", value: Double(number), started: 1, finished: 2,
                evaluator: "evaluator-1", numericsClass: "cpu")
        }
    }

    /// One writer of steps and rows, eight readers that open, read everything and close.
    private static func soak(_ bench: Bench) throws -> String {
        let folder = bench.folder + "/soak"
        let ledger = try Ledger.forBench(folder)
        let isOver = Mutex(false)
        let counts = Mutex((reads: 0, locked: 0, other: [String]()))
        let readers = DispatchGroup()
        for _ in 0..<8 {
            readers.enter()
            Thread.detachNewThread {
                while !isOver.withLock({ $0 }) {
                    do {
                        let reader = try LedgerReader(run: folder)
                        _ = try reader.snapshot(includesSteps: false)
                        _ = try reader.steps(in: 0...50)
                        try reader.close()
                        counts.withLock { $0.reads += 1 }
                    } catch {
                        counts.withLock { counts in
                            counts.locked += error.isLocked ? 1 : 0
                            if !error.isLocked { counts.other.append("\(error)") }
                        }
                    }
                }
                readers.leave()
            }
        }
        let end = ContinuousClock.now + .seconds(bench.soakSeconds)
        var step = 0
        var written = 0
        while ContinuousClock.now < end {
            step += 1
            do {
                try ledger.commitStep(.forBench(step), miniBatches: [])
                written += try ledger.insertEvaluations(rows(from: step * 27, count: 27)).count
            } catch {
                counts.withLock { counts in
                    counts.locked += error.code == .locked ? 1 : 0
                    counts.other.append("\(error)")
                }
                break
            }
        }
        isOver.withLock { $0 = true }
        readers.wait()
        try ledger.close()
        let (reads, locked, other) = counts.withLock { ($0.reads, $0.locked, $0.other) }
        guard other.isEmpty else { throw BenchFailure("soak: \(other[0])") }
        return "\(bench.soakSeconds) s beside 8 readers: \(step) steps, \(written) rows, \(reads) "
            + "readings of everything; \(locked) 'locked' errors (wanted: 0)"
    }

    /// A writer in a process of its own, killed at any moment and started again.
    private static func killAndResume(_ bench: Bench) throws -> String {
        let folder = bench.folder + "/killed"
        for number in 0..<kills {
            let child = try Child(
                "ledger writer", executable: bench.own, arguments: ["ledger-writer", folder],
                log: bench.folder + "/ledger-writer.log", answers: false)
            usleep(UInt32.random(in: 150_000...600_000))
            guard child.isRunning else { throw BenchFailure("ledger writer \(number) has ended") }
            kill(child.identifier, SIGKILL)
            child.end()
        }
        let ledger = try LedgerWriter(folder: folder)
        try ledger.catchUp()
        try ledger.close()
        let reader = try LedgerReader(run: folder)
        let steps = try reader.steps().map(\.step)
        let keys = try reader.evaluations().map { [$0.step.description, $0.set, $0.metric] }
        let wanted = Set(
            steps.flatMap { rows(from: $0 * 27, count: 27) }
                .map { [$0.step.description, $0.set, $0.metric] })
        let missing = wanted.subtracting(keys).count + Set(1...steps.count).subtracting(steps).count
        let double = keys.count - Set(keys).count + steps.count - Set(steps).count
        let strange = Set(keys).subtracting(wanted).count
        return "\(kills) kills in mid-write: \(steps.count) steps, \(keys.count) rows; \(missing) "
            + "missing, \(double) double, \(strange) unasked keys (wanted: 0, 0, 0)"
    }
}

extension Error {
    fileprivate var isLocked: Bool { (self as? StorageError)?.code == .locked }
}

extension Ledger {
    /// A run's ledger in a new folder, or the one that is there.
    fileprivate static func forBench(_ folder: String) throws -> Ledger {
        let ledger = try Ledger(path: folder + "/" + Ledger.fileName)
        if try ledger.reader.run() == nil {
            try ledger.createRun(
                RunRecord(
                    run: "bench", created: 1, settings: "{}", settingsDigest: 1, datasetDigest: 2))
        }
        try ledger.beginTerm()
        return ledger
    }
}

extension StepRecord {
    fileprivate static func forBench(_ step: Int) -> StepRecord {
        StepRecord(
            step: step, loss: 0.5, fractionPositive: 0.5, activeCount: 7, learningRate: 0.001,
            samples: 64, digest: UInt64(step),
            seconds: StepSeconds(compute: 1, exchange: 0.1, commit: 0.01, total: 1.1))
    }
}

/// Writes steps with their rows, and after a crash goes on as a coordinator and its evaluators do: with
/// the step after the last one, and with the rows that were not acknowledged.
private struct LedgerWriter {
    private let ledger: Ledger
    private(set) var step: Int

    init(folder: String) throws {
        ledger = try Ledger.forBench(folder)
        step = try ledger.reader.run()?.lastStep ?? 0
    }

    /// Sends the rows of the last step again.
    func catchUp() throws {
        guard step > 0 else { return }
        try ledger.insertEvaluations(Part.rows(from: step * 27, count: 27))
    }

    mutating func next() throws {
        try ledger.commitStep(.forBench(step + 1), miniBatches: [])
        step += 1
        try catchUp()
    }

    func close() throws { try ledger.close() }
}

/// `lineup-bench ledger-writer`: writes until it is killed.
struct LedgerWriterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger-writer", abstract: "Write steps and rows to a ledger until killed.",
        shouldDisplay: false)

    @Argument(help: "The run's folder.")
    var folder: String

    func run() throws {
        var writer = try LedgerWriter(folder: folder)
        try writer.catchUp()
        while true { try writer.next() }
    }
}

internal import ClusterCore
internal import Foundation
internal import Logging
internal import Protocol
internal import Settings
internal import Storage

/// TensorBoard's view of a run, written beside the ledger; never stops a run.
final class RunEvents {
    private let train: EventWriter
    private let sets: [String: EventWriter]
    private let every: Int
    private let logger = Logger(label: "lineup.events")
    private var lastFlush = Date()

    init(folder: RunFolder, ledger: Ledger) throws {
        let last = try ledger.reader.run()?.lastStep ?? 0
        train = try EventWriter(directory: folder.path + "/events/train", lastStep: last)
        var sets: [String: EventWriter] = [:]
        for name in folder.settings.evaluation.sets {
            sets[name] = try EventWriter(
                directory: folder.path + "/events/" + name, lastStep: last)
        }
        self.sets = sets
        every = max(1, folder.settings.logging.summaryEverySteps)
    }

    func stepCommitted(_ record: ClusterCore.StepRecord, commitSeconds: Double) {
        guard record.step % every == 0 || record.step == 1 else { return }
        let compute = record.miniBatches.map(\.computeSeconds)
        write(
            train,
            [
                "loss": Double(record.loss), "fraction_positive": record.fractionPositive,
                "active_count": Double(record.activeCount),
                "learning_rate": record.learningRate,
                "secs_per_iter": record.totalSeconds,
                "seconds/exchange": record.exchangeSeconds, "seconds/commit": commitSeconds,
                "seconds/slot_compute": compute.reduce(0, +) / Double(max(1, compute.count)),
            ], step: record.step)
    }

    func evaluated(_ rows: WireEvaluationRows) {
        guard let writer = sets[rows.set] else { return }
        var values: [String: Double] = [:]
        for metric in rows.metrics { values[metric.metric] = metric.value }
        write(writer, values, step: Int(clamping: rows.step))
        flush(writer)
    }

    func close() throws {
        flush(train)
        for writer in sets.values { flush(writer) }
    }

    private func write(_ writer: EventWriter, _ values: [String: Double], step: Int) {
        do {
            try writer.add(
                step: step, time: Ledger.secondsSince1970(),
                values.keys.sorted().map { (tag: $0, value: values[$0] ?? 0) })
            if Date().timeIntervalSince(lastFlush) > 2 {
                lastFlush = Date()
                try writer.flush()
            }
        } catch {
            logger.warning("event file not written", metadata: ["why": "\(error)"])
        }
    }

    private func flush(_ writer: EventWriter) {
        do {
            try writer.flush()
        } catch {
            logger.warning("event file not written", metadata: ["why": "\(error)"])
        }
    }
}

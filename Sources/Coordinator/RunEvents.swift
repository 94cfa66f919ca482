internal import Basics
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
    private let logging: Settings.Logging
    /// The losses of a sum, and the one against the memory; one has no tag beside `loss`.
    private let losses: [String]
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
        logging = folder.settings.logging
        let loss = folder.settings.loss
        losses = loss.parts.map(\.name.rawValue) + (loss.memory > 0 ? ["memory"] : [])
    }

    func stepCommitted(_ record: ClusterCore.StepRecord, commitSeconds: Double) {
        guard logging.summarises(step: record.step) else { return }
        let compute = record.miniBatches.map(\.computeSeconds)
        var values = [
            "loss": Double(record.loss), "fraction_positive": record.fractionPositive,
            "active_count": Double(record.activeCount), "learning_rate": record.learningRate,
            "secs_per_iter": record.totalSeconds, "embedding_spread": record.spread,
            "seconds/exchange": record.exchangeSeconds, "seconds/commit": commitSeconds,
            "seconds/slot_compute": compute.reduce(0, +) / Double(max(1, compute.count)),
        ]
        for (name, value) in zip(losses, record.lossParts) {
            values["loss/\(name)"] = Double(value)
        }
        if let summary = record.summary {
            values["batch_top1"] = summary.top1
            values["batch_prec_at_\(summary.precisionRank)"] = summary.precision
        }
        write(train, values, step: record.step)
        guard let summary = record.summary else { return }
        var histograms = [
            ("embedding_dists", summary.distances),
            ("embedding_pos_dists", summary.positiveDistances),
            ("embedding_neg_dists", summary.negativeDistances),
            ("embedding_lengths", summary.lengths),
        ]
        // A loss whose terms are not those of rows says nothing of them.
        if summary.losses.count > 0 { histograms.append(("loss_distribution", summary.losses)) }
        guarded {
            try train.add(
                step: record.step, time: Ledger.secondsSince1970(), histograms: histograms)
        }
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
        guarded {
            try writer.add(
                step: step, time: Ledger.secondsSince1970(),
                values.keys.sorted().map { (tag: $0, value: values[$0] ?? 0) })
            if Date().timeIntervalSince(lastFlush) > 2 {
                lastFlush = Date()
                try writer.flush()
            }
        }
    }

    private func flush(_ writer: EventWriter) { guarded { try writer.flush() } }

    private func guarded(_ body: () throws -> Void) {
        do {
            try body()
        } catch {
            logger.warning("event file not written", metadata: ["why": "\(error)"])
        }
    }
}

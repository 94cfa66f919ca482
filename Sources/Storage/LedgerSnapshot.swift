import Basics
public import Foundation

/// A whole ledger at one moment, in the shape of `lineup ledger RUN --json`.
public struct LedgerSnapshot: Codable, Equatable, Sendable {
    /// The run.
    public var run: RunRecord
    /// Committed steps, ascending.
    public var steps: [StepRecord]
    /// Checkpoints, ascending.
    public var checkpoints: [CheckpointRecord]
    /// Evaluations, by step, set and metric.
    public var evaluations: [EvaluationRecord]
    /// Workers in order of joining.
    public var workers: [WorkerRecord]
    /// Events in order of recording.
    public var events: [EventRecord]
    /// Computations of slots, by step, slot and attempt.
    public var miniBatches: [MiniBatchRecord]

    enum CodingKeys: String, CodingKey {
        case run, steps, checkpoints, evaluations, workers, events
        case miniBatches = "mini_batches"
    }

    /// The JSON form, one line, as ``LedgerReader/writeJSON(adding:_:)`` writes it.
    public func json() -> Data {
        var data = Data()
        // Appending to memory cannot fail.
        try? withoutActuallyEscaping({ data.append($0) }) { emit in
            var json = LedgerJSON(emit: emit)
            json.begin(run)
            try json.list("steps", steps) { $0.json }
            try json.list("checkpoints", checkpoints) { $0.json }
            try json.list("evaluations", evaluations) { $0.json }
            try json.list("workers", workers) { $0.json }
            try json.list("events", events) { $0.json }
            try json.list("mini_batches", miniBatches) { $0.json }
            try json.end()
        }
        return data
    }

    /// Reads the JSON form.
    public init(json: Data) throws(StorageError) {
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "Infinity", negativeInfinity: "-Infinity", nan: "NaN")
        do {
            self = try decoder.decode(Self.self, from: json)
        } catch {
            throw StorageError(.corrupt, "this is not the JSON of a ledger: \(error)")
        }
    }

    init(
        run: RunRecord, steps: [StepRecord], checkpoints: [CheckpointRecord],
        evaluations: [EvaluationRecord], workers: [WorkerRecord], events: [EventRecord],
        miniBatches: [MiniBatchRecord]
    ) {
        self.run = run
        self.steps = steps
        self.checkpoints = checkpoints
        self.evaluations = evaluations
        self.workers = workers
        self.events = events
        self.miniBatches = miniBatches
    }
}

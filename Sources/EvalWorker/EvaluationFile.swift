import Basics
import Foundation
import Scoring
public import Storage

/// What `RUN/evaluations/<step>-<set>.json` holds: one set scored on one checkpoint.
///
/// `lineup evaluator --run DIR` writes these files; the coordinator, `resume` and `ledger` take them
/// in. A value that is not finite is written as `null` and read as NaN.
public struct EvaluationFile: Codable, Equatable, Sendable {
    /// The layout that this version writes and the newest that it reads.
    public static let currentFormat = 1

    /// The layout of the file.
    public var format: Int
    /// Step of the checkpoint.
    public var step: Int
    /// Name of the set.
    public var set: String
    /// Digest of the weights that were scored, 16 hexadecimal digits.
    public var weightsDigest: String
    /// Digest of the data set, 16 hexadecimal digits.
    public var datasetDigest: String
    /// The numerics class in which the images were embedded.
    public var numericsClass: String
    /// Who scored it: `host:pid`.
    public var evaluator: String
    /// When the first image was read, in seconds since 1970.
    public var started: Double
    /// When the last image was scored.
    public var finished: Double
    /// Distinct images that the set embeds.
    public var images: Int
    /// Tuples with an embedding that is not finite; they count as failures.
    public var nonFiniteTuples: Int
    /// Value by metric name.
    public var metrics: [String: Double]

    enum CodingKeys: String, CodingKey {
        case format, step, set, evaluator, started, finished, images, metrics
        case weightsDigest = "weights_digest"
        case datasetDigest = "dataset_digest"
        case numericsClass = "numerics_class"
        case nonFiniteTuples = "non_finite_tuples"
    }

    /// Describes a result.
    public init(
        step: Int, result: SetResult, weightsDigest: UInt64, datasetDigest: UInt64,
        numericsClass: String, evaluator: String
    ) {
        format = Self.currentFormat
        self.step = step
        set = result.set
        self.weightsDigest = weightsDigest.hex
        self.datasetDigest = datasetDigest.hex
        self.numericsClass = numericsClass
        self.evaluator = evaluator
        started = result.started
        finished = result.finished
        images = result.images
        nonFiniteTuples = result.nonFiniteTuples
        metrics = Dictionary(uniqueKeysWithValues: result.metrics.map { ($0.rawValue, $1) })
    }

    /// Reads a file's contents.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        format = try container.decode(Int.self, forKey: .format)
        step = try container.decode(Int.self, forKey: .step)
        set = try container.decode(String.self, forKey: .set)
        weightsDigest = try container.decode(String.self, forKey: .weightsDigest)
        datasetDigest = try container.decode(String.self, forKey: .datasetDigest)
        numericsClass = try container.decode(String.self, forKey: .numericsClass)
        evaluator = try container.decode(String.self, forKey: .evaluator)
        started = try container.decode(Double.self, forKey: .started)
        finished = try container.decode(Double.self, forKey: .finished)
        images = try container.decode(Int.self, forKey: .images)
        nonFiniteTuples = try container.decode(Int.self, forKey: .nonFiniteTuples)
        metrics = try container.decode([String: Double?].self, forKey: .metrics).mapValues {
            $0 ?? .nan
        }
    }

    /// Writes a file's contents.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(format, forKey: .format)
        try container.encode(step, forKey: .step)
        try container.encode(set, forKey: .set)
        try container.encode(weightsDigest, forKey: .weightsDigest)
        try container.encode(datasetDigest, forKey: .datasetDigest)
        try container.encode(numericsClass, forKey: .numericsClass)
        try container.encode(evaluator, forKey: .evaluator)
        try container.encode(started, forKey: .started)
        try container.encode(finished, forKey: .finished)
        try container.encode(images, forKey: .images)
        try container.encode(nonFiniteTuples, forKey: .nonFiniteTuples)
        try container.encode(
            metrics.mapValues { $0.isFinite ? $0 : Double?.none }, forKey: .metrics)
    }

    /// The set and the checkpoint.
    public var task: EvaluationTask { EvaluationTask(step: step, set: set) }

    /// The ledger's rows, one a metric, in the order of the names.
    public var records: [EvaluationRecord] {
        metrics.keys.sorted().map { name in
            EvaluationRecord(
                step: step, set: set, metric: name, value: metrics[name] ?? .nan, started: started,
                finished: finished, evaluator: evaluator, numericsClass: numericsClass)
        }
    }

    /// Whether both say the same of the same weights, in every bit.
    public func agrees(with other: EvaluationFile) -> Bool {
        func bits(_ file: EvaluationFile) -> [String: UInt64] {
            file.metrics.mapValues { $0.isFinite ? $0.bitPattern : Double.nan.bitPattern }
        }
        return task == other.task && weightsDigest == other.weightsDigest
            && bits(self) == bits(other)
    }
}

extension EvaluationFile {
    /// The folder of a run's results.
    public static func folder(run: String) -> String { run + "/evaluations" }

    /// The name of a task's file.
    public static func path(run: String, _ task: EvaluationTask) -> String {
        folder(run: run) + "/\(task).json"
    }

    /// Everything that evaluators of a run have written, by step and set.
    ///
    /// Files of other names are left alone.
    ///
    /// - Returns: the results, and one line for every file that could not be read.
    public static func readAll(run: String) -> (files: [EvaluationFile], problems: [String]) {
        var files: [EvaluationFile] = []
        var problems: [String] = []
        for task in tasks(run: run) {
            do { files.append(try read(run: run, task)) } catch { problems.append(error.message) }
        }
        return (files, problems)
    }

    /// Tasks that have a file, by step and set; the files are not read.
    static func tasks(run: String) -> [EvaluationTask] {
        RunFiles.list(folder(run: run)).compactMap { name in
            guard name.hasSuffix(".json") else { return nil }
            return EvaluationTask(name.dropLast(".json".count))
        }.sorted()
    }

    /// Reads the result of a task.
    ///
    /// - Throws: ``EvalWorkerError`` with code `corrupt` when the file is not that.
    public static func read(run: String, _ task: EvaluationTask) throws(EvalWorkerError)
        -> EvaluationFile
    {
        let path = path(run: run, task)
        func corrupt(_ why: String) -> EvalWorkerError {
            EvalWorkerError(
                .corrupt,
                "evaluation \(path) \(why); move the file away to have the set scored again")
        }
        guard let data = FileManager.default.contents(atPath: path) else {
            throw corrupt("cannot be read")
        }
        guard let file = try? JSONDecoder().decode(EvaluationFile.self, from: data) else {
            throw corrupt("is not the JSON of an evaluation")
        }
        guard file.format <= currentFormat else {
            throw corrupt("has format \(file.format), this lineup reads up to \(currentFormat)")
        }
        guard file.task == task else {
            throw corrupt("holds step \(file.step) of set '\(file.set)'")
        }
        return file
    }

    /// Writes the file unless the task has one.
    ///
    /// - Returns: whether this call wrote it.
    /// - Throws: ``EvalWorkerError`` with code `disagreement` when there is one that says something
    ///   else, `io` when it cannot be written.
    public func write(run: String) throws(EvalWorkerError) -> Bool {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard var data = try? encoder.encode(self) else {
            throw EvalWorkerError(.io, "the result of \(task) cannot be written as JSON")
        }
        data.append(UInt8(ascii: "\n"))
        try RunFiles.createFolder(Self.folder(run: run))
        let path = Self.path(run: run, task)
        if try RunFiles.linkIfAbsent(data, as: path, durable: true) != nil { return true }
        let existing = try Self.read(run: run, task)
        guard agrees(with: existing) else {
            let differing = Swift.Set(metrics.keys).union(existing.metrics.keys).sorted().first {
                metrics[$0]?.bitPattern != existing.metrics[$0]?.bitPattern
            }
            let what = differing.map { name in
                "\(name) is \(existing.metrics[name] ?? .nan) there and \(metrics[name] ?? .nan) here"
            }
            throw EvalWorkerError(
                .disagreement,
                "step \(step), set '\(set)': \(existing.evaluator) scored weights "
                    + "\(existing.weightsDigest) and this process \(weightsDigest), "
                    + "\(what ?? "with equal values"); the first result stays")
        }
        return false
    }
}

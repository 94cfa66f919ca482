import Basics
import Foundation

/// One set scored on one checkpoint without a coordinator: a file `RUN/evaluations/<step>-<set>.json`.
///
/// `lineup evaluator --run` writes these files; the coordinator and `resume` take them into the
/// ledger, and `lineup ledger` shows them beside it.
public struct FolderEvaluation: Equatable, Sendable {
    /// The folder within a run's folder.
    public static let directoryName = "evaluations"
    /// The newest layout that this version reads.
    public static let currentFormat = 1

    /// The checkpoint's step.
    public let step: Int
    /// The set.
    public let set: String
    /// The digest of the weights that were scored.
    public let weightsDigest: UInt64
    /// One row for each metric, by name.
    public let records: [EvaluationRecord]

    /// Names values that were scored.
    public init(step: Int, set: String, weightsDigest: UInt64, records: [EvaluationRecord]) {
        self.step = step
        self.set = set
        self.weightsDigest = weightsDigest
        self.records = records
    }

    /// The file's name: `<step>-<set>.json`.
    public var fileName: String { "\(step)-\(set).json" }

    /// The keys of the file that the ledger needs.
    private struct Contents: Decodable {
        var format: Int
        var step: Int
        var set: String
        @Hex var weightsDigest: UInt64
        var numericsClass: String
        var evaluator: String
        var started: Double
        var finished: Double
        var metrics: [String: Double?]

        enum CodingKeys: String, CodingKey {
            case format, step, set, evaluator, started, finished, metrics
            case weightsDigest = "weights_digest"
            case numericsClass = "numerics_class"
        }
    }

    /// Reads a file; a metric that is `null` is NaN.
    ///
    /// - Throws: ``StorageError`` with code `notFound`, `corrupt` or `newerVersion`.
    public init(path: String) throws(StorageError) {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw StorageError(.notFound, "evaluation \(path) cannot be read")
        }
        let contents: Contents
        do {
            contents = try JSONDecoder().decode(Contents.self, from: data)
        } catch {
            throw StorageError(
                .corrupt,
                "evaluation \(path) is not what lineup evaluator --run writes; move it away to "
                    + "have the set scored again",
                cause: "\(error)")
        }
        guard contents.format <= Self.currentFormat else {
            throw StorageError(
                .newerVersion,
                "evaluation \(path) has format \(contents.format), this lineup reads up to "
                    + "\(Self.currentFormat); use the version that wrote it")
        }
        self.init(
            step: contents.step, set: contents.set, weightsDigest: contents.weightsDigest,
            records: contents.metrics.keys.sorted().map {
                EvaluationRecord(
                    step: contents.step, set: contents.set, metric: $0,
                    value: (contents.metrics[$0] ?? nil) ?? .nan, started: contents.started,
                    finished: contents.finished, evaluator: contents.evaluator,
                    numericsClass: contents.numericsClass)
            })
        let name = (path as NSString).lastPathComponent
        guard name == fileName else {
            throw StorageError(
                .corrupt,
                "evaluation \(path) holds step \(step), set '\(set)'; expected \(fileName)")
        }
    }

    /// Reads the files of a run, by step and set; files of other names are left alone.
    ///
    /// - Parameters:
    ///   - damaged: is told every file that cannot be used, and why.
    public static func all(
        run: String, damaged: (StorageError) -> Void = { _ in }
    ) throws(StorageError) -> [FolderEvaluation] {
        let folder = run + "/" + directoryName
        var found: [FolderEvaluation] = []
        for name in try SystemFiles().list(folder) {
            guard name.hasSuffix(".json"), let dash = name.firstIndex(of: "-"),
                Int(name[..<dash]) != nil
            else { continue }
            do throws(StorageError) {
                found.append(try FolderEvaluation(path: folder + "/" + name))
            } catch {
                damaged(error)
            }
        }
        return found.sorted { ($0.step, $0.set) < ($1.step, $1.set) }
    }
}

extension Ledger {
    /// Takes values that were scored without a coordinator into the ledger, each exactly once.
    ///
    /// A file whose weights are not those of the ledger's checkpoint is left out, with an event.
    ///
    /// - Returns: how many values were new.
    @discardableResult
    public func takeIn(_ files: [FolderEvaluation]) throws(StorageError) -> Int {
        let checkpoints = try reader.checkpoints()
        var inserted = 0
        for file in files {
            guard let checkpoint = checkpoints.first(where: { $0.step == file.step }) else {
                continue
            }
            guard checkpoint.digest == file.weightsDigest else {
                try insertEvent(
                    EventRecord(
                        time: Self.secondsSince1970(), kind: "evaluation_refused",
                        severity: .error, step: file.step,
                        text:
                            "evaluation \(file.fileName) scored weights \(file.weightsDigest.hex), the "
                            + "checkpoint has \(checkpoint.digest.hex)"))
                continue
            }
            let outcomes = try insertEvaluations(file.records)
            inserted += outcomes.count { $0 == .inserted }
        }
        return inserted
    }
}

extension EvaluationRecord {
    /// The ledger's values and those of files that fit its checkpoints; the ledger's win.
    static func merged(
        _ records: [EvaluationRecord], _ files: [FolderEvaluation],
        _ checkpoints: [CheckpointRecord]
    ) -> [EvaluationRecord] {
        var byKey: [Key: EvaluationRecord] = [:]
        let fitting = files.filter { file in
            checkpoints.contains { $0.step == file.step && $0.digest == file.weightsDigest }
        }
        for record in fitting.flatMap(\.records) + records { byKey[record.key] = record }
        return byKey.keys.sorted().compactMap { byKey[$0] }
    }

    /// What there is at most one value for.
    struct Key: Hashable, Comparable {
        let step: Int
        let set: String
        let metric: String

        static func < (left: Key, right: Key) -> Bool {
            (left.step, left.set, left.metric) < (right.step, right.set, right.metric)
        }
    }

    var key: Key { Key(step: step, set: set, metric: metric) }
}

extension LedgerSnapshot {
    /// Shows the values of files that wait beside the ledger, as if they had been taken in.
    public mutating func add(_ files: [FolderEvaluation]) {
        evaluations = EvaluationRecord.merged(evaluations, files, checkpoints)
    }
}

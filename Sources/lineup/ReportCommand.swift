import ArgumentParser
import Basics
import Dashboard
import EvalWorker
import Foundation
import Networks
import Scoring
import Settings
import Storage
import Tensors
import Training

/// `lineup report`: what a run came to.
struct ReportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Show scores, faults and costs of a run, and write a page with ranked pictures.",
        discussion: """
            Writes RUN/reports/index.html: the scores of every checkpoint beside those of raw pixels, \
            and tuples of one set as the newest checkpoint ranks them. Without LibTorch or without the \
            data set it leaves out what needs them, and says so.

            Example: lineup report experiments/base
            Example: lineup report experiments/base --compare experiments/other
            """
    )

    @Argument(help: "The run's folder.")
    var folder: String

    @Option(help: "Set whose tuples are shown; val_eval, or the first that the run has.")
    var set: String?

    @Option(help: "Tuples that are shown.")
    var tuples = 24

    @Option(
        help: "Another run, whose last weights should be equal; exits with 1 where they differ.")
    var compare: String?

    @Option(help: "Where the data set is on this machine.")
    var dataRoot: String?

    func run() async throws {
        let command = self
        let isEqual = try await onOwnThread { try command.report() }
        if !isEqual { throw ExitCode(1) }
    }

    private func report() throws -> Bool {
        let ledger = try LedgerReader(run: folder).snapshot()
        let last = ledger.checkpoints.last { $0.state == .durable }
        var report = RunReport(
            run: URL(filePath: folder).lastPathComponent, folder: folder,
            lastStep: ledger.run.lastStep, weights: last?.digest.hex ?? "",
            scores: Self.scores(ledger))
        let timeline = Self.timeline(ledger)
        report.faults = timeline.faults
        report.evaluationCost = timeline.evaluationCost
        try addPictures(to: &report, checkpoint: last)

        let page = folder + "/reports/index.html"
        try FileManager.default.createDirectory(
            atPath: folder + "/reports", withIntermediateDirectories: true)
        try Data(report.html.utf8).write(to: URL(filePath: page), options: .atomic)
        for line in report.lines { print(line) }
        let isEqual = try compareWeights(report)
        print("pictures: \(page)")
        return isEqual
    }

    /// Prints whether the other run ended with the same weights.
    private func compareWeights(_ report: RunReport) throws -> Bool {
        guard let compare else {
            print("weights \(report.weights)")
            return true
        }
        let other = try LedgerReader(run: compare).snapshot(includesSteps: false)
        let name = URL(filePath: compare).lastPathComponent
        guard let theirs = other.checkpoints.last(where: { $0.state == .durable }),
            other.run.lastStep == report.lastStep, theirs.digest.hex == report.weights
        else {
            let digest = other.checkpoints.last { $0.state == .durable }?.digest.hex ?? "none"
            print(
                "weights \(report.weights) after \(report.lastStep) steps differ from the \(name) "
                    + "run's \(digest) after \(other.run.lastStep)")
            return false
        }
        print("weights \(report.weights) = the \(name) run's")
        return true
    }

    private func addPictures(
        to report: inout RunReport, checkpoint: CheckpointRecord?
    ) throws {
        let settings = try RunFolderEvaluator.settings(run: folder)
        let setup: EvaluationSetup
        do {
            setup = try EvaluationSetup(settings: settings, dataRoot: dataRoot)
        } catch let error as any LineupError {
            say("without pictures: \(error.message)")
            return
        }
        let asked = setup.sets.compactMap { set -> (SetScorer, [TupleIndices], TupleScorer)? in
            guard case .tuples(let tuples, let scorer) = set.question else { return nil }
            return (set, tuples, scorer)
        }
        let names = asked.map(\.0.name)
        guard
            let (scorer, tuples, ranker) = asked.first(where: {
                $0.0.name == set ?? (names.contains("val_eval") ? "val_eval" : names.first)
            })
        else {
            // A run that classifies may have images alone.
            guard let set else { return }
            throw ValidationError(
                "there is no set '\(set)' of tuples; the run has \(names.joined(separator: ", "))")
        }
        report.rankedSet = scorer.name
        let baseline = try setup.pixelBaseline(set: scorer.name)
        report.pixels = [
            ClusterView.Score(
                step: 0, set: scorer.name, general: baseline.metrics[.generalAccuracy] ?? .nan,
                easy: baseline.metrics[.easyAccuracy] ?? .nan)
        ]
        guard let checkpoint, Engine.isAvailable else {
            say("without ranked pictures: they need a checkpoint and LibTorch (make setup)")
            return
        }
        let reader = try CheckpointReader(
            path: folder + "/" + checkpoint.file, verifying: .weights)
        let embedding = try CheckpointEmbedding(reader, settings: settings)
        try Engine.setIntraOpThreads(1)
        let values = try scorer.embed(with: embedding)
        let matrix = try EmbeddingMatrix(values, dimension: embedding.dimension)
        let root = dataRoot ?? settings.data.root ?? "."
        report.rankings = try Self.spread(tuples, self.tuples).map { tuple in
            let ranked = try ranker.ranking(of: tuple, in: matrix)
            func picture(_ row: Int, _ distance: Double, _ isPositive: Bool)
                -> RunReport.Ranking.Picture
            {
                let path = scorer.source.key(row)
                let bytes = FileManager.default.contents(atPath: root + "/" + path) ?? Data()
                return .init(
                    path: path, distance: distance, isPositive: isPositive, jpeg: Array(bytes))
            }
            return RunReport.Ranking(
                anchor: picture(tuple.anchor, 0, true),
                candidates: ranked.map { picture($0.row, $0.distance, $0.isPositive) })
        }
    }

    /// So many tuples at equal distances over the set, so that every part of it is seen.
    private static func spread(_ tuples: [TupleIndices], _ count: Int) -> [TupleIndices] {
        guard count > 0, !tuples.isEmpty else { return [] }
        let shown = min(count, tuples.count)
        return (0..<shown).map { tuples[$0 * tuples.count / shown] }
    }

    private static func scores(_ ledger: LedgerSnapshot) -> [ClusterView.Score] {
        var scores: [ClusterView.Score] = []
        for row in ledger.evaluations {
            func value(_ metric: MetricName) -> Double {
                ledger.evaluations.first {
                    $0.step == row.step && $0.set == row.set && $0.metric == metric.rawValue
                }?.value ?? .nan
            }
            switch MetricName(rawValue: row.metric) {
            case .generalAccuracy:
                scores.append(
                    ClusterView.Score(
                        step: row.step, set: row.set, general: row.value,
                        easy: value(.easyAccuracy)))
            case .top1:
                scores.append(
                    ClusterView.Score(
                        step: row.step, set: row.set, loss: value(.meanLoss), top1: row.value))
            default: break
            }
        }
        return scores
    }

    private static func timeline(_ ledger: LedgerSnapshot) -> RunTimeline {
        let trainers = ledger.workers.filter { $0.role == "trainer" }
        return RunTimeline(
            commits: ledger.steps.map { .init(step: $0.step, time: $0.committed, term: $0.term) },
            losses: ledger.events.filter {
                $0.kind == "worker_left" && $0.severity == .warning
                    && $0.text.hasPrefix("trainer")
            }.map { ($0.time, $0.text) },
            changes: trainers.map(\.joined) + trainers.compactMap(\.left),
            evaluations: ledger.evaluations.map { ($0.started, $0.finished) })
    }
}

/// The network of a run with the weights of one checkpoint.
private struct CheckpointEmbedding: BatchEmbedding {
    private let embedder: Embedder

    init(_ checkpoint: CheckpointReader, settings: Settings) throws {
        let training = try TrainingConfiguration(settings: settings, device: .cpu)
        embedder = try Embedder(
            training.network, precision: training.precision, threads: 1,
            usesAverage: settings.evaluation.weights == .average
        ) { name in
            checkpoint[name].map { ($0.shape, $0.bytes) }
        }
    }

    var dimension: Int { embedder.network.embeddingDimension }

    func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) throws -> [Float] {
        guard let start = images.baseAddress else { return [] }
        return try embedder.embed(UnsafePointer(start), count: count)
    }
}

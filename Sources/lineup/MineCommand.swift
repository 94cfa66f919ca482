import ArgumentParser
import Basics
import Datasets
import EvalWorker
import Foundation
import Settings
import Storage
import Tensors

/// What is mined, as it is written on the command line.
enum MiningKind: String, ExpressibleByArgument, CaseIterable {
    case random
    case hardCentroid = "hard_centroid"
    case hardSimilarity = "hard_similarity"

    var kind: TripletKind {
        switch self {
        case .random: .random
        case .hardCentroid: .hardCentroid
        case .hardSimilarity: .hardSimilarity
        }
    }
}

/// `lineup mine`: triplets to train on.
struct MineCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mine",
        abstract: "Mine triplets of training images and write them as anchor,positive,negative.",
        discussion: """
            random takes every image with random others; hard_centroid and hard_similarity take hard \
            ones by a run's checkpoint, the newest unless RUN@STEP names another. Interrupted, the \
            same command goes on where it was and writes the same file.

            Example: lineup mine --data-root data/crops --kind random --out coarse.csv
            Example: lineup mine experiments/base@2000 --kind hard_centroid --out fine.csv
            """
    )

    @Argument(help: "A run's folder, or one of its checkpoints as RUN@STEP.")
    var run: String?

    @Option(help: "random, hard_centroid or hard_similarity.")
    var kind: MiningKind

    @Option(help: "The CSV file to write.")
    var out: String

    @Option(help: "Where the data set is. Default: where the run's is.")
    var dataRoot: String?

    @Option(help: "Seed of every choice. Default: the run's, else 1.")
    var seed: UInt64?

    @Option(
        help: "Anchors, at most. Default: random all, hard_centroid 2048, hard_similarity 1024.")
    var anchors: Int?

    @Option(help: "hard_centroid: images that a negative is chosen from.")
    var negatives = 1_024

    @Option(help: "hard_similarity: images that are embedded.")
    var pool = 5_000

    @Option(help: "hard_similarity: decides how many are chosen from: 25 of up to 5 positives.")
    var samples = 25

    @Option(help: "Where images are embedded: cpu, cuda or cuda:N.")
    var device = "cpu"

    @Option(help: "Threads (default: one a core).")
    var threads: Int?

    func validate() throws {
        guard run != nil || dataRoot != nil else {
            throw ValidationError("name a run, or the folder of crops with --data-root CROPS")
        }
        guard run != nil || kind == .random else {
            throw ValidationError(
                "--kind \(kind.rawValue) needs a network: name a run, or one of its checkpoints as "
                    + "RUN@STEP")
        }
        for (name, value, least) in [
            ("--anchors", anchors ?? 1, 1), ("--negatives", negatives, 1), ("--pool", pool, 3),
            ("--samples", samples, 1), ("--threads", threads ?? 1, 1),
        ] where value < least {
            throw ValidationError("\(name) is \(value); expected at least \(least)")
        }
    }

    func run() async throws {
        let device = try parseDevice(device)
        let command = self
        do {
            let line: String = try await onOwnThread {
                let stop = StopRequest()
                let signals = DrainSignals { stop.stop() }
                defer { withExtendedLifetime(signals) {} }
                return try command.mine(device, stop)
            }
            print(line)
        } catch let error as EvalWorkerError where error.code == .stopped {
            say("lineup: \(error.message); the same command goes on")
            throw ExitCode(75)
        }
    }

    private func mine(_ device: Device, _ stop: StopRequest) throws -> String {
        let checkpoint = try run.map { try CheckpointName($0) }
        let settings = try checkpoint.map { try RunFolderEvaluator.settings(run: $0.run) }
        guard let root = dataRoot ?? settings?.data.root else {
            throw ValidationError("the run names no data; give it with --data-root CROPS")
        }
        var options = TripletMiner.Options(
            kind: kind.kind, seed: seed ?? settings?.seed ?? 1, anchors: anchors)
        options.negatives = negatives
        options.pool = pool
        options.samples = samples
        // Random triplets are a function of the seed; a step that is named draws others.
        var reader: CheckpointReader?
        if let checkpoint, kind != .random || checkpoint.step != nil {
            let found = try checkpoint.open()
            options.step = found.metadata.step
            reader = found
        }
        let mining = try TripletMining(
            settings: settings ?? Settings(),
            dataSet: DataSet(loading: root, sets: []), options: options, device: device)
        if let notice = mining.miner.notice { say("lineup: warning: \(notice)") }
        let count = try mining.write(
            with: reader, to: out,
            threads: threads ?? ProcessInfo.processInfo.activeProcessorCount, stop: stop)
        return "\(out): \(count) \(kind.rawValue) triplets"
            + (reader.map { " of step \($0.metadata.step)" } ?? "")
    }
}

/// `RUN` or `RUN@STEP`.
private struct CheckpointName {
    let run: String
    let step: Int?

    init(_ name: String) throws {
        if !FileManager.default.fileExists(atPath: name), let at = name.lastIndex(of: "@"),
            let step = Int(name[name.index(after: at)...])
        {
            (run, self.step) = (String(name[..<at]), step)
        } else {
            (run, step) = (name, nil)
        }
    }

    func open() throws -> CheckpointReader {
        let store = CheckpointStore(directory: run + "/checkpoints")
        let steps = try store.steps()
        guard let step = step ?? steps.last, steps.contains(step) else {
            throw ValidationError(
                "run \(run) has no checkpoint\(step.map { " of step \($0)" } ?? "")"
                    + (steps.isEmpty
                        ? ""
                        : "; it has " + steps.suffix(8).map { "\($0)" }.joined(separator: ", "))
            )
        }
        return try store.open(step: step)
    }
}

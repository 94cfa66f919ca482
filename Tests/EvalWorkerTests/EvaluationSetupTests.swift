import Basics
import Datasets
import EvalWorker
import Foundation
import Images
import Networks
import Scoring
import Settings
import Storage
import Synchronization
import Tensors
import Testing
import Training

/// A run on a data set of a dozen one-coloured pictures, with a step-0 checkpoint.
final class TinyRun {
    let run: TestRun
    var root: String { run.path + "/data" }
    var settings = Settings.defaults(backbone: .basic)
    let datasetDigest: UInt64

    /// - Parameter split: of all pictures.
    init(split: String = "val") throws {
        run = try TestRun()
        let root = run.path + "/data"
        try FileManager.default.createDirectory(
            atPath: root + "/sets", withIntermediateDirectories: true)
        let samples = try (0..<12).map { index in
            // Pairs of neighbours differ by one shade, pairs among each other by forty.
            let shade = UInt8(index / 2 * 40 + index % 2)
            let bytes = try JPEG.encode(
                PixelImage(width: 24, height: 20, red: shade, green: 255 - shade, blue: 9))
            try Data(bytes).write(to: URL(filePath: "\(root)/\(index).jpg"))
            let fingerprint = ImageFingerprint(of: bytes)
            return Sample(
                path: "\(index).jpg", identity: "\(index / 2)", split: split,
                byteCount: fingerprint.byteCount, digest: fingerprint.digest)
        }
        let catalogue = try Catalogue(root: root, samples: samples)
        try catalogue.write(to: root)
        // Pairs 0-1, 2-3 ...; the easy set has far negatives only, and image 11 in the last alone.
        var sets: [String: String] = [:]
        for (place, name) in TestRun.sets.enumerated() {
            var text = "tuple,position,role,path\n"
            for tuple in 0..<(3 + place) {
                let paths = [2 * tuple, 2 * tuple + 1, (2 * tuple + 4) % 11, (2 * tuple + 6) % 11]
                let roles = ["anchor", "positive", "negative", "negative"]
                for (position, path) in paths.enumerated() {
                    text += "\(tuple),\(position),\(roles[position]),\(path).jpg\n"
                }
            }
            sets[name] = text
            try Data(text.utf8).write(to: URL(filePath: "\(root)/sets/\(name).csv"))
        }
        var hash = XXH64()
        hash.update("lineup data set 1\n")
        hash.update(catalogue.digest)
        for (name, text) in sets.sorted(by: { $0.key < $1.key }) {
            hash.update("\(name)\n")
            hash.update(XXH64.digest(text))
        }
        datasetDigest = hash.finish()
        let entries = sets.map { name, text in
            "\"\(name)\": {\"tuples\": 3, \"images\": 12, \"snippets\": 1, "
                + "\"digest\": \"\(XXH64.digest(text).hex)\"}"
        }
        let manifest = """
            {"version": 1, "kind": "test", "source": "", "counts": {},
             "sets": {\(entries.joined(separator: ", "))},
             "catalogue_digest": "\(catalogue.digest.hex)", "digest": "\(datasetDigest.hex)"}
            """
        try Data(manifest.utf8).write(to: URL(filePath: root + "/dataset.json"))
        settings.data.root = root
        settings.input.height = 16
        settings.input.width = 16
        settings.network.channels = 4
        settings.network.embeddingDim = 8
        settings.evaluation.batchSize = 5
    }

    func configuration(channels: Int = 4) -> TrainingConfiguration {
        TrainingConfiguration(
            network: NetworkConfiguration(
                backbone: .basic, head: .direct, embeddingDimension: 8, inputHeight: 16,
                inputWidth: 16, channels: channels, batchNorm: false))
    }

    func writeCheckpoint(_ configuration: TrainingConfiguration) throws -> CheckpointReader {
        let state = try TrainingState.initial(configuration)
        try run.store.prepare()
        let tensors = try state.tensors().map { tensor in
            CheckpointTensor(
                name: tensor.name, shape: tensor.shape, bytes: tensor.withUnsafeBytes { $0 },
                owner: state)
        }
        let metadata = CheckpointMetadata(
            step: 0, settingsDigest: settings.digest, datasetDigest: datasetDigest,
            numericsClass: "test", history: 0)
        _ = try run.store.write(SerialisedCheckpoint(tensors, metadata: metadata))
        return try run.store.open(step: 0)
    }

    func outcomes(
        _ scorer: CheckpointScorer, _ checkpoint: CheckpointReader, concurrently: Bool = true
    ) -> [String: Result<SetResult, any Error>] {
        let found = Mutex<[String: Result<SetResult, any Error>]>([:])
        scorer.score(checkpoint, sets: TestRun.sets, concurrently: concurrently) { set, outcome in
            found.withLock { $0[set] = outcome }
        }
        return found.withLock { $0 }
    }
}

struct EvaluationSetupTests {
    @Test func pixelsFindNeighboursInColour() throws {
        let tiny = try TinyRun()
        let setup = try EvaluationSetup(settings: tiny.settings)
        #expect(setup.datasetDigest == tiny.datasetDigest)
        #expect(setup.sets.map(\.name) == TestRun.sets)
        let result = try setup.pixelBaseline(set: "val_eval")
        #expect(result.metrics[.generalAccuracy] == 1)
        #expect(result.metrics[.tuples] == 4)
        #expect(throws: EvalWorkerError.self) { try setup.pixelBaseline(set: "test_eval") }
    }

    @Test func missingDataIsBadInput() throws {
        let tiny = try TinyRun()
        var settings = tiny.settings
        settings.data.root = nil
        let error = #expect(throws: EvalWorkerError.self) {
            try EvaluationSetup(settings: settings)
        }
        #expect(error?.message.contains("--data-root") == true)
        _ = try EvaluationSetup(settings: settings, dataRoot: tiny.root)
        settings.evaluation.sets = ["val_eval", "test_eval"]
        let missing = #expect(throws: DatasetError.self) {
            try EvaluationSetup(settings: settings, dataRoot: tiny.root)
        }
        #expect(missing?.message.contains("test_eval") == true)
    }

    @Test(.enabled(if: Engine.isAvailable)) func networkIsScoredAsByHand() throws {
        let tiny = try TinyRun()
        let setup = try EvaluationSetup(settings: tiny.settings)
        let scorer = try setup.checkpointScorer()
        let configuration = tiny.configuration()
        let checkpoint = try tiny.writeCheckpoint(configuration)
        let together = tiny.outcomes(scorer, checkpoint)
        let alone = tiny.outcomes(scorer, checkpoint, concurrently: false)
        let embedder = try Embedder(TrainingState.initial(configuration))
        let loader = try ImageLoader(
            root: tiny.root, input: InputConfiguration(height: 16, width: 16))
        let data = try DataSet(loading: tiny.root, sets: TestRun.sets)
        for (set, name) in zip(data.sets, TestRun.sets) {
            var rows: [Float] = []
            for first in stride(from: 0, to: set.images.count, by: 5) {
                var batch = [Float](repeating: 0, count: 5 * 3 * 256)
                let images = set.images[first..<min(first + 5, set.images.count)]
                for (place, path) in images.enumerated() {
                    try batch.withUnsafeMutableBufferPointer {
                        try loader.load(
                            path,
                            into: UnsafeMutableBufferPointer(
                                rebasing: $0[place * 768..<(place + 1) * 768]))
                    }
                }
                rows += try embedder.embed(batch, count: 5)[..<(images.count * 8)]
            }
            let tuples = set.tuples.map {
                TupleIndices(anchor: $0.anchor, positive: $0.positive, negatives: $0.negatives)
            }
            let expected = try TupleScorer(
                loss: TupleLoss(LossConfiguration(name: .batchHard, margin: .soft))
            ).score(
                tuples, of: EmbeddingMatrix(rows, dimension: 8)
            ).metrics()
            #expect(try #require(together[name]).get().metrics == expected)
            #expect(try #require(alone[name]).get().metrics == expected)
        }
    }

    @Test(.enabled(if: Engine.isAvailable)) func checkpointOfAnotherNetworkIsNamed() throws {
        let tiny = try TinyRun()
        let scorer = try EvaluationSetup(settings: tiny.settings).checkpointScorer()
        let checkpoint = try tiny.writeCheckpoint(tiny.configuration(channels: 6))
        for (_, outcome) in tiny.outcomes(scorer, checkpoint) {
            let error = #expect(throws: TrainingError.self) { try outcome.get() }
            #expect(error?.message.contains("'network/") == true)
        }
    }

    @Test(.enabled(if: Engine.isAvailable)) func damagedImageFailsItsSetsAlone() throws {
        let tiny = try TinyRun()
        // Image 9 is the positive of tuple 4, which the last set alone has.
        let path = tiny.root + "/9.jpg"
        var bytes = try Data(contentsOf: URL(filePath: path))
        bytes[bytes.count / 2] ^= 1
        try bytes.write(to: URL(filePath: path))
        let scorer = try EvaluationSetup(settings: tiny.settings).checkpointScorer()
        let found = tiny.outcomes(scorer, try tiny.writeCheckpoint(tiny.configuration()))
        #expect(throws: Never.self) { try found["train_eval"]?.get() }
        let error = #expect(throws: ImageError.self) { try found["easy_val_eval"]?.get() }
        #expect(error?.code == .differs)
        #expect(error?.message.contains(path) == true)
    }

    @Test(.enabled(if: Engine.isAvailable)) func aRunFolderIsScoredFromItsOwnSettings() throws {
        let tiny = try TinyRun()
        let path = tiny.run.path
        let record = try SettingsRecord(settings: tiny.settings, paramsJSON: nil)
        try Data(record.text.utf8).write(to: URL(filePath: path + "/settings.json"))
        _ = try tiny.writeCheckpoint(tiny.configuration())
        let settings = try RunFolderEvaluator.settings(run: path)
        let scorer = try EvaluationSetup(settings: settings).checkpointScorer()
        let options = RunFolderEvaluator.Options(run: path, settings: settings, once: true)
        let outcome = try RunFolderEvaluator(options, scorer: scorer) { _ in }.run()
        #expect(outcome.exitCode == 0)
        #expect(outcome.written.count == 3)
        let file = try EvaluationFile.read(run: path, EvaluationTask(step: 0, set: "val_eval"))
        #expect(file.metrics.keys.sorted() == MetricName.ofTuples.map(\.rawValue).sorted())
        // What checkpoints may be ranked by is among them.
        #expect(
            Settings.RankingMetric.allCases.allSatisfy {
                $0 == .top1 || file.metrics[$0.rawValue] != nil
            })
        #expect(file.datasetDigest == tiny.datasetDigest.hex)
        #expect(file.numericsClass == scorer.numericsClass)
    }
}

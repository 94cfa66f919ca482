import Basics
import FaultRig
import Foundation
import Storage
import Testing

/// Classification of identities, and runs that start from weights: real processes on real data.
@Suite(.serialized) struct PretrainingTests {
    private static let steps = 16
    private static let sets = ["train_images", "val_images", "val_eval"]

    private static func values() throws -> [String] {
        // Images are drawn one by one.
        try LocalRun.values(steps: steps).filter {
            !$0.hasPrefix("batch.i") && !$0.hasPrefix("loss.")
        } + [
            "loss.name=softmax", "batch.images=16", "data.validation_share=0.25",
            "optimizer.learning_rate=0.003", "evaluation.sets=\(sets.joined(separator: ","))",
        ]
    }

    private static func train(
        _ run: String, trainers: Int, evaluators: Int = 1, _ values: [String]
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "\(evaluators)"]
                + LocalRun.options(values))
    }

    /// A run that classifies, undisturbed, with one trainer.
    private static let pretrained: Result<String, any Error> = Result {
        let run = LocalRun.folder("pretrained")
        let process = try train(run, trainers: 1, try values())
        try #require(try process.wait() == 0, "\(process.errors)")
        return run
    }

    private func output(_ arguments: [String]) throws -> String {
        let process = try LineupProcess(arguments)
        let text = process.standardOutput()
        #expect(try process.wait() == 0, "\(process.errors)")
        return text
    }

    private func evaluations(_ run: String) throws -> [EvaluationRecord] {
        let reader = try LedgerReader(run: run)
        defer { try? reader.close() }
        return try reader.evaluations()
    }

    // MARK: Classification

    @Test(.timeLimit(.minutes(4)))
    func lossAndTop1OfBothKindsOfImagesAreBesideEachOther() throws {
        let run = try Self.pretrained.get()
        let rows = try evaluations(run)
        func value(_ step: Int, _ set: String, _ metric: String) throws -> Double {
            try #require(
                rows.first { $0.step == step && $0.set == set && $0.metric == metric }?.value)
        }
        for step in [0, 8, 16] {
            let images = try value(step, "val_images", "images")
            #expect(images > 40)
            #expect(try value(step, "train_images", "images") == images)
            for set in ["train_images", "val_images"] {
                #expect(try value(step, set, "mean_loss") > 0)
                #expect(try (0...1).contains(value(step, set, "top1")))
            }
            #expect(try value(step, "val_eval", "general_accuracy") > 0)
        }
        for set in ["train_images", "val_images"] {
            #expect(try value(16, set, "mean_loss") < value(0, set, "mean_loss"))
            #expect(try value(16, set, "top1") > value(0, set, "top1"))
        }
        #expect(try output(["ledger", run]).contains("train mean_loss  val mean_loss"))
        let report = try output(["report", run])
        #expect(report.contains("of images loss / top-1"), "\(report)")
        #expect(report.contains("val_images: the least loss is"), "\(report)")
        // Whoever has a part in the run tells what is held out.
        let log = try String(contentsOfFile: run + "/logs/coordinator.log", encoding: .utf8)
        #expect(log.contains("training images are held out"), "\(log)")
    }

    @Test(.timeLimit(.minutes(4)))
    func threeTrainersAndAKillGiveTheSameBits() throws {
        let run = LocalRun.folder("pretrained-killed")
        let process = try Self.train(run, trainers: 3, try Self.values())
        try LocalRun.wait(for: 11, in: run, of: process)
        process.killTree()
        let again = try LocalRun.resume(run, trainers: 2, evaluators: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(
            again.errors.contains("score: step 16  val_images  mean_loss "), "\(again.errors)")
        #expect(
            try LocalRun.weights(run, step: Self.steps)
                == LocalRun.weights(Self.pretrained.get(), step: Self.steps))
        #expect(
            try ClusterTests.ledgerDigest(run) == ClusterTests.ledgerDigest(Self.pretrained.get()))
    }

    @Test(.timeLimit(.minutes(4)))
    func anEvaluatorOfTheFolderScoresTheSame() throws {
        let run = LocalRun.folder("pretrained-watched")
        let process = try Self.train(run, trainers: 2, evaluators: 0, try Self.values())
        #expect(try process.wait() == 0, "\(process.errors)")
        _ = try output(["evaluator", "--run", run, "--once"])
        let again = try LocalRun.resume(run, trainers: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(
            try ClusterTests.ledgerDigest(run) == ClusterTests.ledgerDigest(Self.pretrained.get()))
    }

    @Test(
        .enabled(if: VirtualNetwork.obstacle == nil, "needs root and mount namespaces"),
        .timeLimit(.minutes(4)))
    func workersWithoutTheFolderFetchWhatTheyNeed() throws {
        let run = LocalRun.folder("pretrained-hidden")
        try FileManager.default.createDirectory(atPath: run, withIntermediateDirectories: true)
        let weights = "network.weights=\(try Self.pretrained.get())"
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-evaluators", "1"]
                + LocalRun.options(try Self.values() + [weights]))
        let address = try LocalRun.address(of: coordinator)
        let workers = try ["trainer", "evaluator"].map {
            try LineupProcess(
                [$0, "--coordinator", address], in: Placement(hidden: run))
        }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for worker in workers { #expect(try worker.wait(seconds: 30) == 0, "\(worker.errors)") }
        let plain = LocalRun.folder("pretrained-again")
        let process = try Self.train(plain, trainers: 2, try Self.values() + [weights])
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.ledgerDigest(plain))
    }

    // MARK: Starting from weights

    @Test(.timeLimit(.minutes(4)))
    func aRunBeginsWithTheNetworkOfAnother() throws {
        let earlier = try Self.pretrained.get()
        for (name, step) in [("", 16), ("@8", 8)] {
            let run = LocalRun.folder("continued")
            let process = try Self.train(
                run, trainers: 1,
                try LocalRun.values(steps: 1) + [
                    "network.weights=\(earlier)\(name)", "network.weights_scope=all", "seed=9",
                    "loss.name=batch_hard", "loss.margin=soft",
                ])
            #expect(try process.wait() == 0, "\(process.errors)")
            #expect(try LocalRun.weights(run, step: 0) == LocalRun.weights(earlier, step: step))
            // Batch norms too: the same score, by a metric that has nothing to do with the losses.
            func score(_ run: String, _ step: Int) throws -> [Double] {
                try ["general_accuracy", "easy_accuracy", "embedding_mean_norm"].map { metric in
                    try #require(
                        try evaluations(run).first {
                            $0.step == step && $0.set == "val_eval" && $0.metric == metric
                        }?.value)
                }
            }
            #expect(try score(run, 0) == score(earlier, step))
            let reader = try LedgerReader(run: run)
            let told = try reader.events().filter { $0.kind == "weights" }.map(\.text)
            #expect(told.count == 1 && told[0].contains(earlier), "\(told)")
            // The digest that the command prints is the one that is written down.
            let digest = try output(["checkpoint", "digest", run + "/weights.safetensors"])
                .trimmingCharacters(in: .whitespacesAndNewlines)
            #expect(told[0].contains(digest), "\(told) \(digest)")
        }
    }

    @Test(.timeLimit(.minutes(4)))
    func theRunOutlivesTheFileAndGoesOnFromItsCopy() throws {
        let source = LocalRun.folder("source") + ".safetensors"
        let earlier = try Self.pretrained.get()
        func copySource() throws {
            try? FileManager.default.removeItem(atPath: source)
            try FileManager.default.copyItem(
                atPath: earlier + "/checkpoints/step-000000016.safetensors", toPath: source)
        }
        try copySource()
        let values = try LocalRun.values(steps: 24, every: 24) + ["network.weights=\(source)"]
        let calm = LocalRun.folder("from-calm")
        let undisturbed = try Self.train(calm, trainers: 1, evaluators: 0, values)
        #expect(try undisturbed.wait() == 0, "\(undisturbed.errors)")

        let run = LocalRun.folder("from-killed")
        let process = try Self.train(run, trainers: 3, evaluators: 0, values)
        try LocalRun.wait(for: 5, in: run, of: process)
        process.killTree()
        try FileManager.default.removeItem(atPath: source)
        // Not even the first checkpoint is left: the run begins again at its copy.
        try FileManager.default.removeItem(atPath: run + "/checkpoints")
        let copy = run + "/weights.safetensors"
        let good = try Data(contentsOf: URL(filePath: copy))
        var bad = good
        bad[good.count - 3] ^= 4
        try bad.write(to: URL(filePath: copy))
        try refused(["resume", run], saying: ["weights.safetensors", "damaged"])
        try Data(contentsOf: URL(filePath: earlier + "/checkpoints/step-000000016.safetensors"))
            .write(to: URL(filePath: copy))
        try refused(["resume", run], saying: ["weights.safetensors", "starts from"])
        try FileManager.default.removeItem(atPath: copy)
        try refused(["resume", run], saying: ["weights.safetensors is missing"])
        try good.write(to: URL(filePath: copy))
        let again = try LocalRun.resume(run, trainers: 2)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try LocalRun.weights(run, step: 24) == LocalRun.weights(calm, step: 24))
    }

    private func refused(
        _ arguments: [String], saying parts: [String],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        try expectRefusal(LineupProcess(arguments), saying: parts, location: location)
    }

    /// A safetensors file as other programs write them: no checkpoint, names without a prefix.
    private func foreign(
        _ tensors: [(name: String, type: String, shape: [Int])], to name: String
    ) throws -> String {
        var header = "{"
        var end = 0
        for tensor in tensors {
            let begin = end
            end += tensor.shape.reduce(1, *) * (tensor.type == "F32" ? 4 : 2)
            header += header.count > 1 ? "," : ""
            header +=
                "\"\(tensor.name)\":{\"dtype\":\"\(tensor.type)\",\"shape\":\(tensor.shape),"
                + "\"data_offsets\":[\(begin),\(end)]}"
        }
        header += "}"
        var bytes = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
        bytes += Data(header.utf8) + Data(repeating: 0x3C, count: end)
        let path = LocalRun.folder(name) + ".safetensors"
        try bytes.write(to: URL(filePath: path))
        return path
    }

    @Test(.timeLimit(.minutes(4)))
    func whatDoesNotFitIsOneLine() throws {
        let run = LocalRun.folder("misfit")
        let earlier = try Self.pretrained.get()
        func refused(_ values: [String], saying parts: [String]) throws {
            try self.refused(
                ["train", run] + LocalRun.options(try LocalRun.values(steps: 2) + values),
                saying: ["network.weights"] + parts)
            #expect(!FileManager.default.fileExists(atPath: run + "/settings.json"))
        }
        let from = "network.weights=\(earlier)"
        try refused([from + "/nowhere"], saying: ["there is no", "/nowhere", "RUN@STEP"])
        try refused([from + "@5"], saying: ["no checkpoint of step 5; it has 0, 8, 16"])
        try refused([from + "/logs"], saying: ["has no checkpoints"])
        try refused(
            [from, "network.channels=12"],
            saying: ["'conv1.weight' is [8, 3, 3, 3] there and [12, 3, 3, 3] here", "and 1 more"])
        try refused([from, "network.batch_norm=true"], saying: ["'bn1.weight' is missing there"])
        try refused(
            [from, "network.embedding_dim=24", "network.weights_scope=all"],
            saying: ["'head.embedding.weight' is [16, 1024] there and [24, 1024] here"])
        try refused(
            [from, "network.weights_digest=0123456789abcdef"],
            saying: ["0123456789abcdef", "another file, or was changed"])
        let half = try foreign(
            [
                ("conv1.weight", "F16", [8, 3, 3, 3]), ("conv1.bias", "F32", [8]),
                ("conv2.weight", "F32", [16, 8, 3, 3]), ("conv2.bias", "F32", [16]),
            ], to: "half")
        try refused(["network.weights=\(half)"], saying: ["'conv1.weight' is F16 there and F32"])
        let other = try foreign([("fc.weight", "F32", [3, 3])], to: "other")
        try refused(
            ["network.weights=\(other)", "network.weights_scope=matching"],
            saying: ["does not fit", "missing there"])
        let damaged = LocalRun.folder("damaged") + ".safetensors"
        var bytes = try Data(
            contentsOf: URL(filePath: earlier + "/checkpoints/step-000000008.safetensors"))
        bytes[bytes.count / 4] ^= 1
        try bytes.write(to: URL(filePath: damaged))
        try self.refused(
            ["train", run]
                + LocalRun.options(
                    try LocalRun.values(steps: 2) + ["network.weights=\(damaged)"]),
            saying: [damaged, "damaged"])
        try bytes.prefix(3_000).write(to: URL(filePath: damaged))
        try self.refused(
            ["train", run]
                + LocalRun.options(
                    try LocalRun.values(steps: 2) + ["network.weights=\(damaged)"]),
            saying: [damaged])
    }

    @Test(.timeLimit(.minutes(3)))
    func anotherProgramsFileWillDo() throws {
        let file = try foreign(
            [
                ("conv1.weight", "F32", [8, 3, 3, 3]), ("conv1.bias", "F32", [8]),
                ("conv2.weight", "F32", [16, 8, 3, 3]), ("conv2.bias", "F32", [16]),
                ("fc.weight", "F16", [2, 2]),
            ], to: "foreign")
        let run = LocalRun.folder("foreign")
        let process = try Self.train(
            run, trainers: 1, evaluators: 0,
            try LocalRun.values(steps: 1) + ["network.weights=\(file)"])
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(process.errors.contains("4 tensors of \(file)"), "\(process.errors)")
        let reader = try CheckpointReader(
            path: run + "/checkpoints/step-000000000.safetensors")
        let value = Float(bitPattern: 0x3C3C_3C3C)
        for name in ["conv1.weight", "conv2.bias"] {
            let tensor = try #require(reader["network/" + name]?.floats())
            #expect(tensor.allSatisfy { $0 == value })
        }
        let head = try #require(reader["network/head.embedding.weight"]?.floats())
        #expect(Set(head).count > 100)
    }

    @Test(.timeLimit(.minutes(2)))
    func tooFewImagesAreOneLine() throws {
        let run = LocalRun.folder("few")
        try refused(
            ["train", run] + LocalRun.options(try Self.values() + ["batch.images=60000"]),
            saying: ["batch.images is 60000", "uncovered images to train on"])
    }
}

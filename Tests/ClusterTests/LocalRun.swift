import Basics
import FaultRig
import Foundation
import Storage
import Testing

/// A small real data set, made once, and runs on it.
enum LocalRun {
    /// Gone with this process, unless LINEUP_KEEP_RUNS is set.
    static let root: URL = {
        let root = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lineup-cluster-tests-\(ProcessInfo.processInfo.processIdentifier)")
        if ProcessInfo.processInfo.environment["LINEUP_KEEP_RUNS"] == nil {
            Janitor.atTheEnd("rm -rf '\(root.path)'")
        }
        return root
    }()

    /// Photographs become snippets, snippets crops, crops sets.
    static let crops: Result<String, any Error> = Result {
        let video = root.appendingPathComponent("video").path
        let crops = root.appendingPathComponent("crops").path
        for arguments in [
            [
                "dataset", "fashion-vid", video, "--train-snippets", "16", "--val-snippets", "8",
                "--frames", "8", "--seed", "3",
            ],
            ["crop", video, "--out", crops],
            ["curate", crops, "--seed", "3", "--images-per-set", "200"],
        ] {
            let process = try LineupProcess(arguments)
            let code = try process.wait()
            try #require(code == 0, "\(arguments): \(process.errors)")
        }
        return crops
    }

    static func folder(_ name: String) -> String {
        root.appendingPathComponent(name + "-\(UInt32.random(in: .min ... .max))").path
    }

    /// The settings that every test's run has, as options.
    static func settings(steps: Int, every: Int = 8) throws -> [String] {
        options(try values(steps: steps, every: every))
    }

    /// Settings as options.
    static func options(_ values: [String]) -> [String] { values.flatMap { ["--set", $0] } }

    /// The settings that every test's run has.
    static func values(steps: Int, every: Int = 8) throws -> [String] {
        [
            "data.root=\(try crops.get())", "schedule.steps=\(steps)",
            "checkpoint.every_steps=\(every)", "network.backbone=basic", "network.channels=8",
            "network.embedding_dim=16", "input.height=32", "input.width=32",
            "augmentation.crop_from_height=36", "augmentation.crop_from_width=36",
            "batch.identities=4", "batch.images_per_identity=4",
            "batch.mini_batches_per_step=4", "loss.name=batch_all", "loss.margin=0.5",
            "evaluation.timeout_seconds=60", "evaluation.poll_seconds=0.2",
        ]
    }

    static func start(
        _ run: String, steps: Int, every: Int = 8, trainers: Int, evaluators: Int = 0
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "\(evaluators)"]
                + settings(steps: steps, every: every))
    }

    static func resume(_ run: String, trainers: Int, evaluators: Int = 0) throws -> LineupProcess {
        try LineupProcess(
            ["resume", run, "--trainers", "\(trainers)", "--evaluators", "\(evaluators)"])
    }

    /// Digest of the weights alone, by the command that users have.
    static func weights(_ run: String, step: Int) throws -> String {
        let name = String(repeating: "0", count: 9 - "\(step)".count) + "\(step)"
        let process = try LineupProcess(
            ["checkpoint", "digest", "\(run)/checkpoints/step-\(name).safetensors"])
        let text = process.standardOutput().trimmingCharacters(in: .whitespacesAndNewlines)
        let code = try process.wait()
        try #require(code == 0, "\(process.errors)")
        return text
    }

    /// The address that a coordinator says it listens at.
    static func address(of coordinator: LineupProcess) throws -> String {
        let deadline = Date().addingTimeInterval(60)
        while Date() < deadline && coordinator.isRunning {
            let line = coordinator.errors.split(separator: "\n").first { $0.contains("listening") }
            if let address = line?.split(separator: " ").last { return String(address) }
            usleep(20_000)
        }
        throw BadCoordinator(log: coordinator.errors)
    }

    struct BadCoordinator: Error { let log: String }

    /// Waits until the ledger has a step.
    static func wait(for step: Int, in run: String, of process: LineupProcess) throws {
        let deadline = Date().addingTimeInterval(120)
        while Date() < deadline {
            if let reader = try? LedgerReader(run: run), let last = try? reader.run()?.lastStep {
                try? reader.close()
                if last >= step { return }
            }
            try #require(process.isRunning, "the run ended before step \(step): \(process.errors)")
            usleep(30_000)
        }
        Issue.record("step \(step) was not committed within 120 s: \(process.errors)")
    }

    /// Every step once, in order.
    static func checkLedger(_ run: String, steps: Int) throws {
        let reader = try LedgerReader(run: run)
        #expect(try reader.steps().map(\.step) == Array(1...steps))
        try reader.close()
    }
}

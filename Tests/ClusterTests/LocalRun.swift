import Basics
import Foundation
import Storage
import Testing

/// One process of `lineup`, as a user would start it.
final class LineupProcess {
    private let process = Process()
    private let output = Pipe()
    private let errorFile: URL
    /// Whole process groups end with this object, whatever a test did.
    deinit { killTree() }

    init(_ arguments: [String], executable: URL? = nil) throws {
        errorFile = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lineup-test-\(UInt64.random(in: .min ... .max).hex).log")
        _ = FileManager.default.createFile(atPath: errorFile.path, contents: nil)
        process.executableURL = try executable ?? Self.executable()
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = try FileHandle(forWritingTo: errorFile)
        try process.run()
    }

    /// The binary beside the tests; `make test` builds both.
    static func executable() throws -> URL {
        let here = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let places = [
            ProcessInfo.processInfo.environment["LINEUP_BINARY"].map { URL(fileURLWithPath: $0) },
            here.appendingPathComponent("lineup"),
            URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("../../.build/release/lineup").standardizedFileURL,
        ].compactMap { $0 }
        return try #require(
            places.first { FileManager.default.isExecutableFile(atPath: $0.path) },
            "no lineup binary at \(places.map(\.path)); run 'make test', which builds it")
    }

    /// Runs another program quietly and returns its exit status, -1 where it cannot be started.
    @discardableResult
    static func run(_ command: [String]) -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = command
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return -1 }
        process.waitUntilExit()
        return process.terminationStatus
    }

    var identifier: Int32 { process.processIdentifier }
    var isRunning: Bool { process.isRunning }

    func send(_ signal: Int32) { kill(process.processIdentifier, signal) }

    /// Children of a process, from /proc.
    static func children(of parent: Int32) -> [Int32] {
        let tasks = "/proc/\(parent)/task"
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
        return threads.flatMap { thread in
            let text = try? String(contentsOfFile: "\(tasks)/\(thread)/children", encoding: .utf8)
            return (text ?? "").split(separator: " ").compactMap { Int32($0) }
        }
    }

    /// kill -9 of the process and everything that it started.
    func killTree() {
        guard process.isRunning else { return }
        let children = Self.children(of: identifier)
        for child in [identifier] + children { kill(child, SIGKILL) }
        process.waitUntilExit()
    }

    /// Waits for the end; a test that waits longer than `seconds` fails with the log.
    @discardableResult
    func wait(seconds: Double = 120) throws -> Int32 {
        let deadline = Date().addingTimeInterval(seconds)
        while process.isRunning {
            if Date() > deadline {
                let log = errors
                killTree()
                Issue.record("lineup did not end within \(seconds) s:\n\(log.suffix(4_000))")
                return -1
            }
            usleep(20_000)
        }
        return process.terminationStatus
    }

    var errors: String { (try? String(contentsOf: errorFile, encoding: .utf8)) ?? "" }

    func standardOutput() -> String {
        String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }
}

/// A small real data set, made once, and runs on it.
enum LocalRun {
    static let root = FileManager.default.temporaryDirectory.appendingPathComponent(
        "lineup-cluster-tests-\(ProcessInfo.processInfo.processIdentifier)")

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

    /// The settings that every test's run has.
    static func settings(steps: Int, every: Int = 8) throws -> [String] {
        [
            "data.root=\(try crops.get())", "schedule.steps=\(steps)",
            "checkpoint.every_steps=\(every)", "network.backbone=basic", "network.channels=8",
            "network.embedding_dim=16", "input.height=32", "input.width=32",
            "augmentation.crop_from_height=36", "augmentation.crop_from_width=36",
            "batch.identities=4", "batch.images_per_identity=4",
            "batch.mini_batches_per_step=4", "loss.name=batch_all", "loss.margin=0.5",
            "evaluation.timeout_seconds=60", "evaluation.poll_seconds=0.2",
        ].flatMap { ["--set", $0] }
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

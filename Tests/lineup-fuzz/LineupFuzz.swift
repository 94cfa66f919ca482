import ArgumentParser
import Foundation
import FuzzKit

/// `lineup-fuzz`: feeds changed frames to parsers and state machines, in a process that may crash.
@main
struct LineupFuzz: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lineup-fuzz",
        abstract: "Feed frames to every parser of foreign bytes and to the state machines.",
        discussion: """
            Targets: \(Fuzzing.targets.joined(separator: ", ")).
            A frame follows from seed, target and episode. Exits 1 and prints the frame when one \
            crashes the process, breaks a promise, or takes longer than 30 s.

            Example: lineup-fuzz --frames 10000000 --seed 7
            Example: lineup-fuzz --seed 7 --target trainer --episode 12
            """)

    @Option(help: "Frames over all targets.")
    var frames = 100_000

    @Option(help: "Seed of everything.")
    var seed: UInt64 = 1

    @Option(help: "Target to feed; may be given several times. Without it, all.")
    var target: [String] = []

    @Option(help: "One episode alone.")
    var episode: Int?

    @Option(help: .hidden)
    var log: String?

    func validate() throws {
        guard frames > 0 else { throw ValidationError("--frames must be at least 1") }
        for name in target where !Fuzzing.targets.contains(name) {
            throw ValidationError(
                "there is no target '\(name)'; expected one of "
                    + Fuzzing.targets.joined(separator: ", "))
        }
    }

    func run() throws {
        if let log { return try feed(log) }
        let file = NSTemporaryDirectory() + "lineup-fuzz-\(getpid()).log"
        defer { try? FileManager.default.removeItem(atPath: file) }
        let child = Process()
        child.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
        child.arguments = Array(CommandLine.arguments.dropFirst()) + ["--log", file]
        try child.run()
        var fed = 0
        var movedAt = Date()
        while child.isRunning {
            usleep(50_000)
            let now = (try? Fuzzing.progress(in: file)) ?? 0
            if now != fed { (fed, movedAt) = (now, Date()) }
            if Date().timeIntervalSince(movedAt) > 30 { kill(child.processIdentifier, SIGKILL) }
        }
        if child.terminationReason == .exit, child.terminationStatus <= 1 {
            throw ExitCode(child.terminationStatus)
        }
        print("crashed or hung with status \(child.terminationStatus):")
        print(try Fuzzing.lastFrame(in: file, seed: seed))
        throw ExitCode(1)
    }

    private func feed(_ log: String) throws {
        let report = try Fuzzing(
            frames: frames, seed: seed, chosen: target, episode: episode, logFile: log
        ).run()
        for line in report.lines { print(line) }
        if let failure = report.failure {
            print(failure)
            throw ExitCode(1)
        }
    }
}

import Foundation
import FuzzKit
import Testing

/// Frames of any content change nothing but a counter and a log line.
@Suite struct FuzzTests {
    /// The program beside the tests, or beside the `lineup` that `make test` names.
    private static func executable() throws -> URL {
        let here = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let beside = ProcessInfo.processInfo.environment["LINEUP_BINARY"].map {
            URL(fileURLWithPath: $0).deletingLastPathComponent()
        }
        let places = [beside, here].compactMap { $0?.appendingPathComponent("lineup-fuzz") }
        return try #require(
            places.first { FileManager.default.isExecutableFile(atPath: $0.path) },
            "no lineup-fuzz at \(places.map(\.path)); run 'make test', which builds it")
    }

    @Test(.timeLimit(.minutes(2)))
    func aHundredThousandFramesDoNoHarm() throws {
        let process = Process()
        let output = Pipe()
        process.executableURL = try Self.executable()
        process.arguments = ["--frames", "100000", "--seed", "1"]
        process.standardOutput = output
        try process.run()
        let text = String(
            decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(text)")
        let total = text.split(separator: "\n").last?.split(separator: " ").first.flatMap {
            Int($0)
        }
        #expect((total ?? 0) >= 100_000, "\(text)")
        // The machines were not only refusing: steps were committed and applied.
        #expect(text.contains("commits ") && text.contains("applied "), "\(text)")
        for target in Fuzzing.targets { #expect(text.contains("\(target): "), "\(text)") }
    }
}

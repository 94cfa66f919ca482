import FaultRig
import Foundation
import Storage
import Testing

extension ClusterTests {
    private static func records(of run: String, _ prefix: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: run + "/flight")
            .filter { $0.hasPrefix(prefix) && $0.hasSuffix("-a.flight") }.sorted()
            .map { run + "/flight/" + $0 }
    }

    @Test(.timeLimit(.minutes(4)))
    func theRecordsOfWhatWasKilledReplayToTheSameDecisions() throws {
        let run = LocalRun.folder("recorded")
        let process = try LocalRun.start(run, steps: 24, trainers: 2, evaluators: 1)
        try LocalRun.wait(for: 6, in: run, of: process)
        let data = try Data(contentsOf: URL(fileURLWithPath: run + "/coordinator.json"))
        let address = try JSONSerialization.jsonObject(with: data) as? [String: Any]
        let coordinator = try #require(address?["process"] as? Int32)
        kill(coordinator, SIGUSR2)
        try LocalRun.wait(for: 9, in: run, of: process)
        process.killTree()

        let of = try Self.records(of: run, "coordinator-1")
        #expect(of.count == 2, "the record and its copy at SIGUSR2: \(of)")
        let trainers = try Self.records(of: run, "trainer-")
        #expect(trainers.count == 2)
        for file in of + trainers + (try Self.records(of: run, "evaluator-")) {
            let shown = try LineupProcess(["flight", file, "--last", "0"])
            let text = shown.standardOutput()
            #expect(try shown.wait() == 0, "\(file): \(text.suffix(2000)) \(shown.errors)")
            #expect(text.contains("replayed: every decision is the one recorded"))
        }

        // The last commit that the record knows is the ledger's, or the one before it.
        let shown = try LineupProcess([
            "flight", run + "/flight/coordinator-1-a.flight", "--last", "0",
        ])
        let commits = shown.standardOutput().split(separator: "\n").compactMap { line -> Int? in
            // Time, "step", number: scores are in the ledger too.
            let words = line.split(separator: " ")
            guard line.hasSuffix("is in the ledger"), words.count > 2, words[1] == "step" else {
                return nil
            }
            return Int(words[2])
        }
        let reader = try LedgerReader(run: run)
        let last = try #require(try reader.run()).lastStep
        #expect(
            commits.last.map { last - $0 == 0 || last - $0 == 1 } == true, "\(commits), \(last)")
        #expect(try shown.wait() == 0)
    }

    @Test(.timeLimit(.minutes(1)))
    func whatIsNoRecordIsRefusedInOneLine() throws {
        let shown = try LineupProcess(["flight", "/etc/passwd"])
        #expect(try shown.wait() == 2)
        #expect(shown.errors.contains("/etc/passwd is no flight record"))
    }
}

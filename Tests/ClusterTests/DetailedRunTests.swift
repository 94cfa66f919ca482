import FaultRig
import Foundation
import HDF5
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// `logging.detailed` in real processes.
extension ClusterTests {
    /// What a file of a run's detailed log holds, with every bit.
    private struct Detailed: Equatable {
        let steps: [Int]
        let shape: [Int]
        let embeddings: [UInt32]
        let losses: [UInt32]
        let names: [String]
    }

    private static func detailed(_ run: String) throws -> [String: Detailed] {
        let folder = run + "/detailed"
        let names = try FileManager.default.contentsOfDirectory(atPath: folder)
        var found: [String: Detailed] = [:]
        for name in names {
            let file = try HDF5File(reading: folder + "/" + name)
            found[name] = Detailed(
                steps: try file.integers(of: "steps"), shape: try file.shape(of: "embeddings"),
                embeddings: try file.floats(of: "embeddings").map(\.bitPattern),
                losses: try file.floats(of: "losses").map(\.bitPattern),
                names: try file.texts(of: "fids"))
        }
        return found
    }

    /// Slots grow after step 10, where a new file begins.
    private static func start(
        _ run: String, scope: String, trainers: Int
    ) throws -> LineupProcess {
        try LineupProcess(
            ["train", run, "--trainers", "\(trainers)", "--evaluators", "0"]
                + LocalRun.options(
                    try LocalRun.values(steps: 40) + [
                        "logging.detailed=true", "mining.scope=\(scope)", "batch.phases=10:5x4",
                        "audit_fraction=0.3",
                    ]))
    }

    @Test(.timeLimit(.minutes(6)), arguments: ["slot", "step"])
    func detailedLogsSurviveDrainsAndKills(scope: String) throws {
        let whole = LocalRun.folder("detailed-\(scope)")
        let process = try Self.start(whole, scope: scope, trainers: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        let expected = try Self.detailed(whole)
        let files = ["steps-000000001-000000010.h5", "steps-000000011-000000110.h5"]
        #expect(expected.keys.sorted() == files)
        #expect(expected[files[0]]?.steps == Array(1...10))
        #expect(expected[files[0]]?.shape == [10, 64, 16])
        #expect(expected[files[1]]?.steps == Array(11...40))
        #expect(expected[files[1]]?.shape == [30, 80, 16])
        let losses = expected.values.flatMap(\.losses).map { Float(bitPattern: $0) }
        #expect(losses.allSatisfy { $0 >= 0 } && Set(losses).count > 1_000)
        let crops = try LocalRun.crops.get()
        for name in Set(expected.values.flatMap(\.names)) {
            #expect(FileManager.default.fileExists(atPath: crops + "/" + name), "\(name)")
        }

        let run = LocalRun.folder("detailed-\(scope)-killed")
        let first = try Self.start(run, scope: scope, trainers: 2)
        try LocalRun.wait(for: 4, in: run, of: first)
        first.send(SIGINT)
        #expect(try first.wait() == 75, "\(first.errors)")
        let drained = try #require(try Self.detailed(run)[files[0]])
        #expect(drained.steps == Array(1...drained.steps.count))
        let reader = try LedgerReader(run: run)
        let last = try #require(try reader.run()).lastStep
        let second = try LocalRun.resume(run, trainers: 2)
        try LocalRun.wait(for: max(13, last + 3), in: run, of: second)
        second.killTree()
        #expect(try !reader.detailedSteps().isEmpty)
        let third = try LocalRun.resume(run, trainers: 3)
        #expect(try third.wait() == 0, "\(third.errors)")
        #expect(try Self.detailed(run) == expected)
        #expect(try reader.detailedSteps().isEmpty)
        try reader.close()
        #expect(try Self.ledgerDigest(run) == Self.ledgerDigest(whole))
    }

    /// Trainers that outlive a coordinator do as the next one wants, with what they hold too.
    @Test(.timeLimit(.minutes(4)))
    func aCoordinatorThatBeginsToWriteGetsTheStepInHand() throws {
        let run = LocalRun.folder("detailed-later")
        let arguments = [
            "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "2",
        ]
        let first = try LineupProcess(arguments + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: first)
        let trainers = try (0..<2).map { _ in
            try LineupProcess(["trainer", "--coordinator", address, "--slots-at-once", "1"])
        }
        try LocalRun.wait(for: 9, in: run, of: first)
        first.send(SIGKILL)
        _ = try first.wait()
        let second = try LineupProcess(arguments + ["--set", "logging.detailed=true"])
        #expect(try second.wait() == 0, "\(second.errors)")
        for trainer in trainers { #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)") }
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        let steps = try Self.detailed(run).values.flatMap(\.steps)
        #expect(steps == Array((steps.first ?? 0)...24) && steps.count <= 15)
    }

    /// Only the coordinator dies: what trainers hold of the step in hand, they send again.
    @Test(.timeLimit(.minutes(4)))
    func aCoordinatorThatDiesGetsTheStepsInHandAgain() throws {
        let whole = LocalRun.folder("detailed-whole")
        let options = try LocalRun.settings(steps: 24) + ["--set", "logging.detailed=true"]
        let process = try LineupProcess(
            ["train", whole, "--trainers", "1", "--evaluators", "0"] + options)
        #expect(try process.wait() == 0, "\(process.errors)")
        // The bits are those of a run that writes nothing of the kind.
        #expect(try LocalRun.weights(whole, step: 24) == Self.undisturbed.get().weights)
        let events = try FileManager.default.contentsOfDirectory(atPath: whole + "/events/train")
        let bytes = try events.map {
            try Data(contentsOf: URL(fileURLWithPath: whole + "/events/train/" + $0))
        }
        #expect(bytes.contains { $0.range(of: Data("loss_distribution".utf8)) != nil })

        let run = LocalRun.folder("detailed-coordinator")
        let first = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "2"] + options)
        let address = try LocalRun.address(of: first)
        let trainers = try (0..<2).map { _ in
            try LineupProcess(["trainer", "--coordinator", address, "--slots-at-once", "1"])
        }
        try LocalRun.wait(for: 9, in: run, of: first)
        first.send(SIGKILL)
        _ = try first.wait()
        let second = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*"])
        #expect(try second.wait() == 0, "\(second.errors)")
        for trainer in trainers { #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)") }
        #expect(try Self.detailed(run) == Self.detailed(whole))
    }
}

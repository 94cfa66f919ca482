import FaultRig
import Foundation
import Storage
import Testing

/// A schedule that goes by scores, on real processes.
@Suite(.serialized) struct DecisionRunTests {
    private static let steps = 30

    private static func values() throws -> [String] {
        try LocalRun.values(steps: steps, every: 4) + [
            "schedule.name=plateau", "schedule.plateau_patience=2",
            "schedule.decision_lag_steps=3", "schedule.min_delta=0.05",
        ]
    }

    private static func rates(_ run: String) throws -> [Double] {
        let reader = try LedgerReader(run: run)
        defer { try? reader.close() }
        return try reader.steps().map(\.learningRate)
    }

    @Test(.timeLimit(.minutes(4)))
    func aPlateauComesAtTheSameStepWithASlowAndAKilledEvaluator() throws {
        let calm = LocalRun.folder("plateau-calm")
        let process = try LineupProcess(
            ["train", calm, "--trainers", "1", "--evaluators", "1"]
                + LocalRun.options(Self.values()))
        #expect(try process.wait() == 0, "\(process.errors)")
        let rates = try Self.rates(calm)
        #expect(rates.count == Self.steps)
        #expect(Set(rates).count > 1, "the rate never fell: \(rates)")

        let struck = LocalRun.folder("plateau-struck")
        let cluster = try RigCluster(
            lineup: LineupProcess.executable(), folder: struck, settings: Self.values())
        defer { cluster.end() }
        try cluster.startCoordinator()
        for _ in 0..<2 { try cluster.startTrainer() }
        let first = try cluster.startEvaluator()
        try cluster.wait(forStep: 3)
        first.process.killTree()
        usleep(700_000)
        let second = try cluster.startEvaluator()
        try cluster.wait(forStep: 11)
        second.process.send(SIGSTOP)
        usleep(1_500_000)
        second.process.send(SIGCONT)
        let coordinator = try #require(cluster.coordinator)
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        #expect(try Self.rates(struck) == rates)
        #expect(
            try LocalRun.weights(struck, step: Self.steps)
                == LocalRun.weights(calm, step: Self.steps))
        #expect(try ClusterTests.ledgerDigest(struck) == ClusterTests.ledgerDigest(calm))
    }

    @Test(.timeLimit(.minutes(4)))
    func anEarlyEndIsAnEnd() throws {
        let run = LocalRun.folder("stopped")
        let settings = try LocalRun.options(
            Self.values() + ["schedule.stop_patience=3", "schedule.min_delta=1"])
        let process = try LineupProcess(
            ["train", run, "--trainers", "1", "--evaluators", "1"] + settings)
        #expect(try process.wait() == 0, "\(process.errors)")
        // Nothing is better by 1 than the checkpoint of step 0; 4, 8 and 12 are bad.
        try LocalRun.checkLedger(run, steps: 15)
        _ = try LocalRun.weights(run, step: 15)
        let again = try LocalRun.resume(run, trainers: 1, evaluators: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        try LocalRun.checkLedger(run, steps: 15)
    }
}

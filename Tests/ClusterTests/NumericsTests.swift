import FaultRig
import Foundation
import Storage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// Real processes that do not compute the same bits: LibTorch is told to use older instructions.
@Suite(.serialized) struct NumericsTests {
    /// Starts `lineup` with the instructions that every processor has.
    private func older(_ arguments: [String]) throws -> LineupProcess {
        try LineupProcess(
            ["ATEN_CPU_CAPABILITY=default", LineupProcess.executable().path] + arguments,
            executable: URL(fileURLWithPath: "/usr/bin/env"))
    }

    private func coordinator(
        _ run: String, _ mode: String, steps: Int = 24, trainers: Int
    ) throws -> (LineupProcess, String) {
        let process = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers",
                "\(trainers)", "--set", "numerics.mode=\(mode)", "--set", "audit_fraction=0.5",
            ] + LocalRun.settings(steps: steps, every: min(steps / 3, 1000)))
        return (process, try LocalRun.address(of: process))
    }

    @Test(.timeLimit(.minutes(4)))
    func aBitwiseRunRefusesWorkersOfAnotherClass() throws {
        let run = LocalRun.folder("bitwise")
        let (coordinator, address) = try coordinator(run, "bitwise", steps: 100_000, trainers: 1)
        let trainer = try LineupProcess(["trainer", "--coordinator", address])
        try LocalRun.wait(for: 2, in: run, of: coordinator)
        let stranger = try older(["trainer", "--coordinator", address])
        #expect(try stranger.wait() == 2, "\(stranger.errors)")
        let lines = stranger.errors.split(separator: "\n").filter { $0.hasPrefix("lineup:") }
        #expect(lines.count == 1 && lines[0].contains("isa=DEFAULT"), "\(stranger.errors)")
        // So is an evaluator, once there is another.
        let evaluator = try LineupProcess(["evaluator", "--coordinator", address])
        let reader = try LedgerReader(run: run)
        let deadline = Date().addingTimeInterval(60)
        while try reader.run()?.evaluationClass == nil, Date() < deadline { usleep(20_000) }
        let other = try older(["evaluator", "--coordinator", address])
        #expect(try other.wait() == 2, "\(other.errors)")
        #expect(other.errors.contains("computes with"), "\(other.errors)")
        #expect(trainer.isRunning && evaluator.isRunning)
        coordinator.send(SIGTERM)
        #expect(try coordinator.wait() == 75, "\(coordinator.errors)")
        let classes = Dictionary(
            grouping: try reader.workers().compactMap { worker in
                worker.numericsClass.map { (worker.role, $0) }
            }, by: \.0)
        #expect(classes.mapValues { Set($0.map(\.1)).count } == ["trainer": 2, "evaluator": 2])
        #expect(try reader.events().allSatisfy { $0.kind != "quarantined" })
        let evaluations = try reader.evaluations()
        #expect(evaluations.allSatisfy { $0.numericsClass == classes["evaluator"]?.first?.1 })
    }

    @Test(.timeLimit(.minutes(4)))
    func aStatisticalRunTakesItAndRecordsIt() throws {
        let run = LocalRun.folder("statistical")
        let (coordinator, address) = try coordinator(run, "statistical", trainers: 3)
        let trainers = try [
            LineupProcess(["trainer", "--coordinator", address]),
            LineupProcess(["trainer", "--coordinator", address]),
            older(["trainer", "--coordinator", address]),
        ]
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for trainer in trainers { #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)") }
        let reader = try LedgerReader(run: run)
        try LocalRun.checkLedger(run, steps: 24)
        let classes = Dictionary(
            try reader.workers().map { ($0.worker, $0.numericsClass ?? "") }
        ) { $1 }
        #expect(Set(classes.values).count == 2)
        #expect(Set(try reader.miniBatches().map { classes[$0.worker] }).count == 2)
        let kinds = Set(try reader.events().map(\.kind))
        #expect(kinds.contains("numerics"))
        #expect(kinds.isDisjoint(with: ["disagreement", "suspected", "quarantined", "audit"]))
    }

    @Test(.timeLimit(.minutes(4)))
    func aStatisticalRunIsResumedOnOtherArithmetic() throws {
        let run = LocalRun.folder("moved")
        let process = try LineupProcess(
            ["train", run, "--trainers", "2", "--set", "numerics.mode=statistical"]
                + LocalRun.settings(steps: 24))
        try LocalRun.wait(for: 12, in: run, of: process)
        process.killTree()
        let again = try older(["resume", run, "--trainers", "2", "--evaluators", "1"])
        #expect(try again.wait() == 0, "\(again.errors)")
        try LocalRun.checkLedger(run, steps: 24)
        let reader = try LedgerReader(run: run)
        #expect(try reader.events().contains { $0.kind == "steps_superseded" })
        #expect(try reader.lastSupersededStep() >= 12)
        #expect(try reader.checkpoints().map(\.step) == [0, 8, 16, 24])
        let scored = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(scored.map(\.step).sorted() == [0, 8, 16, 24].flatMap { [$0, $0, $0] })
    }

    @Test(.timeLimit(.minutes(4)))
    func aBitwiseRunGoesOnElsewhereWhereToldTo() throws {
        let run = LocalRun.folder("accepted")
        let process = try LineupProcess(
            ["train", run, "--trainers", "2"] + LocalRun.settings(steps: 24))
        try LocalRun.wait(for: 12, in: run, of: process)
        process.killTree()
        let refused = try older(["resume", run, "--trainers", "1", "--evaluators", "0"])
        #expect(try refused.wait() != 0)
        #expect(refused.errors.contains("--accept-numerics"), "\(refused.errors)")
        let before = try LedgerReader(run: run).run()
        let again = try older(
            ["resume", run, "--trainers", "2", "--evaluators", "1", "--accept-numerics"])
        #expect(try again.wait() == 0, "\(again.errors)")
        try LocalRun.checkLedger(run, steps: 24)
        let reader = try LedgerReader(run: run)
        let accepted = try reader.events().filter { $0.kind == "numerics_accepted" }
        #expect(accepted.count == 1)
        #expect(try reader.run()?.trainingClass != before?.trainingClass)
        #expect(try reader.lastSupersededStep() >= 12)
        let scored = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(scored.map(\.step).sorted() == [0, 8, 16, 24].flatMap { [$0, $0, $0] })
    }
}

import Basics
import FaultRig
import Foundation
import Protocol
import Storage
import Testing
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// Real processes on real data; one test at a time, since each wants the machine's cores.
@Suite(.serialized) struct ClusterTests {
    /// Weights of an undisturbed run of 24 steps, computed once.
    static let undisturbed: Result<(weights: String, ledger: String), any Error> = Result {
        let run = LocalRun.folder("undisturbed")
        let process = try LocalRun.start(run, steps: 24, trainers: 1, evaluators: 1)
        let code = try process.wait()
        try #require(code == 0, "\(process.errors)")
        return (try LocalRun.weights(run, step: 24), try ledgerDigest(run))
    }

    static func ledgerDigest(_ run: String) throws -> String {
        let process = try LineupProcess(["ledger", "digest", run])
        let text = process.standardOutput().trimmingCharacters(in: .whitespacesAndNewlines)
        try #require(try process.wait() == 0, "\(process.errors)")
        return text
    }

    @Test(.timeLimit(.minutes(4)), arguments: [2, 3, 5, 8])
    func anyNumberOfTrainersGivesTheSameWeights(trainers: Int) throws {
        let run = LocalRun.folder("n\(trainers)")
        let process = try LocalRun.start(run, steps: 24, trainers: trainers, evaluators: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        #expect(try Self.ledgerDigest(run) == Self.undisturbed.get().ledger)
        let reader = try LedgerReader(run: run)
        let batches = try reader.miniBatches()
        #expect(batches.count == 24 * 4)
        let workers = try reader.workers().filter { $0.role == "trainer" }
        #expect(Set(workers.map(\.process)).count == trainers)
        // Four slots: with five trainers one stands by.
        let share = Dictionary(grouping: batches, by: \.worker).mapValues(\.count)
        #expect(share.count == min(trainers, 4))
        for (worker, count) in share {
            #expect(Double(count) >= 0.5 * 96 / Double(trainers), "\(worker) computed \(count)")
        }
    }

    @Test(.timeLimit(.minutes(2)))
    func whoIsWelcomedIsInTheLedger() throws {
        let run = LocalRun.folder("welcomed")
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*"] + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        let reader = try LedgerReader(run: run)
        let context = Context()
        // At once, so that one turn of the coordinator writes many.
        let links = try (0..<60).map { number in
            let link = try WorkerLink(
                context, coordinator: address, role: .trainer, keys: nil, host: "host\(number)")
            var hello = WireHello()
            hello.lineupVersion = "0.1.0"
            hello.role = .trainer
            hello.worker = link.worker
            link.send(.hello(hello))
            return link
        }
        for link in links {
            var isWelcome = false
            while !isWelcome {
                Poller.wait([link.socket], timeout: .milliseconds(100))
                isWelcome = try link.receive().contains {
                    if case .welcome = $0 { true } else { false }
                }
            }
            #expect(try reader.workers().contains { $0.worker == link.worker && $0.left == nil })
        }
        coordinator.send(SIGTERM)
        #expect(try coordinator.wait() == 75, "\(coordinator.errors)")
        #expect(try reader.workers().map(\.why).allSatisfy { $0 != nil })
    }

    @Test(.timeLimit(.minutes(4)))
    func aTrainerThatIsKilledIsMadeUpForWithinTheStep() throws {
        let run = LocalRun.folder("killed")
        let process = try LocalRun.start(run, steps: 24, trainers: 2)
        try LocalRun.wait(for: 5, in: run, of: process)
        let reader = try LedgerReader(run: run)
        let victim = try #require(try reader.workers().first { $0.role == "trainer" })
        kill(Int32(victim.process), SIGKILL)
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        let left = try reader.workers().first { $0.worker == victim.worker }
        #expect(left?.why == "connection lost")
    }

    @Test(.timeLimit(.minutes(4)))
    func everythingKilledAtOnceIsResumedToTheSameBits() throws {
        let run = LocalRun.folder("dead")
        let process = try LocalRun.start(run, steps: 24, trainers: 2, evaluators: 1)
        try LocalRun.wait(for: 11, in: run, of: process)
        process.killTree()
        let again = try LocalRun.resume(run, trainers: 3, evaluators: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        #expect(try Self.ledgerDigest(run) == Self.undisturbed.get().ledger)
        try LocalRun.checkLedger(run, steps: 24)
    }

    /// Momentum, clipping, an average, layers that thaw at step 6, slots that grow after step 10, a sum
    /// of losses of which two have parameters.
    static let rich = LocalRun.options([
        "optimizer.name=sgdw", "optimizer.nesterov=true", "optimizer.weight_decay=0.01",
        "optimizer.learning_rate=0.05", "optimizer.clip_norm=0.05", "optimizer.average_decay=0.9",
        "optimizer.weight_decay_norm_factor=0", "evaluation.weights=average",
        "network.train_last_blocks=1", "network.freeze_steps=5", "schedule.name=cosine",
        "schedule.decay_start_step=0", "schedule.warmup_steps=4", "batch.phases=10:5x4",
        "loss.plus=softmax,center:0.0005",
    ])

    @Test(.timeLimit(.minutes(4)))
    func momentaAveragesAndThawedLayersSurviveKills() throws {
        let settings = try LocalRun.settings(steps: 20) + Self.rich
        func start(_ run: String, trainers: Int) throws -> LineupProcess {
            try LineupProcess(
                ["train", run, "--trainers", "\(trainers)", "--evaluators", "1"] + settings)
        }
        let whole = LocalRun.folder("rich")
        let process = try start(whole, trainers: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        let reader = try LedgerReader(run: whole)
        #expect(try reader.steps().map(\.samples) == (1...20).map { $0 <= 10 ? 64 : 80 })
        try reader.close()
        let run = LocalRun.folder("rich-killed")
        let killed = try start(run, trainers: 2)
        try LocalRun.wait(for: 12, in: run, of: killed)
        killed.killTree()
        let again = try LocalRun.resume(run, trainers: 3, evaluators: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try LocalRun.weights(run, step: 20) == LocalRun.weights(whole, step: 20))
        #expect(try Self.ledgerDigest(run) == Self.ledgerDigest(whole))
    }

    @Test(.timeLimit(.minutes(4)))
    func aRaisedScheduleRedoesCommittedStepsAtTheirOwnRates() throws {
        let run = LocalRun.folder("longer")
        let process = try LineupProcess(
            ["train", run, "--trainers", "2", "--evaluators", "0"]
                + LocalRun.settings(steps: 20) + ["--set", "schedule.decay_start_step=4"])
        try LocalRun.wait(for: 12, in: run, of: process)
        process.killTree()
        let before = try LedgerReader(run: run)
        let committed = try before.steps()
        try before.close()
        try #require(committed.count < 20)
        let again = try LineupProcess(
            ["resume", run, "--trainers", "2", "--set", "schedule.steps=30"])
        #expect(try again.wait() == 0, "\(again.errors)")
        let reader = try LedgerReader(run: run)
        #expect(try reader.events().contains { $0.text.contains("done again") })
        let steps = try reader.steps()
        #expect(steps.map(\.step) == Array(1...30))
        #expect(Array(steps.prefix(committed.count)) == committed)
        // From the raised end on the rate decays more slowly.
        let rates = steps.map(\.learningRate)
        #expect(rates[committed.count] > rates[committed.count - 1])
    }

    @Test(.timeLimit(.minutes(4)))
    func anInterruptedRunDrainsWithCode75AndGoesOn() throws {
        let run = LocalRun.folder("drained")
        let process = try LocalRun.start(run, steps: 24, trainers: 2)
        try LocalRun.wait(for: 9, in: run, of: process)
        process.send(SIGINT)
        #expect(try process.wait(seconds: 30) == 75, "\(process.errors)")
        let before = try LedgerReader(run: run)
        let last = try #require(try before.run()).lastStep
        try before.close()
        let again = try LocalRun.resume(run, trainers: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        // The drain left a snapshot: nothing is done twice.
        let reader = try LedgerReader(run: run)
        let text = try reader.events().map(\.text).joined(separator: "\n")
        #expect(!text.contains("done again"), "\(text)")
        #expect(last >= 9)
    }

    @Test(.timeLimit(.minutes(4)))
    func twoEvaluatorsOfAFolderLeaveTheLedgerAloneAndOneRowEach() throws {
        let run = LocalRun.folder("watched")
        let process = try LocalRun.start(run, steps: 16, trainers: 1)
        #expect(try process.wait() == 0, "\(process.errors)")
        let ledger = run + "/ledger.sqlite"
        let before = try Data(contentsOf: URL(fileURLWithPath: ledger))
        let pair = try (0..<2).map { _ in try LineupProcess(["evaluator", "--run", run]) }
        for evaluator in pair { #expect(try evaluator.wait() == 0, "\(evaluator.errors)") }
        #expect(try Data(contentsOf: URL(fileURLWithPath: ledger)) == before)
        let files = try FolderEvaluation.all(run: run) { Issue.record("\($0)") }
        #expect(files.map(\.step) == [0, 0, 0, 8, 8, 8, 16, 16, 16])
        // The next coordinator takes them in: the ledger then is that of a run with an evaluator.
        let again = try LocalRun.resume(run, trainers: 1)
        #expect(try again.wait() == 0, "\(again.errors)")
        let reader = try LedgerReader(run: run)
        let rows = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(rows.count == 9)
    }

    @Test(.timeLimit(.minutes(4)))
    func anEvaluatorWithNothingNewEndsWithCodeZeroAndTrainingGoesOn() throws {
        let run = LocalRun.folder("idle")
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "1"]
                + LocalRun.settings(steps: 100_000, every: 100_000)
                + ["--set", "evaluation.timeout_seconds=1.5"])
        let address = try LocalRun.address(of: coordinator)
        let trainer = try LineupProcess(["trainer", "--coordinator", address])
        let evaluator = try LineupProcess(["evaluator", "--coordinator", address])
        #expect(try evaluator.wait(seconds: 60) == 0, "\(evaluator.errors)")
        #expect(coordinator.isRunning && trainer.isRunning, "\(coordinator.errors)")
        let reader = try LedgerReader(run: run)
        let rows = try reader.evaluations()
        #expect(Set(rows.map(\.set)).count == 3, "\(evaluator.errors)")
        // Idle from the last row on, not from the start.
        let worker = try #require(try reader.workers().first { $0.role == "evaluator" })
        let left = try #require(worker.left)
        #expect(left - (rows.map(\.finished).max() ?? 0) >= 1.5)
        let step = try #require(try reader.run()).lastStep
        try LocalRun.wait(for: step + 5, in: run, of: coordinator)
        coordinator.send(SIGINT)
        #expect(try coordinator.wait(seconds: 30) == 75, "\(coordinator.errors)")
        #expect(try trainer.wait(seconds: 30) == 75, "\(trainer.errors)")
    }

    @Test(.timeLimit(.minutes(4)))
    func rolesStartedOneByOneDoTheSame() throws {
        let run = LocalRun.folder("roles")
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "2"]
                + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        let workers = try (0..<2).map { _ in
            try LineupProcess(["trainer", "--coordinator", address, "--slots-at-once", "1"])
        }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for worker in workers { #expect(try worker.wait(seconds: 30) == 0, "\(worker.errors)") }
        #expect(try LocalRun.weights(run, step: 24) == Self.undisturbed.get().weights)
    }
}

import Basics
import FaultRig
import Foundation
import Storage

extension Part {
    private static let coordinatorWhat =
        "two trainers; the coordinator alone is killed at random instants and started again"

    /// R4: how long the cluster waits for its next coordinator.
    static let faultsCoordinator = Part(name: "faults-coordinator", what: coordinatorWhat) {
        bench in
        let start = ContinuousClock.now
        var random = bench.draws(4)
        let rounds = bench.rounds ?? 50
        let crops = try bench.crops(withSets: false)
        let cluster = try bench.cluster(
            "coordinator", crops: crops,
            settings: tiny([
                "schedule.steps=1000000", "checkpoint.every_steps=100",
                "checkpoint.recovery_seconds=0",
            ]), expectedTrainers: 2)
        defer { cluster.end() }
        try cluster.startCoordinator()
        for _ in 0..<2 { try cluster.startTrainer(patience: 60) }
        try cluster.wait(forStep: 5)
        var comebacks: [Double] = []
        while comebacks.count < rounds {
            random.sleep(0.3...1)
            cluster.coordinator.killTree()
            let last = cluster.lastStep()
            try cluster.startCoordinator()
            try cluster.wait(forStep: last + 1)
            let begun = cluster.coordinatorStartedAt.timeIntervalSince1970
            comebacks.append(try cluster.committed(last + 1) - begun)
            if comebacks.count % 10 == 0 { say("\(comebacks.count) of \(rounds) restarts") }
        }
        let last = cluster.lastStep()
        let ledger = try cluster.ledger()
        let redone = try ledger.events().count { $0.kind == "redo" }
        let batches = try ledger.miniBatches(in: 1...last)
        guard batches.count == 4 * last, redone == 0,
            Set(try ledger.workers().map(\.worker)).count == 2
        else { throw BenchFailure("something was lost: \(redone) times steps were redone") }
        let figure = Series(comebacks)
        return Measurement(
            name: "faults-coordinator", what: coordinatorWhat, unit: "seconds",
            sides: [],
            ratios: [
                Ratio(
                    of: "start to the next commit", series: figure, wanted: "at most 2",
                    isMet: figure.quantile(1) <= 2)
            ],
            notes: [
                "next commit: \(figure.spread)", "seed \(bench.seed)",
                "\(last) steps, \(batches.count) slots, each computed by one of the two processes "
                    + "that began the run; none redone",
                "\(batches.count { $0.attempt > 0 }) slots were leased a second time",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static let everythingWhat =
        "lineup train with two trainers; every process is killed at once, then lineup resume"

    /// R5: how long it takes to compute again after everything was killed.
    static let faultsEverything = Part(name: "faults-everything", what: everythingWhat) { bench in
        let start = ContinuousClock.now
        var random = bench.draws(5)
        let rounds = bench.rounds ?? 20
        let crops = try bench.crops(withSets: false)
        let steps = 40 * (rounds + 1)
        let settings = tiny([
            "schedule.steps=\(steps)", "checkpoint.every_steps=50",
            "checkpoint.recovery_seconds=2", "data.root=\(crops)",
        ])
        let lineup = URL(fileURLWithPath: bench.lineup)
        let (calm, struck) = (bench.folder + "/calm", bench.folder + "/struck")
        func train(_ run: String) throws -> LineupProcess {
            try LineupProcess(
                ["train", run, "--trainers", "2", "--evaluators", "0"]
                    + settings.flatMap { ["--set", $0] }, executable: lineup)
        }
        let undisturbed = try train(calm)
        guard try undisturbed.wait(seconds: 600) == 0 else {
            throw BenchFailure(undisturbed.errors)
        }
        var process = try train(struck)
        var redone: [Double] = []
        var stepsRedone: [Double] = []
        let watch = try RigCluster(lineup: lineup, folder: struck, settings: [])
        func wait(forStep step: Int) throws {
            let deadline = Date().addingTimeInterval(60)
            while watch.lastStep() < step {
                guard Date() < deadline, process.isRunning else {
                    throw BenchFailure("step \(step) did not come: \(process.errors.suffix(500))")
                }
                usleep(5_000)
            }
        }
        for round in 1...rounds {
            try wait(forStep: min(watch.lastStep() + 1 + random.index(below: 60), 40 * round))
            random.sleep(0...0.1)
            process.killTree()
            let tip = watch.lastStep()
            let relaunch = secondsSince1970()
            process = try LineupProcess(
                ["resume", struck, "--trainers", "2", "--evaluators", "0"], executable: lineup)
            let event = try watch.event("redone", since: relaunch, within: 5)
            if let event {
                redone.append(event.time - relaunch)
                let words = event.text.split(separator: " ")
                if let first = words.dropFirst().first.flatMap({ Int($0) }) {
                    stepsRedone.append(Double(tip - first + 1))
                }
            } else {
                // Nothing had to be redone: the newest snapshot was the last commit.
                try wait(forStep: tip + 1)
                redone.append(try watch.committed(tip + 1) - relaunch)
            }
            say(String(format: "resume %d of %d: %.2f s", round, rounds, redone.last!))
        }
        guard try process.wait(seconds: 600) == 0 else { throw BenchFailure(process.errors) }
        let same = try RigCluster(lineup: lineup, folder: calm, settings: [])
        let isSame =
            try same.ledgerDigest() == watch.ledgerDigest()
            && same.weights(step: steps) == watch.weights(step: steps)
        guard isSame else { throw BenchFailure("the resumed run's results differ") }
        let figure = Series(redone)
        return Measurement(
            name: "faults-everything", what: everythingWhat, unit: "seconds",
            sides: [
                Side(name: "steps redone", series: Series(stepsRedone.isEmpty ? [0] : stepsRedone))
            ],
            ratios: [
                Ratio(
                    of: "relaunch to the first step redone", series: figure,
                    wanted: "at most 3", isMet: figure.quantile(1) <= 3)
            ],
            notes: [
                "first step redone: \(figure.spread)", "seed \(bench.seed)",
                "weights and ledger after \(steps) steps are the undisturbed run's",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }
}

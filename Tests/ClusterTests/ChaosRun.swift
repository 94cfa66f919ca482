import Basics
import Foundation
import Storage
import Testing

/// One real run on which faults rain from a seed, until most of its steps are committed.
final class ChaosRun {
    /// What may be done to a running cluster.
    enum Strike: String, CaseIterable {
        case killTrainer = "trainers killed"
        case killCoordinator = "coordinators killed"
        case haltTrainer = "trainers halted"
        case haltCoordinator = "coordinators halted"
        case join = "trainers joined"
        case drain = "trainers asked to leave"
        case killAll = "everything killed"
    }

    /// What was done, and how long it took.
    struct Report {
        var strikes: [Strike: Int] = [:]
        /// Seconds from the start of a coordinator to the next commit.
        var comebacks: [Double] = []
        var slotsComputedTwice = 0
        var stepsRedone = 0

        static func + (left: Report, right: Report) -> Report {
            Report(
                strikes: left.strikes.merging(right.strikes, uniquingKeysWith: +),
                comebacks: left.comebacks + right.comebacks,
                slotsComputedTwice: left.slotsComputedTwice + right.slotsComputedTwice,
                stepsRedone: left.stepsRedone + right.stepsRedone)
        }
    }

    static let steps = 80

    let folder: String
    private var random: CounterRandom
    private var coordinator: LineupProcess?
    private var trainers: [LineupProcess] = []
    private var halted: [(process: LineupProcess, until: Date)] = []
    private var startedAt = Date()
    private var isComingBack = false
    private var report = Report()
    private var address = ""
    private var trainersEver = 0

    init(seed: UInt64) {
        random = CounterRandom(seed: seed, step: 7, purpose: .audit)
        folder = LocalRun.folder("chaos-\(seed)")
    }

    /// Runs to the end.
    ///
    /// - Returns: nil when the run did not come to its end; an issue is recorded.
    func run() throws -> Report? {
        try startCoordinator()
        for _ in 0..<1 + random.index(below: 3) { try startTrainer() }
        let deadline = Date().addingTimeInterval(150)
        var nextStrike = Date().addingTimeInterval(1)
        while Date() < deadline {
            usleep(15_000)
            for (process, until) in halted where Date() > until { process.send(SIGCONT) }
            halted.removeAll { Date() > $0.until }
            let step = lastStep()
            noteComeback()
            if let coordinator, !coordinator.isRunning {
                guard try coordinator.wait() == 0 else {
                    Issue.record("the coordinator ended: \(coordinator.errors.suffix(3_000))")
                    return nil
                }
                return try finished()
            }
            let isMild = step > Self.steps * 8 / 10
            if isMild {
                for (process, _) in halted { process.send(SIGCONT) }
                halted = []
                if trainers.allSatisfy({ !$0.isRunning }) { try startTrainer() }
            } else if Date() > nextStrike {
                nextStrike = Date().addingTimeInterval(
                    0.05 + 0.01 * Double(random.index(below: 60)))
                try strike()
            }
        }
        Issue.record(
            """
            the run did not end within 150 s, step \(lastStep()) of \(Self.steps); \
            \(report.strikes); coordinator: \(coordinator?.errors.suffix(2_000) ?? "")
            trainers: \(trainers.filter(\.isRunning).map { $0.errors.suffix(500) })
            """)
        return nil
    }

    private func startCoordinator() throws {
        startedAt = Date()
        coordinator = try LineupProcess(
            ["coordinator", folder, "--bind", "tcp://127.0.0.1:*"]
                + LocalRun.settings(steps: Self.steps, every: 25))
        let again = try LocalRun.address(of: coordinator!)
        if !address.isEmpty, again != address {
            Issue.record("a new coordinator listens at \(again), not at \(address)")
        }
        address = again
    }

    private func startTrainer() throws {
        trainersEver += 1
        trainers.append(
            try LineupProcess([
                "trainer", "--coordinator", address, "--slots-at-once", "1", "--patience", "15",
            ]))
    }

    private func strike() throws {
        trainers.removeAll { !$0.isRunning }
        guard let strike = Strike.allCases.randomElement(using: &random) else { return }
        let victim = trainers.randomElement(using: &random)
        switch strike {
        case .killTrainer:
            victim?.killTree()
            trainers.removeAll { $0 === victim }
            if trainers.count < 3 { try startTrainer() }
        case .killCoordinator:
            coordinator!.killTree()
            isComingBack = true
            try startCoordinator()
        case .haltTrainer: halt(victim, seconds: 0.2 + 0.01 * Double(random.index(below: 300)))
        case .haltCoordinator:
            halt(coordinator, seconds: 0.1 + 0.01 * Double(random.index(below: 200)))
        case .join:
            guard trainers.count < 4 else { return }
            try startTrainer()
        case .drain:
            guard trainers.count > 1 else { return }
            victim?.send(SIGINT)
        case .killAll:
            // Once in a while.
            guard random.index(below: 3) == 0 else { return }
            for process in trainers + [coordinator!] { process.killTree() }
            trainers = []
            isComingBack = true
            try startCoordinator()
            for _ in 0..<2 { try startTrainer() }
        }
        report.strikes[strike, default: 0] += 1
    }

    private func halt(_ process: LineupProcess?, seconds: Double) {
        guard let process, process.isRunning else { return }
        process.send(SIGSTOP)
        halted.append((process, Date().addingTimeInterval(seconds)))
    }

    private func lastStep() -> Int {
        guard let reader = try? LedgerReader(run: folder) else { return 0 }
        defer { try? reader.close() }
        return ((try? reader.run()) ?? nil)?.lastStep ?? 0
    }

    /// The first commit of a coordinator that was started again.
    private func noteComeback() {
        guard isComingBack, halted.isEmpty, let reader = try? LedgerReader(run: folder)
        else { return }
        defer { try? reader.close() }
        let start = startedAt.timeIntervalSince1970
        guard let last = try? reader.run()?.lastStep, last > 0,
            let step = try? reader.steps(in: last...last).first, step.committed > start
        else { return }
        isComingBack = false
        report.comebacks.append(step.committed - start)
    }

    private func finished() throws -> Report {
        for trainer in trainers {
            trainer.send(SIGCONT)
            let code = try trainer.wait(seconds: 40)
            // A halted trainer finds the run over; one that was asked to leave says so.
            #expect(
                [0, 75].contains(code) || trainer.errors.contains("no coordinator"),
                "a trainer ended with \(code): \(trainer.errors.suffix(500))")
        }
        let reader = try LedgerReader(run: folder)
        defer { try? reader.close() }
        report.slotsComputedTwice = try reader.miniBatches().count { $0.attempt > 1 }
        report.stepsRedone = try reader.events().count { $0.kind == "redo" }
        return report
    }
}

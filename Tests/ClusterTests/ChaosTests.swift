import FaultRig
import Foundation
import Storage
import Testing

/// Real clusters under faults that rain: the weights and the ledger are those of an undisturbed run.
///
/// `make chaos MINUTES=10` goes on for so long; `make test` runs a short slice.
@Suite(.serialized) struct ChaosTests {
    private struct Digests: Equatable {
        let weights: String
        let ledger: String

        init(of run: String) throws {
            weights = try LocalRun.weights(run, step: ChaosRun.steps)
            ledger = try ClusterTests.ledgerDigest(run)
        }
    }

    private static let undisturbed = Result { try undisturbedRun(evaluators: 0) }
    private static let undisturbedAndScored = Result { try undisturbedRun(evaluators: 1) }

    private static func undisturbedRun(evaluators: Int) throws -> Digests {
        let run = LocalRun.folder("chaos-undisturbed")
        let process = try LocalRun.start(
            run, steps: ChaosRun.steps, every: 25, trainers: 1, evaluators: evaluators)
        try #require(try process.wait() == 0, "\(process.errors)")
        return try Digests(of: run)
    }

    @Test(.timeLimit(.minutes(120)))
    func whateverHappensTheResultIsTheUndisturbedOne() throws {
        let environment = ProcessInfo.processInfo.environment
        let minutes = environment["LINEUP_CHAOS_MINUTES"].flatMap(Double.init)
        let seed = environment["LINEUP_CHAOS_SEED"].flatMap(UInt64.init) ?? 1
        let start = Date()
        for line in Ability.lacking { print("chaos: this machine lacks \(line)") }
        var total = ChaosRun.Report()
        var count: UInt64 = 0
        // Networks that are struck take two or three times as long, so that a short slice has
        // fewer of them: every fourth number is a schedule on one machine.
        let slice = (1...12).map { 4 * UInt64($0) } + [1, 2, 3, 5, 6, 7, 9, 10]
        while minutes.map({ Date().timeIntervalSince(start) < 60 * $0 }) ?? (count < slice.count) {
            let number = minutes == nil ? slice[Int(count)] : seed + count
            let chaos = try ChaosRun(seed: number)
            count += 1
            defer { chaos.remove() }
            guard let report = try chaos.run() else {
                Issue.record("schedule \(number)")
                return
            }
            let schedule = "schedule \(number), \(report.strikes)"
            let wanted = chaos.hasEvaluator ? Self.undisturbedAndScored : Self.undisturbed
            #expect(try Digests(of: chaos.folder) == wanted.get(), "\(schedule)")
            try LocalRun.checkLedger(chaos.folder, steps: ChaosRun.steps)
            total = total + report
        }
        print(Self.summary(total, schedules: count))
    }

    /// The coordinator alone is killed: its trainers wait with what they have, and nothing is done
    /// twice.
    @Test(.timeLimit(.minutes(4)))
    func aCoordinatorThatIsKilledCostsNothing() throws {
        let run = LocalRun.folder("chaos-coordinator")
        let arguments =
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers", "2"]
            + (try LocalRun.settings(steps: ChaosRun.steps, every: 25))
        var coordinator = try LineupProcess(arguments)
        let address = try LocalRun.address(of: coordinator)
        let trainers = try (0..<2).map { _ in
            try LineupProcess(["trainer", "--coordinator", address, "--slots-at-once", "1"])
        }
        for step in stride(from: 10, to: 70, by: 10) {
            try LocalRun.wait(for: step, in: run, of: coordinator)
            coordinator.killTree()
            coordinator = try LineupProcess(arguments)
        }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for trainer in trainers {
            let code = try trainer.wait(seconds: 30)
            #expect(code == 0, "\(trainer.errors)")
        }
        #expect(try Digests(of: run) == Self.undisturbed.get())
        let reader = try LedgerReader(run: run)
        defer { try? reader.close() }
        #expect(try reader.miniBatches().count == 4 * ChaosRun.steps)
        let events = try reader.events()
        #expect(events.allSatisfy { $0.kind != "redo" })
        // The processes that began the run ended it.
        #expect(Set(try reader.workers().map(\.worker)).count == 2)
    }

    private static func summary(_ report: ChaosRun.Report, schedules: UInt64) -> String {
        let strikes = report.strikes.sorted { $0.key.rawValue < $1.key.rawValue }
            .map { "\($0.value) \($0.key.rawValue)" }.joined(separator: ", ")
        let comebacks = report.comebacks.sorted()
        func second(_ share: Double) -> String {
            guard !comebacks.isEmpty else { return "-" }
            let place = min(comebacks.count - 1, Int(share * Double(comebacks.count)))
            return String(format: "%.2f s", comebacks[place])
        }
        return """
            chaos: \(schedules) schedules, weights and ledger equal to the undisturbed run's
            chaos: \(strikes)
            chaos: next commit after a coordinator's start: median \(second(0.5)), 95 % \
            \(second(0.95)), longest \(second(1)) of \(comebacks.count)
            chaos: \(report.slotsComputedTwice) slots computed again, \(report.timesRedone) times \
            steps redone, \(report.flippedBits) bits flipped on the way
            """
    }
}

import ArgumentParser
import Basics
import ClusterCore
import Foundation
import Simulation
import Synchronization

/// `lineup simulate`: whole clusters in simulated time, with faults drawn from a seed.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run clusters in simulated time under faults, and check every promise.",
        discussion: """
            The state machines are those of real runs; network, ledger, disk and numbers are models. \
            After every event the invariants of docs/simulation.md are checked; a seed repeats a run \
            exactly. Exits 1 when a promise is broken.

            Example: lineup simulate --seed 7 --workers 8 --steps 100
            Example: lineup simulate --seed 1 --seeds 1000 --steps 200
            Example: lineup simulate --seed 1 --workers 10000 --steps 20
            Example: lineup simulate --seed 7 --workers 8 --steps 100 --faults crash,loss --trace
            """
    )

    @Option(help: "Seed of the first run.")
    var seed: UInt64 = 1

    @Option(help: "How many runs, with one seed after the other.")
    var seeds = 1

    @Option(help: "Trainers at the start; 0 draws 3 to 40 from each seed.")
    var workers = 0

    @Option(help: "Evaluators at the start.")
    var evaluators = 2

    @Option(
        help: "Slots in a step; 0 gives one to each trainer, at most 256, or draws from the seed.")
    var slots = 0

    @Option(help: "Optimizer steps of each run.")
    var steps = 200

    @Option(
        help: ArgumentHelp(
            "What may go wrong: 'all', 'none', or names joined by commas.",
            discussion: Fault.allCases.map(\.rawValue).joined(separator: ", "),
            valueName: "faults"))
    var faults = "all"

    @Option(
        name: .customLong("audit-fraction"),
        help: ArgumentHelp(
            "Share of slots and folds that two trainers compute, from 0 to 1.",
            discussion: "Drawn from each seed where it is not given."))
    var auditFraction: Double?

    @Option(
        help: ArgumentHelp(
            "What a loss mines over: 'slot', or 'step', which makes steps two-phased.",
            discussion: "Drawn from each seed where it is not given; a third are 'step'."))
    var scope: MiningScope?

    @Flag(help: "Print what happened, the last 2,000 events of each run.")
    var trace = false

    enum MiningScope: String, ExpressibleByArgument, CaseIterable { case slot, step }

    func validate() throws {
        guard seeds > 0, workers >= 0, evaluators >= 0, slots >= 0, steps > 0 else {
            throw ValidationError(
                "--seeds and --steps must be at least 1, --workers, --evaluators and --slots at "
                    + "least 0")
        }
        guard workers <= 100_000, slots <= 16_384, steps <= 200_000 else {
            throw ValidationError(
                "at most 100000 --workers, 16384 --slots and 200000 --steps are simulated")
        }
        if let auditFraction, !(0...1).contains(auditFraction) {
            throw ValidationError("--audit-fraction is \(auditFraction); expected 0 to 1")
        }
        _ = try chosenFaults()
    }

    private func chosenFaults() throws -> Set<Fault> {
        switch faults {
        case "all": return Set(Fault.allCases)
        case "none": return []
        default: break
        }
        return Set(
            try faults.split(separator: ",").map { name in
                guard let fault = Fault(rawValue: String(name)) else {
                    throw ValidationError(
                        "there is no fault '\(name)'; expected 'all', 'none' or some of "
                            + Fault.allCases.map(\.rawValue).joined(separator: ", "))
                }
                return fault
            })
    }

    private func cluster(_ seed: UInt64) throws -> SimulationConfiguration {
        let trainers = workers > 0 ? workers : 3 + Int(seed % 38)
        let drawn = [4, 8, 5, 16, 2][Int(seed % 5)]
        return SimulationConfiguration(
            seed: seed, trainers: trainers, evaluators: evaluators,
            slots: slots > 0 ? slots : (workers > 0 ? nil : min(trainers, drawn)), steps: steps,
            auditFraction: auditFraction
                ?? SimulationConfiguration.drawnAuditFraction(seed: seed),
            minesStep: scope.map { $0 == .step }
                ?? SimulationConfiguration.drawnMinesStep(seed: seed),
            faults: try chosenFaults(), isTraced: trace)
    }

    func run() throws {
        let clock = ContinuousClock()
        let start = clock.now
        let batch = SimulationBatch(
            try (0..<seeds).map { try cluster(seed &+ UInt64($0)) }, again: again)
        DispatchQueue.concurrentPerform(
            iterations: min(seeds, ProcessInfo.processInfo.activeProcessorCount)
        ) { _ in batch.work() }
        let tally = batch.tally
        print(tally.summary(seconds: (clock.now - start).seconds))
        if tally.broken > 0 { throw ExitCode(1) }
    }

    /// The command line that repeats a run.
    private var again: @Sendable (SimulationConfiguration) -> String {
        let faults = faults
        return { configuration in
            "lineup simulate --seed \(configuration.seed) --workers \(configuration.trainers) "
                + "--evaluators \(configuration.evaluators) --slots \(configuration.slots) "
                + "--steps \(configuration.steps) --audit-fraction \(configuration.auditFraction) "
                + "--scope \(configuration.minesStep ? MiningScope.step : .slot) "
                + "--faults \(faults) --trace"
        }
    }
}

/// Runs that threads take one after another.
private final class SimulationBatch: Sendable {
    private let configurations: [SimulationConfiguration]
    private let again: @Sendable (SimulationConfiguration) -> String
    private let next = Mutex(0)
    private let total = Mutex(Tally())

    init(
        _ configurations: [SimulationConfiguration],
        again: @escaping @Sendable (SimulationConfiguration) -> String
    ) {
        self.configurations = configurations
        self.again = again
    }

    var tally: Tally { total.withLock { $0 } }

    func work() {
        while true {
            let place = next.withLock { place in
                defer { place += 1 }
                return place
            }
            guard place < configurations.count else { return }
            let configuration = configurations[place]
            let result = Simulation(configuration).run()
            total.withLock { tally in
                tally.add(result)
                if configuration.isTraced {
                    print(result.trace.suffix(2000).joined(separator: "\n"))
                }
                if let violation = result.violation {
                    print("seed \(configuration.seed): broken: \(violation)")
                    print("  again: \(again(configuration))")
                }
                tally.sayProgress(of: configurations.count)
            }
        }
    }
}

/// Sums over simulated runs.
private struct Tally {
    var runs = 0
    var broken = 0
    var steps = 0
    var events = 0
    var seconds = 0.0
    var redone = 0
    var terms = 0
    var strikes: [Fault: Int] = [:]
    var occurrences: [Occurrence: Int] = [:]
    private var saidAt = ContinuousClock().now

    mutating func add(_ result: SimulationResult) {
        runs += 1
        broken += result.violation == nil ? 0 : 1
        steps += result.steps
        events += result.events
        seconds += result.seconds
        redone += result.stepsRedone
        terms += result.terms
        for (fault, count) in result.strikes { strikes[fault, default: 0] += count }
        for (occurrence, count) in result.occurrences {
            occurrences[occurrence, default: 0] += count
        }
    }

    mutating func sayProgress(of count: Int) {
        let now = ContinuousClock().now
        guard now - saidAt > .seconds(2), runs < count else { return }
        saidAt = now
        say("\(runs) of \(count) runs, \(broken) broken, \(events) events")
    }

    func summary(seconds wall: Double) -> String {
        let told = strikes.sorted { $0.key.rawValue < $1.key.rawValue }
            .map { "\($0.key.rawValue) \($0.value)" }.joined(separator: ", ")
        let reached = Occurrence.allCases.compactMap { occurrence in
            occurrences[occurrence].map { "\(occurrence.rawValue) \($0)" }
        }.joined(separator: ", ")
        let speed = Int(seconds / max(wall, 1e-9))
        return """
            \(runs) runs, \(broken) broken; \(steps) steps committed, \(redone) done again, \
            \(terms) coordinator starts, \(events) events
            \(Int(seconds)) simulated seconds in \(String(format: "%.1f", wall)) s: \
            \(speed) times real time
            faults: \(told.isEmpty ? "none" : told)
            occurrences: \(reached.isEmpty ? "none" : reached)
            """
    }
}

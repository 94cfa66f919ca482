import Simulation
import Testing

@Suite struct SimulationTests {
    private func run(_ configuration: SimulationConfiguration) -> SimulationResult {
        Simulation(configuration).run()
    }

    /// A cluster as `lineup simulate` draws it from a seed.
    private func drawn(
        _ seed: UInt64, steps: Int, minesStep: Bool? = nil,
        faults: Set<Fault> = Set(Fault.allCases)
    ) -> SimulationConfiguration {
        let trainers = 3 + Int(seed % 38)
        return SimulationConfiguration(
            seed: seed, trainers: trainers, evaluators: 1 + Int(seed % 3),
            slots: min(trainers, [4, 8, 5, 16, 2][Int(seed % 5)]), steps: steps,
            auditFraction: SimulationConfiguration.drawnAuditFraction(seed: seed),
            minesStep: minesStep ?? SimulationConfiguration.drawnMinesStep(seed: seed),
            faults: faults)
    }

    /// Where trainers are equally fast; a slow one's slots may go to others too.
    @Test(arguments: [1, 2, 3, 4, 7, 20], [false, true])
    func withoutFaultsNoSlotIsComputedTwice(trainers: Int, minesStep: Bool) {
        let result = run(
            SimulationConfiguration(
                seed: 1, trainers: trainers, slots: 8, steps: 30, minesStep: minesStep,
                slotMilliseconds: 50...50, faults: []))
        #expect(result.violation == nil)
        #expect(result.steps == 30)
        #expect(result.terms == 1)
        #expect(result.stepsRedone == 0)
        #expect(result.slotsComputed == 8 * 30)
    }

    @Test func aSeedRepeatsARunExactly() {
        var configuration = drawn(11, steps: 60)
        configuration.isTraced = true
        let first = run(configuration)
        let second = run(configuration)
        #expect(first.trace == second.trace)
        #expect(first.events == second.events)
        #expect(first.strikes == second.strikes)
        configuration.seed = 12
        #expect(run(configuration).trace != first.trace)
    }

    @Test(arguments: Fault.allCases, [false, true])
    func everyFaultAloneIsSurvived(fault: Fault, minesStep: Bool) {
        var strikes = 0
        for seed in 1...8 {
            let result = run(
                drawn(UInt64(seed * 7), steps: 60, minesStep: minesStep, faults: [fault]))
            #expect(result.violation == nil, "\(fault.rawValue), seed \(seed * 7), \(minesStep)")
            strikes += result.strikes[fault] ?? 0
        }
        #expect(strikes > 0)
    }

    /// A thousand clusters of 3 to 40 trainers, all faults at once.
    @Test(arguments: 0..<20)
    func allFaultsAtOnceChangeNothing(part: Int) {
        var occurrences: [Occurrence: Int] = [:]
        for seed in UInt64(1 + 50 * part)...UInt64(50 + 50 * part) {
            let result = run(drawn(seed, steps: 200))
            #expect(
                result.violation == nil,
                "lineup simulate --seed \(seed) --steps 200")
            occurrences.merge(result.occurrences, uniquingKeysWith: +)
        }
        // What the faults are there for does come about.
        for occurrence in Occurrence.allCases {
            #expect(occurrences[occurrence, default: 0] > 0, "\(occurrence)")
        }
    }

    @Test(arguments: 1...10)
    func aThousandTrainersAreSurvivedToo(seed: UInt64) {
        let result = run(SimulationConfiguration(seed: seed, trainers: 1000, steps: 20))
        #expect(result.violation == nil, "seed \(seed)")
        #expect(result.strikes.values.reduce(0, +) > 10)
    }

    /// Bits flip in audited slots and folds, and nothing else happens.
    @Test(arguments: [false, true])
    func everyFlipThatIsAuditedIsFoundAndLaidToItsTrainer(minesStep: Bool) {
        var flips = 0
        for seed in UInt64(1)...60 {
            let result = run(
                SimulationConfiguration(
                    seed: seed, trainers: (minesStep ? 20 : 8) + Int(seed % 9),
                    slots: 7 + Int(seed % 5), steps: minesStep ? 20 : 40,
                    auditFraction: seed.isMultiple(of: 2) ? 1 : 0.3, minesStep: minesStep,
                    faults: [.bitFlip]))
            #expect(result.violation == nil, "seed \(seed)")
            #expect(result.auditedFlipsNamed == result.auditedFlips, "seed \(seed)")
            flips += result.auditedFlips
        }
        #expect(flips > 60)
    }

    /// Whoever contradicts himself was wrong, also where nobody else can judge.
    @Test(arguments: [false, true])
    func ofTwoTrainersTooEveryFlipThatIsAuditedIsLaidToItsTrainer(minesStep: Bool) {
        var flips = 0
        for seed in UInt64(1)...60 {
            let result = run(
                SimulationConfiguration(
                    seed: seed, trainers: 2, slots: 2 + Int(seed % 7), steps: 40,
                    auditFraction: seed.isMultiple(of: 2) ? 1 : 0.3, minesStep: minesStep,
                    faults: [.bitFlip]))
            #expect(result.violation == nil, "seed \(seed)")
            #expect(result.auditedFlipsNamed == result.auditedFlips, "seed \(seed)")
            flips += result.auditedFlips
        }
        #expect(flips > 50)
    }

    /// Bits flip in copies of the state, on their way to the disk or to a joiner.
    @Test func copiesWithAFlippedBitAreRefused() {
        var refused = 0
        for seed in UInt64(1)...60 {
            let result = run(
                SimulationConfiguration(
                    seed: seed, trainers: 1 + Int(seed % 9), steps: 60, checkpointEvery: 4,
                    faults: seed.isMultiple(of: 2)
                        ? [.bitFlip] : [.bitFlip, .crash, .coordinatorCrash, .massJoin]))
            #expect(result.violation == nil, "seed \(seed)")
            refused += result.copiesRefused
        }
        #expect(refused > 20)
    }

    @Test(arguments: [false, true])
    func aCoordinatorThatComesBackLosesNothing(minesStep: Bool) {
        // Those who trained come back with what they have: nothing is done again.
        for seed in 1...30 {
            let result = run(
                drawn(
                    UInt64(seed), steps: 100, minesStep: minesStep, faults: [.coordinatorCrash]))
            #expect(result.violation == nil, "seed \(seed)")
            #expect(result.stepsRedone == 0, "seed \(seed)")
        }
    }
}

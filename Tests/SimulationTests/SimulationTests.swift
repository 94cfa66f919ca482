import Simulation
import Testing

@Suite struct SimulationTests {
    private func run(_ configuration: SimulationConfiguration) -> SimulationResult {
        Simulation(configuration).run()
    }

    /// A cluster as `lineup simulate` draws it from a seed.
    private func drawn(
        _ seed: UInt64, steps: Int, faults: Set<Fault> = Set(Fault.allCases)
    ) -> SimulationConfiguration {
        let trainers = 3 + Int(seed % 38)
        return SimulationConfiguration(
            seed: seed, trainers: trainers, evaluators: 1 + Int(seed % 3),
            slots: min(trainers, [4, 8, 5, 16, 2][Int(seed % 5)]), steps: steps,
            auditFraction: SimulationConfiguration.drawnAuditFraction(seed: seed), faults: faults)
    }

    /// Where trainers are equally fast; a slow one's slots may go to others too.
    @Test(arguments: [1, 2, 3, 4, 7, 20])
    func withoutFaultsNoSlotIsComputedTwice(trainers: Int) {
        let result = run(
            SimulationConfiguration(
                seed: 1, trainers: trainers, slots: 8, steps: 30, slotMilliseconds: 50...50,
                faults: []))
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

    @Test(arguments: Fault.allCases)
    func everyFaultAloneIsSurvived(fault: Fault) {
        var strikes = 0
        for seed in 1...8 {
            let result = run(drawn(UInt64(seed * 7), steps: 60, faults: [fault]))
            #expect(result.violation == nil, "\(fault.rawValue), seed \(seed * 7)")
            strikes += result.strikes[fault] ?? 0
        }
        #expect(strikes > 0)
    }

    /// A thousand clusters of 3 to 40 trainers, all faults at once.
    @Test(arguments: 0..<20)
    func allFaultsAtOnceChangeNothing(part: Int) {
        for seed in UInt64(1 + 50 * part)...UInt64(50 + 50 * part) {
            let result = run(drawn(seed, steps: 200))
            #expect(
                result.violation == nil,
                "lineup simulate --seed \(seed) --steps 200")
        }
    }

    @Test(arguments: 1...10)
    func aThousandTrainersAreSurvivedToo(seed: UInt64) {
        let result = run(SimulationConfiguration(seed: seed, trainers: 1000, steps: 20))
        #expect(result.violation == nil, "seed \(seed)")
        #expect(result.strikes.values.reduce(0, +) > 10)
    }

    /// Bits flip in audited slots and folds, and nothing else happens.
    @Test func everyFlipThatIsAuditedIsFoundAndLaidToItsTrainer() {
        var flips = 0
        for seed in UInt64(1)...60 {
            let result = run(
                SimulationConfiguration(
                    seed: seed, trainers: 8 + Int(seed % 9), slots: 7 + Int(seed % 5), steps: 40,
                    auditFraction: seed.isMultiple(of: 2) ? 1 : 0.3, faults: [.bitFlip]))
            #expect(result.violation == nil, "seed \(seed)")
            #expect(result.auditedFlipsNamed == result.auditedFlips, "seed \(seed)")
            flips += result.auditedFlips
        }
        #expect(flips > 100)
    }

    @Test func aCoordinatorThatComesBackLosesNothing() {
        // Those who trained come back with what they have: nothing is done again.
        for seed in 1...30 {
            let result = run(drawn(UInt64(seed), steps: 100, faults: [.coordinatorCrash]))
            #expect(result.violation == nil, "seed \(seed)")
            #expect(result.stepsRedone == 0, "seed \(seed)")
        }
    }
}

import ClusterCorePlanted
import SimulationPlanted
import Testing

/// Mistakes planted in the protocol, each of which the simulator must find by a broken promise.
@Suite struct PlantedBugTests {
    @Test(arguments: PlantedBug.allCases)
    func theSimulatorFinds(bug: PlantedBug) {
        for seed in UInt64(1)...1000 {
            let configuration = SimulationConfiguration(
                seed: seed, trainers: 3 + Int(seed % 6), evaluators: 1,
                slots: [4, 3, 8][Int(seed % 3)], steps: 60,
                auditFraction: SimulationConfiguration.drawnAuditFraction(seed: seed))
            let result = Planted.$bug.withValue(bug) { Simulation(configuration).run() }
            guard let violation = result.violation else { continue }
            print("\(bug.rawValue): seed \(seed), \(violation)")
            return
        }
        Issue.record("\(bug.rawValue) was not found in 1,000 seeds")
    }

    @Test func withoutAMistakeNothingIsFound() {
        for seed in UInt64(1)...60 {
            let configuration = SimulationConfiguration(
                seed: seed, trainers: 3 + Int(seed % 6), evaluators: 1,
                slots: [4, 3, 8][Int(seed % 3)], steps: 60,
                auditFraction: SimulationConfiguration.drawnAuditFraction(seed: seed))
            #expect(Simulation(configuration).run().violation == nil, "seed \(seed)")
        }
    }
}

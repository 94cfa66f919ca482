import ClusterCorePlanted
import SimulationPlanted
import Testing

/// Mistakes planted in the protocol, each of which the simulator must find by a broken promise.
@Suite struct PlantedBugTests {
    private static func run(_ seed: UInt64, with bug: PlantedBug?) -> Violation? {
        let configuration = SimulationConfiguration(
            seed: seed, trainers: 3 + Int(seed % 6), evaluators: 1,
            slots: [4, 3, 8][Int(seed % 3)], steps: 60,
            auditFraction: SimulationConfiguration.drawnAuditFraction(seed: seed),
            minesStep: SimulationConfiguration.drawnMinesStep(seed: seed))
        return Planted.$bug.withValue(bug) { Simulation(configuration).run() }.violation
    }

    @Test(arguments: PlantedBug.allCases)
    func theSimulatorFinds(bug: PlantedBug) {
        for seed in UInt64(1)...1000 {
            guard let violation = Self.run(seed, with: bug) else { continue }
            print("\(bug.rawValue): seed \(seed), \(violation)")
            // It is the mistake that breaks the promise.
            #expect(Self.run(seed, with: nil) == nil, "\(bug.rawValue), seed \(seed)")
            return
        }
        Issue.record("\(bug.rawValue) was not found in 1,000 seeds")
    }

    @Test func withoutAMistakeNothingIsFound() {
        for seed in UInt64(1)...60 {
            #expect(Self.run(seed, with: nil) == nil, "seed \(seed)")
        }
    }
}

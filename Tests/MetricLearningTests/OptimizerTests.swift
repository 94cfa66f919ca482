import Foundation
import MetricLearning
import Testing

@Suite struct OptimizerTests {
    @Test func torchFormMovesItsCorrectionsIntoTwoNumbers() {
        let adam = AdamConfiguration()
        for step in [1, 2, 10, 1000, 100_000] {
            let (rate, epsilon) = adam.scalars(step: step, learningRate: 1e-3)
            let first = 1 - pow(0.9, Double(step))
            let second = 1 - pow(0.999, Double(step))
            let (m, v) = (0.3, 0.04)
            let expected = 1e-3 * (m / first) / ((v / second).squareRoot() + 1e-8)
            #expect(abs(rate * m / (v.squareRoot() + epsilon) - expected) < 1e-12 * expected)
        }
    }

    @Test func tensorflowFormKeepsEpsilon() {
        let adam = AdamConfiguration(form: .tensorflow, epsilon: 1e-7)
        let (rate, epsilon) = adam.scalars(step: 1, learningRate: 0.5)
        #expect(epsilon == 1e-7)
        #expect(abs(rate - 0.5 * 0.001.squareRoot() / 0.1) < 1e-12)
    }

    @Test func learningRateDecaysToAThousandth() {
        let schedule = LearningRateSchedule(
            base: 3e-4, decay: .exponential(start: 15_000), totalSteps: 25_000)
        #expect(schedule.rate(updatesBefore: 0) == 3e-4)
        #expect(schedule.rate(updatesBefore: 15_000) == 3e-4)
        #expect(abs(schedule.rate(updatesBefore: 20_000) / 3e-4 - 0.001.squareRoot()) < 1e-12)
        #expect(abs(schedule.rate(updatesBefore: 25_000) - 3e-7) < 1e-18)
    }

    @Test(arguments: [-1, 25_000, 30_000]) func learningRateStaysWithoutDecay(_ start: Int) {
        let schedule = LearningRateSchedule(
            base: 3e-4, decay: .exponential(start: start), totalSteps: 25_000)
        #expect(schedule.rate(updatesBefore: 24_999) == 3e-4)
    }

    struct Expected: Decodable {
        let cases: [String: [Double]]

        static let fromTorch: Expected = {
            let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("Fixtures/schedules.json")
            do {
                return try JSONDecoder().decode(Expected.self, from: Data(contentsOf: file))
            } catch { preconditionFailure("\(file.path): \(error)") }
        }()
    }

    static let schedules: [String: LearningRateSchedule] = {
        func schedule(
            _ decay: LearningRateSchedule.Decay, warmup: Int = 0, factor: Double = 0.1
        ) -> LearningRateSchedule {
            LearningRateSchedule(
                base: 3e-4, decay: decay, warmupSteps: warmup, warmupFactor: factor,
                totalSteps: 100)
        }
        return [
            "constant": schedule(.none), "exponential": schedule(.exponential(start: 60)),
            "step": schedule(.step(milestones: [30, 70], factor: 0.2)),
            "cosine": schedule(.cosine(start: 0, finalFactor: 0.05)),
            "late_cosine": schedule(.cosine(start: 40, finalFactor: 0)),
            "warm_constant": schedule(.none, warmup: 10, factor: 0.25),
            "warm_step": schedule(.step(milestones: [30, 70], factor: 0.2), warmup: 10),
            "warm_cosine": schedule(.cosine(start: 0, finalFactor: 0), warmup: 10),
            "warm_exponential": schedule(.exponential(start: 0), warmup: 20),
        ]
    }()

    @Test(arguments: schedules.keys.sorted()) func ratesAreTorchs(_ name: String) throws {
        let expected = try #require(Expected.fromTorch.cases[name])
        for (update, wanted) in expected.enumerated() {
            let rate = Self.schedules[name]!.rate(updatesBefore: update)
            #expect(abs(rate - wanted) <= 1e-12 * wanted, "update \(update)")
        }
    }
}

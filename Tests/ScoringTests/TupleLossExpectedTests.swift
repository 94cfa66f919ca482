import Basics
import Foundation
import Scoring
import Testing

/// Every loss against the float64 reference that training's losses are held against.
@Suite struct TupleLossExpectedTests {
    private struct Batch: Decodable {
        let name: String
        let labels: [Int]
        let rows: [Double]
        let runs: [Run]
    }

    private struct Run: Decodable {
        let loss: String
        let margin: Margin
        let distance: String
        let normalize: String
        let miner: String
        let minerEpsilon: Double
        let reducer: String
        let activeThreshold: Double
        let hap2sCompatibility: Bool?
        let temperature: Double?
        let value: Double
        let active: Int
        let valid: Int
    }

    private struct Margin: Decodable {
        let value: TupleLoss.Margin

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let number = try? container.decode(Double.self) {
                value = .number(number)
            } else {
                value = try container.decode(String.self) == "soft" ? .soft : .none
            }
        }
    }

    /// Rows that 32-bit floats hold exactly; the sums are of tens of terms in float64.
    @Test(arguments: ["bf16", "all_equal"]) func everyLossIsTheReference(_ name: String) throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../MetricLearningTests/Fixtures/expected_losses.json")
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        let batches = try decoder.decode([Batch].self, from: Data(contentsOf: file))
        let batch = try #require(batches.first { $0.name == name })
        let rows = batch.labels.indices.map { row in
            batch.rows[row * 3..<row * 3 + 3].map { Float($0) }
        }
        var kinds: Set<String> = []
        // What batch_sample draws in training is here its expectation.
        for run in batch.runs where run.loss != "batch_sample" {
            var parameters = LossParameters()
            parameters.hap2sCompatibility = run.hap2sCompatibility ?? false
            parameters.temperature = run.temperature ?? parameters.temperature
            let loss = try TupleLoss(
                name: run.loss, margin: run.margin.value, distance: run.distance,
                normalization: run.normalize,
                minerEpsilon: run.miner == "all" ? nil : run.minerEpsilon, reducer: run.reducer,
                activeThreshold: run.activeThreshold, parameters: parameters)
            let found = loss.evaluate(rows, labels: batch.labels)
            let what: Comment = "\(run.loss) \(run.margin.value) \(run.distance)"
            #expect(abs(found.loss - run.value) <= 1e-10 * abs(run.value) + 1e-12, what)
            let share = run.valid == 0 ? 0 : Double(run.active) / Double(run.valid)
            #expect(found.fractionPositive == share, what)
            kinds.insert(run.loss)
        }
        #expect(kinds.count == TupleLoss.Kind.allCases.count - 1)
    }

    @Test func whatIsDrawnInTrainingIsExpectedHere() {
        // The only positive and negative of each row but the last two: nothing is left to chance.
        let loss = TupleLoss(.sampled, margin: .none)
        let value = loss.evaluate([[0], [1], [3]], labels: [0, 0, 1])
        // 1-3, 1-2, and 0 less the mean of 3 and 2 by exp(-d).
        let (far, near) = (exp(-3.0), exp(-2.0))
        let expected = (-2 - 1 - (3 * far + 2 * near) / (far + near)) / 3
        #expect(abs(value.loss - expected) < 1e-14)
    }
}

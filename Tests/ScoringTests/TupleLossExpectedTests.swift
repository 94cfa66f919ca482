import Basics
import Foundation
import LossFixtures
import Scoring
import Testing

/// Every loss against the float64 reference that training's losses are held against.
@Suite struct TupleLossExpectedTests {
    /// Rows that 32-bit floats hold exactly; the sums are of tens of terms in float64.
    @Test(arguments: ["bf16", "all_equal"]) func everyLossIsTheReference(_ name: String) throws {
        let batch = try #require(ExpectedBatch.ofRows.first { $0.name == name })
        let rows = batch.labels.indices.map { row in
            batch.rows[row * 3..<row * 3 + 3].map { Float($0) }
        }
        var names: Set<LossName> = []
        // What batch_sample draws in training is here its expectation.
        for run in batch.runs where run.loss.name != .batchSample {
            let found = TupleLoss(run.loss).evaluate(rows, labels: batch.labels)
            let what: Comment = "\(run)"
            #expect(abs(found.loss - run.value) <= 1e-10 * abs(run.value) + 1e-12, what)
            let share = run.valid == 0 ? 0 : Double(run.active) / Double(run.valid)
            #expect(found.fractionPositive == share, what)
            names.insert(run.loss.name)
        }
        #expect(names == Set(LossName.allCases.filter { !$0.hasClasses && $0 != .batchSample }))
    }

    @Test func whatTellsTrainedIdentitiesApartIsNotScored() {
        var sum = LossConfiguration(name: .softmax)
        #expect(
            TupleLoss(sum).configuration == LossConfiguration(name: .batchHard, margin: .soft))
        #expect(TupleLoss(LossConfiguration(name: .arcface)).configuration.distance == .cosine)
        sum.plus = [
            LossConfiguration(name: .center), LossConfiguration(name: .lifted, margin: .number(2)),
        ]
        #expect(TupleLoss(sum).configuration == sum.plus[1])
    }

    @Test func whatIsDrawnInTrainingIsExpectedHere() {
        // The only positive and negative of each row but the last two: nothing is left to chance.
        let loss = TupleLoss(LossConfiguration(name: .batchSample, margin: Margin.none))
        let value = loss.evaluate([[0], [1], [3]], labels: [0, 0, 1])
        // 1-3, 1-2, and 0 less the mean of 3 and 2 by exp(-d).
        let (far, near) = (exp(-3.0), exp(-2.0))
        let expected = (-2 - 1 - (3 * far + 2 * near) / (far + near)) / 3
        #expect(abs(value.loss - expected) < 1e-14)
    }
}

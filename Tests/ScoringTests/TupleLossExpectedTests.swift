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
        #expect(
            names
                == Set(
                    LossName.allCases.filter {
                        !$0.hasClasses && !$0.isOfTriplets && $0 != .batchSample
                    }))
    }

    /// One triplet as a tuple: the anchor's own terms, and those of its positive as anchor.
    @Test func aTupleCountsItsTripletsFromBothSides() throws {
        let batch = try #require(ExpectedBatch.ofTriplets.first { $0.name == "one triplet" })
        let rows = (0..<3).map { row in batch.rows[row * 3..<row * 3 + 3].map { Float($0) } }
        let exact = rows.map { $0.map(Double.init) }
        func distance(_ kind: Distance, _ a: Int, _ b: Int) -> Double {
            let differences = zip(exact[a], exact[b]).map { $0 - $1 }
            switch kind {
            case .euclidean: return differences.reduce(0) { $0 + $1 * $1 }.squareRoot()
            case .sqeuclidean: return differences.reduce(0) { $0 + $1 * $1 }
            case .cityblock: return differences.reduce(0) { $0 + abs($1) }
            case .cosine:
                func product(_ a: Int, _ b: Int) -> Double {
                    zip(exact[a], exact[b]).reduce(0) { $0 + $1.0 * $1.1 }
                }
                return 1 - product(a, b) / (product(a, a) * product(b, b)).squareRoot()
            }
        }
        for run in batch.runs {
            guard case .number(let margin) = run.loss.margin, run.loss.reducer == .mean else {
                continue
            }
            let near = distance(run.loss.distance, 0, 1)
            let lack =
                run.loss.positiveThreshold > -1
                ? max(0, run.loss.positiveThreshold - (1 - near)) : 0
            let terms = [0, 1].map {
                max(0, near - distance(run.loss.distance, $0, 2) + margin) + lack
            }
            let expected = (terms[0] + terms[1]) / 2
            let found = TupleLoss(run.loss).evaluate(rows, labels: [0, 0, 1])
            #expect(abs(found.loss - expected) <= 1e-12 * (1 + expected), "\(run)")
        }
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

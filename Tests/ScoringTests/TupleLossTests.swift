import Basics
import Foundation
import Scoring
import Testing

/// The golden values of the reference: six rows, labels 0,0,0,1,1,2.
struct TupleLossTests {
    private let rows: [[Float]] = [[0, 0], [0, 0], [3, 4], [1, 0], [0, 2], [6, 8]]
    private let labels = [0, 0, 0, 1, 1, 2]

    private func value(_ loss: TupleLoss) -> LossValue { loss.evaluate(rows, labels: labels) }

    private func isNear(_ value: Double, _ expected: Double) -> Bool {
        // Golden values are printed with twelve digits.
        abs(value - expected) <= 1e-11 * max(1, abs(expected))
    }

    @Test func batchAllAveragesOverActiveTriplets() {
        let plain = value(TupleLoss(LossConfiguration(name: .batchAll, margin: .number(0.5))))
        #expect(isNear(plain.loss, 1.98492124636))
        #expect(plain.fractionPositive == 14.0 / 26.0)
        let squared = value(
            TupleLoss(
                LossConfiguration(name: .batchAll, margin: .number(0.5), distance: .sqeuclidean)))
        #expect(isNear(squared.loss, 10.0714285714))
        #expect(squared.fractionPositive == 14.0 / 26.0)
    }

    @Test func batchHardAveragesOverAnchors() {
        #expect(
            isNear(
                value(TupleLoss(LossConfiguration(name: .batchHard, margin: .number(0.5)))).loss,
                2.22776411326))
        #expect(
            isNear(
                value(TupleLoss(LossConfiguration(name: .batchHard, margin: .soft))).loss,
                1.99470492483))
        #expect(
            isNear(
                value(TupleLoss(LossConfiguration(name: .batchHard, margin: Margin.none))).loss,
                0.97776411326))
        let city = TupleLoss(
            LossConfiguration(name: .batchHard, margin: .soft, distance: .cityblock))
        #expect(isNear(value(city).loss, 2.92883009106))
        let squared = TupleLoss(
            LossConfiguration(name: .batchHard, margin: .number(0.5), distance: .sqeuclidean))
        #expect(isNear(value(squared).loss, 11.25))
    }

    @Test func semiHardScalesRowsToLengthOne() {
        let loss = TupleLoss(
            LossConfiguration(name: .tfBatchSemiHard, margin: .number(1), distance: .sqeuclidean))
        // d(0,1) = 2 with the negative at 4: 1 + 2 - 4 < 0. d(1,0) = 2, whose only negative is at 2
        // and so not beyond: 1 + 2 - 2 = 1.
        let expected = LossValue(loss: 0.5, fractionPositive: 0.5)
        #expect(loss.evaluate([[1, 0], [0, 1], [-1, 0]], labels: [0, 0, 1]) == expected)
        #expect(loss.evaluate([[8, 0], [0, 2], [-4, 0]], labels: [0, 0, 1]) == expected)
    }

    @Test func semiHardWithoutPositivePairsIsZero() {
        let loss = TupleLoss(
            LossConfiguration(name: .tfBatchSemiHard, margin: .number(1), distance: .sqeuclidean))
        let value = loss.evaluate([[1, 0], [0, 1]], labels: [0, 1])
        #expect(value == LossValue(loss: 0, fractionPositive: 0))
    }

    @Test func softMarginDoesNotOverflow() {
        let loss = TupleLoss(LossConfiguration(name: .batchHard, margin: .soft))
        let value = loss.evaluate([[0], [1e6], [1]], labels: [0, 0, 1])
        #expect(value.loss.isFinite && value.loss > 3e5)
    }
}

import Basics
import MetricLearning
import Tensors
import Testing

/// Losses against values from an independent float64 script.
///
/// Tolerance: 1e-5 relative, about 80 units in the last place of a 32-bit sum of 26 terms.
@Suite struct GoldenLossTests {
    static let rows: [Float] = [0, 0, 0, 0, 3, 4, 1, 0, 0, 2, 6, 8]
    static let labels = [0, 0, 0, 1, 1, 2]

    struct Case: Sendable, CustomTestStringConvertible {
        let name: LossName
        let margin: Margin
        let distance: Distance
        let loss: Double
        let active: Int?
        let valid: Int?
        var isCompatible = false
        var testDescription: String { "\(name.rawValue) \(margin) \(distance)" }
    }

    static let cases: [Case] = [
        Case(
            name: .batchAll, margin: .number(0.5), distance: .euclidean, loss: 1.98492124636,
            active: 14, valid: 26),
        Case(
            name: .batchAll, margin: .number(0.5), distance: .sqeuclidean, loss: 10.0714285714,
            active: 14, valid: 26),
        Case(
            name: .batchHard000, margin: .number(0.5), distance: .euclidean, loss: 2.22776411326,
            active: nil, valid: 6),
        Case(
            name: .batchHard000, margin: .number(0.5), distance: .sqeuclidean, loss: 11.25,
            active: nil, valid: 6),
        Case(
            name: .batchHard, margin: .number(0.5), distance: .euclidean, loss: 2.22776411326,
            active: nil, valid: 6),
        Case(
            name: .batchHard, margin: .soft, distance: .euclidean, loss: 1.99470492483,
            active: nil, valid: 6),
        Case(
            name: .batchHard, margin: .none, distance: .euclidean, loss: 0.97776411326,
            active: nil, valid: 6),
        Case(
            name: .batchHard, margin: .soft, distance: .cityblock, loss: 2.92883009106,
            active: nil, valid: 6),
        Case(
            name: .batchHard, margin: .number(0.5), distance: .sqeuclidean, loss: 11.25,
            active: nil, valid: 6),
        Case(
            name: .tfBatchSemiHard, margin: .number(0.2), distance: .sqeuclidean, loss: 0.05,
            active: nil, valid: 8),
        Case(
            name: .tfBatchSemiHard, margin: .number(1), distance: .sqeuclidean, loss: 0.25,
            active: nil, valid: 8),
        Case(
            name: .hap2sPolynomial, margin: .soft, distance: .euclidean, loss: 3.14147591215,
            active: nil, valid: 6, isCompatible: true),
        Case(
            name: .hap2sExponential, margin: .soft, distance: .euclidean, loss: 1.92791291887,
            active: nil, valid: 6, isCompatible: true),
        Case(
            name: .hap2sExponential, margin: .number(0.2), distance: .euclidean,
            loss: 1.90093569491, active: nil, valid: 6, isCompatible: true),
        Case(
            name: .lifted, margin: .number(1), distance: .euclidean, loss: 8.76067013299,
            active: nil, valid: 8),
    ]

    static func evaluate(
        _ configuration: LossConfiguration, _ rows: [Float], _ labels: [Int]
    ) throws -> (result: LossResult, loss: Double, gradient: [Float]) {
        try Engine.setIntraOpThreads(1)
        let embeddings = try Tensor(rows, shape: [labels.count, rows.count / labels.count])
            .requiresGradient()
        let loss = try MetricLoss(configuration)
        let result = try loss(embeddings, labels: labels)
        let gradient = try gradients(of: result.loss, withRespectTo: [embeddings])[0].floats()
        return (result, try result.loss.item(), gradient)
    }

    @Test(arguments: cases) func lossIsTheGoldenValue(_ golden: Case) throws {
        var configuration = LossConfiguration(
            name: golden.name, margin: golden.margin, distance: golden.distance,
            normalization: Normalization.none)
        configuration.hap2sCompatibility = golden.isCompatible
        let (result, loss, gradient) = try Self.evaluate(configuration, Self.rows, Self.labels)
        #expect(abs(loss - golden.loss) <= 1e-5 * golden.loss)
        #expect(gradient.allSatisfy { $0.isFinite })
        if let active = golden.active {
            #expect(result.activeCount == active)
            #expect(abs(result.fractionPositive - 0.538461538) < 1e-9)
        }
        if let valid = golden.valid { #expect(result.validCount == valid) }
    }

    @Test func anchorWithoutNegativesFollowsEachReading() throws {
        let rows: [Float] = [0, 0, 3, 4, 0, 1]
        let old = LossConfiguration(name: .batchHard000, margin: .number(0.5))
        #expect(try Self.evaluate(old, rows, [7, 7, 7]).loss == 0.5)
        for margin in [Margin.number(0.5), .soft, .none] {
            let new = LossConfiguration(name: .batchHard, margin: margin)
            let outcome = try Self.evaluate(new, rows, [7, 7, 7])
            #expect(outcome.loss == 0)
            #expect(outcome.result.activeCount == 0)
            #expect(outcome.gradient.allSatisfy { $0 == 0 })
        }
        let pairs = LossConfiguration(
            name: .tfBatchSemiHard, margin: .number(1), normalization: Normalization.none)
        // Six ordered pairs with squared distances 25, 1, 18, and no negative: margin + d each.
        let expected = (2 * (25.0 + 1 + 18) + 6) / 6
        #expect(abs(try Self.evaluate(pairs, rows, [7, 7, 7]).loss - expected) < 1e-5 * expected)
    }

    @Test(arguments: LossName.comparingRows) func batchWithoutPositivesIsFinite(_ name: LossName)
        throws
    {
        let rows: [Float] = [0, 0, 3, 4, 0, 1]
        let configuration = LossConfiguration(name: name, margin: .number(0.5))
        let (result, loss, gradient) = try Self.evaluate(configuration, rows, [1, 2, 3])
        #expect(gradient.allSatisfy { $0.isFinite })
        if [.batchAll, .tfBatchSemiHard, .semiHard, .lifted, .ntXent].contains(name) {
            #expect(result.validCount == 0 && result.fractionPositive == 0)
        }
        // A positive distance of 0 and negatives at 1 and more: max(0 - d + 0.5, 0) = 0.
        #expect(loss == 0)
        #expect(gradient.allSatisfy { $0 == 0 })
    }

    @Test func batchAllFollowsItsMargins() throws {
        // Distances 1 (positive), 3 and 2 (negatives): x = 1-3 and 1-2.
        let rows: [Float] = [0, 1, 3]
        let labels = [0, 0, 1]
        let plain = LossConfiguration(name: .batchAll, margin: Margin.none, reducer: .mean)
        #expect(abs(try Self.evaluate(plain, rows, labels).loss + 1.5) < 1e-6)
        let soft = LossConfiguration(name: .batchAll, margin: .soft)
        #expect(abs(try Self.evaluate(soft, rows, labels).loss - 0.2200948) < 1e-6)
    }

    @Test func labelsThatDoNotFitAreRefused() throws {
        let embeddings = try Tensor([1.0, 2.0], shape: [2, 1])
        #expect(throws: MetricLearningError.self) {
            let loss = try MetricLoss(.init())
            _ = try loss(embeddings, labels: [1, 2, 3])
        }
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(LossConfiguration(name: .circle, distance: .euclidean))
        }
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(LossConfiguration(name: .lifted, margin: .soft))
        }
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(
                LossConfiguration(name: .batchHard, miner: .multiSimilarity))
        }
    }
}

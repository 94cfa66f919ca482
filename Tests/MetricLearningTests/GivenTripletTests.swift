import Basics
import MetricLearning
import Tensors
import Testing

/// What references do not say of losses over given triplets.
@Suite struct GivenTripletTests {
    private func evaluate(
        _ loss: LossConfiguration, _ rows: [Float], labels: [Int]
    ) throws -> (result: LossResult, value: Double, gradient: [Float]) {
        try Engine.setIntraOpThreads(1)
        let leaf = try Tensor(rows, shape: [labels.count, rows.count / labels.count])
            .requiresGradient()
        let result = try MetricLoss(loss)(leaf, labels: labels)
        return (
            result, try result.loss.item(),
            try gradients(of: result.loss, withRespectTo: [leaf])[0].floats()
        )
    }

    /// max(|a - p|^2 - |a - n|^2 + 0.4, 0): 1 - 4 + 0.4 is satisfied, 4 - 1 + 0.4 is not.
    @Test func theWhaleFormulaByHand() throws {
        let found = try evaluate(
            LossConfiguration(name: .triplet), [0, 1, 2, 0, 2, 1], labels: [0, 0, 1, 5, 5, 2])
        #expect(abs(found.value - 1.7) < 1e-6)
        // d/da = 2(a-p) - 2(a-n) = -2, d/dp = -2(a-p) = 4, d/dn = 2(a-n) = -2; halved by the mean.
        #expect(found.gradient == [0, 0, 0, -1, 2, -1])
        #expect(found.result.validCount == 2 && found.result.activeCount == 1)
        #expect(found.result.fractionPositive == 0.5)
    }

    /// max(0, 0.1 - (s(q,p) - s(q,n))), and with a threshold max(0, 0.9 - s(q,p)) besides.
    @Test func theReidentificationFormulaByHand() throws {
        // Lengths do not matter: s(q,p) = 0.6, s(q,n) = 0.8.
        let rows: [Float] = [2, 0, 3, 4, 0.4, 0.3]
        var loss = LossConfiguration(name: .dotTriplet)
        #expect(abs(try evaluate(loss, rows, labels: [0, 0, 1]).value - 0.3) < 1e-6)
        loss.positiveThreshold = 0.9
        #expect(abs(try evaluate(loss, rows, labels: [0, 0, 1]).value - 0.6) < 1e-6)
        loss.positiveThreshold = 0.5
        #expect(abs(try evaluate(loss, rows, labels: [0, 0, 1]).value - 0.3) < 1e-6)
    }

    /// Equal rows, rows of no length, and lengths whose squares do not fit float32.
    @Test(arguments: [LossName.triplet, .dotTriplet], Distance.allCases)
    func nothingIsNotANumber(_ name: LossName, _ distance: Distance) throws {
        for margin in [Margin.number(0.3), .soft, .none] {
            var loss = LossConfiguration(name: name, margin: margin, distance: distance)
            if name == .dotTriplet {
                guard distance == .cosine else { continue }
                loss.positiveThreshold = 1
            }
            let rows: [Float] = [
                0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 1, 2, 1e19, -1e19, 1e-30, 0, 1e19, 1e18, 1e-38, 0,
                -1e-38, 0, 1e-38, 1e-38,
            ]
            let labels = (0..<4).flatMap { [2 * $0, 2 * $0, 2 * $0 + 1] }
            let found = try evaluate(loss, rows, labels: labels)
            #expect(found.value.isFinite, "\(loss)")
            #expect(found.gradient.allSatisfy { $0.isFinite }, "\(loss)")
            // Equal rows pull nowhere.
            #expect(found.gradient[0..<12].allSatisfy { abs($0) < 1e-6 }, "\(found.gradient)")
        }
    }

    @Test func aSumTakesTripletsAndOtherLossesTogether() throws {
        let rows: [Float] = [0, 1, 2, 0, 2, 1]
        let labels = [0, 0, 1, 5, 5, 2]
        var sum = LossConfiguration(name: .triplet)
        var other = LossConfiguration(name: .batchHard, margin: .number(0.5))
        other.weight = 0.25
        sum.plus = [other]
        let found = try evaluate(sum, rows, labels: labels)
        other.weight = 1
        let parts = try [LossConfiguration(name: .triplet), other].map {
            try evaluate($0, rows, labels: labels).value
        }
        #expect(abs(found.value - (parts[0] + 0.25 * parts[1])) < 1e-6)
    }

    @Test func rowsThatAreNoTripletsAreRefused() {
        func refusal(_ labels: [Int]) -> String {
            #expect(throws: MetricLearningError.self) {
                try evaluate(
                    LossConfiguration(name: .triplet), labels.map { Float($0) }, labels: labels)
            }?.message ?? ""
        }
        #expect(refusal([0, 0]).contains("2 rows, but triplet takes them in threes"))
        #expect(refusal([0, 0, 1, 2, 3, 4]).contains("rows 3 to 5 show identities 2, 3 and 4"))
        #expect(refusal([0, 0, 0]).contains("identities 0, 0 and 0"))
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(
                LossConfiguration(name: .dotTriplet, distance: .euclidean))
        }
    }
}

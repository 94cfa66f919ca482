import Basics
import MetricLearning
import Tensors
import Testing

/// What references do not say of losses with vectors of identities, and of sums.
@Suite struct ClassLossTests {
    private func evaluate(
        _ loss: LossConfiguration, _ rows: [Float], labels: [Int], classes: [[Float]]
    ) throws -> (value: Double, parts: [Double], gradients: [[Float]]) {
        try Engine.setIntraOpThreads(1)
        func leaf(_ values: [Float]) throws -> Tensor {
            try Tensor(values, shape: [values.count / 2, 2]).requiresGradient()
        }
        let leaves = try ([rows] + classes).map(leaf)
        let result = try MetricLoss(loss)(
            leaves[0], labels: labels, classes: Array(leaves.dropFirst()))
        let found = try gradients(of: result.loss, withRespectTo: leaves).map { try $0.floats() }
        return (try result.loss.item(), result.parts, found)
    }

    /// Rows on their vectors, opposite to them, of no length and of lengths that squares overflow.
    @Test(arguments: LossName.comparingIdentities) func nothingIsNotANumber(
        _ name: LossName
    ) throws {
        let rows: [Float] = [1, 0, -1, 0, 0, 0, 1e19, 1e18, 1e-30, -1e-30, 3e38, 3e38]
        for labels in [[0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]] {
            for classes: [Float] in [[1, 0, 0, 0], [1e-25, 0, 1e25, 1], [-1, 0, 2, 0]] {
                let (value, _, gradients) = try evaluate(
                    LossConfiguration(name: name), rows, labels: labels, classes: [classes])
                #expect(value.isFinite, "\(labels) \(classes)")
                for gradient in gradients {
                    #expect(gradient.allSatisfy { $0.isFinite }, "\(labels) \(classes)")
                }
            }
        }
    }

    /// Of one identity alone there is nothing to tell apart; a centre still pulls.
    @Test(arguments: LossName.comparingIdentities.filter { $0 != .proxyAnchor })
    func oneIdentityIsKnown(_ name: LossName) throws {
        let (value, _, gradients) = try evaluate(
            LossConfiguration(name: name), [1, 2, 3, 1], labels: [0, 0], classes: [[1, 1]])
        if name == .center {
            #expect(value == 1.25)
            #expect(gradients == [[0, 0.5, 1, 0], [-1, -0.5]])
        } else {
            #expect(value == 0)
            #expect(gradients.joined().allSatisfy { abs($0) < 1e-6 })
        }
    }

    @Test func identitiesThatTheBatchLacksKeepTheirCentre() throws {
        let (_, _, gradients) = try evaluate(
            LossConfiguration(name: .center), [1, 2], labels: [2], classes: [[9, 9, 9, 9, 1, 1]])
        #expect(gradients[1] == [0, 0, 0, 0, 0, -1])
    }

    @Test func aSumIsTheSumOfItsWeightedParts() throws {
        let rows: [Float] = [1, 0.5, 0.2, 1, -1, 0.3, 0.4, -2]
        let labels = [0, 0, 1, 1]
        let vectors: [[Float]] = [[1, 0.1, -0.5, 1], [0.3, 0.2, 0.1, 1]]
        var sum = LossConfiguration(name: .batchHard)
        var softmax = LossConfiguration(name: .softmax)
        softmax.weight = 0.5
        var center = LossConfiguration(name: .center)
        center.weight = 0.0005
        sum.weight = 2
        sum.plus = [softmax, center]
        let (value, parts, found) = try evaluate(sum, rows, labels: labels, classes: vectors)
        let single = try zip(sum.parts, [[], [vectors[0]], [vectors[1]]]).map { part, classes in
            var part = part
            part.weight = 1
            return try evaluate(part, rows, labels: labels, classes: classes)
        }
        #expect(parts == single.map(\.value))
        let weights = sum.parts.map(\.weight)
        #expect(weights == [2, 0.5, 0.0005])
        // One rounding to float32 for each part.
        let expected = zip(weights, parts).reduce(0) { $0 + $1.0 * $1.1 }
        #expect(abs(value - expected) <= 1e-6 * expected)
        for place in rows.indices {
            let whole = zip(weights, single).reduce(0) {
                $0 + $1.0 * Double($1.1.gradients[0][place])
            }
            #expect(abs(Double(found[0][place]) - whole) <= 1e-6)
        }
        for part in [1, 2] {
            for (value, one) in zip(found[part], single[part].gradients[1]) {
                #expect(abs(Double(value) - weights[part] * Double(one)) <= 1e-7)
            }
        }
        var half = LossConfiguration(name: .batchHard)
        half.weight = 0.5
        let alone = try evaluate(half, rows, labels: labels, classes: [])
        #expect(alone.value == single[0].value / 2 && alone.parts.isEmpty)
    }

    @Test func vectorsThatDoNotFitAreRefused() throws {
        func refusal(_ labels: [Int], _ classes: [[Float]], columns: Int = 2) -> String {
            #expect(throws: MetricLearningError.self) {
                let rows = try Tensor([1.0, 2.0, 3.0, 4.0], shape: [2, 2])
                let vectors = try classes.map {
                    try Tensor($0, shape: [$0.count / columns, columns])
                }
                _ = try MetricLoss(LossConfiguration(name: .arcface))(
                    rows, labels: labels, classes: vectors)
            }?.message ?? ""
        }
        #expect(
            refusal([0, 2], [[1, 2, 3, 4]]).contains("identity 2, but arcface has vectors for"))
        #expect(refusal([0, -1], [[1, 2, 3, 4]]).contains("identity -1"))
        #expect(refusal([0, 1], [[1, 2, 3, 4, 5, 6]], columns: 3).contains("[2, 3]"))
        #expect(refusal([0, 1], []).contains("0 matrices"))
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(LossConfiguration(name: .proxyAnchor, margin: .soft))
        }
    }
}

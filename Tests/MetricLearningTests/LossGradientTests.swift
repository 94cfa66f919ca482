import Basics
import MetricLearning
import Tensors
import Testing

/// Gradients against central differences.
@Suite struct LossGradientTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let configuration: LossConfiguration
        var testDescription: String {
            "\(configuration.name.rawValue) \(configuration.margin) \(configuration.distance)"
                + " \(configuration.normalization)"
        }
    }

    static let cases: [Case] = LossName.comparingRows.flatMap { name in
        [Margin.number(0.3), .soft, .none].flatMap { margin in
            Distance.allCases.flatMap { distance in
                Normalization.allCases.compactMap { normalization in
                    let configuration = LossConfiguration(
                        name: name, margin: margin, distance: distance,
                        normalization: normalization, reducer: .mean)
                    // Not every loss takes every margin and distance; circle holds its weights
                    // constant.
                    let isPossible = (try? MetricLoss(configuration)) != nil && name != .circle
                    return isPossible ? Case(configuration: configuration) : nil
                }
            }
        }
    }

    /// Twelve rows in general position.
    static let labels = (0..<12).map { $0 / 3 }
    static let rows: [Double] = {
        var random = CounterRandom(seed: 11, purpose: .dataset)
        return (0..<12 * 4).map { _ in 2 * random.uniform() - 1 }
    }()

    /// In float64 with a step of 1e-6: rounding leaves about 1e-16 / 1e-6 and curvature about 1e-12,
    /// below the tolerance of 1e-7 of the largest component; no change of a hardest pair and no
    /// kink lies within a step of these rows.
    @Test(arguments: cases) func gradientIsTheFiniteDifference(_ test: Case) throws {
        try Engine.setIntraOpThreads(1)
        let loss = try MetricLoss(test.configuration)
        func value(_ rows: [Double]) throws -> Double {
            let embeddings = try Tensor(copying: rows, shape: [12, 4])
            return try withoutGradient { try loss(embeddings, labels: Self.labels).loss.item() }
        }
        let embeddings = try Tensor(copying: Self.rows, shape: [12, 4]).requiresGradient()
        let output = try loss(embeddings, labels: Self.labels).loss
        let gradient: [Double] = try gradients(of: output, withRespectTo: [embeddings])[0].values()
        let scale = gradient.map { abs($0) }.max()!
        #expect(scale > 0)
        for place in Self.rows.indices {
            var (up, down) = (Self.rows, Self.rows)
            up[place] += 1e-6
            down[place] -= 1e-6
            let numeric = try (value(up) - value(down)) / 2e-6
            #expect(abs(numeric - gradient[place]) <= 1e-7 * max(scale, 1))
        }
    }

    @Test(arguments: Distance.allCases) func equalRowsHaveNoDistanceAndNoGradient(
        _ distance: Distance
    ) throws {
        var rows: [Float] = [0.3, -0.2, 0.3, -0.2]
        for place in 0..<10 { rows += [1 + Float(place - 5) * 4e-8, 1] }
        let count = rows.count / 2
        let embeddings = try Tensor(rows, shape: [count, 2]).requiresGradient()
        let matrix = try distance.matrix(embeddings)
        let values = try matrix.floats()
        #expect(values.allSatisfy { $0 >= 0 && $0.isFinite })
        #expect(values[1] == 0 && values[count] == 0)
        for row in 0..<count { #expect(values[row * count + row] == 0) }
        let pair = try matrix.select(0, 0).select(0, 1)
        let none = try gradients(of: pair, withRespectTo: [embeddings], keepingGraph: true)[0]
        #expect(try none.floats().allSatisfy { $0 == 0 })
        let all = try gradients(of: matrix.sum(), withRespectTo: [embeddings])[0]
        #expect(try all.floats().allSatisfy { $0.isFinite })
    }

    @Test func distancesAreThoseOfTheFormulas() throws {
        let rows = try Tensor([0.0, 0.0, 3.0, 4.0, 1.0, -1.0], shape: [3, 2])
        #expect(
            try Distance.euclidean.matrix(rows).floats() == [
                0, 5, Float(2).squareRoot(), 5, 0, Float(29).squareRoot(), Float(2).squareRoot(),
                Float(29).squareRoot(), 0,
            ])
        let turns = try Distance.cosine.matrix(rows).floats()
        for (value, wanted) in zip(turns, [0, 1, 1, 1, 0, 1.141421, 1, 1.141421, 0] as [Float]) {
            #expect(abs(value - wanted) <= 1e-6)
        }
        #expect(try Distance.cityblock.matrix(rows).floats() == [0, 7, 2, 7, 0, 7, 2, 7, 0])
        let squares = try Distance.sqeuclidean.matrix(rows).floats()
        for (value, wanted) in zip(squares, [0, 25, 2, 25, 0, 29, 2, 29, 0] as [Float]) {
            #expect(abs(value - wanted) <= 1e-6 * wanted)
        }
    }

    // Of batch_sample each row has draws of its own.
    @Test(arguments: LossName.comparingRows.filter { $0 != .batchSample })
    func orderOfRowsChangesNothing(_ name: LossName) throws {
        let configuration = LossConfiguration(name: name, margin: .number(0.5))
        let given = Self.rows.map { Float($0) }
        let forward = try GoldenLossTests.evaluate(configuration, given, Self.labels)
        let order = Self.labels.indices.reversed()
        let rows = order.flatMap { given[$0 * 4..<$0 * 4 + 4] }
        let turned = try GoldenLossTests.evaluate(
            configuration, rows, order.map { Self.labels[$0] })
        #expect(abs(forward.loss - turned.loss) <= 1e-5 * max(1, forward.loss))
        #expect(forward.result.activeCount == turned.result.activeCount)
        #expect(forward.result.validCount == turned.result.validCount)
    }
}

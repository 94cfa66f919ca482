import Basics
import Foundation
import Networks
import Testing

@Suite struct InitializerTests {
    static func fill(_ initializer: Initializer, _ shape: [Int], index: Int = 0) -> [Float] {
        var values = [Float](repeating: 0, count: shape.reduce(1, *))
        values.withUnsafeMutableBufferPointer {
            initializer.fill($0, shape: shape, seed: 7, index: index)
        }
        return values
    }

    @Test func valuesDependOnSeedAndIndexAlone() {
        let first = Self.fill(.kaimingNormalFanOut, [8, 4, 3, 3])
        #expect(first == Self.fill(.kaimingNormalFanOut, [8, 4, 3, 3]))
        #expect(first != Self.fill(.kaimingNormalFanOut, [8, 4, 3, 3], index: 1))
    }

    /// Tolerances: four standard errors of 73,728 draws.
    @Test func kaimingHasTheDeviationOfItsFanOut() {
        let values = Self.fill(.kaimingNormalFanOut, [128, 64, 3, 3]).map(Double.init)
        let count = Double(values.count)
        let mean = values.reduce(0, +) / count
        let variance = values.reduce(0) { $0 + $1 * $1 } / count
        let expected = 2 / (128.0 * 9)
        #expect(abs(mean) < 4 * (expected / count).squareRoot())
        #expect(abs(variance / expected - 1) < 4 * (2 / count).squareRoot())
        let kurtosis = values.reduce(0) { $0 + pow($1, 4) } / count / (variance * variance)
        #expect(abs(kurtosis - 3) < 4 * (24 / count).squareRoot())
    }

    @Test func glorotStaysInsideItsBounds() {
        let values = Self.fill(.glorotUniform, [100, 50]).map(Double.init)
        let bound = (6 / 150.0).squareRoot()
        #expect(values.allSatisfy { abs($0) <= bound })
        #expect(values.max()! > 0.99 * bound && values.min()! < -0.99 * bound)
    }

    @Test(arguments: [[6, 40], [40, 6], [5, 5], [1, 7]]) func orthogonalRowsAreOrthonormal(
        _ shape: [Int]
    ) {
        let values = Self.fill(.orthogonal, shape).map(Double.init)
        let (rows, columns) = (shape[0], shape[1])
        let vectors: [[Double]] =
            rows <= columns
            ? (0..<rows).map { row in Array(values[row * columns..<(row + 1) * columns]) }
            : (0..<columns).map { column in (0..<rows).map { values[$0 * columns + column] } }
        for (i, left) in vectors.enumerated() {
            for (j, right) in vectors.enumerated() {
                let product = zip(left, right).reduce(0) { $0 + $1.0 * $1.1 }
                #expect(abs(product - (i == j ? 1 : 0)) < 1e-6)
            }
        }
    }
}

import Basics
import Foundation
import Scoring
import Testing

/// Compares with `Fixtures/expected_scores.py`, which computes everything another way in numpy.
struct NumpyComparisonTests {
    private struct Case: Decodable {
        var name: String
        var dimension: Int
        var embeddings: [Float]
        var tuples: [[Int]]
        var runs: [Run]
    }

    private struct Run: Decodable {
        var loss: LossName
        var margin: String
        var distance: Distance
        var metrics: [String: Double]
    }

    private static func cases() throws -> [Case] {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "Fixtures/expected_scores.json")
        return try JSONDecoder().decode([Case].self, from: Data(contentsOf: file))
    }

    @Test func everyMetricAgrees() throws {
        var compared = 0
        for one in try Self.cases() {
            let embeddings = try EmbeddingMatrix(one.embeddings, dimension: one.dimension)
            let tuples = one.tuples.map {
                TupleIndices(anchor: $0[0], positive: $0[1], negatives: Array($0[2...]))
            }
            for run in one.runs {
                var loss = LossConfiguration(
                    name: run.loss, margin: Margin(run.margin)!, distance: run.distance)
                // Differences without a margin have no side on which a triplet is satisfied.
                if loss.margin == .none { loss.reducer = .mean }
                let metrics = try TupleScorer(loss: TupleLoss(loss)).score(tuples, of: embeddings)
                    .metrics()
                for name in MetricName.ofTuples {
                    // Rounding decides the ties of a cosine, so only its continuous values compare.
                    let isCount =
                        name.rawValue.contains("accuracy")
                        || [.averageRankingPosition, .fractionPositive].contains(name)
                    if run.distance == .cosine && isCount { continue }
                    let expected = run.metrics[name.rawValue]!
                    let value = metrics[name]!
                    // A few hundred float64 roundings, each 1.1e-16 relative to terms below 100.
                    #expect(
                        abs(value - expected) <= 1e-12 * max(1, abs(expected)),
                        "\(one.name) \(run.loss) \(run.margin) \(run.distance) \(name.rawValue)")
                    compared += 1
                }
            }
        }
        #expect(compared > 500)
    }
}

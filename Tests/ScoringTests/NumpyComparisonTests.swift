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
        var loss: String
        var margin: String
        var distance: String
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
                let margin: TupleLoss.Margin =
                    switch run.margin {
                    case "soft": .soft
                    case "none": .none
                    default: .number(Double(run.margin)!)
                    }
                let loss = try TupleLoss(name: run.loss, margin: margin, distance: run.distance)
                let metrics = try TupleScorer(loss: loss).score(tuples, of: embeddings).metrics()
                for name in MetricName.allCases {
                    // Rounding decides the ties of a cosine, so only its continuous values compare.
                    let isCount = name.rawValue.contains("accuracy") || name == .fractionPositive
                    if run.distance == "cosine" && isCount { continue }
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

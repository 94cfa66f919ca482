import Basics
import MetricLearning
import Testing

@Suite struct BatchSummaryTests {
    @Test func fourPointsOnALine() {
        // 0 and 1 are one identity, 2.5 and 6 another.
        let summary = BatchSummary(embeddings: [0, 1, 2.5, 6], labels: [7, 7, 8, 8])
        #expect(summary.distances.count == 6)
        #expect(summary.positiveDistances.count == 2)
        #expect(summary.positiveDistances.sum == 1 + 3.5)
        #expect(summary.negativeDistances.sum == 2.5 + 6 + 1.5 + 5)
        #expect(summary.lengths.sum == 9.5)
        // The third is nearest to the second, which is of the other identity.
        #expect(summary.top1 == 0.75)
        #expect(summary.precisionRank == 1 && summary.precision == 0.75)
    }

    @Test func precisionLooksAtAsManyAsThereAreOthersOfAnIdentity() {
        let summary = BatchSummary(embeddings: [0, 1, 3, 1.5, 9, 10], labels: [1, 1, 1, 2, 2, 2])
        #expect(summary.precisionRank == 2)
        // Own identity among the two nearest, by row: 1, 1, 1, 0, 1, 1.
        #expect(abs(summary.precision - 5.0 / 12) < 1e-12)
    }

    @Test func whereAllAreEqualTheLowerRowIsNearest() {
        let summary = BatchSummary(embeddings: [2, 2, 2, 2], labels: [1, 2, 2, 2])
        #expect(summary.top1 == 0)
        #expect(summary.distances.max == 0)
    }

    @Test func rowsWithoutATermHaveNoLoss() {
        let summary = BatchSummary(
            embeddings: [0, 1, 3], labels: [1, 1, 2], rowLosses: [0.5, 0, .nan])
        #expect(summary.losses.count == 2 && summary.losses.sum == 0.5)
    }

    @Test func oneRowHasNoNeighbour() {
        let summary = BatchSummary(embeddings: [3, 4], labels: [1])
        #expect(summary.lengths.sum == 5 && summary.distances.count == 0)
        #expect(summary.top1 == 0 && summary.precision == 0)
    }

    @Test func spreadIsTheRootMeanSquareOfAllDistances() {
        let rows: [[Float]] = [[0, 1], [2, -1], [4, 4], [-3, 0.5], [7, 2]]
        var sum = 0.0
        for (place, left) in rows.enumerated() {
            for right in rows[..<place] {
                sum += zip(left, right).reduce(0) {
                    $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1))
                }
            }
        }
        let spread = EmbeddingSpread.rootMeanSquare(rows.flatMap { $0 }, rows: 5)
        #expect(abs(spread - (sum / 10).squareRoot()) < 1e-12)
        // Far from the origin, a thousandth apart.
        let near = EmbeddingSpread.rootMeanSquare([1_000, 1_000.0009765625], rows: 2)
        #expect(abs(near - 0.0009765625) < 1e-15)
        #expect(EmbeddingSpread.rootMeanSquare([1, 2], rows: 1) == 0)
    }

    @Test func directionsAloneMayCount() {
        let spread = EmbeddingSpread.rootMeanSquare(
            [3, 0, 0, 0.5, 0, 0], rows: 3, ofUnitRows: true)
        // Squared distances 2, 1 and 1 of (1, 0), (0, 1) and the row that has no direction.
        #expect(abs(spread - (4.0 / 3).squareRoot()) < 1e-6)
    }
}

import Basics
import Foundation
import Scoring
import Testing

private let hard = TupleScorer(
    loss: TupleLoss(LossConfiguration(name: .batchHard, margin: .number(0.5))))

struct TupleScorerTests {
    @Test func handComputedTuples() throws {
        // Rows on a line, so that distances are differences.
        let embeddings = try EmbeddingMatrix([0, 1, 2, 3, -1, 10], dimension: 1)
        let tuples = [
            TupleIndices(anchor: 0, positive: 1, negatives: [2, 3]),  // 1 | 2 3: both right
            TupleIndices(anchor: 0, positive: 2, negatives: [1, 3, 5]),  // 2 | 1 3 10: 2 of 3
            TupleIndices(anchor: 0, positive: 1, negatives: [4, 5]),  // 1 | 1 10: a tie
            TupleIndices(anchor: 0, positive: 5, negatives: []),  // skipped
        ]
        let metrics = try hard.score(tuples, of: embeddings).metrics()
        let third = 1.0 / 3
        let easy = [1, 2 * third, 0.5].reduce(0, +) / 3
        let easyTies = [1, 2 * third, 1].reduce(0, +) / 3
        #expect(metrics[.generalAccuracy] == third)
        #expect(metrics[.generalAccuracyTies] == 2 * third)
        #expect(metrics[.easyAccuracy] == easy)
        #expect(metrics[.easyAccuracyTies] == easyTies)
        #expect(metrics[.tuples] == 3)
        #expect(metrics[.skippedTuples] == 1)
        // Norms 0 1 2 3, then 0 2 1 3 10, then 0 1 1 10.
        let norms = (1.5 + 3.2 + 3.0) / 3
        #expect(abs(metrics[.embeddingMeanNorm]! - norms) < 1e-15)
        // batch_hard, labels 0 0 1 1: hp 1 1 1 1, hn 2 1 1 2 -> terms 0, .5, .5, 0
        // labels 0 0 1 1 1 on 0 2 | 1 3 10: hp 2 2 9 7 9, hn 1 1 1 1 8 -> 1.5 1.5 8.5 6.5 1.5
        // labels 0 0 1 1 on 0 1 | -1 10: hp 1 1 11 11, hn 1 2 1 9 -> .5 0 10.5 2.5
        let loss = (0.25 + 3.9 + 3.375) / 3
        #expect(abs(metrics[.meanLoss]! - loss) < 1e-14)
        let fraction = [0.5, 1, 0.75].reduce(0, +) / 3
        #expect(abs(metrics[.fractionPositive]! - fraction) < 1e-15)
    }

    @Test(arguments: Distance.allCases, [Float(0), 0.1, 1e20]) func collapsedModelScoresNothing(
        distance: Distance, value: Float
    ) throws {
        let embeddings = try EmbeddingMatrix(Array(repeating: value, count: 9 * 13), dimension: 13)
        let tuples = (0..<5).map {
            TupleIndices(anchor: $0, positive: $0 + 1, negatives: [$0 + 2, $0 + 3])
        }
        let scorer = TupleScorer(
            loss: TupleLoss(
                LossConfiguration(name: .batchAll, margin: .number(0.2), distance: distance)))
        let metrics = try scorer.score(tuples, of: embeddings).metrics()
        #expect(metrics[.generalAccuracy] == 0)
        #expect(metrics[.easyAccuracy] == 0)
        #expect(metrics[.generalAccuracyTies] == 1)
        #expect(metrics[.easyAccuracyTies] == 1)
        // Every triplet's term is the margin.
        #expect(abs(metrics[.meanLoss]! - 0.2) < 1e-15)
        #expect(metrics[.fractionPositive] == 1)
    }

    @Test(arguments: Distance.allCases, [Float.nan, .infinity, -.infinity])
    func brokenEmbeddingNeverCountsAsSuccess(distance: Distance, broken: Float) throws {
        let scorer = TupleScorer(
            loss: TupleLoss(LossConfiguration(name: .batchHard, margin: .soft, distance: distance)))
        for place in 0..<4 {
            var rows: [[Float]] = [[1, 0], [1, 0.1], [0, 1], [-1, 0]]
            rows[place][1] = broken
            let embeddings = try EmbeddingMatrix(rows.flatMap(\.self), dimension: 2)
            let tuple = TupleIndices(anchor: 0, positive: 1, negatives: [2, 3])
            let scores = try scorer.score([tuple], of: embeddings)
            let metrics = try scores.metrics()
            #expect(embeddings.nonFiniteRows == [place])
            #expect(scores.nonFiniteTuples == 1)
            #expect(metrics[.generalAccuracy] == 0)
            #expect(metrics[.generalAccuracyTies] == 0)
            // A broken negative spoils its own comparison, a broken anchor or positive all of them.
            let expected = place < 2 ? 0 : 0.5
            #expect(metrics[.easyAccuracy] == expected)
            #expect(metrics[.easyAccuracyTies] == expected)
            #expect(metrics[.meanLoss]!.isNaN)
            #expect(metrics[.fractionPositive]!.isNaN)
        }
    }

    @Test func allSkippedLeavesTheMeansOut() throws {
        let embeddings = try EmbeddingMatrix([0, 1], dimension: 1)
        let tuples = [TupleIndices(anchor: 0, positive: 1, negatives: [])]
        #expect(
            try hard.score(tuples, of: embeddings).metrics() == [.tuples: 0, .skippedTuples: 1])
        #expect(try hard.score([], of: embeddings).metrics() == [.tuples: 0, .skippedTuples: 0])
    }

    @Test func missingRowIsNamed() throws {
        let embeddings = try EmbeddingMatrix([0, 1], dimension: 1)
        let tuples = [TupleIndices(anchor: 0, positive: 1, negatives: [2])]
        let error = #expect(throws: ScoringError.self) { try hard.score(tuples, of: embeddings) }
        #expect(error?.message == "tuple 0 names image 2, but there are 2 embeddings")
        #expect(throws: ScoringError.self) { try hard.ranking(of: tuples[0], in: embeddings) }
        #expect(throws: ScoringError.self) { try EmbeddingMatrix([1, 2, 3], dimension: 2) }
        #expect(throws: ScoringError.self) { try EmbeddingMatrix([1, 2, 3], dimension: 0) }
    }

    @Test func rankingPutsThePositiveLastAmongTies() throws {
        let embeddings = try EmbeddingMatrix([0, 2, -2, 1, .nan, 3], dimension: 1)
        let tuple = TupleIndices(anchor: 0, positive: 1, negatives: [4, 5, 2, 3])
        let ranking = try hard.ranking(of: tuple, in: embeddings)
        #expect(ranking.map(\.row) == [3, 2, 1, 5, 4])
        #expect(ranking.map(\.isPositive) == [false, false, true, false, false])
    }
}

struct PartsTests {
    private func set(seed: UInt64, count: Int) throws -> ([TupleIndices], EmbeddingMatrix) {
        var random = CounterRandom(seed: seed, purpose: .dataset)
        let rows = 60
        let values = (0..<rows * 19).map { _ in Float(random.uniform() * 2 - 1) }
        let tuples = (0..<count).map { _ in
            let negatives = (0..<random.index(below: 6)).map { _ in random.index(below: rows) }
            return TupleIndices(
                anchor: random.index(below: rows), positive: random.index(below: rows),
                negatives: negatives)
        }
        return (tuples, try EmbeddingMatrix(values, dimension: 19))
    }

    @Test(arguments: 0..<40 as Range<UInt64>) func partsMergeToTheSameBits(seed: UInt64) throws {
        var random = CounterRandom(seed: seed, item: 1, purpose: .dataset)
        let (tuples, embeddings) = try set(seed: seed, count: 1 + random.index(below: 300))
        let scorer = TupleScorer(
            loss: TupleLoss(LossConfiguration(name: .batchAll, margin: .number(0.3))))
        let whole = try scorer.score(tuples, of: embeddings)
        for _ in 0..<10 {
            var cuts = (0..<random.index(below: 12)).map { _ in
                random.index(below: tuples.count + 1)
            }
            cuts = ([0, tuples.count] + cuts).sorted()
            var parts = try zip(cuts, cuts.dropFirst()).map { low, high in
                try scorer.score(tuples, over: low..<high, of: embeddings)
            }
            random.shuffle(&parts)
            var merged = TupleScores(tupleCount: tuples.count)
            for part in parts {
                let data = try JSONEncoder().encode(part)
                try merged.merge(JSONDecoder().decode(TupleScores.self, from: data))
            }
            #expect(merged == whole)
            let (left, right) = (try merged.metrics(), try whole.metrics())
            for name in MetricName.ofTuples {
                #expect(left[name]?.bitPattern == right[name]?.bitPattern)
            }
        }
    }

    @Test func sumsRunInTheOrderOfTheFoldTree() throws {
        let (tuples, embeddings) = try set(seed: 5, count: 201)
        let scorer = TupleScorer(
            loss: TupleLoss(LossConfiguration(name: .batchAll, margin: .number(0.3))))
        let whole = try scorer.score(tuples, of: embeddings).metrics()
        let count = try #require(whole[.tuples])
        for name in [MetricName.easyAccuracy, .meanLoss, .embeddingMeanNorm] {
            let values = try tuples.map { tuple in
                try scorer.score([tuple], of: embeddings).metrics()[name]
            }
            // A skipped tuple is absent from the tree's sums.
            let sum = FoldTree.fold(values) { left, right in
                if let left, let right { left + right } else { left ?? right }
            }
            #expect(whole[name] == sum.map { $0 / count })
            let inARow = values.compactMap { $0 }.reduce(0, +) / count
            #expect(name == .easyAccuracy || whole[name] != inARow)
        }
    }

    @Test func partsThatDoNotFitAreRefused() throws {
        let (tuples, embeddings) = try set(seed: 3, count: 20)
        let scorer = TupleScorer(
            loss: TupleLoss(LossConfiguration(name: .batchHard, margin: .soft)))
        var part = try scorer.score(tuples, over: 0..<7, of: embeddings)
        #expect(!part.isComplete)
        let early = #expect(throws: ScoringError.self) { try part.metrics() }
        #expect(early?.code == .incompleteParts)
        let overlap = try scorer.score(tuples, over: 6..<20, of: embeddings)
        let twice = #expect(throws: ScoringError.self) { try part.merge(overlap) }
        #expect(twice?.code == .overlappingParts)
        let foreign = TupleScores(tupleCount: 21)
        let other = #expect(throws: ScoringError.self) { try part.merge(foreign) }
        #expect(other?.code == .foreignPart)
        // A refused part changes nothing.
        try part.merge(scorer.score(tuples, over: 7..<20, of: embeddings))
        #expect(try part == scorer.score(tuples, of: embeddings))
    }

    @Test(arguments: [
        #"{"tupleCount":4,"counts":\#(counts(3)),"nodes":[{"low":0,"high":3}]}"#,
        #"{"tupleCount":4,"counts":\#(counts(2)),"nodes":[{"low":1,"high":3}]}"#,
        #"{"tupleCount":4,"counts":\#(counts(1)),"nodes":[{"low":4,"high":5}]}"#,
        #"{"tupleCount":4,"counts":\#(counts(0)),"nodes":[{"low":1,"high":1}]}"#,
        #"{"tupleCount":4,"counts":\#(counts(2)),"nodes":[{"low":1,"high":2},{"low":1,"high":2}]}"#,
        #"{"tupleCount":4,"counts":\#(counts(2)),"nodes":[{"low":1,"high":2}]}"#,
        #"{"tupleCount":-1,"counts":\#(counts(2)),"nodes":[{"low":-1,"high":1}]}"#,
    ]) func brokenPartsAreRefused(json: String) {
        #expect(throws: (any Error).self) {
            try JSONDecoder().decode(TupleScores.self, from: Data(json.utf8))
        }
    }

    private static func counts(_ skipped: Int) -> String {
        #"{"tuples":0,"skipped":\#(skipped),"general":0,"generalTies":0,"nonFinite":0}"#
    }
}

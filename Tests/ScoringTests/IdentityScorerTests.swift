import Basics
import LossFixtures
import Scoring
import Testing

/// Images of identities that are trained on, against the reference that training is held against.
@Suite struct IdentityScorerTests {
    @Test(arguments: ExpectedBatch.ofClasses.filter { $0.name == "bf16" })
    func everyCrossEntropyIsTheReference(_ batch: ExpectedBatch) throws {
        let rows = try EmbeddingMatrix(batch.rows.map { Float($0) }, dimension: 3)
        let classes = try EmbeddingMatrix(
            try #require(batch.classes).map { Float($0) }, dimension: 3)
        var names: Set<LossName> = []
        for run in batch.runs where run.loss.name.classifies {
            let scorer = try #require(IdentityScorer(run.loss))
            let (metrics, nonFinite) = try scorer.score(
                rows, labels: batch.labels, classes: classes)
            let loss = try #require(metrics[.meanLoss])
            #expect(abs(loss - run.value) <= 1e-10 * abs(run.value) + 1e-12, "\(run)")
            #expect(metrics[.images] == Double(batch.labels.count))
            #expect(nonFinite == 0)
            names.insert(run.loss.name)
        }
        #expect(names == Set(LossName.allCases.filter(\.classifies)))
    }

    private func score(
        _ loss: LossConfiguration, _ rows: [Float], _ labels: [Int], _ classes: [Float]
    ) throws -> [MetricName: Double] {
        try #require(IdentityScorer(loss)).score(
            EmbeddingMatrix(rows, dimension: 2), labels: labels,
            classes: EmbeddingMatrix(classes, dimension: 2)
        ).metrics
    }

    @Test func top1IsStrictAndWithoutMargin() throws {
        let axes: [Float] = [1, 0, 0, 1]
        // Right, wrong, and as similar to both.
        let rows: [Float] = [2, 1, 3, 1, 1, 1]
        #expect(try score(.init(name: .softmax), rows, [0, 1, 0], axes)[.top1] == 1.0 / 3)
        // A margin of 0.35 would make the other identity the more similar one.
        #expect(try score(.init(name: .cosface), [2, 1.9], [0], axes)[.top1] == 1)
        // Inner products look at lengths, cosines do not.
        let longer: [Float] = [1, 0, 0, 9]
        #expect(try score(.init(name: .softmax), [2, 1], [0], longer)[.top1] == 0)
        #expect(try score(.init(name: .normalizedSoftmax), [2, 1], [0], longer)[.top1] == 1)
    }

    @Test func aCollapsedNetworkKnowsNobody() throws {
        let found = try score(
            .init(name: .normalizedSoftmax), [0, 0, 0, 0], [0, 1], [1, 0, 0, 1])
        #expect(found[.top1] == 0)
        #expect(found[.meanLoss] == 0.693_147_180_559_945_3)
    }

    @Test func whatIsNotFiniteIsNoSuccess() throws {
        let scorer = try #require(IdentityScorer(LossConfiguration(name: .softmax)))
        let (metrics, nonFinite) = try scorer.score(
            EmbeddingMatrix([.nan, 0, 5, 0, .infinity, 0], dimension: 2), labels: [0, 0, 0],
            classes: EmbeddingMatrix([1, 0, 0, 1], dimension: 2))
        #expect(nonFinite == 2)
        #expect(metrics[.top1] == 1.0 / 3)
        #expect(metrics[.meanLoss]?.isNaN == true)
    }

    @Test func onlyWhatClassifiesScoresImages() throws {
        #expect(IdentityScorer(LossConfiguration(name: .batchHard)) == nil)
        #expect(IdentityScorer(LossConfiguration(name: .center)) == nil)
        var sum = LossConfiguration(name: .batchHard)
        sum.plus = [.init(name: .center), .init(name: .arcface)]
        #expect(IdentityScorer(sum)?.configuration.name == .arcface)
        let scorer = try #require(IdentityScorer(sum))
        let two = try EmbeddingMatrix([1, 2], dimension: 2)
        #expect(throws: ScoringError.self) {
            try scorer.score(two, labels: [0], classes: EmbeddingMatrix([1, 2, 3], dimension: 3))
        }
        #expect(throws: ScoringError.self) { try scorer.score(two, labels: [1], classes: two) }
    }
}

import Basics
import LossFixtures
import MetricLearning
import Tensors
import Testing

/// Losses with rows as anchors and rows of earlier steps as their positives and negatives.
@Suite struct MemoryLossTests {
    private static func references(_ batch: ExpectedBatch) throws -> References {
        try References(
            embeddings: Tensor(
                copying: batch.references!, shape: [batch.referenceLabels!.count, 3]),
            labels: batch.referenceLabels!)
    }

    private static func rows(_ batch: ExpectedBatch, _ dtype: DType) throws -> Tensor {
        try Tensor(copying: batch.rows, shape: [batch.labels.count, 3])
            .to(dtype: dtype).requiresGradient()
    }

    private static func evaluate(
        _ run: ExpectedBatch.Run, _ batch: ExpectedBatch, dtype: DType = .float64
    ) throws -> (LossResult, gradient: [Double]) {
        try Engine.setIntraOpThreads(1)
        let rows = try rows(batch, dtype)
        let result = try MetricLoss(run.loss).evaluate(
            rows, labels: batch.labels, against: references(batch), draws: run.draws ?? [])
        let gradient = try gradients(of: result.loss, withRespectTo: [rows])[0]
        return (result, try gradient.to(dtype: .float64).values(as: Double.self))
    }

    /// As ``ExpectedLossTests`` compares.
    @Test(arguments: ExpectedBatch.ofMemory)
    func valueAndGradientAreTheReferences(_ batch: ExpectedBatch) throws {
        for run in batch.runs {
            let what = "\(batch): \(run)"
            let (result, gradient) = try Self.evaluate(run, batch)
            let value = try result.loss.item()
            #expect(abs(value - run.value) <= 1e-6 * abs(run.value) + 1e-14, "\(what) \(value)")
            let (scale, size) = (run.gradient.map(abs).max()!, batch.rows.map(abs).max()!)
            let worst = zip(gradient, run.gradient).map { abs($0 - $1) }.max()!
            #expect(gradient.count == run.gradient.count)
            #expect(worst <= 1e-6 * scale + 1e-12 / size, "\(what): gradient off by \(worst)")
            #expect(result.activeCount == run.active, "\(what)")
            #expect(result.validCount == run.valid, "\(what)")
        }
    }

    @Test func everyLossThatTakesAMemoryIsInTheFixture() {
        let names = Set(ExpectedBatch.ofMemory[0].runs.map(\.loss.name))
        #expect(names == Set(LossName.allCases.filter(\.takesMemory)))
    }

    @Test func halfPrecisionIsComputedInFloat32() throws {
        let batch = try #require(ExpectedBatch.ofMemory.first { $0.name == "bf16" })
        for run in batch.runs {
            let (result, gradient) = try Self.evaluate(run, batch, dtype: .bfloat16)
            #expect(abs(try result.loss.item() - run.value) <= 1e-5 * abs(run.value), "\(run)")
            let scale = run.gradient.map(abs).max()!
            for (found, wanted) in zip(gradient, run.gradient) {
                #expect(abs(found - wanted) <= abs(wanted) / 256 + 1e-4 * scale, "\(run)")
            }
        }
    }

    /// A sum of losses, of which the one with vectors has no part in the memory.
    @Test func theSumHasBothPartsWithTheirWeights() throws {
        let batch = ExpectedBatch.ofMemory[0]
        var loss = LossConfiguration(name: .batchAll, margin: .number(0.3))
        loss.weight = 0.5
        loss.memory = 13
        loss.memoryWeight = 0.25
        loss.plus = [.init(name: .multiSimilarity), .init(name: .softmax)]
        loss.plus[0].weight = 3
        let classes = try Tensor([Float](repeating: 0.5, count: 9), shape: [3, 3]).to(
            dtype: .float64)
        let metric = try MetricLoss(loss)
        let rows = try Self.rows(batch, .float64)
        let references = try Self.references(batch)
        let whole = try metric(
            rows, labels: batch.labels, classes: [classes], references: references)
        let own = try metric(rows, labels: batch.labels, classes: [classes])
        func against(_ part: LossConfiguration) throws -> Double {
            try MetricLoss(part).evaluate(
                rows, labels: batch.labels, against: references, draws: []
            ).loss.item()
        }
        var first = loss
        (first.plus, first.weight) = ([], 1)
        var second = loss.plus[0]
        second.weight = 1
        let memory = try 0.5 * against(first) + 3 * against(second)
        #expect(abs(try whole.loss.item() - (own.loss.item() + 0.25 * memory)) < 1e-12)
        #expect(whole.parts.count == 4 && Array(whole.parts.prefix(3)) == own.parts)
        #expect(abs(whole.parts[3] - memory) < 1e-12)
        #expect(whole.activeCount == own.activeCount && whole.validCount == own.validCount)

        // Of one loss the parts are its own and the memory's, before their weights.
        first.weight = 0.5
        let single = try MetricLoss(first)(rows, labels: batch.labels, references: references)
        #expect(abs(single.parts[0] - own.parts[0]) < 1e-12 && single.parts.count == 2)
    }

    @Test func whatIsDrawnOfTheBatchStaysTheSame() throws {
        let batch = ExpectedBatch.ofMemory[0]
        let loss = try MetricLoss(.init(name: .batchSample, margin: Margin.none))
        let rows = try Self.rows(batch, .float64)
        let random = CounterRandom(seed: 3, purpose: .mining)
        let own = try loss(rows, labels: batch.labels, random: random).loss.item()
        let both = try loss(
            rows, labels: batch.labels, references: Self.references(batch), random: random)
        #expect(both.parts[0] == own)
    }

    @Test func lossesThatCannotAreRefused() throws {
        var columns = LossConfiguration(name: .batchAll)
        columns.normalization = .columns
        for var loss in [.init(name: .softmax), .init(name: .lifted), columns] {
            _ = try MetricLoss(loss)
            loss.memory = 100
            #expect(throws: MetricLearningError.self) { try MetricLoss(loss) }
        }
        let two = try Tensor(copying: [1.0, 2, 3, 4], shape: [2, 2])
        #expect(throws: MetricLearningError.self) { try References(embeddings: two, labels: [1]) }
        let references = try References(embeddings: two, labels: [1, 2])
        let rows = try Tensor(copying: [1.0, 2, 3], shape: [1, 3])
        #expect(throws: MetricLearningError.self) {
            try MetricLoss(.init())(rows, labels: [1], references: references)
        }
    }
}

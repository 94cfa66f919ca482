import Basics
import LossFixtures
import MetricLearning
import Tensors
import Testing

/// Every loss against ``ExpectedBatch``.
@Suite struct ExpectedLossTests {
    /// A loss and its derivatives by rows and by identities' vectors.
    private func evaluate(
        _ run: ExpectedBatch.Run, _ batch: ExpectedBatch, dtype: DType = .float64
    ) throws -> (LossResult, rows: [Double], classes: [Double]) {
        try Engine.setIntraOpThreads(1)
        let rows = try Tensor(copying: batch.rows, shape: [batch.labels.count, 3])
            .to(dtype: dtype).requiresGradient()
        let classes = try batch.classes.map {
            try Tensor(copying: $0, shape: [$0.count / 3, 3])
                .to(dtype: dtype == .float64 ? dtype : .float32).requiresGradient()
        }
        let leaves = [rows] + (classes.map { [$0] } ?? [])
        let result = try MetricLoss(run.loss).evaluate(
            rows, labels: batch.labels, classes: Array(leaves.dropFirst()), draws: run.draws ?? [])
        let found = try gradients(of: result.loss, withRespectTo: leaves).map {
            try $0.to(dtype: .float64).values(as: Double.self)
        }
        return (result, found[0], found.count > 1 ? found[1] : [])
    }

    /// Value and gradients within 1e-6, relative to the value and to the gradient's largest component;
    /// below 1e-12 over the rows' or vectors' size a gradient is that of rounding.
    @Test(arguments: ExpectedBatch.ofRows + ExpectedBatch.ofClasses + ExpectedBatch.ofTriplets)
    func valueAndGradientsAreTheReferences(_ batch: ExpectedBatch) throws {
        for run in batch.runs {
            let what = "\(batch): \(run)"
            let (result, byRows, byClasses) = try evaluate(run, batch)
            let value = try result.loss.item()
            #expect(abs(value - run.value) <= 1e-6 * abs(run.value) + 1e-14, "\(what) \(value)")
            func compare(_ found: [Double], _ wanted: [Double], _ values: [Double]) {
                let (scale, size) = (wanted.map(abs).max()!, values.map(abs).max()!)
                let worst = zip(found, wanted).map { abs($0 - $1) }.max()!
                #expect(found.count == wanted.count)
                #expect(worst <= 1e-6 * scale + 1e-12 / size, "\(what): gradient off by \(worst)")
            }
            compare(byRows, run.gradient, batch.rows)
            if let wanted = run.classGradient { compare(byClasses, wanted, batch.classes!) }
            #expect(result.activeCount == run.active, "\(what)")
            #expect(result.validCount == run.valid, "\(what)")
        }
    }

    /// In bfloat16 the rows are exact and the arithmetic is float32's; the gradient comes back in
    /// eight bits, 2^-8 of each component.
    @Test(arguments: [ExpectedBatch.ofRows, ExpectedBatch.ofClasses, ExpectedBatch.ofTriplets])
    func halfPrecisionIsComputedInFloat32(_ batches: [ExpectedBatch]) throws {
        let batch = try #require(batches.first { $0.name == "bf16" })
        for run in batch.runs {
            let (result, gradient, _) = try evaluate(run, batch, dtype: .bfloat16)
            #expect(abs(try result.loss.item() - run.value) <= 1e-5 * abs(run.value), "\(run)")
            let scale = run.gradient.map(abs).max()!
            for (found, wanted) in zip(gradient, run.gradient) {
                #expect(abs(found - wanted) <= abs(wanted) / 256 + 1e-4 * scale, "\(run)")
            }
        }
    }

    /// A batch of which nothing counts has a loss of 0 and a gradient of 0, in every dtype.
    @Test(arguments: LossName.comparingRows) func oneRowAloneIsNothing(_ name: LossName) throws {
        for dtype in [DType.float32, .float64] {
            let rows = try Tensor([0, 0, 1e-3], shape: [1, 3]).to(dtype: dtype).requiresGradient()
            let loss = try MetricLoss(LossConfiguration(name: name))
            let result = try loss(rows, labels: [5])
            // The oldest batch_hard has the margin where there is no negative: log(1 + exp 0).
            let expected = name == .batchHard000 ? Float(0.6931472) : 0
            #expect(abs(Float(try result.loss.item()) - expected) < 1e-6)
            let gradient = try gradients(of: result.loss, withRespectTo: [rows])[0].floats()
            #expect(gradient.allSatisfy { $0 == 0 })
        }
    }

    @Test func drawsDecideWhatIsSampled() throws {
        let rows = try Tensor([0.0, 1.0, 3.0, 5.0], shape: [4, 1])
        let loss = try MetricLoss(LossConfiguration(name: .batchSample, margin: Margin.none))
        func value(_ draw: Double) throws -> Double {
            try loss.evaluate(
                rows, labels: [0, 0, 1, 1], draws: [Double](repeating: draw, count: 8)
            ).loss.item()
        }
        // The first negative of each: 1-3, 1-2, 2-3, 2-5; the last: 1-5, 1-4, 2-2, 2-4.
        #expect(try value(0) == -1.75)
        #expect(try value(0.9999) == -2.25)
        let some = try loss(rows, labels: [0, 0, 1, 1], random: .init(seed: 1, purpose: .mining))
        let same = try loss(rows, labels: [0, 0, 1, 1], random: .init(seed: 1, purpose: .mining))
        #expect(try some.loss.item() == same.loss.item())
    }
}

extension LossName {
    /// Those that find pairs among rows in any order.
    static let comparingRows = allCases.filter { !$0.hasClasses && !$0.isOfTriplets }
    /// Those with them.
    static let comparingIdentities = allCases.filter(\.hasClasses)
}

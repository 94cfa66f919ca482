import Basics
import Foundation
import MetricLearning
import Tensors
import Testing

/// Compares with `Fixtures/expected_losses.py`, which writes every loss another way and asks
/// pytorch-metric-learning where it has it.
@Suite struct ExpectedLossTests {
    struct Batch: Decodable, Sendable, CustomTestStringConvertible {
        let name: String
        let labels: [Int]
        let rows: [Double]
        let runs: [Run]
        var testDescription: String { name }
    }

    struct Run: Decodable, Sendable {
        enum Margin: Decodable, Sendable {
            case word(String)
            case number(Double)

            init(from decoder: any Decoder) throws {
                let container = try decoder.singleValueContainer()
                if let number = try? container.decode(Double.self) {
                    self = .number(number)
                } else {
                    self = .word(try container.decode(String.self))
                }
            }
        }

        let loss: String
        let margin: Margin
        let distance: String
        let normalize: String
        let miner: String
        let minerEpsilon: Double
        let reducer: String
        let activeThreshold: Double
        let draws: [Double]?
        let hap2sSigma: Double?
        let hap2sAlpha: Double?
        let hap2sCompatibility: Bool?
        let temperature: Double?
        let circleGamma: Double?
        let value: Double
        let gradient: [Double]
        let active: Int
        let valid: Int

        var metricLoss: MetricLoss {
            get throws {
                var parameters = LossParameters()
                parameters.hap2sSigma = hap2sSigma ?? parameters.hap2sSigma
                parameters.hap2sAlpha = hap2sAlpha ?? parameters.hap2sAlpha
                parameters.hap2sCompatibility = hap2sCompatibility ?? false
                parameters.temperature = temperature ?? parameters.temperature
                parameters.circleGamma = circleGamma ?? parameters.circleGamma
                let text =
                    switch margin {
                    case .word(let word): word
                    case .number(let number): "\(number)"
                    }
                return try MetricLoss(
                    LossConfiguration(
                        name: loss, margin: text, distance: distance, normalization: normalize,
                        miner: PairMiner(name: miner, epsilon: minerEpsilon), reducer: reducer,
                        activeThreshold: activeThreshold, parameters: parameters))
            }
        }
    }

    static let batches: [Batch] = {
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "Fixtures/expected_losses.json")
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode([Batch].self, from: Data(contentsOf: file))
        } catch {
            preconditionFailure("\(file.path): \(error)")
        }
    }()

    /// Value and gradient within 1e-6, relative to the value and to the gradient's largest component;
    /// below 1e-12 over the rows' size a gradient is that of rounding.
    @Test(arguments: batches) func valueAndGradientAreTheReferences(_ batch: Batch) throws {
        try Engine.setIntraOpThreads(1)
        let size = batch.rows.map { abs($0) }.max()!
        for run in batch.runs {
            let rows = try Tensor(
                copying: batch.rows, shape: [batch.labels.count, 3]
            ).requiresGradient()
            let result = try run.metricLoss.evaluate(
                rows, labels: batch.labels, draws: run.draws ?? [])
            let what = "\(batch.name): \(run.loss) \(run.margin) \(run.distance)"
            let value = try result.loss.item()
            #expect(abs(value - run.value) <= 1e-6 * abs(run.value) + 1e-14, "\(what) \(value)")
            let gradient = try gradients(of: result.loss, withRespectTo: [rows])[0]
                .values(as: Double.self)
            let scale = run.gradient.map { abs($0) }.max()!
            let worst = zip(gradient, run.gradient).map { abs($0 - $1) }.max()!
            #expect(worst <= 1e-6 * scale + 1e-12 / size, "\(what): gradient off by \(worst)")
            #expect(result.activeCount == run.active, "\(what)")
            #expect(result.validCount == run.valid, "\(what)")
        }
    }

    /// In bfloat16 the rows are exact and the arithmetic is float32's; the gradient comes back in
    /// eight bits, 2^-8 of each component.
    @Test func halfPrecisionIsComputedInFloat32() throws {
        let batch = try #require(Self.batches.first { $0.name == "bf16" })
        for run in batch.runs {
            let rows = try Tensor(copying: batch.rows, shape: [batch.labels.count, 3])
                .to(dtype: .bfloat16).requiresGradient()
            let result = try run.metricLoss.evaluate(
                rows, labels: batch.labels, draws: run.draws ?? [])
            let what = "\(run.loss) \(run.margin)"
            #expect(abs(try result.loss.item() - run.value) <= 1e-5 * abs(run.value), "\(what)")
            let gradient = try gradients(of: result.loss, withRespectTo: [rows])[0].floats()
            let scale = run.gradient.map { abs($0) }.max()!
            for (found, wanted) in zip(gradient, run.gradient) {
                #expect(
                    abs(Double(found) - wanted) <= abs(wanted) / 256 + 1e-4 * scale, "\(what)")
            }
        }
    }

    /// A batch of which nothing counts has a loss of 0 and a gradient of 0, in every dtype.
    @Test(arguments: LossName.allCases) func oneRowAloneIsNothing(_ name: LossName) throws {
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

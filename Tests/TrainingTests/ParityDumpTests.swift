import Basics
import Foundation
import MetricLearning
import Networks
import Tensors
import Testing
import Training

/// Trains small runs and writes everything that `scripts/parity` needs to repeat them in PyTorch.
///
/// Runs only where `LINEUP_PARITY_DIR` names a folder. Each run gets a folder with `index.json` and raw
/// little-endian files: `images-N.bin` (all slots of step N), `weights-N.bin` (all `network/` tensors
/// before step N, from 0), `gradient-N.bin` (the reduced gradient of step N), and for some steps
/// `gradient64-N.bin` (the same network and loss in float64 from the same weights).
@Suite struct ParityDumpTests {
    struct Run: Sendable, CustomTestStringConvertible {
        let name: String
        let configuration: TrainingConfiguration
        let steps: Int
        let identities: Int
        let imagesPerIdentity: Int
        var testDescription: String { name }
    }

    static let runs: [Run] = {
        let losses = [
            ("batch_hard", LossConfiguration(name: .batchHard, margin: .soft)),
            ("batch_all", LossConfiguration(name: .batchAll, margin: .number(0.5))),
            (
                "semi_hard",
                LossConfiguration(name: .tfBatchSemiHard, margin: .number(0.5))
            ),
        ]
        let basic = NetworkConfiguration(
            backbone: .basic, embeddingDimension: 64, inputHeight: 64, inputWidth: 32, channels: 16)
        let hidden = NetworkConfiguration(
            backbone: .basic, head: .fc1024Normalize, embeddingDimension: 64, inputHeight: 32,
            inputWidth: 24, channels: 12, batchNorm: false)
        let residual = NetworkConfiguration(
            backbone: .resnet50, embeddingDimension: 128, inputHeight: 128, inputWidth: 64)
        func run(
            _ name: String, _ network: NetworkConfiguration, _ loss: LossConfiguration,
            _ steps: Int,
            _ identities: Int, _ images: Int, _ precision: Precision = .fp32
        ) -> Run {
            Run(
                name: name,
                configuration: TrainingConfiguration(
                    network: network, loss: loss, precision: precision, slotsPerStep: 4, seed: 3),
                steps: steps, identities: identities, imagesPerIdentity: images)
        }
        return losses.prefix(2).map { run("basic-\($0.0)", basic, $0.1, 100, 6, 4) }
            + [run("basic-fc1024-semi_hard", hidden, losses[2].1, 100, 6, 4)]
            + losses.prefix(2).map { run("resnet50-\($0.0)", residual, $0.1, 5, 4, 4) }
            + [run("basic-bf16-batch_hard", basic, losses[0].1, 10, 6, 4, .bf16)]
    }()

    static let folder = ProcessInfo.processInfo.environment["LINEUP_PARITY_DIR"]

    @Test(.enabled(if: folder != nil), arguments: runs) func writesRun(_ run: Run) throws {
        let place = URL(fileURLWithPath: Self.folder!).appendingPathComponent(run.name)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        let state = try TrainingState.initial(run.configuration)
        let loop = try BareLoop(state, parallelSlots: 2)
        let schedule = LearningRateSchedule(
            base: 1e-3, decay: .exponential(start: run.steps / 2), totalSteps: run.steps)
        var steps: [[String: Any]] = []
        func write(_ name: String, _ parts: [FloatBuffer]) throws {
            var data = Data()
            for part in parts { data.append(contentsOf: part.bytes(0..<part.count)) }
            try data.write(to: place.appendingPathComponent(name))
        }
        func writeWeights(_ step: Int) throws {
            var data = Data()
            for tensor in try state.tensors() where tensor.name.hasPrefix("network/") {
                tensor.withUnsafeBytes { data.append(contentsOf: $0) }
            }
            try data.write(to: place.appendingPathComponent("weights-\(step).bin"))
        }
        try writeWeights(0)
        for step in 0..<run.steps {
            let slots = Self.structured(run, step: step)
            try write("images-\(step).bin", slots.map(\.images))
            let rate = schedule.rate(updatesBefore: step)
            let (results, effect) = try loop.compute(slots, learningRate: rate)
            try write("gradient-\(step).bin", [effect.gradient])
            var step64: [String: Any] = [:]
            if run.configuration.precision == .fp32, step % 20 == 0 || step == run.steps - 1 {
                let (losses, gradient) = try Self.inFloat64(state, slots)
                step64["losses64"] = losses
                try gradient.withUnsafeBytes { Data($0) }
                    .write(to: place.appendingPathComponent("gradient64-\(step).bin"))
            }
            try apply(effect, to: state, threads: 2)
            try writeWeights(step + 1)
            let record: [String: Any] = [
                "losses": results.map { Int($0.loss.bitPattern) },
                "mean_loss": Int(Fold.mean(results.map(\.loss)).bitPattern),
                "active": results.map(\.activeCount), "valid": results.map(\.validCount),
                "labels": slots.map(\.labels), "learning_rate": rate,
                "effective_rate": effect.scalars.effectiveRate,
                "effective_epsilon": effect.scalars.effectiveEpsilon,
            ]
            steps.append(record.merging(step64) { first, _ in first })
        }
        let index: [String: Any] = [
            "network": try Self.describe(run.configuration.network),
            "loss": run.configuration.loss.name.rawValue,
            "margin": run.configuration.loss.margin.description,
            "distance": run.configuration.loss.distance.rawValue,
            "normalizes_rows": run.configuration.loss.normalization == .rows,
            "precision": run.configuration.precision.rawValue,
            "slots": run.configuration.slotsPerStep,
            "batch": run.identities * run.imagesPerIdentity, "steps": steps,
        ]
        try JSONSerialization.data(withJSONObject: index, options: .prettyPrinted)
            .write(to: place.appendingPathComponent("index.json"))
    }

    static func describe(_ configuration: NetworkConfiguration) throws -> [String: Any] {
        let network = try Network(configuration)
        func list(_ items: [(String, [Int])]) -> [[String: Any]] {
            items.map { ["name": $0.0, "shape": $0.1] }
        }
        return [
            "backbone": configuration.backbone.rawValue, "head": configuration.head.rawValue,
            "embedding_dim": network.embeddingDimension, "channels": configuration.channels,
            "batch_norm": configuration.batchNorm, "height": configuration.inputHeight,
            "width": configuration.inputWidth,
            "parameters": list(network.parameters.map { ($0.name, $0.shape) }),
            "buffers": list(network.buffers.map { ($0.name, $0.shape) }),
        ]
    }

    /// Losses of all slots and their mean gradient, in float64 arithmetic from the state's weights.
    static func inFloat64(
        _ state: TrainingState, _ slots: [SlotInput]
    ) throws -> ([Double], [Double]) {
        let network = state.network.configuration
        var losses: [Double] = []
        var sum = [Double](repeating: 0, count: state.layout.elementCount)
        for slot in slots {
            let parameters = try state.parameters.map {
                try $0.to(dtype: .float64).requiresGradient()
            }
            let images = try Tensor(
                Array(slot.images.floats),
                shape: [slot.labels.count, 3, network.inputHeight, network.inputWidth])
            let statistics = try BatchStatistics(state.network, device: .cpu, dtype: .float64)
            let embeddings = try state.network.forward(
                images.to(dtype: .float64), parameters: parameters,
                batchNorm: .training(statistics))
            let loss = try MetricLoss(state.configuration.loss)
            let result = try loss(embeddings, labels: slot.labels)
            losses.append(try result.loss.item())
            let found = try gradients(of: result.loss, withRespectTo: parameters)
            for (entry, gradient) in zip(state.layout.entries, found) {
                for (at, value) in try gradient.values(as: Double.self).enumerated() {
                    sum[entry.offset + at] += value / Double(slots.count)
                }
            }
        }
        return (losses, sum)
    }

    /// Images with something to learn: coarse colours of the identity, finer noise of the image.
    static func structured(_ run: Run, step: Int) -> [SlotInput] {
        let (height, width) = (
            run.configuration.network.inputHeight, run.configuration.network.inputWidth
        )
        let size = 3 * height * width
        return (0..<run.configuration.slotsPerStep).map { slot in
            let labels = (0..<run.identities).flatMap { place in
                let identity = ((step * 4 + slot) * run.identities + place) % 600
                return [Int](repeating: identity, count: run.imagesPerIdentity)
            }
            let buffer = FloatBuffer(count: labels.count * size)
            for (row, label) in labels.enumerated() {
                let coarse = tiles(CounterRandom(seed: 21, item: UInt64(label), purpose: .dataset))
                let key = CounterRandom(
                    seed: 22, step: UInt64(step), slot: UInt64(slot), item: UInt64(row),
                    purpose: .dataset)
                let own = tiles(key)
                var noise = key
                for at in 0..<size {
                    let (channel, y, x) = (at / (height * width), at / width % height, at % width)
                    let tile = (channel * 4 + y * 4 / height) * 4 + x * 4 / width
                    let value = coarse[tile] + 0.8 * own[tile] + 0.5 * (noise.uniform() - 0.5)
                    buffer.base[row * size + at] = Float(value)
                }
            }
            return SlotInput(images: buffer, labels: labels)
        }
    }

    private static func tiles(_ random: CounterRandom) -> [Double] {
        var random = random
        return (0..<48).map { _ in 2 * random.uniform() - 1 }
    }
}

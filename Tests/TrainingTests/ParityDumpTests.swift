import Basics
import Foundation
import MetricLearning
import Networks
import Testing
import Training

/// Trains small runs and writes everything that `scripts/parity` needs to repeat them in PyTorch.
///
/// Runs only where `LINEUP_PARITY_DIR` names a folder. Each run gets a folder with `index.json` and raw
/// little-endian files: `images-N.bin` (all slots of step N), `weights-N.bin` (all `network/` tensors
/// before step N, from 0), `gradient-N.bin` (the reduced gradient of step N).
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
            ("batch_all", LossConfiguration(name: .batchAll, margin: .value(0.5))),
            (
                "semi_hard",
                LossConfiguration(name: .tfBatchSemiHard, margin: .value(0.5))
            ),
        ]
        let basic = NetworkConfiguration(
            backbone: .basic, embeddingDimension: 64, inputHeight: 64, inputWidth: 32, channels: 16)
        let residual = NetworkConfiguration(
            backbone: .resnet50, head: .fc1024, embeddingDimension: 128, inputHeight: 128,
            inputWidth: 64)
        func run(
            _ name: String, _ network: NetworkConfiguration, _ loss: LossConfiguration, _ steps: Int,
            _ identities: Int, _ images: Int, _ precision: Precision = .fp32
        ) -> Run {
            Run(
                name: name,
                configuration: TrainingConfiguration(
                    network: network, loss: loss, precision: precision, slotsPerStep: 4, seed: 3),
                steps: steps, identities: identities, imagesPerIdentity: images)
        }
        return losses.map { run("basic-\($0.0)", basic, $0.1, 100, 6, 4) }
            + losses.prefix(2).map { run("resnet50-\($0.0)", residual, $0.1, 5, 4, 2) }
            + [run("basic-bf16-batch_hard", basic, losses[0].1, 10, 6, 4, .bf16)]
    }()

    static let folder = ProcessInfo.processInfo.environment["LINEUP_PARITY_DIR"]

    @Test(.enabled(if: folder != nil), arguments: runs) func writesRun(_ run: Run) throws {
        let place = URL(fileURLWithPath: Self.folder!).appendingPathComponent(run.name)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        let state = try TrainingState.initial(run.configuration)
        let loop = try BareLoop(state, parallelSlots: 2)
        let schedule = LearningRateSchedule(
            base: 1e-3, decayStartStep: run.steps / 2, totalSteps: run.steps)
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
            try apply(effect, to: state, threads: 2)
            try writeWeights(step + 1)
            steps.append([
                "losses": results.map { Int($0.loss.bitPattern) },
                "mean_loss": Int(Fold.mean(results.map(\.loss)).bitPattern),
                "active": results.map(\.activeCount), "valid": results.map(\.validCount),
                "labels": slots.map(\.labels), "learning_rate": rate,
                "effective_rate": effect.scalars.effectiveRate,
                "effective_epsilon": effect.scalars.effectiveEpsilon,
            ])
        }
        let index: [String: Any] = [
            "network": try Self.describe(run.configuration.network),
            "loss": run.configuration.loss.name.rawValue,
            "margin": run.configuration.loss.margin.description,
            "distance": run.configuration.loss.distance.rawValue,
            "normalizes_rows": run.configuration.loss.normalizesRows,
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

    /// Images with something to learn: a pattern of the identity under noise of the image.
    static func structured(_ run: Run, step: Int) -> [SlotInput] {
        let network = run.configuration.network
        let size = 3 * network.inputHeight * network.inputWidth
        return (0..<run.configuration.slotsPerStep).map { slot in
            let labels = (0..<run.identities).flatMap { place in
                [Int](repeating: (step * 5 + slot * 3 + place) % 12, count: run.imagesPerIdentity)
            }
            let buffer = FloatBuffer(count: labels.count * size)
            for (row, label) in labels.enumerated() {
                var pattern = CounterRandom(seed: 21, item: UInt64(label), purpose: .dataset)
                var noise = CounterRandom(
                    seed: 22, step: UInt64(step), slot: UInt64(slot), item: UInt64(row),
                    purpose: .dataset)
                for at in 0..<size {
                    buffer.base[row * size + at] = Float(
                        pattern.uniform() - 0.5 + 1.5 * (noise.uniform() - 0.5))
                }
            }
            return SlotInput(images: buffer, labels: labels)
        }
    }
}

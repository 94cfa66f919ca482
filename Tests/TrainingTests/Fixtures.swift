import Basics
import MetricLearning
import Networks
import Tensors
import Training

/// Small runs that tests share.
enum Fixtures {
    static func basic(
        loss: LossConfiguration = .init(), slots: Int = 4, precision: Precision = .fp32
    ) -> TrainingConfiguration {
        TrainingConfiguration(
            network: NetworkConfiguration(
                backbone: .basic, head: .direct, embeddingDimension: 16, inputHeight: 20,
                inputWidth: 12, channels: 8),
            loss: loss, precision: precision, slotsPerStep: slots, seed: 5)
    }

    /// Mini-batches of random images, a pure function of (step, slot); of triplets where the loss takes
    /// such.
    static func slots(
        _ configuration: TrainingConfiguration, step: Int, identities: Int = 4, images: Int = 3
    ) -> [SlotInput] {
        let network = configuration.network
        let size = 3 * network.inputHeight * network.inputWidth
        let isOfTriplets = configuration.loss.name.isOfTriplets
        return (0..<configuration.slotsPerStep).map { slot in
            let buffer = FloatBuffer(count: identities * images * size)
            var random = CounterRandom(
                seed: 9, step: UInt64(step), slot: UInt64(slot), purpose: .dataset)
            for at in 0..<buffer.count { buffer.base[at] = Float(2 * random.uniform() - 1) }
            let triplets = (0..<identities * images / 3).flatMap {
                [$0, $0, ($0 + 1) % identities]
            }
            return SlotInput(
                images: buffer,
                labels: isOfTriplets ? triplets : (0..<identities * images).map { $0 / images })
        }
    }

    /// Trains for some steps and returns the losses.
    static func train(
        _ state: TrainingState, steps: Int, parallelSlots: Int = 1, rate: Double = 1e-3
    ) throws -> [Float] {
        let loop = try BareLoop(state, parallelSlots: parallelSlots)
        return try (0..<steps).map { _ in
            try loop.step(slots(state.configuration, step: state.step), learningRate: rate)
        }
    }
}

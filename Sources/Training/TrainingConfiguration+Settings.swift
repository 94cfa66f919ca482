internal import Basics
internal import Foundation
public import Images
internal import MetricLearning
internal import Networks
public import Settings
public import Tensors

extension TrainingConfiguration {
    /// What a run's settings mean for slots, apply and embedding.
    ///
    /// - Parameter classCount: identities of the run's training data, `DataSet.trainingIdentityCount`;
    ///   0 suffices for the network alone.
    /// - Throws: ``NetworkError`` for a combination that does not exist.
    public init(settings: Settings, device: Device, classCount: Int = 0) throws {
        let network = try NetworkConfiguration(
            backbone: settings.network.backbone.rawValue, head: settings.network.head.rawValue,
            embeddingDimension: settings.network.embeddingDim,
            inputHeight: settings.input.height, inputWidth: settings.input.width,
            channels: settings.network.channels, batchNorm: settings.network.batchNorm,
            batchNormMomentum: settings.network.batchNormMomentum)
        let imagesPerSlot = try settings.batch.imagesOfLargestSlot
        self.init(
            network: network, loss: settings.loss, classCount: classCount,
            optimizer: OptimizerConfiguration(settings.optimizer),
            freeze: Freeze(settings.network),
            precision: settings.numerics.precision == .bf16 ? .bf16 : .fp32,
            threadsPerSlot: settings.numerics.threadsPerSlot, device: device,
            slotsPerStep: settings.batch.miniBatchesPerStep,
            imagesPerSlot: settings.loss.memory == 0 ? 0 : imagesPerSlot, seed: settings.seed,
            mining: MiningScope(settings.mining))
    }
}

extension MiningScope {
    /// What a run's `mining` settings mean.
    init(_ settings: Settings.Mining) {
        self = settings.scope == .slot ? .slot : .step(keepsGraphs: settings.forward == .once)
    }
}

extension Freeze {
    /// What a run's `network.freeze` settings mean.
    init(_ settings: Settings.Network) {
        self.init(
            patterns: (settings.freeze ?? "").split(separator: ",").map {
                String($0).trimmingCharacters(in: .whitespaces)
            },
            trainedBlocks: settings.trainLastBlocks < 0 ? nil : settings.trainLastBlocks,
            steps: settings.freezeSteps == 0 ? nil : settings.freezeSteps)
    }
}

extension InputConfiguration {
    /// How a run's settings want images.
    ///
    /// - Parameter isTraining: with the augmentations; without, images are resized alone.
    public init(settings: Settings, isTraining: Bool) {
        self.init(
            height: settings.input.height, width: settings.input.width,
            flip: isTraining && settings.augmentation.flip,
            crop: isTraining && settings.augmentation.crop,
            cropFromHeight: settings.augmentation.cropFromHeight,
            cropFromWidth: settings.augmentation.cropFromWidth,
            occlusion: isTraining ? Occlusion(settings.augmentation) : Occlusion(),
            normalisation: settings.input.normalisation == .signed ? .signed : .imagenet)
    }
}

extension Occlusion {
    /// As settings say it.
    init(_ settings: Settings.Augmentation) {
        self.init(
            start: settings.occlusionStart, end: settings.occlusionEnd,
            rampSteps: settings.occlusionRampSteps)
    }
}

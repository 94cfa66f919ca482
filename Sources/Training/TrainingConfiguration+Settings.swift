internal import Foundation
public import Images
internal import MetricLearning
internal import Networks
public import Settings
public import Tensors

extension TrainingConfiguration {
    /// What a run's settings mean for slots, apply and embedding.
    ///
    /// - Throws: ``NetworkError`` or ``MetricLearningError`` for a combination that does not exist.
    public init(settings: Settings, device: Device) throws {
        let network = try NetworkConfiguration(
            backbone: settings.network.backbone.rawValue, head: settings.network.head.rawValue,
            embeddingDimension: settings.network.embeddingDim,
            inputHeight: settings.input.height, inputWidth: settings.input.width,
            channels: settings.network.channels, batchNorm: settings.network.batchNorm,
            batchNormMomentum: settings.network.batchNormMomentum)
        let margin: Margin =
            switch settings.loss.margin {
            case .number(let value): .value(value)
            case .soft: .soft
            case .none: .none
            }
        self.init(
            network: network,
            loss: try LossConfiguration(
                name: settings.loss.name.rawValue, margin: margin.description,
                distance: settings.loss.distance.rawValue,
                normalization: settings.loss.normalize.rawValue,
                miner: try PairMiner(
                    name: settings.loss.miner.rawValue, epsilon: settings.loss.minerEpsilon),
                reducer: settings.loss.reducer.rawValue,
                activeThreshold: settings.loss.activeThreshold,
                parameters: settings.loss.parameters),
            optimizer: OptimizerConfiguration(settings.optimizer),
            freeze: Freeze(settings.network),
            precision: settings.numerics.precision == .bf16 ? .bf16 : .fp32,
            threadsPerSlot: settings.numerics.threadsPerSlot, device: device,
            slotsPerStep: settings.batch.miniBatchesPerStep, seed: settings.seed)
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
            normalisation: settings.input.normalisation == .signed ? .signed : .imagenet)
    }
}

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
                distance: settings.loss.distance.rawValue),
            adam: AdamConfiguration(
                beta1: settings.optimizer.beta1, beta2: settings.optimizer.beta2,
                epsilon: settings.optimizer.epsilon,
                weightDecay: settings.optimizer.weightDecay),
            precision: settings.numerics.precision == .bf16 ? .bf16 : .fp32,
            threadsPerSlot: settings.numerics.threadsPerSlot, device: device,
            slotsPerStep: settings.batch.miniBatchesPerStep, seed: settings.seed)
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

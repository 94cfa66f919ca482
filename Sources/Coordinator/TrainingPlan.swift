public import ClusterCore
public import Datasets
internal import MetricLearning
public import Protocol
public import Settings

/// What is trained on at each step of a run: sampler and schedule behind one pure function.
public struct TrainingPlan: Sendable {
    private let sampler: PKSampler
    private let schedule: LearningRateSchedule
    private let adam: AdamConfiguration
    private let slotCount: Int

    /// Prepares a run's plan.
    ///
    /// - Throws: ``DatasetError`` when the data has fewer identities than `batch.identities`.
    public init(settings: Settings, dataSet: DataSet) throws {
        sampler = try PKSampler(
            catalogue: dataSet.catalogue, identities: settings.batch.identities,
            imagesPerIdentity: settings.batch.imagesPerIdentity, seed: settings.seed)
        schedule = LearningRateSchedule(
            base: settings.optimizer.learningRate,
            decayStartStep: settings.schedule.decayStartStep,
            totalSteps: settings.schedule.steps)
        adam = AdamConfiguration(
            beta1: settings.optimizer.beta1, beta2: settings.optimizer.beta2,
            epsilon: settings.optimizer.epsilon, weightDecay: settings.optimizer.weightDecay)
        slotCount = settings.batch.miniBatchesPerStep
    }

    /// One line on identities that repeat images, nil when none does.
    public var notice: String? { sampler.repeatedNotice }
}

extension TrainingPlan: StepSource {
    /// Rows of the catalogue and labels of every slot; the first step is 1.
    public func samples(step: Int) -> WireStepSamples {
        var message = WireStepSamples()
        message.step = UInt64(step)
        message.slots = (0..<slotCount).map { slot in
            let drawn = sampler.slot(step: step - 1, slot: slot, slotsPerStep: slotCount)
            var wire = WireSlotSamples()
            wire.indices = drawn.indices.map { UInt32($0) }
            wire.labels = drawn.labels.map { UInt32($0) }
            return wire
        }
        return message
    }

    /// Learning rate and Adam's bias corrections, as bit patterns.
    public func scalars(step: Int) -> WireStepScalars {
        let rate = schedule.rate(updatesBefore: step - 1)
        let effective = adam.scalars(step: step, learningRate: rate)
        var message = WireStepScalars()
        message.learningRate = rate.bitPattern
        message.effectiveRate = effective.rate.bitPattern
        message.effectiveEpsilon = effective.epsilon.bitPattern
        return message
    }
}

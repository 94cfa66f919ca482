internal import Basics
public import ClusterCore
internal import Datasets
internal import MetricLearning
public import Protocol
internal import Settings

/// What is trained on at each step of a run: sampler and schedule behind one pure function.
public struct TrainingPlan: Sendable {
    private let samplers: [(updatesBefore: Int, sampler: any SlotSampler)]
    /// What is mined while the run trains; nil where nothing is.
    let rounds: MinedRounds?
    private let split: ImageSplit
    private let schedule: LearningRateSchedule
    private let rule: UpdateRule
    private let slotCount: Int
    private let catalogue: Catalogue
    /// Scalars of committed steps that the settings of today would give other values.
    private var kept: [Int: WireStepScalars] = [:]

    /// Prepares a run's plan.
    ///
    /// - Parameters:
    ///   - triplets: what a run with `batch.triplets` is given.
    ///   - rounds: or what it mines.
    /// - Throws: ``DatasetError`` when there are fewer identities, images or triplets than a slot needs.
    init(settings: Settings, dataSet: DataSet, triplets: TripletList?, rounds: MinedRounds?) throws
    {
        let (batch, share, seed) = (settings.batch, settings.data.validationShare, settings.seed)
        split = try ImageSplit(dataSet.catalogue, validationShare: share, seed: seed)
        self.rounds = rounds
        if rounds != nil {
            samplers = []
        } else if batch.isOfTriplets {
            guard let triplets else { preconditionFailure("no triplets for batch.triplets") }
            let sampler = try TripletSampler(
                triplets, split: split, tripletsPerSlot: batch.triplets, seed: seed,
                name: settings.data.triplets ?? GivenTriplets.fileName)
            samplers = [(updatesBefore: 0, sampler: sampler)]
        } else if batch.images > 0 {
            let sampler = try ImageSampler(
                catalogue: dataSet.catalogue, imagesPerSlot: batch.images, validationShare: share,
                seed: seed)
            samplers = [(updatesBefore: 0, sampler: sampler)]
        } else {
            samplers = try BatchPhase.all(of: batch).map { phase in
                let sampler = try PKSampler(
                    catalogue: dataSet.catalogue, identities: phase.identities,
                    imagesPerIdentity: phase.imagesPerIdentity, validationShare: share, seed: seed)
                return (updatesBefore: phase.updatesBefore, sampler: sampler)
            }
        }
        schedule = LearningRateSchedule(settings)
        rule = OptimizerConfiguration(settings.optimizer).rule
        slotCount = settings.batch.miniBatchesPerStep
        catalogue = dataSet.catalogue
    }

    /// Steps that are done again get the scalars that they were committed with.
    ///
    /// A run whose `schedule.steps` was raised decays later; what is committed stays as it was.
    ///
    /// - Parameter recorded: by step, as ``WireStepScalars/text``.
    /// - Throws: ``CoordinatorError`` for scalars that no Lineup writes.
    public mutating func keep(_ recorded: [Int: String]) throws {
        for (step, text) in recorded {
            guard let scalars = WireStepScalars(text: text) else {
                throw CoordinatorError(
                    .failed,
                    "the ledger's scalars of step \(step) are '\(text)', expected three bit "
                        + "patterns; use a copy from before it was changed")
            }
            if scalars != self.scalars(step: step) { kept[step] = scalars }
        }
    }

    /// A line on images that are held out, and one on identities that repeat images.
    public var notices: [String] {
        [
            split.notice, rounds?.repeatedNotice,
            samplers.lazy.compactMap(\.sampler.repeatedNotice).first,
        ].compactMap(\.self)
    }
}

extension TrainingPlan: StepSource {
    /// Rows of the catalogue and labels of every slot; the first step is 1.
    public func samples(step: Int) -> WireStepSamples {
        let sampler = rounds ?? samplers.last { $0.updatesBefore < step }!.sampler
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

    /// Those before any plateau.
    public func scalars(step: Int) -> WireStepScalars { scalars(step: step, reductions: 0) }

    /// Learning rate and Adam's bias corrections, as bit patterns.
    public func scalars(step: Int, reductions: Int) -> WireStepScalars {
        if let kept = kept[step] { return kept }
        let rate = schedule.rate(updatesBefore: step - 1, reductions: reductions)
        let effective = rule.scalars(step: step, learningRate: rate)
        var message = WireStepScalars()
        message.learningRate = rate.bitPattern
        message.effectiveRate = effective.rate.bitPattern
        message.effectiveEpsilon = effective.epsilon.bitPattern
        return message
    }

    /// Paths in the catalogue.
    public func names(of samples: WireSlotSamples) -> [String] {
        samples.indices.map { catalogue.samples[Int($0)].path }
    }
}

extension WireStepScalars {
    /// Learning rate, effective rate and effective epsilon as hexadecimal bit patterns.
    public var text: String {
        [learningRate, effectiveRate, effectiveEpsilon].map(\.hex).joined(separator: " ")
    }

    /// Reads the form that ``text`` writes; nil for anything else.
    public init?(text: String) {
        let bits = text.split(separator: " ").map { UInt64(hex: String($0)) }
        guard bits.count == 3, let rate = bits[0], let effective = bits[1], let epsilon = bits[2]
        else { return nil }
        self.init()
        learningRate = rate
        effectiveRate = effective
        effectiveEpsilon = epsilon
    }
}

import Basics

/// The images of one slot of one step.
public struct SlotSamples: Sendable, Equatable {
    /// Indices into ``Catalogue/samples``; of a ``PKSampler`` P * K, the K images of an identity together.
    public let indices: [Int]
    /// For each image the number of its identity among those of the split, in catalogue order.
    public let labels: [Int]
}

/// What slots are made of, as a pure function of (seed, step, slot).
public protocol SlotSampler: Sendable {
    /// The images of a slot.
    ///
    /// - Parameters:
    ///   - step: from 0; a run's first step may be 0 or 1.
    ///   - slot: 0..<slotsPerStep.
    ///   - slotsPerStep: G, mini-batches in a step.
    func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples

    /// One line that says which identities repeat images; nil when none does.
    var repeatedNotice: String? { get }
}

/// Draws P identities with K images each, as a pure function of (seed, step, slot).
///
/// An epoch is a random order of all identities, new for every epoch. A step takes the next
/// P * G of them, so that the G slots of a step share none; what is left at an epoch's end, fewer
/// than a step needs, is left out. With fewer than P * G identities an epoch is cut slot by slot
/// instead, and slots of one step may share identities (``EpochOrder``). With G = 1 both are the
/// sampler of triplet-reid.
///
/// An identity's K images are the first K of a random order of its images; one with fewer than K
/// appears in that order ceil(K / count) times, see ``repeated``.
public struct PKSampler: SlotSampler {
    /// The identities drawn from, in catalogue order.
    public let identities: [Catalogue.Identity]
    /// P: identities in a slot.
    public let identitiesPerSlot: Int
    /// K: images of each.
    public let imagesPerIdentity: Int
    /// Seed of every choice.
    public let seed: UInt64

    private let order: EpochOrder

    /// Prepares to sample a split; covered objects are left out.
    ///
    /// - Parameter validationShare: of each identity's images, what ``ImageSplit`` holds out.
    /// - Throws: ``DatasetError`` with code `notEnough` when the split has fewer than P identities,
    ///   and `invalidSetting` when P or K makes no sense.
    public init(
        catalogue: Catalogue, split: String = "train", identities identitiesPerSlot: Int,
        imagesPerIdentity: Int, validationShare: Double = 0, seed: UInt64
    ) throws(DatasetError) {
        guard identitiesPerSlot >= 1, identitiesPerSlot <= 1 << 20 else {
            throw DatasetError(
                .invalidSetting,
                "batch.identities is \(identitiesPerSlot); expected at least 1")
        }
        guard imagesPerIdentity >= 1, imagesPerIdentity <= 1 << 20 else {
            throw DatasetError(
                .invalidSetting,
                "batch.images_per_identity is \(imagesPerIdentity); expected at least 1")
        }
        let found = try ImageSplit(
            catalogue, split: split, validationShare: validationShare, seed: seed
        ).trained
        guard found.count >= identitiesPerSlot else {
            throw DatasetError(
                .notEnough,
                "batch.identities (or batch.phases) is \(identitiesPerSlot), but split '\(split)' of "
                    + "\(catalogue.root) has \(found.count) identities with uncovered images; "
                    + "lower it or add data")
        }
        identities = found
        self.identitiesPerSlot = identitiesPerSlot
        self.imagesPerIdentity = imagesPerIdentity
        self.seed = seed
        order = EpochOrder(
            count: found.count, perSlot: identitiesPerSlot, seed: seed, purpose: .identityOrder)
    }

    /// Identities with fewer than K images, whose images repeat within a slot.
    public var repeated: [Catalogue.Identity] {
        identities.filter { $0.samples.count < imagesPerIdentity }
    }

    /// One line that says which identities repeat images; nil when none does.
    public var repeatedNotice: String? {
        let short = repeated
        guard !short.isEmpty else { return nil }
        let shown = short.prefix(5).map { "\($0.name) (\($0.samples.count))" }
        return "\(short.count) of \(identities.count) identities have fewer than "
            + "\(imagesPerIdentity) images and repeat them: \(shown.joined(separator: ", "))"
            + (short.count > shown.count ? " ..." : "")
    }

    /// Steps that show every identity at most once.
    public func stepsPerEpoch(slotsPerStep: Int) -> Int {
        order.stepsPerEpoch(slotsPerStep: slotsPerStep)
    }

    /// The images of a slot.
    public func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples {
        var indices: [Int] = []
        var labels: [Int] = []
        indices.reserveCapacity(identitiesPerSlot * imagesPerIdentity)
        let drawn = order.slot(step: step, slot: slot, slotsPerStep: slotsPerStep)
        for (place, label) in drawn.enumerated() {
            var random = CounterRandom(
                seed: seed, step: UInt64(step), slot: UInt64(slot), item: UInt64(place),
                purpose: .imageChoice)
            let images = identities[label].samples
            let rounds = (imagesPerIdentity + images.count - 1) / images.count
            var choice = (0..<rounds).flatMap { _ in images }
            random.shuffle(&choice)
            indices += choice.prefix(imagesPerIdentity)
            labels += repeatElement(label, count: imagesPerIdentity)
        }
        return SlotSamples(indices: indices, labels: labels)
    }
}

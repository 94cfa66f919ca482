import Basics

/// Draws images one by one, whatever they show: an epoch shows each once.
///
/// For losses that compare images with vectors of identities, not with one another.
public struct ImageSampler: SlotSampler {
    /// Images in a slot.
    public let imagesPerSlot: Int
    /// Rows of the catalogue with the number of what they show.
    private let images: [(index: Int, label: Int)]
    private let order: EpochOrder

    /// Nothing is repeated within an epoch.
    public var repeatedNotice: String? { nil }

    /// Prepares to sample a split; covered objects are left out.
    ///
    /// - Parameter validationShare: of each identity's images, what ``ImageSplit`` holds out.
    /// - Throws: ``DatasetError`` with code `notEnough` when the split has fewer images than a slot, or
    ///   nothing can be held out.
    public init(
        catalogue: Catalogue, split: String = "train", imagesPerSlot: Int,
        validationShare: Double = 0, seed: UInt64
    ) throws(DatasetError) {
        let identities = try ImageSplit(
            catalogue, split: split, validationShare: validationShare, seed: seed
        ).trained
        images = identities.enumerated().flatMap { label, identity in
            identity.samples.map { ($0, label) }
        }
        guard imagesPerSlot >= 1, images.count >= imagesPerSlot else {
            throw DatasetError(
                .notEnough,
                "batch.images is \(imagesPerSlot), but split '\(split)' of \(catalogue.root) has "
                    + "\(images.count) uncovered images to train on; set it from 1 to that, or add data"
            )
        }
        self.imagesPerSlot = imagesPerSlot
        order = EpochOrder(
            count: images.count, perSlot: imagesPerSlot, seed: seed, purpose: .imageOrder)
    }

    /// The images of a slot.
    public func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples {
        let drawn = order.slot(step: step, slot: slot, slotsPerStep: slotsPerStep)
            .map { images[$0] }
        return SlotSamples(indices: drawn.map(\.index), labels: drawn.map(\.label))
    }
}

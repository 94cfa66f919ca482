import Basics

/// Draws given triplets, as a pure function of (seed, step, slot): an epoch shows each once.
///
/// A slot's rows are anchor, positive, negative, anchor, and so on. What is left at an epoch's end, fewer
/// than a step needs, is left out; the next epoch has another order.
public struct TripletSampler: SlotSampler {
    /// Triplets in a slot.
    public let tripletsPerSlot: Int
    private let triplets: [Triplet]
    /// The number of what an image shows, by its row of the catalogue.
    private let labels: [Int: Int]
    private let order: EpochOrder

    /// Nothing is repeated within an epoch.
    public var repeatedNotice: String? { nil }

    /// Prepares to draw.
    ///
    /// - Parameters:
    ///   - split: the images that are trained on; labels are numbers of its identities.
    ///   - name: what messages call the list.
    /// - Throws: ``DatasetError`` with code `notEnough` when there are fewer triplets than a slot has.
    public init(
        _ list: TripletList, split: ImageSplit, tripletsPerSlot: Int, seed: UInt64, name: String
    ) throws(DatasetError) {
        triplets = list.triplets
        guard tripletsPerSlot >= 1, triplets.count >= tripletsPerSlot else {
            throw DatasetError(
                .notEnough,
                "batch.triplets is \(tripletsPerSlot), but \(name) has \(triplets.count); set it "
                    + "from 1 to that, or mine more")
        }
        self.tripletsPerSlot = tripletsPerSlot
        var labels: [Int: Int] = [:]
        for (label, identity) in split.trained.enumerated() {
            for index in identity.samples { labels[index] = label }
        }
        self.labels = labels
        order = EpochOrder(
            count: triplets.count, perSlot: tripletsPerSlot, seed: seed, purpose: .tripletOrder)
    }

    /// Steps that show every triplet at most once.
    public func stepsPerEpoch(slotsPerStep: Int) -> Int {
        order.stepsPerEpoch(slotsPerStep: slotsPerStep)
    }

    /// The images of a slot.
    public func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples {
        let indices = order.slot(step: step, slot: slot, slotsPerStep: slotsPerStep)
            .flatMap { triplets[$0].images }
        return SlotSamples(indices: indices, labels: indices.map { labels[$0]! })
    }
}

import Basics
import Synchronization

/// The images of one slot of one step.
public struct SlotSamples: Sendable, Equatable {
    /// P * K indices into ``Catalogue/samples``; the K images of an identity stand together.
    public let indices: [Int]
    /// For each image the number of its identity in ``PKSampler/identities``.
    public let labels: [Int]
}

/// Draws P identities with K images each, as a pure function of (seed, step, slot).
///
/// An epoch is a random order of all identities, new for every epoch. A step takes the next
/// P * G of them, so that the G slots of a step share none; what is left at an epoch's end, fewer
/// than a step needs, is left out. With fewer than P * G identities an epoch is cut slot by slot
/// instead, and slots of one step may share identities. With G = 1 both are the sampler of
/// triplet-reid.
///
/// An identity's K images are the first K of a random order of its images; one with fewer than K
/// appears in that order ceil(K / count) times, see ``repeated``.
public struct PKSampler: Sendable {
    /// The identities drawn from, in catalogue order.
    public let identities: [Catalogue.Identity]
    /// P: identities in a slot.
    public let identitiesPerSlot: Int
    /// K: images of each.
    public let imagesPerIdentity: Int
    /// Seed of every choice.
    public let seed: UInt64

    private let lastOrder = OrderMemory()

    /// Prepares to sample a split; covered objects are left out.
    ///
    /// - Throws: ``DatasetError`` with code `notEnough` when the split has fewer than P identities,
    ///   and `invalidSetting` when P or K makes no sense.
    public init(
        catalogue: Catalogue, split: String = "train", identities identitiesPerSlot: Int,
        imagesPerIdentity: Int, seed: UInt64
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
        let found = catalogue.identities(split: split)
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
        max(identities.count / (identitiesPerSlot * slotsPerStep), 1)
    }

    /// The images of a slot.
    ///
    /// - Parameters:
    ///   - step: from 0; a run's first step may be 0 or 1.
    ///   - slot: 0..<slotsPerStep.
    ///   - slotsPerStep: G, mini-batches in a step.
    public func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples {
        precondition(
            step >= 0 && slotsPerStep >= 1 && (0..<slotsPerStep).contains(slot),
            "slot \(slot) of \(slotsPerStep) at step \(step) does not exist")
        let group = identitiesPerSlot * slotsPerStep
        let epoch: Int
        let first: Int
        if identities.count >= group {
            let steps = identities.count / group
            epoch = step / steps
            first = step % steps * group + slot * identitiesPerSlot
        } else {
            let slots = identities.count / identitiesPerSlot
            let number = step * slotsPerStep + slot
            epoch = number / slots
            first = number % slots * identitiesPerSlot
        }
        let order = lastOrder.order(seed: seed, epoch: epoch, count: identities.count)
        var indices: [Int] = []
        var labels: [Int] = []
        indices.reserveCapacity(identitiesPerSlot * imagesPerIdentity)
        for place in 0..<identitiesPerSlot {
            let label = Int(order[first + place])
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

    /// Remembers the orders of two epochs, which are functions of (seed, epoch) alone.
    private final class OrderMemory: Sendable {
        private let orders = Mutex<[(epoch: Int, order: [Int32])]>([])

        func order(seed: UInt64, epoch: Int, count: Int) -> [Int32] {
            orders.withLock { orders in
                if let known = orders.first(where: { $0.epoch == epoch }) { return known.order }
                var order = (0..<Int32(count)).map { $0 }
                var random = CounterRandom(
                    seed: seed, step: UInt64(epoch), purpose: .identityOrder)
                random.shuffle(&order)
                if orders.count == 2 { orders.removeFirst() }
                orders.append((epoch, order))
                return order
            }
        }
    }
}

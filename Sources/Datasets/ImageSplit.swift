import Basics

/// The images of a split that are trained on, and those that are held out to see whether what is
/// learnt holds for others: a share of every identity's own, a pure function of data set and seed.
///
/// Of n images round(share * n) are held out, at least 1 and at most n - 1; the only image of an
/// identity is trained on. Every identity is in both lists, so that numbers of identities are the same.
public struct ImageSplit: Sendable {
    /// Every identity of the split with the images that are trained on, in catalogue order.
    public let trained: [Catalogue.Identity]
    /// The same identities with the images that are held out; none where it has only one.
    public let heldOut: [Catalogue.Identity]
    /// The same identities with as many of the images that are trained on as are held out, or all
    /// where they are fewer: for comparison.
    public let compared: [Catalogue.Identity]

    /// Splits the uncovered images of a split.
    ///
    /// - Parameter validationShare: 0 holds nothing out.
    /// - Throws: ``DatasetError`` with code `notEnough` when no identity has an image to hold out.
    public init(
        _ catalogue: Catalogue, split: String = "train", validationShare: Double, seed: UInt64
    ) throws(DatasetError) {
        let identities = catalogue.identities(split: split)
        guard validationShare > 0 else {
            trained = identities
            heldOut = identities.map { .init(name: $0.name, samples: []) }
            compared = heldOut
            return
        }
        guard identities.contains(where: { $0.samples.count > 1 }) else {
            throw DatasetError(
                .notEnough,
                "data.validation_share is \(validationShare), but no identity of split '\(split)' of "
                    + "\(catalogue.root) has two uncovered images, one to train on and one to hold "
                    + "out; set it to 0 or add data")
        }
        var (trained, heldOut, compared) = (
            [Catalogue.Identity](), [Catalogue.Identity](), [Catalogue.Identity]()
        )
        for (number, identity) in identities.enumerated() {
            var images = identity.samples
            var random = CounterRandom(seed: seed, item: UInt64(number), purpose: .validation)
            random.shuffle(&images)
            let wanted = (validationShare * Double(images.count)).rounded()
            let count = images.count == 1 ? 0 : min(max(Int(wanted), 1), images.count - 1)
            func part(_ range: Range<Int>) -> Catalogue.Identity {
                .init(name: identity.name, samples: images[range].sorted())
            }
            heldOut.append(part(0..<count))
            trained.append(part(count..<images.count))
            compared.append(part(count..<min(2 * count, images.count)))
        }
        self.trained = trained
        self.heldOut = heldOut
        self.compared = compared
    }

    /// One line on how much is held out and which identities lack a second image; nil where nothing
    /// is held out.
    public var notice: String? {
        let count = heldOut.reduce(0) { $0 + $1.samples.count }
        guard count > 0 else { return nil }
        let rest = trained.reduce(0) { $0 + $1.samples.count }
        let single = zip(trained, heldOut).filter { $1.samples.isEmpty }.map(\.0.name)
        return "\(count) of \(count + rest) training images are held out"
            + (single.isEmpty
                ? ""
                : "; none of \(single.count) identities with one image: "
                    + single.prefix(5).joined(separator: ", ") + (single.count > 5 ? " ..." : ""))
    }
}

/// The shape of slots from some step of a run on.
public struct BatchPhase: Hashable, Sendable {
    /// Updates made before the first step of this shape.
    public let updatesBefore: Int
    /// P, identities in a slot.
    public let identities: Int
    /// K, images of each.
    public let imagesPerIdentity: Int

    /// Reads `5000:9x8`; nil for anything else.
    private init?(_ text: some StringProtocol) {
        let halves = text.split(separator: ":", omittingEmptySubsequences: false)
        guard halves.count == 2, let start = Int(halves[0]), start > 0 else { return nil }
        let shape = halves[1].split(separator: "x", omittingEmptySubsequences: false)
        guard shape.count == 2, let identities = Int(shape[0]), let images = Int(shape[1]),
            (2...65_536).contains(identities), (2...65_536).contains(images)
        else { return nil }
        updatesBefore = start
        self.identities = identities
        imagesPerIdentity = images
    }

    private init(_ batch: Settings.Batch) {
        updatesBefore = 0
        identities = batch.identities
        imagesPerIdentity = batch.imagesPerIdentity
    }

    /// All phases in order, the first from the start of the run.
    ///
    /// - Throws: ``SettingsError`` with code `conflict` for a text that says no such thing.
    public static func all(of batch: Settings.Batch) throws(SettingsError) -> [BatchPhase] {
        let texts = batch.phases?.split(separator: ",", omittingEmptySubsequences: false) ?? []
        let later = texts.compactMap { BatchPhase($0) }
        let starts = later.map(\.updatesBefore)
        guard later.count == texts.count, zip(starts, starts.dropFirst()).allSatisfy(<) else {
            throw SettingsError(
                .conflict,
                "batch.phases is '\(batch.phases ?? "")'; expected rising steps with P and K of at "
                    + "least 2 from there on, such as 5000:9x8,10000:18x4")
        }
        return [BatchPhase(batch)] + later
    }
}

extension Settings.Batch {
    /// Images of the largest slot of any phase.
    public var imagesOfLargestSlot: Int {
        get throws(SettingsError) {
            guard !isOfTriplets, images == 0 else { return imagesPerSlot }
            return try BatchPhase.all(of: self).reduce(0) {
                max($0, $1.identities * $1.imagesPerIdentity)
            }
        }
    }

    /// What is set of P x K slots, which something else is to take the place of.
    var namesOfShape: [String] {
        let published = Settings.Batch()
        return (identities == published.identities ? [] : ["batch.identities"])
            + (imagesPerIdentity == published.imagesPerIdentity
                ? [] : ["batch.images_per_identity"])
            + (phases == nil ? [] : ["batch.phases"])
    }
}

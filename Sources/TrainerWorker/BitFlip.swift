internal import Exchange

/// A bit that flips in an audited slot or fold of the first step that has one, from a step on: for tests
/// of what audits find.
public struct BitFlip: Sendable, Equatable {
    enum Kind: String, CaseIterable {
        /// In a slot, before it is digested: as if it had been computed wrongly.
        case slot
        /// In a slot, after it was digested and before any of it is used.
        case sealed
        /// While a block is folded.
        case fold
    }

    /// What ``init(_:)`` reads, for whoever wrote something else.
    public static let forms = Kind.allCases.map { "\($0.rawValue):STEP" }.joined(separator: ", ")

    let kind: Kind
    let step: Int

    /// Reads `slot:STEP`, `sealed:STEP` or `fold:STEP`.
    public init?(_ text: String) {
        let parts = text.split(separator: ":")
        guard parts.count == 2, let kind = Kind(rawValue: String(parts[0])),
            let step = Int(parts[1])
        else { return nil }
        self.kind = kind
        self.step = step
    }
}

/// Digests a slot that somebody else computes too; in tests a bit flips before it, or after.
struct SlotSealer: Sendable {
    let layout: EffectLayout
    let flip: BitFlip.Kind?

    func seal(_ contribution: SlotContribution) -> SlotSeal {
        if flip == .slot { contribution.flipBit() }
        let seal = SlotSeal(contribution, layout)
        if flip == .sealed { contribution.flipBit() }
        return seal
    }
}

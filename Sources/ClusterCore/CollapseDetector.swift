/// Sees when a network maps everything to one place: the commonest way in which triplet training fails.
///
/// Then positive and negative distances are equal, so that the loss rests at the margin, or at ln 2 with
/// the soft one, nearly every triplet is active, and embeddings lie together (Hermans et al. 2017,
/// section 3.2).
public struct CollapseDetector: Codable, Sendable, Equatable {
    /// What is looked at of a step.
    struct Observation: Codable, Sendable, Equatable {
        let loss: Double
        let fractionPositive: Double
        /// Root mean squared distance of two rows of a mini-batch.
        let spread: Double
    }

    /// Steps that count: one or two may look so by chance.
    static let window = 20
    /// How near to its resting value the mean loss has to be, relative.
    static let nearness = 0.02
    /// Rows have collapsed that are nearer than this share of the resting value's scale.
    static let spreadMax = 0.1
    /// Share of terms that have to be active.
    static let activeMin = 0.9

    /// Where the loss rests when all distances are equal.
    let rest: Double
    /// What distances are compared with: the margin, 1 with the soft one.
    let scale: Double
    private var recent: [Observation] = []
    /// Whether embeddings have collapsed.
    private(set) var isCollapsed = false

    /// Watches a loss.
    ///
    /// - Parameters:
    ///   - rest: its value where all distances are equal.
    ///   - scale: the distance that counts as far.
    public init(rest: Double, scale: Double) {
        self.rest = rest
        self.scale = scale
    }

    /// Takes in a committed step.
    ///
    /// - Returns: an event's kind and text where something has changed.
    mutating func observe(_ step: Observation) -> (kind: String, text: String)? {
        recent.append(step)
        if recent.count > Self.window { recent.removeFirst() }
        guard recent.count == Self.window else { return nil }
        let count = Double(recent.count)
        let loss = recent.reduce(0) { $0 + $1.loss } / count
        let active = recent.reduce(0) { $0 + $1.fractionPositive } / count
        let spread = recent.reduce(0) { $0 + $1.spread } / count
        let isNow =
            abs(loss - rest) <= Self.nearness * rest && active >= Self.activeMin
            && spread <= Self.spreadMax * scale
        guard isNow != isCollapsed else { return nil }
        isCollapsed = isNow
        let told = "loss \(Self.short(loss)), embeddings \(Self.short(spread)) apart"
        guard isNow else { return ("collapse_over", "embeddings spread again: \(told)") }
        return (
            "collapse",
            "embeddings have collapsed (\(told) over the last \(Self.window) steps; \(Self.short(rest)) is "
                + "the loss of a network that sees no difference): lower optimizer.learning_rate, lengthen "
                + "the warm-up, or start with loss.name=batch_all"
        )
    }

    private static func short(_ value: Double) -> String {
        let rounded = (value * 10_000).rounded() / 10_000
        return "\(rounded)"
    }
}

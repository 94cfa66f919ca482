/// A loss over all embeddings of one mini-batch.
public enum LossName: String, CaseIterable, Hashable, Sendable {
    /// The mean over all active triplets.
    case batchAll = "batch_all"
    /// Each anchor with its farthest positive and nearest negative; an anchor without negatives
    /// adds nothing.
    case batchHard = "batch_hard"
    /// As `batch_hard`, with the older corner cases: an anchor without negatives counts with its
    /// largest distance as the negative one, so that its loss is the margin.
    case batchHard000 = "batch_hard_000"
    /// Each positive pair with the nearest negative farther than the positive, else the farthest.
    case tfBatchSemiHard = "tf_batch_semi_hard"

    /// The distance that the loss was published with.
    public var defaultDistance: Distance { self == .tfBatchSemiHard ? .sqeuclidean : .euclidean }

    /// Whether embeddings are divided by their L2 norm first, unless the settings say otherwise.
    public var normalizesRowsByDefault: Bool { self == .tfBatchSemiHard }
}

/// What happens to the difference x of a positive and a negative distance.
public enum Margin: Hashable, Sendable, CustomStringConvertible {
    /// max(x + value, 0).
    case value(Double)
    /// log(1 + exp(x)).
    case soft
    /// x itself.
    case none

    /// Reads a number, `soft` or `none`.
    ///
    /// - Throws: ``MetricLearningError`` with code `unknownName` for any other text.
    public init(parsing text: String) throws(MetricLearningError) {
        switch text {
        case "soft": self = .soft
        case "none": self = .none
        default:
            guard let value = Double(text), value.isFinite else {
                throw MetricLearningError(
                    .unknownName, "loss.margin is '\(text)'; write a number, soft or none")
            }
            self = .value(value)
        }
    }

    /// The form that ``init(parsing:)`` reads.
    public var description: String {
        switch self {
        case .value(let value): "\(value)"
        case .soft: "soft"
        case .none: "none"
        }
    }
}

/// Everything that decides a loss.
public struct LossConfiguration: Hashable, Sendable {
    /// Which pairs and triplets count.
    public var name: LossName
    /// What becomes of a difference of distances.
    public var margin: Margin
    /// How far embeddings are apart.
    public var distance: Distance
    /// Whether embeddings are divided by their L2 norm first.
    public var normalizesRows: Bool

    /// Makes a configuration; what is left out follows the loss.
    public init(
        name: LossName = .batchHard, margin: Margin = .soft, distance: Distance? = nil,
        normalizesRows: Bool? = nil
    ) {
        self.name = name
        self.margin = margin
        self.distance = distance ?? name.defaultDistance
        self.normalizesRows = normalizesRows ?? name.normalizesRowsByDefault
    }

    /// Reads names as settings write them; nil takes the loss's own.
    ///
    /// - Throws: ``MetricLearningError`` with code `unknownName` that lists the known names.
    public init(
        name: String, margin: String, distance: String? = nil, normalizesRows: Bool? = nil
    ) throws(MetricLearningError) {
        guard let knownName = LossName(rawValue: name) else {
            throw MetricLearningError(
                .unknownName,
                "loss.name is '\(name)'; known are "
                    + LossName.allCases.map(\.rawValue).joined(separator: ", "))
        }
        var knownDistance: Distance?
        if let distance {
            guard let found = Distance(rawValue: distance) else {
                throw MetricLearningError(
                    .unknownName,
                    "loss.distance is '\(distance)'; known are "
                        + Distance.allCases.map(\.rawValue).joined(separator: ", "))
            }
            knownDistance = found
        }
        self.init(
            name: knownName, margin: try Margin(parsing: margin), distance: knownDistance,
            normalizesRows: normalizesRows)
    }
}

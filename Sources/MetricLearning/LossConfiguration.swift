public import Basics

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

/// What is done to embeddings before distances are taken.
public enum Normalization: String, CaseIterable, Hashable, Sendable {
    /// Nothing.
    case none
    /// Each row is divided by its L2 norm.
    case rows
    /// Each column is divided by its L2 norm over the mini-batch, as the earliest system did by
    /// mistake.
    case columns
}

/// How a loss's terms become one number.
public enum Reducer: String, CaseIterable, Hashable, Sendable {
    /// Their sum over their number.
    case mean
    /// Their sum over the number of active ones.
    case meanNonzero = "mean_nonzero"

    /// What the sum of terms is divided by; 1 where nothing counts.
    func divisor(valid: Int, active: Int) -> Double {
        Double(max(self == .mean ? valid : active, 1))
    }
}

/// Everything that decides a loss.
public struct LossConfiguration: Hashable, Sendable {
    /// Which loss.
    public var name: LossName
    /// What becomes of a difference of distances.
    public var margin: Margin
    /// How far embeddings are apart.
    public var distance: Distance
    /// What is done to embeddings first.
    public var normalization: Normalization
    /// Which pairs of rows count.
    public var miner: PairMiner
    /// How terms become one number.
    public var reducer: Reducer
    /// Above which a term is active.
    public var activeThreshold: Double
    /// What shapes single losses.
    public var parameters: LossParameters

    /// Makes a configuration; what is left out follows the loss.
    public init(
        name: LossName = .batchHard, margin: Margin? = nil, distance: Distance? = nil,
        normalization: Normalization? = nil, miner: PairMiner? = nil, reducer: Reducer? = nil,
        activeThreshold: Double? = nil, parameters: LossParameters = .init()
    ) {
        self.name = name
        self.margin = margin ?? name.defaultMargin
        self.distance = distance ?? name.defaultDistance
        self.normalization = normalization ?? name.defaultNormalization
        self.miner = miner ?? name.defaultMiner
        self.reducer = reducer ?? name.defaultReducer
        self.activeThreshold = activeThreshold ?? name.defaultActiveThreshold
        self.parameters = parameters
    }

    /// Checks what single parts cannot tell.
    ///
    /// - Throws: ``MetricLearningError`` with code `invalidValue` for a distance, margin or miner
    ///   that the loss does not have.
    func check() throws(MetricLearningError) {
        if name.isOfSimilarities, distance != .cosine {
            throw MetricLearningError(
                .invalidValue,
                "loss.distance is \(distance.rawValue), but \(name.rawValue) is defined on cosine")
        }
        let needsNumber = [.lifted, .generalizedLifted, .circle].contains(name)
        if needsNumber, margin == .soft || margin == .none {
            throw MetricLearningError(
                .invalidValue, "loss.margin is \(margin), but \(name.rawValue) needs a number")
        }
        if name.isOfTensors, miner != .all {
            throw MetricLearningError(
                .invalidValue, "loss.miner is set, but \(name.rawValue) mines itself")
        }
    }

    /// The margin of a loss that has a number.
    var marginValue: Double {
        guard case .value(let value) = margin else {
            preconditionFailure("\(name.rawValue) has margin \(margin) after check()")
        }
        return value
    }
}

extension LossConfiguration {
    /// Reads names as settings write them; nil takes the loss's own.
    ///
    /// - Throws: ``MetricLearningError`` with code `unknownName` that lists the known names, or
    ///   `invalidValue` for parts that do not go together.
    public init(
        name: String, margin: String, distance: String? = nil, normalization: String? = nil,
        miner: PairMiner? = nil, reducer: String? = nil, activeThreshold: Double? = nil,
        parameters: LossParameters = .init()
    ) throws(MetricLearningError) {
        self.init(
            name: try Self.named(name, "loss.name"), margin: try Margin(parsing: margin),
            distance: try Self.named(distance, "loss.distance"),
            normalization: try Self.named(normalization, "loss.normalize"), miner: miner,
            reducer: try Self.named(reducer, "loss.reducer"), activeThreshold: activeThreshold,
            parameters: parameters)
        try check()
    }

    private static func named<Choice: CaseIterable & RawRepresentable>(
        _ text: String, _ key: String
    ) throws(MetricLearningError) -> Choice where Choice.RawValue == String {
        guard let choice = Choice(rawValue: text) else {
            throw MetricLearningError(
                .unknownName,
                "\(key) is '\(text)'; known are "
                    + Choice.allCases.map(\.rawValue).joined(separator: ", "))
        }
        return choice
    }

    private static func named<Choice: CaseIterable & RawRepresentable>(
        _ text: String?, _ key: String
    ) throws(MetricLearningError) -> Choice? where Choice.RawValue == String {
        guard let text else { return nil }
        return try named(text, key) as Choice
    }
}

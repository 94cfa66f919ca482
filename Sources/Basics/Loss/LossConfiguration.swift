/// What happens to the difference x of a positive and a negative distance.
public enum Margin: Codable, Hashable, Sendable, LosslessStringConvertible {
    /// max(x + value, 0), in the distance's unit.
    case number(Double)
    /// log(1 + exp(x)).
    case soft
    /// x itself.
    case none

    /// Reads a number, `soft` or `none`; nil for any other text.
    public init?(_ text: String) {
        switch text {
        case "soft": self = .soft
        case "none": self = .none
        default:
            guard let value = Double(text), value.isFinite else { return nil }
            self = .number(value)
        }
    }

    /// The form that ``init(_:)`` reads.
    public var description: String {
        switch self {
        case .number(let value): "\(value)"
        case .soft: "soft"
        case .none: "none"
        }
    }

    /// Reads a number, `"soft"` or `"none"`.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let value = try? container.decode(Double.self) {
            self = .number(value)
            return
        }
        switch try container.decode(String.self) {
        case "soft": self = .soft
        case "none": self = .none
        case let other:
            throw DecodingError.dataCorruptedError(
                in: container, debugDescription: "'\(other)' is no margin")
        }
    }

    /// Writes a number, `"soft"` or `"none"`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        if case .number(let value) = self {
            try container.encode(value)
        } else {
            try container.encode(description)
        }
    }
}

/// How far two embeddings are apart.
public enum Distance: String, Codable, CaseIterable, Hashable, Sendable {
    /// The square root of the sum of squared differences.
    case euclidean
    /// The sum of squared differences.
    case sqeuclidean
    /// The sum of absolute differences.
    case cityblock
    /// One less the cosine of the angle.
    case cosine
}

/// What is done to embeddings before distances are taken.
public enum Normalization: String, Codable, CaseIterable, Hashable, Sendable {
    /// Nothing.
    case none
    /// Each row is divided by its L2 norm.
    case rows
    /// Each column is divided by its L2 norm over the mini-batch, as the earliest system did by
    /// mistake.
    case columns
}

/// Which of an anchor's pairs count.
public enum PairMiner: String, Codable, CaseIterable, Hashable, Sendable {
    /// All of them.
    case all
    /// Positives that are hardly nearer than the nearest negative, negatives that are hardly farther
    /// than the farthest positive; none where the anchor has no pair of the other kind.
    ///
    /// - SeeAlso: Wang et al., "Multi-similarity loss", arXiv:1904.06627, section 3.2.
    case multiSimilarity = "multi_similarity"
}

/// How a loss's terms become one number.
public enum Reducer: String, Codable, CaseIterable, Hashable, Sendable {
    /// Their sum over their number.
    case mean
    /// Their sum over the number of active ones.
    case meanNonzero = "mean_nonzero"
}

/// Everything that decides a loss: what the settings below `loss.` say, with their names.
///
/// Defaults and their reasons stand beside the values; where the default depends on the loss,
/// ``init(name:margin:distance:normalization:miner:reducer:activeThreshold:)`` says how.
public struct LossConfiguration: Codable, Hashable, Sendable {
    /// Which loss.
    ///
    /// batch_hard: the best of the earlier systems' published results.
    public var name: LossName
    /// What becomes of a difference of distances: the least that is wanted, where it is a number.
    ///
    /// soft: needs no choice and keeps pulling after the margin is reached.
    public var margin = Margin.soft
    /// How far embeddings are apart.
    ///
    /// euclidean: its gradient does not vanish as distances shrink.
    public var distance = Distance.euclidean
    /// What is done to embeddings first.
    ///
    /// none: the head decides.
    public var normalization = Normalization.none
    /// Which of an anchor's pairs count.
    public var miner = PairMiner.all
    /// `multi_similarity` mining: how much easier than the hardest of the other kind a pair may be.
    ///
    /// 0.1 as published.
    public var minerEpsilon = 0.1
    /// How terms become one number.
    public var reducer = Reducer.mean
    /// Above which a term is active.
    ///
    /// 1e-5 as in triplet-reid.
    public var activeThreshold = 1e-5
    /// The exponential HAP2S loss: distances are divided by this before they become weights.
    ///
    /// 0.5 as published.
    public var hap2sSigma = 0.5
    /// The polynomial HAP2S loss: positives weigh (1 + d)^alpha, negatives (1 + d)^(-2 alpha).
    ///
    /// 10 as published.
    public var hap2sAlpha = 10.0
    /// Whether HAP2S adds 1e-6 to its denominators and caps its weights, as earlier systems did.
    ///
    /// false: the added constant drags the mean of far negatives to 0.
    public var hap2sCompatibility = false
    /// dot_triplet: the least wanted similarity of an anchor and its positive; -1: none.
    ///
    /// -1, as in the earlier system.
    public var positiveThreshold = -1.0
    /// What similarities are divided by.
    ///
    /// 0.1 as published with supervised_contrastive.
    public var temperature = 0.1
    /// Multi-similarity: how sharply dissimilar positives stand out.
    ///
    /// 2 as published.
    public var multiSimilarityAlpha = 2.0
    /// Multi-similarity: how sharply similar negatives stand out.
    ///
    /// 50 as published.
    public var multiSimilarityBeta = 50.0
    /// Multi-similarity: the similarity that divides positives from negatives.
    ///
    /// 0.5: halfway between a right angle and none.
    public var multiSimilarityBase = 0.5
    /// Circle: the scale of the logits.
    ///
    /// 80 as published for retrieval.
    public var circleGamma = 80.0
    /// Margin softmax: what cosines are multiplied with.
    ///
    /// 64 as published.
    public var scale = 64.0
    /// Softmax over identities: the share of the target that all identities have in equal parts.
    ///
    /// 0; 0.1 with softmax, as in re-identification and in the earlier system's auxiliary head.
    public var labelSmoothing = 0.0
    /// Proxy anchor: how sharply rows on the wrong side stand out.
    ///
    /// 32 as published.
    public var proxyAnchorAlpha = 32.0
    /// What the learning rate of the identities' vectors is multiplied with.
    ///
    /// 1; 100 with proxy_anchor, as published.
    public var classRateFactor = 1.0
    /// What the decay of the identities' vectors is multiplied with.
    ///
    /// 1; 0 with center: a centre is where its images are.
    public var classDecayFactor = 1.0
    /// What the loss is multiplied with.
    ///
    /// 1: the rate alone decides how far a step goes.
    public var weight = 1.0
    /// Losses that are added, each with its weight; they have none of their own.
    public var plus: [LossConfiguration] = []
    /// Embeddings of earlier steps that images are compared with as well; said once for a sum.
    ///
    /// 0: none. With more of them the oldest is older: their number over a step's images, in steps.
    public var memory = 0
    /// Steps before the memory is compared with.
    ///
    /// 1,000 as published: embeddings move too fast before.
    public var memoryStartStep = 1_000
    /// What the loss against the memory is multiplied with.
    ///
    /// 1 as published.
    public var memoryWeight = 1.0

    /// This loss alone and those that are added to it.
    public var parts: [LossConfiguration] {
        var alone = self
        alone.plus = []
        return [alone] + plus
    }

    /// The first of the parts that says which identity an image shows; nil where none does.
    public var classifier: LossConfiguration? { parts.first(where: \.name.classifies) }

    /// Whether the lengths of embeddings do not matter.
    public var looksAtDirections: Bool { normalization == .rows || distance == .cosine }

    enum CodingKeys: String, CodingKey {
        case name, margin, distance, miner, reducer, temperature
        case normalization = "normalize"
        case minerEpsilon = "miner_epsilon"
        case activeThreshold = "active_threshold"
        case hap2sSigma = "hap2s_sigma"
        case hap2sAlpha = "hap2s_alpha"
        case hap2sCompatibility = "hap2s_compatibility"
        case positiveThreshold = "positive_threshold"
        case multiSimilarityAlpha = "multi_similarity_alpha"
        case multiSimilarityBeta = "multi_similarity_beta"
        case multiSimilarityBase = "multi_similarity_base"
        case circleGamma = "circle_gamma"
        case scale
        case labelSmoothing = "label_smoothing"
        case proxyAnchorAlpha = "proxy_anchor_alpha"
        case classRateFactor = "class_rate_factor"
        case classDecayFactor = "class_decay_factor"
        case weight, plus, memory
        case memoryStartStep = "memory_start_step"
        case memoryWeight = "memory_weight"
    }

    /// Makes a configuration; what is left out is as the loss was published.
    public init(
        name: LossName = .batchHard, margin: Margin? = nil, distance: Distance? = nil,
        normalization: Normalization? = nil, miner: PairMiner? = nil, reducer: Reducer? = nil,
        activeThreshold: Double? = nil
    ) {
        self.name = name
        publish()
        self.margin = margin ?? self.margin
        self.distance = distance ?? self.distance
        self.normalization = normalization ?? self.normalization
        self.miner = miner ?? self.miner
        self.reducer = reducer ?? self.reducer
        self.activeThreshold = activeThreshold ?? self.activeThreshold
    }

    /// Reads an object with a name; what it leaves out is as the loss was published.
    public init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        func read<Value: Decodable>(_ key: CodingKeys, _ value: inout Value) throws {
            value = try values.decodeIfPresent(Value.self, forKey: key) ?? value
        }
        self.init(name: try values.decode(LossName.self, forKey: .name))
        try read(.margin, &margin)
        try read(.distance, &distance)
        try read(.normalization, &normalization)
        try read(.miner, &miner)
        try read(.minerEpsilon, &minerEpsilon)
        try read(.reducer, &reducer)
        try read(.activeThreshold, &activeThreshold)
        try read(.hap2sSigma, &hap2sSigma)
        try read(.hap2sAlpha, &hap2sAlpha)
        try read(.hap2sCompatibility, &hap2sCompatibility)
        try read(.positiveThreshold, &positiveThreshold)
        try read(.temperature, &temperature)
        try read(.multiSimilarityAlpha, &multiSimilarityAlpha)
        try read(.multiSimilarityBeta, &multiSimilarityBeta)
        try read(.multiSimilarityBase, &multiSimilarityBase)
        try read(.circleGamma, &circleGamma)
        try read(.scale, &scale)
        try read(.labelSmoothing, &labelSmoothing)
        try read(.proxyAnchorAlpha, &proxyAnchorAlpha)
        try read(.classRateFactor, &classRateFactor)
        try read(.classDecayFactor, &classDecayFactor)
        try read(.weight, &weight)
        try read(.plus, &plus)
        try read(.memory, &memory)
        try read(.memoryStartStep, &memoryStartStep)
        try read(.memoryWeight, &memoryWeight)
    }

    /// What losses were published with, where it is not the value above.
    private mutating func publish() {
        switch name {
        case .batchHard, .batchHard000, .batchSample, .weightedTriplet, .hap2sExponential,
            .hap2sPolynomial:
            break
        case .batchAll: reducer = .meanNonzero
        case .tfBatchSemiHard, .semiHard:
            margin = .number(1)
            distance = .sqeuclidean
            normalization = .rows
        case .lifted, .generalizedLifted: margin = .number(1)
        case .multiSimilarity:
            margin = .none
            distance = .cosine
            miner = .multiSimilarity
        case .circle:
            margin = .number(0.4)
            distance = .cosine
            reducer = .meanNonzero
        case .supervisedContrastive:
            margin = .none
            distance = .cosine
            reducer = .meanNonzero
        case .ntXent:
            margin = .none
            distance = .cosine
            temperature = 0.07
        case .triplet:
            margin = .number(0.4)
            distance = .sqeuclidean
        case .dotTriplet:
            margin = .number(0.1)
            distance = .cosine
        case .softmax:
            margin = .none
            temperature = 1
            labelSmoothing = 0.1
        case .normalizedSoftmax:
            margin = .none
            distance = .cosine
            temperature = 0.05
        case .arcface:
            margin = .number(0.5)
            distance = .cosine
        case .cosface:
            margin = .number(0.35)
            distance = .cosine
        case .proxyAnchor:
            margin = .number(0.1)
            distance = .cosine
            classRateFactor = 100
        case .center:
            margin = .none
            classDecayFactor = 0
        }
        if reducer == .meanNonzero { activeThreshold = 1e-16 }
    }
}

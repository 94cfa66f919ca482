public import Basics

extension Settings {
    /// Which loss.
    public enum LossName: String, Codable, Hashable, Sendable, CaseIterable {
        /// Every valid triplet; the mean over those that are not yet satisfied.
        case batchAll = "batch_all"
        /// The farthest positive and the nearest negative of every anchor.
        case batchHard = "batch_hard"
        /// The same with the corner cases of the earliest system.
        case batchHard000 = "batch_hard_000"
        /// The nearest negative beyond each positive, with TensorFlow's corner cases.
        case tfBatchSemiHard = "tf_batch_semi_hard"
        /// The nearest negative beyond each positive.
        case semiHard = "semi_hard"
        /// A positive and a negative drawn for every anchor.
        case batchSample = "batch_sample"
        /// Means of every anchor's positive and negative distances, weighted by soft-max.
        case weightedTriplet = "weighted_triplet"
        /// Every positive pair against all negatives of both its rows.
        case lifted
        /// All positives of every anchor against all its negatives.
        case generalizedLifted = "generalized_lifted"
        /// HAP2S with exponential weights.
        case hap2sExponential = "hap2s_exponential"
        /// HAP2S with polynomial weights.
        case hap2sPolynomial = "hap2s_polynomial"
        /// Mined pairs around one similarity.
        case multiSimilarity = "multi_similarity"
        /// Pairs weighted by how far they are from their optimum.
        case circle
        /// Every anchor's positives as classes.
        case supervisedContrastive = "supervised_contrastive"
        /// Every positive pair as a class among the anchor's negatives.
        case ntXent = "nt_xent"
    }

    /// The least wanted difference between negative and positive distance.
    public enum Margin: Codable, Hashable, Sendable {
        /// A hinge with this margin, in the distance's unit.
        case number(Double)
        /// softplus in place of a hinge.
        case soft
        /// The bare difference.
        case none

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
            switch self {
            case .number(let value): try container.encode(value)
            case .soft: try container.encode("soft")
            case .none: try container.encode("none")
            }
        }
    }

    /// How far two embeddings are apart.
    public enum Distance: String, Codable, Hashable, Sendable, CaseIterable {
        /// The length of the difference.
        case euclidean
        /// Its square.
        case sqeuclidean
        /// The sum of absolute differences.
        case cityblock
        /// One less the cosine of the angle.
        case cosine
    }

    /// What is done to embeddings before distances are taken.
    public enum LossNormalization: String, Codable, Hashable, Sendable, CaseIterable {
        /// Nothing.
        case none
        /// Each embedding gets length 1.
        case rows
        /// Each of an embedding's numbers gets length 1 over the mini-batch, the earliest system's
        /// mistake.
        case columns
    }

    /// Which of an anchor's pairs count.
    public enum PairMiner: String, Codable, Hashable, Sendable, CaseIterable {
        /// All.
        case all
        /// Those that are hard beside the hardest of the other kind.
        case multiSimilarity = "multi_similarity"
    }

    /// How a loss's terms become one number.
    public enum Reducer: String, Codable, Hashable, Sendable, CaseIterable {
        /// The mean of all.
        case mean
        /// Their sum over the number of active ones.
        case meanNonzero = "mean_nonzero"
    }

    /// The loss.
    public struct Loss: Codable, Hashable, Sendable {
        /// Which one.
        ///
        /// batch_hard: the best of the earlier systems' published results.
        public var name = LossName.batchHard
        /// soft: needs no choice and keeps pulling after the margin is reached.
        ///
        /// Losses that are defined with a number have that of their publication.
        public var margin = Margin.soft
        /// euclidean: its gradient does not vanish as distances shrink.
        ///
        /// Losses that are defined on squares or similarities have those.
        public var distance = Distance.euclidean
        /// none: the head decides; rows with the semi-hard losses, which are defined so.
        public var normalize = LossNormalization.none
        /// all; multi_similarity with that loss, as published.
        public var miner = PairMiner.all
        /// 0.1 as published.
        public var minerEpsilon = 0.1
        /// mean; mean_nonzero with the losses that were published so.
        public var reducer = Reducer.mean
        /// 1e-5 as in triplet-reid; 1e-16 with the losses whose reducer is mean_nonzero.
        public var activeThreshold = 1e-5
        /// 0.5 as published.
        public var hap2sSigma = LossParameters().hap2sSigma
        /// 10 as published.
        public var hap2sAlpha = LossParameters().hap2sAlpha
        /// false: the added constant drags the mean of far negatives to 0.
        public var hap2sCompatibility = LossParameters().hap2sCompatibility
        /// 0.1 as published; 0.07 with nt_xent.
        public var temperature = LossParameters().temperature
        /// 2 as published.
        public var multiSimilarityAlpha = LossParameters().multiSimilarityAlpha
        /// 50 as published.
        public var multiSimilarityBeta = LossParameters().multiSimilarityBeta
        /// 0.5: halfway between a right angle and none.
        public var multiSimilarityBase = LossParameters().multiSimilarityBase
        /// 80 as published for retrieval.
        public var circleGamma = LossParameters().circleGamma

        enum CodingKeys: String, CodingKey {
            case name, margin, distance, normalize, miner, reducer, temperature
            case minerEpsilon = "miner_epsilon"
            case activeThreshold = "active_threshold"
            case hap2sSigma = "hap2s_sigma"
            case hap2sAlpha = "hap2s_alpha"
            case hap2sCompatibility = "hap2s_compatibility"
            case multiSimilarityAlpha = "multi_similarity_alpha"
            case multiSimilarityBeta = "multi_similarity_beta"
            case multiSimilarityBase = "multi_similarity_base"
            case circleGamma = "circle_gamma"
        }

        /// What shapes single losses.
        public var parameters: LossParameters {
            var parameters = LossParameters()
            parameters.hap2sSigma = hap2sSigma
            parameters.hap2sAlpha = hap2sAlpha
            parameters.hap2sCompatibility = hap2sCompatibility
            parameters.temperature = temperature
            parameters.multiSimilarityAlpha = multiSimilarityAlpha
            parameters.multiSimilarityBeta = multiSimilarityBeta
            parameters.multiSimilarityBase = multiSimilarityBase
            parameters.circleGamma = circleGamma
            return parameters
        }
    }
}

extension Settings.LossName {
    /// A loss's settings as it was published.
    public var defaults: Settings.Loss {
        var loss = Settings.Loss()
        loss.name = self
        switch self {
        case .batchHard, .batchHard000, .batchSample, .weightedTriplet, .hap2sExponential,
            .hap2sPolynomial:
            break
        case .batchAll: loss.reducer = .meanNonzero
        case .tfBatchSemiHard, .semiHard:
            loss.margin = .number(1)
            loss.distance = .sqeuclidean
            loss.normalize = .rows
        case .lifted, .generalizedLifted: loss.margin = .number(1)
        case .multiSimilarity:
            loss.margin = .none
            loss.distance = .cosine
            loss.miner = .multiSimilarity
        case .circle:
            loss.margin = .number(0.4)
            loss.distance = .cosine
            loss.reducer = .meanNonzero
        case .supervisedContrastive:
            loss.margin = .none
            loss.distance = .cosine
            loss.reducer = .meanNonzero
        case .ntXent:
            loss.margin = .none
            loss.distance = .cosine
            loss.temperature = 0.07
        }
        if loss.reducer == .meanNonzero { loss.activeThreshold = 1e-16 }
        return loss
    }

    /// Whether the loss is defined with a number as margin alone.
    var needsNumber: Bool {
        [.tfBatchSemiHard, .lifted, .generalizedLifted, .circle].contains(self)
    }

    /// The distance that the loss is defined on, if it is one.
    var onlyDistance: Settings.Distance? {
        let isDefinedOnOne = self == .tfBatchSemiHard || defaults.distance == .cosine
        return isDefinedOnOne ? defaults.distance : nil
    }

    /// The settings below `loss.` that only some losses read, and this one does.
    var ownSettings: Set<String> {
        switch self {
        case .batchHard, .batchHard000, .batchAll, .tfBatchSemiHard, .semiHard, .batchSample,
            .weightedTriplet, .lifted, .generalizedLifted:
            ["margin"]
        case .hap2sExponential: ["margin", "hap2s_sigma", "hap2s_compatibility"]
        case .hap2sPolynomial: ["margin", "hap2s_alpha", "hap2s_compatibility"]
        case .multiSimilarity:
            ["multi_similarity_alpha", "multi_similarity_beta", "multi_similarity_base"]
        case .circle: ["margin", "circle_gamma"]
        case .supervisedContrastive, .ntXent: ["temperature"]
        }
    }

    private static let sharedSettings: Set<String> = [
        "name", "distance", "normalize", "miner", "miner_epsilon", "reducer", "active_threshold",
    ]

    /// Whether the loss reads a setting of this dotted name.
    func reads(_ key: String) -> Bool {
        let name = key.dropFirst("loss.".count)
        return Self.sharedSettings.contains(String(name)) || ownSettings.contains(String(name))
    }
}

extension Settings {
    /// Checks that the loss's settings go together and that the batch has what it compares.
    func checkLoss() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        let name = loss.name
        let defaults = SettingsCatalogue.defaults(backbone: network.backbone, loss: name)
        let values = flatValues
        for key in SettingsCatalogue.keys where key.hasPrefix("loss.") && !name.reads(key) {
            guard let value = values[key], value != defaults[key] else { continue }
            throw refuse(
                "\(key) is \(value.settingText), but \(name.rawValue) does not use it; leave it out"
            )
        }
        if let number = defaults["loss.margin"], name.needsNumber {
            guard case .number = loss.margin else {
                throw refuse(
                    "loss.margin is \(values["loss.margin"]?.settingText ?? ""), but "
                        + "\(name.rawValue) needs a number, such as "
                        + "loss.margin=\(number.settingText)")
            }
        }
        if let fixed = name.onlyDistance, loss.distance != fixed {
            throw refuse(
                "loss.distance is \(loss.distance.rawValue), but \(name.rawValue) is defined on "
                    + "\(fixed.rawValue); leave loss.distance out")
        }
        if loss.margin == .none, name.defaults.margin != .none, loss.reducer == .meanNonzero {
            throw refuse(
                "loss.margin is none, but loss.reducer=mean_nonzero averages over the terms that "
                    + "violate a margin; set a number or soft, or loss.reducer=mean")
        }
        if name == .batchHard || name == .batchHard000, loss.miner != .all {
            throw refuse(
                "loss.miner is \(loss.miner.rawValue), but \(name.rawValue) mines for itself; leave "
                    + "loss.miner out, or choose another loss")
        }
        if loss.miner == .all, loss.minerEpsilon != name.defaults.minerEpsilon {
            throw refuse(
                "loss.miner_epsilon is \(loss.minerEpsilon), but loss.miner is all; leave it out, or "
                    + "set loss.miner=multi_similarity")
        }
        if batch.imagesPerIdentity < 2 {
            throw refuse(
                "batch.images_per_identity is 1, but \(name.rawValue) compares images of one "
                    + "identity; set batch.images_per_identity to at least 2")
        }
        if batch.identities < 2 {
            throw refuse(
                "batch.identities is 1, but \(name.rawValue) compares an image with those of other "
                    + "identities; set batch.identities to at least 2")
        }
    }
}

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
    /// Each positive pair with the nearest negative farther than the positive, else the farthest;
    /// an anchor without negatives counts with a negative distance of 0.
    case tfBatchSemiHard = "tf_batch_semi_hard"
    /// As `tf_batch_semi_hard`, but an anchor without negatives adds nothing.
    case semiHard = "semi_hard"
    /// Each anchor with a positive and a negative drawn by their distances.
    case batchSample = "batch_sample"
    /// Each anchor with means of its positive and of its negative distances, weighted by soft-max.
    case weightedTriplet = "weighted_triplet"
    /// Each positive pair with all negatives of both its rows.
    case lifted
    /// Each anchor with all its positives and all its negatives.
    case generalizedLifted = "generalized_lifted"
    /// `weighted_triplet` with a scale of its own.
    case hap2sExponential = "hap2s_exponential"
    /// `weighted_triplet` with powers of the distance as weights.
    case hap2sPolynomial = "hap2s_polynomial"
    /// Each anchor's mined positives and negatives around one similarity.
    case multiSimilarity = "multi_similarity"
    /// Each anchor's positives and negatives, weighted by how far they are from their optimum.
    case circle
    /// Each anchor's positives as classes among all other rows.
    case supervisedContrastive = "supervised_contrastive"
    /// Each positive pair as a class among the anchor's negatives.
    case ntXent = "nt_xent"

    /// The distance that the loss was published with.
    public var defaultDistance: Distance {
        switch self {
        case .tfBatchSemiHard, .semiHard: .sqeuclidean
        case .multiSimilarity, .circle, .supervisedContrastive, .ntXent: .cosine
        case .batchAll, .batchHard, .batchHard000, .batchSample, .weightedTriplet, .lifted,
            .generalizedLifted, .hap2sExponential, .hap2sPolynomial:
            .euclidean
        }
    }

    /// The margin that the loss was published with.
    public var defaultMargin: Margin {
        switch self {
        case .tfBatchSemiHard, .semiHard, .lifted, .generalizedLifted: .value(1)
        case .circle: .value(0.4)
        case .batchAll, .batchHard, .batchHard000, .batchSample, .weightedTriplet,
            .hap2sExponential, .hap2sPolynomial:
            .soft
        case .multiSimilarity, .supervisedContrastive, .ntXent: .none
        }
    }

    /// What is done to embeddings first, unless the settings say otherwise.
    public var defaultNormalization: Normalization {
        self == .tfBatchSemiHard || self == .semiHard ? .rows : .none
    }

    /// Which pairs of rows the loss sees, unless the settings say otherwise.
    public var defaultMiner: PairMiner {
        self == .multiSimilarity ? .multiSimilarity(epsilon: 0.1) : .all
    }

    /// How terms become one number, unless the settings say otherwise.
    public var defaultReducer: Reducer {
        switch self {
        case .batchAll, .circle, .supervisedContrastive: .meanNonzero
        default: .mean
        }
    }

    /// Above which a term counts as active, unless the settings say otherwise.
    public var defaultActiveThreshold: Double {
        switch self {
        case .batchAll, .circle, .supervisedContrastive: 1e-16
        default: 1e-5
        }
    }

    /// Whether the loss is made of similarities, one less the cosine distance.
    var isOfSimilarities: Bool { defaultDistance == .cosine }

    /// Whether the loss is a formula over tensors, which no miner of pairs reaches.
    var isOfTensors: Bool { self == .batchHard || self == .batchHard000 }
}

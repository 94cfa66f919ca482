/// A loss over all embeddings of one mini-batch.
public enum LossName: String, Codable, CaseIterable, Hashable, Sendable {
    /// Every valid triplet; the mean over those that are not yet satisfied.
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
    /// Each triplet that is given: rows come as anchor, positive and negative.
    case triplet
    /// The same by inner products of rows of length 1.
    case dotTriplet = "dot_triplet"
    /// Each row's identity by inner products with a vector for each identity.
    case softmax
    /// Each row's identity by cosines.
    case normalizedSoftmax = "normalized_softmax"
    /// The same with a margin in the angle to the row's own identity.
    case arcface
    /// The same with a margin in the cosine of the row's own identity.
    case cosface
    /// Each identity's vector with the rows around it.
    case proxyAnchor = "proxy_anchor"
    /// Each row with its identity's centre.
    case center

    /// The loss as it was published.
    public var defaults: LossConfiguration { LossConfiguration(name: self) }

    /// Whether the loss has a vector of its own for each identity of the training data.
    ///
    /// These vectors are trained beside the network. Every other loss compares rows with each other.
    public var hasClasses: Bool {
        switch self {
        case .softmax, .normalizedSoftmax, .arcface, .cosface, .proxyAnchor, .center: true
        case .batchAll, .batchHard, .batchHard000, .tfBatchSemiHard, .semiHard, .batchSample,
            .weightedTriplet, .lifted, .generalizedLifted, .hap2sExponential, .hap2sPolynomial,
            .multiSimilarity, .circle, .supervisedContrastive, .ntXent, .triplet, .dotTriplet:
            false
        }
    }

    /// Whether the loss says how probable each identity is for an image: a cross-entropy.
    public var classifies: Bool {
        [.softmax, .normalizedSoftmax, .arcface, .cosface].contains(self)
    }

    /// Whether rows come in threes, an anchor, its positive and its negative.
    public var isOfTriplets: Bool { self == .triplet || self == .dotTriplet }

    /// Whether an image can be compared with embeddings of earlier steps: its terms need no distances
    /// but its own, and a rule for what is missing.
    public var takesMemory: Bool {
        switch self {
        case .batchAll, .batchHard, .tfBatchSemiHard, .semiHard, .batchSample, .weightedTriplet,
            .generalizedLifted, .hap2sExponential, .hap2sPolynomial, .multiSimilarity, .circle,
            .supervisedContrastive, .ntXent:
            true
        default: false
        }
    }

    /// Whether the loss is made of similarities, one less the cosine distance.
    public var isOfSimilarities: Bool { defaults.distance == .cosine }

    /// Whether the formula has a number for a margin, and no other form.
    public var needsNumber: Bool {
        [.lifted, .generalizedLifted, .circle, .arcface, .cosface, .proxyAnchor].contains(self)
    }

    /// Whether the loss itself picks the pairs that count, so that no miner can.
    public var minesItself: Bool { self == .batchHard || self == .batchHard000 }
}

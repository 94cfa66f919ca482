/// What shapes a metric loss besides its margin and its distance; each loss reads its own.
public struct LossParameters: Hashable, Sendable {
    /// The exponential HAP2S loss: distances are divided by this before they become weights.
    public var hap2sSigma = 0.5
    /// The polynomial HAP2S loss: positives weigh (1 + d)^alpha, negatives (1 + d)^(-2 alpha).
    public var hap2sAlpha = 10.0
    /// Whether HAP2S adds 1e-6 to its denominators and caps its weights, as earlier systems did.
    public var hap2sCompatibility = false
    /// Contrastive losses: similarities are divided by this.
    public var temperature = 0.1
    /// Multi-similarity: how sharply dissimilar positives stand out.
    public var multiSimilarityAlpha = 2.0
    /// Multi-similarity: how sharply similar negatives stand out.
    public var multiSimilarityBeta = 50.0
    /// Multi-similarity: the similarity that divides positives from negatives.
    public var multiSimilarityBase = 0.5
    /// Circle: the scale of the logits.
    public var circleGamma = 80.0

    /// Each at the value it was published with.
    public init() {}
}

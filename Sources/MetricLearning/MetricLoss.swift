public import Basics
public import Tensors

/// A loss and what is reported beside it.
public struct LossResult: Sendable {
    /// One element, with its graph.
    public let loss: Tensor
    /// Share of valid terms that are active; 0 when none is valid.
    public let fractionPositive: Double
    /// Terms above ``LossConfiguration/activeThreshold``: those that still pull.
    public let activeCount: Int
    /// Terms that count: triplets (batch_all), positive pairs (semi-hard, lifted, nt_xent), else anchors.
    public let validCount: Int
}

/// A metric-learning loss over one mini-batch.
///
/// batch_hard is a graph of LibTorch's operators over the matrix of distances. Every other loss is an
/// ``AnchorLoss``: distances, value and derivative are computed in float64, on one thread, in memory
/// linear in the matrix, and the derivative by the embeddings is handed to autograd. The types in `Losses` say what each does where an anchor lacks positives or negatives;
/// a mini-batch without a valid term has loss 0 and gradient 0, never NaN.
public struct MetricLoss: Sendable {
    /// What decides the loss.
    public let configuration: LossConfiguration

    /// Makes a loss.
    ///
    /// - Throws: ``MetricLearningError`` with code `invalidValue` for parts that do not go together.
    public init(_ configuration: LossConfiguration) throws(MetricLearningError) {
        try configuration.check()
        self.configuration = configuration
    }

    /// The loss of a mini-batch.
    ///
    /// - Parameters:
    ///   - embeddings: `[count, dimension]`, any floating-point dtype; half precision is computed in
    ///     float32.
    ///   - labels: one identity for each row.
    ///   - random: what `batch_sample` draws from.
    /// - Throws: ``MetricLearningError`` with code `shapeMismatch`, or a `TensorError`.
    public func callAsFunction(
        _ embeddings: Tensor, labels: [Int],
        random: CounterRandom = CounterRandom(seed: 0, purpose: .mining)
    ) throws -> LossResult {
        var draws: [Double] = []
        if configuration.name == .batchSample {
            var random = random
            draws = labels.flatMap { _ in [random.uniform(), random.uniform()] }
        }
        return try evaluate(embeddings, labels: labels, draws: draws)
    }

    /// The loss of a mini-batch with given draws.
    ///
    /// - Parameter draws: for each row, two numbers in [0, 1): its positive's and its negative's.
    package func evaluate(
        _ embeddings: Tensor, labels: [Int], draws: [Double]
    ) throws -> LossResult {
        guard embeddings.rank == 2, embeddings.size(0) == labels.count, !labels.isEmpty else {
            throw MetricLearningError(
                .shapeMismatch,
                "embeddings are \(embeddings.shape) and there are \(labels.count) labels; "
                    + "one label a row is needed")
        }
        let isHalf = embeddings.dtype == .bfloat16 || embeddings.dtype == .float16
        let given = try isHalf ? embeddings.to(dtype: .float32) : embeddings
        let rows =
            switch configuration.normalization {
            case .none: given
            case .rows: try unitRows(given)
            case .columns: try unitRows(given.transpose()).transpose().contiguous()
            }
        return try result(rows, labels, draws)
    }

    private func result(
        _ rows: Tensor, _ labels: [Int], _ draws: [Double]
    ) throws -> LossResult {
        let (margin, parameters) = (configuration.margin, configuration.parameters)
        func hard() throws -> (HardTriplets, distances: Tensor, BatchPairs) {
            (
                HardTriplets(
                    margin: margin, reducer: configuration.reducer,
                    activeThreshold: configuration.activeThreshold),
                try configuration.distance.matrix(rows), BatchPairs(labels: labels)
            )
        }
        func over(_ loss: some AnchorLoss) throws -> LossResult {
            try AnchorPass(labels: labels, miner: configuration.miner).result(
                of: loss, PairTable(rows, configuration.distance), configuration.reducer,
                threshold: configuration.activeThreshold)
        }
        func pointToSet(_ weight: PointToSet.Weight) throws -> LossResult {
            try over(
                PointToSet(
                    weight: weight, margin: margin, isCompatible: parameters.hap2sCompatibility))
        }
        switch configuration.name {
        case .batchHard:
            let (loss, distances, pairs) = try hard()
            return try loss(distances, pairs)
        case .batchHard000:
            let (loss, distances, pairs) = try hard()
            return try loss.withOldCorners(distances, pairs)
        case .batchAll: return try over(AllTriplets(margin: margin))
        case .tfBatchSemiHard:
            return try over(SemiHardTriplets(margin: margin, countsLoneAnchors: true))
        case .semiHard:
            return try over(SemiHardTriplets(margin: margin, countsLoneAnchors: false))
        case .batchSample: return try over(SampledTriplets(margin: margin, draws: draws))
        case .weightedTriplet:
            return try over(PointToSet(weight: .exponential(sigma: 1), margin: margin))
        case .hap2sExponential: return try pointToSet(.exponential(sigma: parameters.hap2sSigma))
        case .hap2sPolynomial: return try pointToSet(.polynomial(alpha: parameters.hap2sAlpha))
        case .lifted: return try over(LiftedLoss(margin: configuration.marginValue))
        case .generalizedLifted:
            return try over(GeneralizedLiftedLoss(margin: configuration.marginValue))
        case .multiSimilarity:
            return try over(
                MultiSimilarityLoss(
                    alpha: parameters.multiSimilarityAlpha, beta: parameters.multiSimilarityBeta,
                    base: parameters.multiSimilarityBase))
        case .circle:
            return try over(
                CircleLoss(margin: configuration.marginValue, gamma: parameters.circleGamma))
        case .supervisedContrastive:
            return try over(SupervisedContrastiveLoss(temperature: parameters.temperature))
        case .ntXent: return try over(NTXentLoss(temperature: parameters.temperature))
        }
    }
}

import Basics
import Tensors

/// One loss of a sum.
struct LossPart: Sendable {
    let configuration: LossConfiguration

    /// - Throws: ``MetricLearningError`` with code `invalidValue` for parts that do not go together.
    init(_ configuration: LossConfiguration) throws(MetricLearningError) {
        try Self.check(configuration)
        self.configuration = configuration
    }

    /// Checks what single parts cannot tell.
    private static func check(
        _ configuration: LossConfiguration
    ) throws(MetricLearningError) {
        let name = configuration.name
        func refuse(_ message: String) -> MetricLearningError {
            MetricLearningError(.invalidValue, message)
        }
        if name.isOfSimilarities, configuration.distance != .cosine {
            throw refuse(
                "loss.distance is \(configuration.distance.rawValue), but \(name.rawValue) is "
                    + "defined on cosine")
        }
        if name.needsNumber, configuration.margin == .soft || configuration.margin == .none {
            throw refuse(
                "loss.margin is \(configuration.margin), but \(name.rawValue) needs a number")
        }
        if name.minesItself, configuration.miner != .all {
            throw refuse("loss.miner is set, but \(name.rawValue) mines itself")
        }
    }

    /// The margin of a loss that has a number.
    private var marginValue: Double {
        guard case .number(let value) = configuration.margin else {
            preconditionFailure(
                "\(configuration.name.rawValue) has margin \(configuration.margin) after check()")
        }
        return value
    }

    /// The loss of a mini-batch, without its weight.
    ///
    /// - Parameters:
    ///   - given: `[count, dimension]`, float32 or float64.
    ///   - classes: the identities' vectors, `[identities, dimension]`, of a loss that has them.
    ///   - draws: for each row, two numbers in [0, 1): its positive's and its negative's.
    func evaluate(
        _ given: Tensor, _ labels: [Int], _ classes: Tensor?, _ draws: [Double]
    ) throws -> LossResult {
        let rows =
            switch configuration.normalization {
            case .none: given
            case .rows: try unitRows(given)
            case .columns: try unitRows(given.transpose()).transpose().contiguous()
            }
        if configuration.name.isOfTriplets {
            return try GivenTriplets(configuration: configuration).result(rows)
        }
        guard configuration.name.hasClasses else { return try result(rows, labels, draws) }
        guard let classes else {
            preconditionFailure("\(configuration.name.rawValue) without vectors of identities")
        }
        return try result(rows, labels, classes)
    }

    private func result(
        _ rows: Tensor, _ labels: [Int], _ classes: Tensor
    ) throws -> LossResult {
        let pass = ClassPass(labels: labels, configuration: configuration)
        func softmax(
            scale: Double, margin: IdentitySoftmax.Margin = .none, isCosine: Bool = true
        ) throws -> LossResult {
            try pass.result(
                of: IdentitySoftmax(
                    scale: scale, margin: margin, smoothing: configuration.labelSmoothing),
                rows, classes, isCosine: isCosine)
        }
        switch configuration.name {
        case .softmax: return try softmax(scale: 1 / configuration.temperature, isCosine: false)
        case .normalizedSoftmax: return try softmax(scale: 1 / configuration.temperature)
        case .arcface:
            return try softmax(scale: configuration.scale, margin: .angle(marginValue))
        case .cosface:
            return try softmax(scale: configuration.scale, margin: .cosine(marginValue))
        case .proxyAnchor:
            return try pass.result(
                of: ProxyAnchorLoss(margin: marginValue, alpha: configuration.proxyAnchorAlpha),
                rows, classes, isCosine: true)
        case .center: return try pass.center(rows, classes)
        default: preconditionFailure("\(configuration.name.rawValue) compares rows")
        }
    }

    /// The same with the mini-batch's rows as anchors, compared with other rows alone.
    ///
    /// - Parameter references: where each anchor's positives and negatives are looked for.
    func evaluate(
        _ given: Tensor, _ labels: [Int], against references: References, _ draws: [Double]
    ) throws -> LossResult {
        let isUnit = configuration.normalization == .rows
        return try result(
            isUnit ? unitRows(given) : given, labels, draws,
            isUnit
                ? References(unitRows(references.embeddings), labels: references.labels)
                : references)
    }

    private func result(
        _ rows: Tensor, _ labels: [Int], _ draws: [Double], _ references: References? = nil
    ) throws -> LossResult {
        let margin = configuration.margin
        func hard() throws -> (HardTriplets, distances: Tensor, BatchPairs) {
            (
                HardTriplets(
                    margin: margin, reducer: configuration.reducer,
                    activeThreshold: configuration.activeThreshold),
                try configuration.distance.matrix(rows), BatchPairs(labels: labels)
            )
        }
        func over(_ loss: some AnchorLoss) throws -> LossResult {
            if let references {
                return try AnchorPass(
                    labels: labels, configuration: configuration, references: references.labels
                ).result(
                    of: loss, ReferenceTable(rows, references.embeddings, configuration.distance))
            }
            return try AnchorPass(labels: labels, configuration: configuration).result(
                of: loss, PairTable(rows, configuration.distance))
        }
        func pointToSet(_ weight: PointToSet.Weight) throws -> LossResult {
            try over(
                PointToSet(
                    weight: weight, margin: margin, isCompatible: configuration.hap2sCompatibility))
        }
        switch configuration.name {
        case .batchHard where references != nil: return try over(HardestReferences(margin: margin))
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
        case .hap2sExponential: return try pointToSet(.exponential(sigma: configuration.hap2sSigma))
        case .hap2sPolynomial: return try pointToSet(.polynomial(alpha: configuration.hap2sAlpha))
        case .lifted: return try over(LiftedLoss(margin: marginValue))
        case .generalizedLifted:
            return try over(GeneralizedLiftedLoss(margin: marginValue))
        case .multiSimilarity:
            return try over(
                MultiSimilarityLoss(
                    alpha: configuration.multiSimilarityAlpha,
                    beta: configuration.multiSimilarityBeta,
                    base: configuration.multiSimilarityBase))
        case .circle:
            return try over(
                CircleLoss(margin: marginValue, gamma: configuration.circleGamma))
        case .supervisedContrastive:
            return try over(SupervisedContrastiveLoss(temperature: configuration.temperature))
        case .ntXent: return try over(NTXentLoss(temperature: configuration.temperature))
        case .triplet, .dotTriplet, .softmax, .normalizedSoftmax, .arcface, .cosface,
            .proxyAnchor, .center:
            preconditionFailure("\(configuration.name.rawValue) compares no pairs of rows")
        }
    }
}

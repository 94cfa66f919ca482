public import Basics
import Foundation

/// The run's metric loss, evaluated on the small batch that one tuple forms.
///
/// The earlier system fed each tuple to the training loss as a batch of its own: label 0 for the
/// anchor and the positive, label 1 for every negative. So do we, in float64. The negatives thus
/// count as images of one identity, although they may show different objects; `mean_loss` is for
/// comparing checkpoints of one run, not for judging a model.
///
/// Terms, with h the margin function: `max(x + m, 0)` for a number m, `log(1 + exp x)` for `soft`,
/// `x` for `none`; the mean is over all terms, or with `mean_nonzero` over the active ones. The losses
/// are those of training, each written here a second time in plain loops, so that each form checks
/// the other. `batch_sample` is its expectation over the draws; what is drawn in training would make
/// scores of two checkpoints differ by luck.
///
/// - SeeAlso: `docs/metrics.md`, section `mean_loss`.
public struct TupleLoss: Hashable, Sendable {
    /// Which loss.
    public enum Kind: String, CaseIterable, Codable, Hashable, Sendable {
        /// Every valid triplet.
        case batchAll = "batch_all"
        /// Hardest positive and hardest negative of each anchor.
        case batchHard = "batch_hard"
        /// The same; an anchor without negatives takes its largest distance.
        case batchHard000 = "batch_hard_000"
        /// Nearest negative beyond the positive, for each positive pair.
        case semiHard = "tf_batch_semi_hard"
        /// The same; an anchor without negatives does not count.
        case mendedSemiHard = "semi_hard"
        /// One positive and one negative of each anchor, drawn.
        case sampled = "batch_sample"
        /// Means by soft-max weights.
        case weighted = "weighted_triplet"
        /// Each positive pair and the negatives of both.
        case lifted
        /// All positives and all negatives of each anchor.
        case generalizedLifted = "generalized_lifted"
        /// Means by exponential weights.
        case hap2sExponential = "hap2s_exponential"
        /// Means by polynomial weights.
        case hap2sPolynomial = "hap2s_polynomial"
        /// Pairs around one similarity.
        case multiSimilarity = "multi_similarity"
        /// Pairs weighted by how far they are from their optimum.
        case circle
        /// Each anchor's positives as classes.
        case supervisedContrastive = "supervised_contrastive"
        /// Each positive pair as a class among the anchor's negatives.
        case ntXent = "nt_xent"
    }

    /// What turns a difference of distances into a term.
    public enum Margin: Hashable, Sendable {
        /// Hinge with this margin.
        case number(Double)
        /// Softplus.
        case soft
        /// The difference itself.
        case none
    }

    /// What is given length 1 first.
    public enum Normalization: String, CaseIterable, Hashable, Sendable {
        /// Nothing.
        case none
        /// Each row; a row of almost no length stays short.
        case rows
        /// Each column.
        case columns
    }

    /// How terms become one number.
    public enum Reducer: String, CaseIterable, Hashable, Sendable {
        /// The mean of all.
        case mean
        /// Their sum over the number of active ones.
        case meanNonzero = "mean_nonzero"
    }

    /// Which loss.
    public let kind: Kind
    /// What turns a difference of distances into a term.
    public let margin: Margin
    /// What the loss compares.
    public let distance: PairDistance
    /// What is given length 1 first.
    public let normalization: Normalization
    /// How much easier than the hardest of the other kind a pair may be; nil takes all pairs.
    public let minerEpsilon: Double?
    /// How terms become one number.
    public let reducer: Reducer
    /// Above which a term is active.
    public let activeThreshold: Double
    /// What shapes single losses.
    public let parameters: LossParameters

    /// Names a loss by its parts; what is left out is as the three earliest losses have it.
    public init(
        _ kind: Kind, margin: Margin, distance: PairDistance = .euclidean,
        normalization: Normalization? = nil, minerEpsilon: Double? = nil, reducer: Reducer? = nil,
        activeThreshold: Double? = nil, parameters: LossParameters = .init()
    ) {
        self.kind = kind
        self.margin = margin
        self.distance = distance
        self.normalization = normalization ?? (kind == .semiHard ? .rows : .none)
        self.minerEpsilon = minerEpsilon
        self.reducer = reducer ?? (kind == .batchAll && margin != .none ? .meanNonzero : .mean)
        self.activeThreshold = activeThreshold ?? (kind == .batchAll ? 1e-16 : 1e-5)
        self.parameters = parameters
    }

    /// Names a loss as the settings do.
    ///
    /// - Throws: ``ScoringError`` with code `unknownSetting`, naming those there are.
    public init(
        name: String, margin: Margin, distance: String, normalization: String? = nil,
        minerEpsilon: Double? = nil, reducer: String? = nil, activeThreshold: Double? = nil,
        parameters: LossParameters = .init()
    ) throws(ScoringError) {
        func named<Choice: CaseIterable & RawRepresentable>(
            _ text: String, _ key: String
        ) throws(ScoringError) -> Choice where Choice.RawValue == String {
            guard let choice = Choice(rawValue: text) else {
                let all = Choice.allCases.map(\.rawValue).joined(separator: ", ")
                throw ScoringError(.unknownSetting, "\(key) is '\(text)'; scoring knows \(all)")
            }
            return choice
        }
        var (knownNormalization, knownReducer): (Normalization?, Reducer?)
        if let normalization { knownNormalization = try named(normalization, "loss.normalize") }
        if let reducer { knownReducer = try named(reducer, "loss.reducer") }
        self.init(
            try named(name, "loss.name"), margin: margin,
            distance: try PairDistance(name: distance),
            normalization: knownNormalization, minerEpsilon: minerEpsilon, reducer: knownReducer,
            activeThreshold: activeThreshold, parameters: parameters)
    }
}

/// What a loss says about one batch.
package struct LossValue: Equatable, Sendable {
    /// The loss.
    package var loss: Double
    /// Active terms over all terms; 0 without terms.
    package var fractionPositive: Double

    /// Names both values.
    package init(loss: Double, fractionPositive: Double) {
        self.loss = loss
        self.fractionPositive = fractionPositive
    }
}

extension TupleLoss {
    /// Evaluates the loss on rows with labels.
    ///
    /// A distance that is not finite makes both values NaN, so that it can never look like
    /// success.
    package func evaluate(_ rows: [UnsafeBufferPointer<Float>], labels: [Int]) -> LossValue {
        let table =
            switch normalization {
            case .none: distances(rows)
            case .rows: sphereDistances(rows)
            case .columns: columnDistances(rows)
            }
        guard table.values.allSatisfy(\.isFinite) else {
            return LossValue(loss: .nan, fractionPositive: .nan)
        }
        var terms = Terms(threshold: activeThreshold)
        addTerms(of: table, labels, to: &terms)
        guard terms.count > 0 else { return LossValue(loss: 0, fractionPositive: 0) }
        let divisor = reducer == .mean ? terms.count : max(terms.active, 1)
        return LossValue(
            loss: terms.sum / Double(divisor),
            fractionPositive: Double(terms.active) / Double(terms.count))
    }

    private func distances(_ rows: [UnsafeBufferPointer<Float>]) -> SquareTable {
        var table = SquareTable(side: rows.count)
        for i in rows.indices {
            for j in 0..<i { table.setPair(i, j, distance.distance(rows[i], rows[j])) }
        }
        return table
    }

    /// Distances between the rows scaled to length 1; a row of almost no length stays short.
    private func sphereDistances(_ rows: [UnsafeBufferPointer<Float>]) -> SquareTable {
        let scaled = rows.map { row in
            let length = max(norm(row), 1e-6)
            return row.map { Double($0) / length }
        }
        return table(scaled)
    }

    private func table(_ rows: [[Double]]) -> SquareTable {
        var table = SquareTable(side: rows.count)
        for i in rows.indices {
            for j in 0..<i { table.setPair(i, j, distance.distance(rows[i], rows[j])) }
        }
        return table
    }

    /// Distances between the rows after each column was scaled to length 1.
    private func columnDistances(_ rows: [UnsafeBufferPointer<Float>]) -> SquareTable {
        let lengths = (0..<(rows.first?.count ?? 0)).map { column in
            rows.reduce(0) { $0 + Double($1[column]) * Double($1[column]) }.squareRoot()
        }
        let scaled = rows.map { row in
            zip(row, lengths).map { Double($0) / max($1, 1e-6) }
        }
        return table(scaled)
    }
}

/// A symmetric table with a zero diagonal.
struct SquareTable {
    let side: Int
    private(set) var values: [Double]

    init(side: Int) {
        self.side = side
        values = Array(repeating: 0, count: side * side)
    }

    subscript(row: Int, column: Int) -> Double { values[row * side + column] }

    mutating func setPair(_ i: Int, _ j: Int, _ value: Double) {
        values[i * side + j] = value
        values[j * side + i] = value
    }
}

extension TupleLoss {
    /// Evaluates the loss on rows given as arrays.
    package func evaluate(_ rows: [[Float]], labels: [Int]) -> LossValue {
        let dimension = rows.first?.count ?? 0
        precondition(rows.allSatisfy { $0.count == dimension }, "rows differ in length")
        return rows.flatMap(\.self).withUnsafeBufferPointer { values in
            evaluate(
                rows.indices.map {
                    UnsafeBufferPointer(rebasing: values[$0 * dimension..<($0 + 1) * dimension])
                }, labels: labels)
        }
    }
}

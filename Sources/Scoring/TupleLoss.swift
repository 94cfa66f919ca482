import Foundation

/// The run's metric loss, evaluated on the small batch that one tuple forms.
///
/// The earlier system fed each tuple to the training loss as a batch of its own: label 0 for the
/// anchor and the positive, label 1 for every negative. So do we, in float64. The negatives thus
/// count as images of one identity, although they may show different objects; `mean_loss` is for
/// comparing checkpoints of one run, not for judging a model.
///
/// Terms, with h the margin function: `max(x + m, 0)` for a number m, `log(1 + exp x)` for `soft`,
/// `x` for `none`.
///
/// | loss | terms | value | active |
/// |---|---|---|---|
/// | `batch_all` | h(d(a,p) - d(a,n)), every valid triplet | sum / active; all for `none` | > 1e-16 |
/// | `batch_hard` | h(max d(a,p) - min d(a,n)), every image | mean | > 1e-5 |
/// | `tf_batch_semi_hard` | h(d(a,p) - d(a,n*)), every ordered positive pair | mean | > 1e-5 |
///
/// The last works on rows scaled to length 1; n* is the nearest negative beyond p, else the farthest.
///
/// - SeeAlso: `docs/metrics.md`, section `mean_loss`.
public struct TupleLoss: Hashable, Sendable {
    /// Which loss.
    public enum Kind: String, CaseIterable, Codable, Hashable, Sendable {
        /// Every valid triplet.
        case batchAll = "batch_all"
        /// Hardest positive and hardest negative of each anchor.
        case batchHard = "batch_hard"
        /// Nearest negative beyond the positive, for each positive pair.
        case semiHard = "tf_batch_semi_hard"
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

    /// Which loss.
    public let kind: Kind
    /// What turns a difference of distances into a term.
    public let margin: Margin
    /// What the loss compares.
    public let distance: PairDistance

    /// Names a loss by its parts.
    public init(_ kind: Kind, margin: Margin, distance: PairDistance = .euclidean) {
        self.kind = kind
        self.margin = margin
        self.distance = distance
    }

    /// Names a loss as the settings do.
    ///
    /// - Throws: ``ScoringError`` with code `unknownSetting`, naming those there are.
    public init(name: String, margin: Margin, distance: String) throws(ScoringError) {
        guard let kind = Kind(rawValue: name) else {
            let all = Kind.allCases.map(\.rawValue).joined(separator: ", ")
            throw ScoringError(.unknownSetting, "loss.name is '\(name)'; scoring knows \(all)")
        }
        self.init(kind, margin: margin, distance: try PairDistance(name: distance))
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
        let table = kind == .semiHard ? sphereDistances(rows) : distances(rows)
        guard table.values.allSatisfy(\.isFinite) else {
            return LossValue(loss: .nan, fractionPositive: .nan)
        }
        switch kind {
        case .batchAll: return batchAll(table, labels)
        case .batchHard: return batchHard(table, labels)
        case .semiHard: return semiHard(table, labels)
        }
    }

    private func term(_ difference: Double) -> Double {
        switch margin {
        case .number(let margin): max(difference + margin, 0)
        // log(1 + e^x) without overflow.
        case .soft: max(difference, 0) + log1p(exp(-abs(difference)))
        case .none: difference
        }
    }

    private func batchAll(_ table: SquareTable, _ labels: [Int]) -> LossValue {
        var sum = 0.0
        var valid = 0
        var active = 0
        for a in 0..<table.side {
            for p in 0..<table.side where p != a && labels[p] == labels[a] {
                for n in 0..<table.side where labels[n] != labels[a] {
                    let value = term(table[a, p] - table[a, n])
                    valid += 1
                    if value > 1e-16 { active += 1 }
                    sum += value
                }
            }
        }
        guard valid > 0 else { return LossValue(loss: 0, fractionPositive: 0) }
        let divisor = margin == .none ? valid : max(active, 1)
        return LossValue(
            loss: sum / Double(divisor), fractionPositive: Double(active) / Double(valid))
    }

    private func batchHard(_ table: SquareTable, _ labels: [Int]) -> LossValue {
        var sum = 0.0
        var active = 0
        for a in 0..<table.side {
            var positive = 0.0
            var negative = Double.infinity
            for other in 0..<table.side where other != a {
                if labels[other] == labels[a] {
                    positive = max(positive, table[a, other])
                } else {
                    negative = min(negative, table[a, other])
                }
            }
            let value = negative.isFinite ? term(positive - negative) : 0
            if value > 1e-5 { active += 1 }
            sum += value
        }
        let count = Double(table.side)
        return LossValue(loss: sum / count, fractionPositive: Double(active) / count)
    }

    private func semiHard(_ table: SquareTable, _ labels: [Int]) -> LossValue {
        var sum = 0.0
        var pairs = 0
        var active = 0
        for a in 0..<table.side {
            for p in 0..<table.side where p != a && labels[p] == labels[a] {
                var nearestBeyond = Double.infinity
                var farthest = -Double.infinity
                for n in 0..<table.side where labels[n] != labels[a] {
                    if table[a, n] > table[a, p] { nearestBeyond = min(nearestBeyond, table[a, n]) }
                    farthest = max(farthest, table[a, n])
                }
                let negative =
                    nearestBeyond.isFinite ? nearestBeyond : (farthest.isFinite ? farthest : 0)
                let value = term(table[a, p] - negative)
                pairs += 1
                if value > 1e-5 { active += 1 }
                sum += value
            }
        }
        guard pairs > 0 else { return LossValue(loss: 0, fractionPositive: 0) }
        return LossValue(
            loss: sum / Double(pairs), fractionPositive: Double(active) / Double(pairs))
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
        var table = SquareTable(side: rows.count)
        for i in rows.indices {
            for j in 0..<i { table.setPair(i, j, distance.distance(scaled[i], scaled[j])) }
        }
        return table
    }
}

/// A symmetric table with a zero diagonal.
private struct SquareTable {
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

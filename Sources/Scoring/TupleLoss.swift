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
    /// What decides the loss.
    public let configuration: LossConfiguration

    /// Scores with a run's loss.
    ///
    /// What tells identities of the training data apart says nothing of others: of a sum the first
    /// loss counts that compares images, and where there is none, `batch_hard` with a soft margin over
    /// the run's distance.
    public init(_ configuration: LossConfiguration) {
        self.configuration =
            configuration.parts.first { !$0.name.hasClasses }
            ?? LossConfiguration(
                name: .batchHard, distance: configuration.distance,
                normalization: configuration.normalization)
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
            switch configuration.normalization {
            case .none: distances(rows)
            case .rows: sphereDistances(rows)
            case .columns: columnDistances(rows)
            }
        guard table.values.allSatisfy(\.isFinite) else {
            return LossValue(loss: .nan, fractionPositive: .nan)
        }
        var terms = LossTally(threshold: configuration.activeThreshold)
        addTerms(of: table, labels, to: &terms)
        return LossValue(
            loss: terms.sum / configuration.reducer.divisor(of: terms),
            fractionPositive: terms.fractionPositive)
    }

    private func distances(_ rows: [UnsafeBufferPointer<Float>]) -> SquareTable {
        var table = SquareTable(side: rows.count)
        for i in rows.indices {
            for j in 0..<i {
                table.setPair(i, j, configuration.distance.distance(rows[i], rows[j]))
            }
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
            for j in 0..<i {
                table.setPair(i, j, configuration.distance.distance(rows[i], rows[j]))
            }
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

public import Basics
internal import Foundation

/// What a mini-batch's embeddings look like to somebody who watches training.
public struct BatchSummary: Sendable, Equatable {
    /// L2 norms of the rows.
    public var lengths = Histogram()
    /// Euclidean distances of all pairs of two rows.
    public var distances = Histogram()
    /// Those of one identity.
    public var positiveDistances = Histogram()
    /// Those of two identities.
    public var negativeDistances = Histogram()
    /// What each row adds to the loss; rows without a term are left out.
    public var losses = Histogram()
    /// Share of rows whose nearest other row is of their identity; of two as near, the lower counts.
    public var top1 = 0.0
    /// Mean share of rows of one's own identity among the ``precisionRank`` nearest others.
    public var precision = 0.0
    /// K - 1, where K is the number of rows of the identity that has most; at least 1.
    public var precisionRank = 1

    /// Rows whose embeddings are looked at, at most: all pairs of them are.
    public static let rowsMax = 1_024

    /// Looks at a mini-batch.
    ///
    /// - Parameters:
    ///   - embeddings: row-major `[labels.count, dimension]`, as the network gives them.
    ///   - labels: one identity for each row; those beyond ``rowsMax`` are left out.
    ///   - rowLosses: as `LossResult.rowLosses`; of all rows.
    public init(embeddings: [Float], labels: [Int], rowLosses: [Float] = []) {
        let dimension = embeddings.count / Swift.max(1, labels.count)
        let count = Swift.min(labels.count, Self.rowsMax)
        var sizes: [Int: Int] = [:]
        for label in labels.prefix(count) { sizes[label, default: 0] += 1 }
        for loss in rowLosses { losses.add(Double(loss)) }
        precisionRank = Swift.max(1, (sizes.values.max() ?? 1) - 1)
        let squares = Self.squaredDistances(embeddings, count: count, dimension: dimension)
        var (hits, found) = (0, 0)
        for row in 0..<count {
            var length = 0.0
            for value in embeddings[row * dimension..<(row + 1) * dimension] {
                length += Double(value) * Double(value)
            }
            lengths.add(length.squareRoot())
            for other in 0..<row {
                let distance = squares[row * count + other].squareRoot()
                distances.add(distance)
                if labels[row] == labels[other] {
                    positiveDistances.add(distance)
                } else {
                    negativeDistances.add(distance)
                }
            }
            let nearest = (0..<count).filter { $0 != row }.sorted {
                (squares[row * count + $0], $0) < (squares[row * count + $1], $1)
            }.prefix(precisionRank)
            if let first = nearest.first, labels[first] == labels[row] { hits += 1 }
            found += nearest.count { labels[$0] == labels[row] }
        }
        guard count > 1 else { return }
        top1 = Double(hits) / Double(count)
        precision = Double(found) / Double(count * Swift.min(precisionRank, count - 1))
    }

    /// `[count, count]`, row-major.
    private static func squaredDistances(
        _ embeddings: [Float], count: Int, dimension: Int
    ) -> [Double] {
        var squares = [Double](repeating: 0, count: count * count)
        embeddings.withUnsafeBufferPointer { values in
            for row in 0..<count {
                for other in 0..<row {
                    var sum: Float = 0
                    for place in 0..<dimension {
                        let difference =
                            values[row * dimension + place] - values[other * dimension + place]
                        sum += difference * difference
                    }
                    squares[row * count + other] = Double(sum)
                    squares[other * count + row] = Double(sum)
                }
            }
        }
        return squares
    }
}

/// How far the rows of a mini-batch lie apart.
public enum EmbeddingSpread {
    /// The root of the mean squared Euclidean distance of two different rows; 0 with fewer than two.
    ///
    /// From the rows' mean and squares, in O(rows x dimension): 2 (E|x|² - |E x|²) n / (n - 1).
    ///
    /// - Parameters:
    ///   - embeddings: row-major `[rows, dimension]`.
    ///   - ofUnitRows: gives each row length 1 first.
    public static func rootMeanSquare(
        _ embeddings: [Float], rows: Int, ofUnitRows: Bool = false
    ) -> Double {
        guard rows > 1 else { return 0 }
        let dimension = embeddings.count / rows
        let embeddings = ofUnitRows ? unitRows(embeddings, rows, dimension) : embeddings
        var mean = [Double](repeating: 0, count: dimension)
        for row in 0..<rows {
            for place in 0..<dimension {
                mean[place] += Double(embeddings[row * dimension + place])
            }
        }
        for place in 0..<dimension { mean[place] /= Double(rows) }
        // Deviations, not squares less the square of the mean: collapsed rows are nearly equal.
        var sum = 0.0
        for row in 0..<rows {
            for place in 0..<dimension {
                let deviation = Double(embeddings[row * dimension + place]) - mean[place]
                sum += deviation * deviation
            }
        }
        return (2 * sum / Double(rows - 1)).squareRoot()
    }

    private static func unitRows(_ embeddings: [Float], _ rows: Int, _ dimension: Int) -> [Float] {
        var units = embeddings
        for row in 0..<rows {
            let range = row * dimension..<(row + 1) * dimension
            let square = embeddings[range].reduce(0.0) { $0 + Double($1) * Double($1) }
            guard square > 0 else { continue }
            let scale = Float(1 / square.squareRoot())
            for place in range { units[place] *= scale }
        }
        return units
    }
}

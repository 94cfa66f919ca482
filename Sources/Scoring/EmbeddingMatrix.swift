/// Embeddings of numbered images, one row an image.
public struct EmbeddingMatrix: Sendable {
    /// Number of images.
    public let rows: Int
    /// Numbers an embedding has.
    public let dimension: Int
    /// Row-major `[rows, dimension]`.
    public let values: [Float]

    /// Takes row-major values.
    ///
    /// - Throws: ``ScoringError`` with code `shapeMismatch` when the count is not a whole number of
    ///   rows, or the dimension is not positive.
    public init(_ values: [Float], dimension: Int) throws(ScoringError) {
        guard dimension > 0, values.count % dimension == 0 else {
            throw ScoringError(
                .shapeMismatch, "\(values.count) embedding values do not make rows of \(dimension)")
        }
        self.rows = values.count / dimension
        self.dimension = dimension
        self.values = values
    }

    /// Rows with at least one value that is not finite, in ascending order.
    ///
    /// Such a row never counts as a success; see ``TupleScorer``.
    public var nonFiniteRows: [Int] {
        (0..<rows).filter { row in
            !values[row * dimension..<(row + 1) * dimension].allSatisfy(\.isFinite)
        }
    }
}

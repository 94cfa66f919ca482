internal import Basics
public import Tensors

/// Rows that a mini-batch's rows are compared with and that are not trained: embeddings of earlier
/// steps.
public struct References: Sendable {
    /// `[count, dimension]`, float32 or float64, as the network gave them; without a graph.
    public let embeddings: Tensor
    /// One identity for each row.
    public let labels: [Int]

    /// Names rows; there is at least one.
    ///
    /// - Throws: ``MetricLearningError`` with code `shapeMismatch` unless there is one label a row.
    public init(embeddings: Tensor, labels: [Int]) throws(MetricLearningError) {
        guard embeddings.rank == 2, embeddings.size(0) == labels.count, !labels.isEmpty else {
            throw MetricLearningError(
                .shapeMismatch,
                "embeddings of earlier steps are \(embeddings.shape) and there are "
                    + "\(labels.count) labels; one label a row is needed")
        }
        self.init(embeddings, labels: labels)
    }

    init(_ embeddings: Tensor, labels: [Int]) {
        self.embeddings = embeddings
        self.labels = labels
    }
}

/// Distances of a mini-batch's rows from references in float64, and what a derivative by them means for
/// the rows; the references have none.
///
/// As ``PairTable`` measures, in memory linear in rows times references.
struct ReferenceTable: DistanceTable {
    private let distance: Distance
    /// What the graph goes through: rows, those of length 1 for cosine, or for cityblock the table.
    private let source: Tensor
    /// `[rows, dimension]` and `[references, dimension]`, float64, on the CPU; nil for cityblock.
    private let exact: (rows: Tensor, references: Tensor)?
    /// `[rows, references]`, float64, on the CPU.
    let distances: Tensor

    /// Measures rows.
    ///
    /// - Parameters:
    ///   - rows: `[count, dimension]`, float32 or float64, on any device.
    ///   - references: `[references, dimension]`.
    init(_ rows: Tensor, _ references: Tensor, _ distance: Distance) throws(TensorError) {
        self.distance = distance
        let references = try references.detach()
        guard distance != .cityblock else {
            source = try distance.minkowski(
                rows, from: references.to(device: rows.device, dtype: rows.dtype), order: 1)
            exact = nil
            distances = try source.detach().to(device: .cpu, dtype: .float64).contiguous()
            return
        }
        source = try distance == .cosine ? unitRows(rows) : rows
        let others = try distance == .cosine ? unitRows(references) : references
        let exact = (rows: try Self.exact(source), references: try Self.exact(others))
        self.exact = exact
        distances = try exact.rows.matmul(exact.references.transpose()).contiguous()
        try Self.measure(exact, products: distances, distance)
    }

    private static func exact(_ tensor: Tensor) throws(TensorError) -> Tensor {
        try tensor.detach().to(device: .cpu, dtype: .float64).contiguous()
    }

    /// Turns products of rows and references into their distances.
    private static func measure(
        _ exact: (rows: Tensor, references: Tensor), products: Tensor, _ distance: Distance
    ) throws(TensorError) {
        let dimension = exact.rows.size(1)
        let rows = try exact.rows.unsafeMutableBytes().bindMemory(to: Double.self)
        let others = try exact.references.unsafeMutableBytes().bindMemory(to: Double.self)
        let table = try products.unsafeMutableBytes().bindMemory(to: Double.self)
        let rowSquares = squares(rows, dimension)
        let otherSquares = squares(others, dimension)
        for (row, own) in rowSquares.enumerated() {
            for (other, theirs) in otherSquares.enumerated() {
                let place = row * otherSquares.count + other
                var square = own + theirs - 2 * table[place]
                // Where the difference cancels, from the differences themselves.
                if square < 1e-4 * (own + theirs) {
                    square = 0
                    for at in 0..<dimension {
                        let difference = rows[row * dimension + at] - others[other * dimension + at]
                        square += difference * difference
                    }
                }
                table[place] = distance.of(
                    square: square, isDirectionless: (own == 0) != (theirs == 0))
            }
        }
        withExtendedLifetime((exact, products)) {}
    }

    private static func squares(
        _ rows: UnsafeMutableBufferPointer<Double>, _ dimension: Int
    ) -> [Double] {
        stride(from: 0, to: rows.count, by: dimension).map { first in
            var square = 0.0
            for value in rows[first..<first + dimension] { square += value * value }
            return square
        }
    }

    func handOver(_ gradient: Tensor) throws(TensorError) -> Tensor {
        let derivative = try exact.map { exact throws(TensorError) in
            try derivativeByRows(gradient, exact.rows, exact.references)
        }
        return try
            (source
            * (derivative ?? gradient).to(device: source.device, dtype: source.dtype)).sum()
    }

    /// `[rows, dimension]`: the sum over all references of a row of weight times difference.
    private func derivativeByRows(
        _ gradient: Tensor, _ rows: Tensor, _ references: Tensor
    ) throws(TensorError) -> Tensor {
        let slopes =
            switch distance {
            case .euclidean: try gradient / distances
            case .sqeuclidean: try gradient * 2
            case .cosine, .cityblock: gradient
            }
        let weights = try Tensor.where(distances .> 0, slopes, 0)  // [rows, references]
        return try rows * weights.sum([1], keepDims: true) - weights.matmul(references)
    }
}

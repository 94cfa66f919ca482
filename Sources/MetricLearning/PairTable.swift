import Basics
import Tensors

/// Distances of anchors from other rows, and the way back.
protocol DistanceTable {
    /// `[anchors, others]`, float64, on the CPU.
    var distances: Tensor { get }

    /// A number whose gradient is that of a loss; its value means nothing.
    ///
    /// - Parameter gradient: the loss's derivative by each distance, `[anchors, others]`, float64.
    func handOver(_ gradient: Tensor) throws(TensorError) -> Tensor
}

/// Distances between all rows of a mini-batch in float64, and what a derivative by them means for the
/// rows.
///
/// A square of a difference is that of a product of matrices for all pairs at once,
/// |a - b|^2 = |a|^2 + |b|^2 - 2 ab. Where that cancels (below a ten-thousandth of |a|^2 + |b|^2) the
/// pair is computed from its differences, so that equal rows are exactly at 0, with gradient 0, and a
/// distance is within 1e-9 of itself.
struct PairTable: DistanceTable {
    private let distance: Distance
    /// What the graph goes through: rows, those of length 1 for cosine, or for cityblock the matrix of
    /// distances.
    private let source: Tensor
    /// `[count, dimension]`, float64, on the CPU; nil for cityblock.
    private let rows: Tensor?
    /// `[count, count]`, float64, on the CPU; symmetric, zero on the diagonal.
    let distances: Tensor

    /// Measures rows.
    ///
    /// - Parameter rows: `[count, dimension]`, float32 or float64, on any device.
    init(_ rows: Tensor, _ distance: Distance) throws(TensorError) {
        self.distance = distance
        guard distance != .cityblock else {
            source = try distance.matrix(rows)
            self.rows = nil
            distances = try source.detach().to(device: .cpu, dtype: .float64).contiguous()
            return
        }
        source = try distance == .cosine ? unitRows(rows) : rows
        let exact = try source.detach().to(device: .cpu, dtype: .float64).contiguous()
        self.rows = exact
        distances = try exact.matmul(exact.transpose()).contiguous()
        try Self.measure(exact, products: distances, distance)
    }

    /// Turns products of rows into their distances.
    private static func measure(
        _ rows: Tensor, products: Tensor, _ distance: Distance
    ) throws(TensorError) {
        let (count, dimension) = (rows.size(0), rows.size(1))
        let values = try rows.unsafeMutableBytes().bindMemory(to: Double.self)
        let table = try products.unsafeMutableBytes().bindMemory(to: Double.self)
        let squares = (0..<count).map { table[$0 * count + $0] }
        for row in 0..<count {
            table[row * count + row] = 0
            for other in 0..<row {
                let both = squares[row] + squares[other]
                var square = both - 2 * table[row * count + other]
                if square < 1e-4 * both {
                    square = 0
                    for place in 0..<dimension {
                        let difference =
                            values[row * dimension + place] - values[other * dimension + place]
                        square += difference * difference
                    }
                }
                let isDirectionless = (squares[row] == 0) != (squares[other] == 0)
                let value = distance.of(square: square, isDirectionless: isDirectionless)
                table[row * count + other] = value
                table[other * count + row] = value
            }
        }
        withExtendedLifetime((rows, products)) {}
    }

    /// A number whose gradient is that of a loss; its value means nothing.
    ///
    /// - Parameter gradient: the loss's derivative by each distance, `[count, count]`, float64.
    func handOver(_ gradient: Tensor) throws(TensorError) -> Tensor {
        let derivative = try rows.map { rows throws(TensorError) in
            try derivativeByRows(gradient, rows)
        }
        return try
            (source
            * (derivative ?? gradient).to(device: source.device, dtype: source.dtype)).sum()
    }

    /// `[count, dimension]`: the sum over all pairs of a row of weight times difference.
    private func derivativeByRows(
        _ gradient: Tensor, _ rows: Tensor
    ) throws(TensorError) -> Tensor {
        let both = try gradient + gradient.transpose()
        let slopes =
            switch distance {
            case .euclidean: try both / distances
            case .sqeuclidean: try both * 2
            case .cosine, .cityblock: both
            }
        let weights = try Tensor.where(distances .> 0, slopes, 0)  // [count, count]
        return try rows * weights.sum([1], keepDims: true) - weights.matmul(rows)
    }
}

extension Distance {
    /// The distance of rows from the square of their difference.
    ///
    /// - Parameter isDirectionless: whether one of the two is zero.
    func of(square: Double, isDirectionless: Bool) -> Double {
        switch self {
        case .euclidean: square.squareRoot()
        case .sqeuclidean, .cityblock: square
        case .cosine: isDirectionless ? 1 : square / 2
        }
    }
}

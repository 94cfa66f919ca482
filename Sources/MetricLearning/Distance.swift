public import Basics
public import Tensors

extension Distance {
    /// Distances between all rows, with gradients.
    ///
    /// Computed from explicit differences (LibTorch's `_cdist_forward` without the matrix product),
    /// without a tensor of all differences: never negative, and exactly 0 with gradient exactly 0
    /// where two rows are equal. The Gram form of the earlier systems cancels for near rows. The
    /// cosine distance is half the square of the distance between rows of length 1; a row of zeros
    /// is at 1 from every other row but those of zeros.
    ///
    /// - Parameter rows: `[count, dimension]`, float32 or float64.
    /// - Returns: `[count, count]`, symmetric, zero on the diagonal.
    public func matrix(_ rows: Tensor) throws(TensorError) -> Tensor {
        switch self {
        case .euclidean: return try minkowski(rows, order: 2)
        case .sqeuclidean: return try minkowski(rows, order: 2).square()
        case .cityblock: return try minkowski(rows, order: 1)
        case .cosine:
            let unit = try unitRows(rows)
            let isZero = try unit.detach().square().sum([1], keepDims: true) .== 0  // [count, 1]
            guard try isZero.any(0).item() != 0 else {
                return try minkowski(unit, order: 2).square() * 0.5
            }
            // A direction of their own puts rows of zeros at 1 from the others.
            let padded = try Tensor.cat([unit, isZero.to(dtype: unit.dtype)], dim: 1)
            return try minkowski(padded, order: 2).square() * 0.5
        }
    }

    /// The order-th root of the sum of differences' powers, from other rows or from each other.
    func minkowski(
        _ rows: Tensor, from others: Tensor? = nil, order: Double
    ) throws(TensorError) -> Tensor {
        let withoutMatrixProduct = 2
        return try callTensorOperator(
            "aten::_cdist_forward",
            [.tensor(rows), .tensor(others ?? rows), .double(order), .int(withoutMatrixProduct)])
    }
}

/// Rows divided by their L2 norm, whatever its size.
///
/// Each row is first divided by its largest element, as a constant, so that no square overflows or
/// vanishes. A row of zeros (of numbers below 1e-30) stays 0 and has gradient 0.
///
/// - Parameter rows: `[count, dimension]`, float32 or float64.
func unitRows(_ rows: Tensor) throws(TensorError) -> Tensor {
    let largest = try rows.detach().abs().amax([1], keepDims: true)  // [count, 1]
    let scale = try Tensor.where(largest .> 1e-30, largest.reciprocal(), 0)
    let scaled = try rows * scale
    return try scaled * scaled.square().sum([1], keepDims: true).clamp(min: 1e-12).rsqrt()
}

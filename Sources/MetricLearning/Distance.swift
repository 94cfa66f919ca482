public import Tensors

/// How far two embeddings are apart.
public enum Distance: String, CaseIterable, Hashable, Sendable {
    /// The square root of the sum of squared differences.
    case euclidean
    /// The sum of squared differences.
    case sqeuclidean
    /// The sum of absolute differences.
    case cityblock

    /// Distances between all rows, with gradients.
    ///
    /// Computed from explicit differences (LibTorch's `_cdist_forward` without the matrix product),
    /// without a tensor of all differences: never negative, and exactly 0 with gradient exactly 0
    /// where two rows are equal. The Gram form of the earlier systems cancels for near rows.
    ///
    /// - Parameter rows: `[count, dimension]`, float32.
    /// - Returns: `[count, count]`, symmetric, zero on the diagonal.
    public func matrix(_ rows: Tensor) throws(TensorError) -> Tensor {
        let order = self == .cityblock ? 1.0 : 2.0
        let withoutMatrixProduct = 2
        let distances = try callTensorOperator(
            "aten::_cdist_forward",
            [.tensor(rows), .tensor(rows), .double(order), .int(withoutMatrixProduct)])
        return self == .sqeuclidean ? try distances.square() : distances
    }
}

extension Tensor {
    /// The sum of all elements.
    public func sum() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::sum", [.tensor(self)])
    }

    /// Sums along dimensions.
    public func sum(_ dims: [Int], keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::sum", overload: "dim_IntList", [.tensor(self), .ints(dims), .bool(keepDims)])
    }

    /// The mean of all elements.
    public func mean() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::mean", [.tensor(self)])
    }

    /// Means along dimensions.
    public func mean(_ dims: [Int], keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::mean", overload: "dim", [.tensor(self), .ints(dims), .bool(keepDims)])
    }

    /// The largest of all elements; ties share the gradient.
    public func max() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::max", [.tensor(self)])
    }

    /// The smallest of all elements; ties share the gradient.
    public func min() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::min", [.tensor(self)])
    }

    /// The largest along one dimension and where it is; the gradient goes to that place alone.
    public func max(
        _ dim: Int, keepDims: Bool = false
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        try valuesAndIndices("aten::max", dim, keepDims)
    }

    /// The smallest along one dimension and where it is; the gradient goes to that place alone.
    public func min(
        _ dim: Int, keepDims: Bool = false
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        try valuesAndIndices("aten::min", dim, keepDims)
    }

    private func valuesAndIndices(
        _ name: String, _ dim: Int, _ keepDims: Bool
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        let results = try callOperator(
            name, overload: "dim", [.tensor(self), .int(dim), .bool(keepDims)])
        return try pair(results, name)
    }

    private func pair(
        _ results: [Value], _ name: String
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        guard results.count >= 2, let values = results[0].tensor, let indices = results[1].tensor
        else {
            throw TensorError(
                code: .badArgument, message: "\(name)(\(summary)): it returned no two tensors")
        }
        return (values, indices)
    }

    /// The largest along dimensions; ties share the gradient.
    public func amax(_ dims: [Int], keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::amax", [.tensor(self), .ints(dims), .bool(keepDims)])
    }

    /// The smallest along dimensions; ties share the gradient.
    public func amin(_ dims: [Int], keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::amin", [.tensor(self), .ints(dims), .bool(keepDims)])
    }

    /// The place of the largest element along a dimension.
    public func argmax(_ dim: Int, keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::argmax", [.tensor(self), .int(dim), .bool(keepDims)])
    }

    /// The place of the smallest element along a dimension.
    public func argmin(_ dim: Int, keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::argmin", [.tensor(self), .int(dim), .bool(keepDims)])
    }

    /// Whether any element along a dimension is true or non-zero.
    public func any(_ dim: Int, keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::any", overload: "dim", [.tensor(self), .int(dim), .bool(keepDims)])
    }

    /// The largest or smallest `count` elements along a dimension, sorted.
    public func topK(
        _ count: Int, dim: Int = -1, largest: Bool = true
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        let results = try callOperator(
            "aten::topk", [.tensor(self), .int(count), .int(dim), .bool(largest), .bool(true)])
        return try pair(results, "aten::topk")
    }

    /// Sorts along a dimension; equal elements keep their order.
    public func sort(
        dim: Int = -1, descending: Bool = false
    ) throws(TensorError) -> (values: Tensor, indices: Tensor) {
        let results = try callOperator(
            "aten::sort", overload: "stable",
            [.tensor(self), .bool(true), .int(dim), .bool(descending)])
        return try pair(results, "aten::sort")
    }

    /// The Euclidean norm along a dimension, or of everything when left out.
    public func norm(_ dim: Int? = nil, keepDims: Bool = false) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::linalg_vector_norm",
            [
                .tensor(self), .int(2), dim.map { .ints([$0]) } ?? .none, .bool(keepDims),
            ])
    }
}

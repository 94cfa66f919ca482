extension Tensor {
    /// Two-dimensional convolution.
    ///
    /// - Parameters:
    ///   - weight: `[output, input / groups, height, width]`.
    ///   - bias: `[output]`.
    /// - Returns: `[batch, output, H, W]`.
    public func conv2d(
        weight: Tensor, bias: Tensor? = nil, stride: Int = 1, padding: Int = 0,
        dilation: Int = 1, groups: Int = 1
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::conv2d",
            [
                .tensor(self), .tensor(weight), .optional(bias), .ints([stride, stride]),
                .ints([padding, padding]), .ints([dilation, dilation]), .int(groups),
            ])
    }

    /// x times the transpose of `weight`, plus `bias`.
    ///
    /// - Parameter weight: `[output, input]`.
    public func linear(weight: Tensor, bias: Tensor? = nil) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::linear", [.tensor(self), .tensor(weight), .optional(bias)])
    }

    /// Matrix product.
    public func matmul(_ other: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::matmul", [.tensor(self), .tensor(other)])
    }

    /// Largest element of each window.
    ///
    /// - Parameter stride: as the kernel when left out.
    public func maxPool2d(
        kernel: Int, stride: Int? = nil, padding: Int = 0, ceilMode: Bool = false
    ) throws(TensorError) -> Tensor {
        let stride = stride ?? kernel
        return try callTensorOperator(
            "aten::max_pool2d",
            [
                .tensor(self), .ints([kernel, kernel]), .ints([stride, stride]),
                .ints([padding, padding]), .ints([1, 1]), .bool(ceilMode),
            ])
    }

    /// Mean of each window.
    ///
    /// - Parameter stride: as the kernel when left out.
    public func averagePool2d(
        kernel: Int, stride: Int? = nil, padding: Int = 0, countPadding: Bool = true
    ) throws(TensorError) -> Tensor {
        let stride = stride ?? kernel
        return try callTensorOperator(
            "aten::avg_pool2d",
            [
                .tensor(self), .ints([kernel, kernel]), .ints([stride, stride]),
                .ints([padding, padding]), .bool(false), .bool(countPadding),
            ])
    }

    /// Mean over height and width: `[N, C, H, W]` to `[N, C]`.
    public func spatialMean() throws(TensorError) -> Tensor { try mean([2, 3]) }

    /// Maximum over height and width, `[N, C, H, W]` to `[N, C]`; ties share the gradient.
    public func spatialMax() throws(TensorError) -> Tensor { try amax([2, 3]) }

    /// Batch normalisation over everything but dimension 1.
    ///
    /// In training the batch's own mean and biased variance normalise, and the running tensors
    /// move in place: `running += momentum * (batch - running)`, with the unbiased variance. With
    /// momentum 1 they receive the batch's values.
    ///
    /// - SeeAlso: Ioffe, Szegedy, arXiv:1502.03167.
    public func batchNorm(
        weight: Tensor?, bias: Tensor?, runningMean: Tensor?, runningVariance: Tensor?,
        training: Bool, momentum: Double = 0.1, epsilon: Double = 1e-5
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::batch_norm",
            [
                .tensor(self), .optional(weight), .optional(bias), .optional(runningMean),
                .optional(runningVariance), .bool(training), .double(momentum),
                .double(epsilon), .bool(true),
            ])
    }

    /// Batch normalisation that also returns the batch's mean and inverse standard deviation.
    ///
    /// As ``batchNorm(weight:bias:runningMean:runningVariance:training:momentum:epsilon:)``, with
    /// LibTorch's own kernels rather than cuDNN's on CUDA devices.
    public func nativeBatchNorm(
        weight: Tensor?, bias: Tensor?, runningMean: Tensor?, runningVariance: Tensor?,
        training: Bool, momentum: Double = 0.1, epsilon: Double = 1e-5
    ) throws(TensorError) -> (output: Tensor, mean: Tensor, inverseDeviation: Tensor) {
        let results = try callOperator(
            "aten::native_batch_norm",
            [
                .tensor(self), .optional(weight), .optional(bias), .optional(runningMean),
                .optional(runningVariance), .bool(training), .double(momentum),
                .double(epsilon),
            ]
        ).compactMap(\.tensor)
        guard results.count == 3 else {
            throw TensorError(
                code: .badArgument,
                message: "aten::native_batch_norm(\(summary)): it returned no three tensors")
        }
        return (results[0], results[1], results[2])
    }

    /// Normalises rows to Euclidean length one; rows shorter than `epsilon` are divided by it.
    public func normalised(
        dim: Int = -1, epsilon: Double = 1e-12
    ) throws(TensorError) -> Tensor {
        try self / norm(dim, keepDims: true).clamp(min: epsilon)
    }

    /// exp(x) over its sum along a dimension.
    public func softmax(_ dim: Int) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::softmax", overload: "int", [.tensor(self), .int(dim)])
    }

    /// The logarithm of the softmax along a dimension.
    public func logSoftmax(_ dim: Int) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::log_softmax", overload: "int", [.tensor(self), .int(dim)])
    }

    /// Mean negative log-likelihood of the target classes.
    ///
    /// - Parameter target: `int64` `[batch]`; the receiver holds log-probabilities
    ///   `[batch, classes]`.
    public func nllLoss(_ target: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::nll_loss", [.tensor(self), .tensor(target)])
    }
}

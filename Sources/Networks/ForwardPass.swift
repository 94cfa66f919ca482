import Tensors

/// One run through a network with given values.
struct ForwardPass {
    let parameters: [Tensor]
    let mode: BatchNormMode
    let epsilon: Double

    func body(_ body: Body, _ images: Tensor) throws(TensorError) -> Tensor {
        switch body {
        case .basic(let blocks):
            var x = images  // [batch, 3, height, width]
            for block in blocks {
                x = try convolution(block.convolution, x)
                if let norm = block.norm { x = try normalise(norm, x) }
                x = try x.relu_().maxPool2d(kernel: 2)
            }
            return try widened(x.flatten(from: 1))  // [batch, features]
        case .residual(let stem, let stemNorm, let blocks):
            var x = try normalise(stemNorm, convolution(stem, images)).relu_()
            x = try x.maxPool2d(kernel: 3, stride: 2, padding: 1)
            for block in blocks { x = try bottleneck(block, x) }
            guard x.dtype == .bfloat16 else { return try x.spatialMean() }  // [batch, 2048]
            return try callTensorOperator(
                "aten::mean", overload: "dim", [.tensor(x), [2, 3], false, .dtype(.float32)])
        }
    }

    private func widened(_ x: Tensor) throws(TensorError) -> Tensor {
        x.dtype == .bfloat16 ? try x.to(dtype: .float32) : x
    }

    private func bottleneck(_ block: Bottleneck, _ input: Tensor) throws(TensorError) -> Tensor {
        var x = try normalise(block.reduceNorm, convolution(block.reduce, input)).relu_()
        x = try normalise(block.spatialNorm, convolution(block.spatial, x)).relu_()
        x = try normalise(block.expandNorm, convolution(block.expand, x))
        var shortcut = input
        if let projection = block.projection, let norm = block.projectionNorm {
            shortcut = try normalise(norm, convolution(projection, input))
        }
        return try x.add_(shortcut).relu_()
    }

    func head(_ head: HeadLayers, _ features: Tensor) throws(TensorError) -> Tensor {
        var x = features
        if let hidden = head.hidden, let norm = head.hiddenNorm {
            x = try normalise(norm, dense(hidden, x)).relu_()  // [batch, 1024]
        }
        if let embedding = head.embedding { x = try dense(embedding, x) }
        guard head.normalizes else { return x }
        return try x * x.square().sum([1], keepDims: true).clamp(min: 1e-12).rsqrt()
    }

    private func convolution(_ layer: Convolution, _ x: Tensor) throws(TensorError) -> Tensor {
        try x.conv2d(
            weight: parameters[layer.weight], bias: layer.bias.map { parameters[$0] },
            stride: layer.stride, padding: layer.padding)
    }

    private func dense(_ layer: Dense, _ x: Tensor) throws(TensorError) -> Tensor {
        try x.linear(weight: parameters[layer.weight], bias: layer.bias.map { parameters[$0] })
    }

    /// Batch norm; in training the private averages take the batch's own values (momentum 1).
    private func normalise(_ layer: Normalisation, _ x: Tensor) throws(TensorError) -> Tensor {
        let (weight, bias) = (parameters[layer.weight], parameters[layer.bias])
        switch mode {
        case .training(let own):
            return try x.batchNorm(
                weight: weight, bias: bias, runningMean: own.tensors[layer.buffer],
                runningVariance: own.tensors[layer.buffer + 1], training: true, momentum: 1,
                epsilon: epsilon)
        case .evaluation(let buffers):
            return try x.batchNorm(
                weight: weight, bias: bias, runningMean: buffers[layer.buffer],
                runningVariance: buffers[layer.buffer + 1], training: false, momentum: 0,
                epsilon: epsilon)
        }
    }
}

extension Network {
    static func basicBody(
        _ configuration: NetworkConfiguration, _ registry: inout Registry
    ) -> (Body, features: Int) {
        var blocks: [BasicBlock] = []
        var input = 3
        for (number, output) in [configuration.channels, 2 * configuration.channels].enumerated() {
            registry.block = number
            let convolution = registry.convolution(
                "conv\(number + 1)", from: input, to: output, kernel: 3, padding: 1,
                bias: !configuration.batchNorm, .glorotUniform)
            let norm =
                configuration.batchNorm
                ? registry.norm("bn\(number + 1)", channels: output) : nil
            blocks.append(BasicBlock(convolution: convolution, norm: norm))
            input = output
        }
        let rows = configuration.inputHeight / 2 / 2
        let columns = configuration.inputWidth / 2 / 2
        return (.basic(blocks), input * rows * columns)
    }

    static func residualBody(_ registry: inout Registry) -> (Body, features: Int) {
        let stem = registry.convolution(
            "conv1", from: 3, to: 64, kernel: 7, stride: 2, padding: 3, .kaimingNormalFanOut)
        let stemNorm = registry.norm("bn1", channels: 64)
        var blocks: [Bottleneck] = []
        var input = 64
        let stages = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]
        for (stage, (width, units, stride)) in stages.enumerated() {
            registry.block = stage + 1
            for unit in 0..<units {
                blocks.append(
                    bottleneck(
                        "layer\(stage + 1).\(unit)", from: input, width: width,
                        stride: unit == 0 ? stride : 1, projects: unit == 0, &registry))
                input = 4 * width
            }
        }
        return (.residual(stem: stem, stemNorm: stemNorm, blocks: blocks), input)
    }

    private static func bottleneck(
        _ name: String, from input: Int, width: Int, stride: Int, projects: Bool,
        _ registry: inout Registry
    ) -> Bottleneck {
        let reduce = registry.convolution(
            "\(name).conv1", from: input, to: width, kernel: 1, .kaimingNormalFanOut)
        let reduceNorm = registry.norm("\(name).bn1", channels: width)
        let spatial = registry.convolution(
            "\(name).conv2", from: width, to: width, kernel: 3, stride: stride, padding: 1,
            .kaimingNormalFanOut)
        let spatialNorm = registry.norm("\(name).bn2", channels: width)
        let expand = registry.convolution(
            "\(name).conv3", from: width, to: 4 * width, kernel: 1, .kaimingNormalFanOut)
        let expandNorm = registry.norm("\(name).bn3", channels: 4 * width)
        let projection =
            projects
            ? registry.convolution(
                "\(name).downsample.0", from: input, to: 4 * width, kernel: 1, stride: stride,
                .kaimingNormalFanOut) : nil
        let projectionNorm =
            projects ? registry.norm("\(name).downsample.1", channels: 4 * width) : nil
        return Bottleneck(
            reduce: reduce, reduceNorm: reduceNorm, spatial: spatial, spatialNorm: spatialNorm,
            expand: expand, expandNorm: expandNorm, projection: projection,
            projectionNorm: projectionNorm)
    }

    static func headLayers(
        _ configuration: NetworkConfiguration, features: Int, _ registry: inout Registry
    ) -> HeadLayers {
        guard configuration.head != .none else {
            return HeadLayers(hidden: nil, hiddenNorm: nil, embedding: nil, normalizes: false)
        }
        registry.block = nil
        var input = features
        var hidden: Dense?
        var hiddenNorm: Normalisation?
        if configuration.head.hasHiddenLayer {
            hidden = registry.dense(
                "head.fc", from: input, to: 1024, bias: false, .glorotUniform)
            hiddenNorm = registry.norm("head.bn", channels: 1024)
            input = 1024
        }
        let embedding = registry.dense(
            "head.embedding", from: input, to: configuration.embeddingDimension, bias: true,
            .orthogonal)
        return HeadLayers(
            hidden: hidden, hiddenNorm: hiddenNorm, embedding: embedding,
            normalizes: configuration.head.normalizes)
    }
}

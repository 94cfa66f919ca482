import Tensors
import Testing

@Suite struct OperatorTests {
    init() throws { try EngineFixture.open() }

    @Test func errorNamesOperatorAndShapesAndLibTorchsReason() throws {
        let a = try Tensor.zeros([2, 3])
        let b = try Tensor.zeros([4, 5])
        let error = try tensorError { _ = try a.matmul(b) }
        #expect(error.code == .operatorFailed)
        for part in ["aten::matmul", "float32[2, 3]", "float32[4, 5]", "cannot be multiplied"] {
            #expect(error.message.contains(part), "\(error.message)")
        }
        #expect(!error.message.contains("\n"))
        #expect(!error.detail.contains("Exception raised from"))
    }

    @Test func unknownOperatorAndOverloadAreNamed() throws {
        let first = try tensorError { try callOperator("aten::no_such_thing", []) }
        #expect(first.code == .unknownOperator)
        #expect(first.message.contains("aten::no_such_thing"))
        let second = try tensorError { try callOperator("aten::add", overload: "Tenser", []) }
        #expect(second.code == .unknownOperator)
        #expect(second.message.contains("aten::add.Tenser"))
    }

    @Test func argumentsAreCheckedAgainstTheSchema() throws {
        let x = try Tensor.zeros([2, 3])
        let cases: [(String, String, [Argument], String)] = [
            ("aten::relu", "", [], "argument 'self' (Tensor) is missing"),
            ("aten::relu", "", [3], "argument 'self' takes Tensor, not an integer"),
            ("aten::relu", "", [nil], "argument 'self' takes Tensor, not None"),
            ("aten::relu", "", [.tensor(x), .tensor(x)], "it takes at most 1 arguments, not 2"),
            (
                "aten::transpose", "int", [.tensor(x), 0.5, 1],
                "'dim0' takes int, not a real number"
            ),
            ("aten::sum", "dim_IntList", [.tensor(x), .tensors([x])], "not a list of tensors"),
            ("aten::cat", "", [.ints([1])], "argument 'tensors' takes Tensor[]"),
            ("aten::add", "Tensor", [.tensor(x), .string("a")], "not a string"),
            ("aten::zeros", "", [.ints([1]), .device(.cpu)], "not a device"),
        ]
        for (name, overload, arguments, expected) in cases {
            let error = try tensorError {
                try callOperator(name, overload: overload, arguments)
            }
            #expect(error.code == .badArgument)
            #expect(error.message.contains(expected), "\(error.message)")
            #expect(error.message.contains(name))
        }
    }

    @Test func missingTrailingArgumentsTakeTheSchemasDefaults() throws {
        let x = try Tensor([1, 2, 3, 4] as [Float], shape: [2, 2])
        let sum = try callTensorOperator("aten::add", overload: "Tensor", [.tensor(x), .tensor(x)])
        #expect(try sum.floats() == [2, 4, 6, 8])
        let scaled = try callTensorOperator(
            "aten::add", overload: "Tensor", [.tensor(x), .tensor(x), 3])
        #expect(try scaled.floats() == [4, 8, 12, 16])
        let explicit = try callTensorOperator(
            "aten::softplus", [.tensor(x), .defaultValue, .defaultValue])
        #expect(try explicit.bits() == x.softplus().bits())
    }

    @Test func everyKindOfArgumentArrives() throws {
        let x = try Tensor([0, 1, 2, 3, 4, 5] as [Float], shape: [2, 3])
        #expect(try x.sum([0]).floats() == [3, 5, 7])
        #expect(try x.sum([0, 1]).floats() == [15])
        #expect(try Tensor.cat([x, x], dim: 1).shape == [2, 6])
        #expect(try Tensor.stack([x, x]).shape == [2, 2, 3])
        // A list with None, a real where an integer was given, a string, dtypes and flags.
        let index = try Tensor([2, 0])
        let picked = try callTensorOperator(
            "aten::index", overload: "Tensor",
            [.tensor(x), .optionalTensors([nil, index])])
        #expect(try picked.floats() == [2, 0, 5, 3])
        let gelu = try callTensorOperator("aten::gelu", [.tensor(x), .string("tanh")])
        #expect(try gelu.floats() != callTensorOperator("aten::gelu", [.tensor(x)]).floats())
        let full = try callTensorOperator(
            "aten::full", [.ints([2]), 3, .dtype(.int32), nil, .device(.cpu), false])
        #expect(full.dtype == .int32)
        #expect(try full.values(as: Int32.self) == [3, 3])
        let flipped = try callTensorOperator("aten::flip", [.tensor(x), [1]])
        #expect(try flipped.floats() == [2, 1, 0, 5, 4, 3])
        let resized = try callTensorOperator(
            "aten::upsample_nearest2d", overload: "vec",
            [.tensor(x.reshape([1, 1, 2, 3])), nil, .doubles([2, 2])])
        #expect(resized.shape == [1, 1, 4, 6])
    }

    @Test func everyKindOfResultArrives() throws {
        let x = try Tensor([3, 1, 2] as [Float])
        guard case .bool(true)? = try callOperator("aten::is_nonzero", [.tensor(x.sum())]).first
        else { return #expect(Bool(false), "aten::is_nonzero returns a boolean") }
        guard
            case .tensors(let pieces)? = try callOperator(
                "aten::unbind", overload: "int", [.tensor(x)]
            ).first
        else { return #expect(Bool(false), "aten::unbind returns a list") }
        #expect(try pieces.map { try $0?.item() } == [3, 1, 2])
        #expect(
            try callOperator("aten::_foreach_add_", overload: "Scalar", [.tensors([x]), 1]).isEmpty)
        #expect(try x.floats() == [4, 2, 3])
        let (values, places) = try x.sort(descending: true)
        #expect(try values.floats() == [4, 3, 2])
        #expect(try places.integers() == [0, 2, 1])
        let norm = try x.nativeNorm()
        #expect(norm == 3)
    }

    @Test func schemaIsReadable() throws {
        let schema = try Operator("aten::relu").schema
        #expect(schema == "aten::relu(Tensor self) -> Tensor")
    }

    @Test func hugeAllocationIsAnErrorNotATrap() throws {
        let error = try tensorError { _ = try Tensor.empty([1 << 40, 1 << 10]) }
        #expect(error.code == .outOfMemory, "\(error.message)")
    }

    @Test func wrappersComputeWhatTheirNamesSay() throws {
        let x = try Tensor([1, 2, 3, 4] as [Float], shape: [2, 2])
        #expect(try (x + x).floats() == [2, 4, 6, 8])
        #expect(try (x - 1).floats() == [0, 1, 2, 3])
        #expect(try (1 - x).floats() == [0, -1, -2, -3])
        #expect(try (-x).floats() == [-1, -2, -3, -4])
        #expect(try (2 * x / x).floats() == [2, 2, 2, 2])
        #expect(try (x .> 2).values(as: Bool.self) == [false, false, true, true])
        #expect(try ((x .>= 2) .& (x .<= 3)).values(as: Bool.self) == [false, true, true, false])
        #expect(try (x .== 1).not().values(as: Bool.self) == [false, true, true, true])
        #expect(try x.clamp(min: 2, max: 3).floats() == [2, 2, 3, 3])
        #expect(try x.matmul(Tensor.eye(2)).isEqual(to: x))
        #expect(try x.transpose().floats() == [1, 3, 2, 4])
        #expect(try x.max(1).values.floats() == [2, 4])
        #expect(try x.min(0).indices.integers() == [0, 0])
        #expect(try x.amax([0, 1]).item() == 4)
        #expect(try x.narrow(1, start: 1, length: 1).floats() == [2, 4])
        #expect(try x.select(0, 1).floats() == [3, 4])
        #expect(try x.indexSelect(0, Tensor([1, 1, 0])).floats() == [3, 4, 3, 4, 1, 2])
        #expect(try x.gather(1, Tensor([1, 0], shape: [2, 1])).floats() == [2, 3])
        #expect(try Tensor.where(x .> 2, x, 0).floats() == [0, 0, 3, 4])
        #expect(try Tensor.where(x .> 2, x, -x).floats() == [-1, -2, 3, 4])
        #expect(try x.maskedFill(x .> 2, 9).floats() == [1, 2, 9, 9])
        #expect(try x.pad([1, 0, 0, 1]).floats() == [0, 1, 2, 0, 3, 4, 0, 0, 0])
        #expect(try x.tril().floats() == [1, 0, 3, 4])
        #expect(try x.split([1, 1]).map { try $0.floats() } == [[1, 2], [3, 4]])
        #expect(try x.topK(1).values.floats() == [2, 4])
        #expect(try x.norm(1).floats().map { $0 * $0 }.map { ($0).rounded() } == [5, 25])
        #expect(try x.normalised().norm().item().isApproximately(2.0.squareRoot(), 1e-6))
        #expect(try x.pow(2).floats() == x.square().floats())
        #expect(try x.logSoftmax(1).exp().sum([1]).floats().allSatisfy { abs($0 - 1) < 1e-6 })
        #expect(try Tensor.arange(3).integers() == [0, 1, 2])
        #expect(try Tensor.full([2], 7, dtype: .int64).integers() == [7, 7])
        #expect(try x.clone().add_(x, alpha: 0.5).mul_(2).floats() == [3, 6, 9, 12])
        #expect(try x.zerosLike().fill_(5).copy_(Tensor(2)).floats() == [2, 2, 2, 2])
        let image = try Tensor.arange(16).to(dtype: .float32).reshape([1, 1, 4, 4])
        #expect(try image.maxPool2d(kernel: 2).floats() == [5, 7, 13, 15])
        #expect(try image.averagePool2d(kernel: 2).floats() == [2.5, 4.5, 10.5, 12.5])
        #expect(try image.spatialMean().floats() == [7.5])
        #expect(try image.spatialMax().floats() == [15])
        let kernel = try Tensor.ones([1, 1, 3, 3])
        #expect(try image.conv2d(weight: kernel).floats() == [45, 54, 81, 90])
        #expect(
            try x.linear(weight: Tensor.eye(2), bias: Tensor([1.0, 2.0])).floats() == [2, 4, 4, 6])
    }

    @Test func batchNormWithMomentumOneReadsOffTheBatch() throws {
        let x = try random([4, 3, 5, 5], seed: 3)
        let mean = try Tensor.zeros([3])
        let variance = try Tensor.ones([3])
        _ = try x.batchNorm(
            weight: nil, bias: nil, runningMean: mean, runningVariance: variance, training: true,
            momentum: 1)
        let expectedMean = try x.mean([0, 2, 3])
        let centred = try x - x.mean([0, 2, 3], keepDims: true)
        let expectedVariance = try centred.square().sum([0, 2, 3]) / 99
        #expect(try (mean - expectedMean).abs().max().item() < 1e-6)
        #expect(try (variance - expectedVariance).abs().max().item() < 1e-6)
    }

    @Test func fusedAdamWithAHugeStepIsAdamWithTheCallersScalars() throws {
        // p -= lr * m / (sqrt(v) + eps): with step 1e9 LibTorch's bias corrections are 1.
        let p = try random([1000], seed: 1)
        let g = try random([1000], seed: 2)
        let (m, v) = (try Tensor.zeros([1000]), try Tensor.zeros([1000]))
        let before = try p.floats().map(Double.init)
        try fusedAdam_(
            parameters: [p], gradients: [g], firstMoments: [m], secondMoments: [v],
            steps: [Tensor(1e9)], learningRate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8)
        for (place, (after, gradient)) in try zip(p.floats(), g.floats()).enumerated() {
            let gradient = Double(gradient)
            let expected =
                before[place] - 0.01 * (0.1 * gradient)
                / ((0.001 * gradient * gradient).squareRoot() + 1e-8)
            #expect(abs(Double(after) - expected) < 1e-6)
        }
    }
}

extension Tensor {
    fileprivate func nativeNorm() throws -> Int {
        guard
            case .int(let rank)? = try callOperator(
                "aten::size", overload: "int", [.tensor(self), 0]
            )
            .first
        else { return -1 }
        return rank
    }
}

extension Double {
    fileprivate func isApproximately(_ other: Double, _ tolerance: Double) -> Bool {
        abs(self - other) <= tolerance
    }
}

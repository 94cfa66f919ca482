import Tensors
import Testing

@Suite struct GradientTests {
    init() throws { try EngineFixture.open() }

    /// A small expression with products, broadcasts, reductions and branches, in float64.
    static func expression(_ x: Tensor, _ w: Tensor) throws -> Tensor {
        let hidden = try x.matmul(w).softplus()
        let scaled = try hidden / (hidden.square().sum([1], keepDims: true) + 1).sqrt()
        return try (scaled.exp().mean() + (scaled + 1).log().sum() * 0.1 + hidden.amax([0]).sum())
    }

    // Central differences in float64 with step h have an error of h^2 f'''/6 + eps |f| / h: with
    // h = 1e-5 and values below 10 about 1e-10; 1e-7 relative leaves room for f'''.
    @Test func gradientsAgreeWithFiniteDifferences() throws {
        let x = try random([3, 4], seed: 1).to(dtype: .float64)
        let w = try random([4, 2], seed: 2).to(dtype: .float64)
        try x.requiresGradient()
        try w.requiresGradient()
        let found = try gradients(of: Self.expression(x, w), withRespectTo: [x, w])
        let step = 1e-5
        for (tensor, gradient) in zip([x, w], found) {
            #expect(gradient.shape == tensor.shape)
            let values = try tensor.values(as: Double.self)
            for place in values.indices {
                func value(_ offset: Double) throws -> Double {
                    var moved = values
                    moved[place] += offset
                    let other = try Tensor(copying: moved, shape: tensor.shape)
                    return try withoutGradient {
                        try
                            (tensor === x
                            ? Self.expression(other, w) : Self.expression(x, other)).item()
                    }
                }
                let expected = try (value(step) - value(-step)) / (2 * step)
                let actual = try gradient.values(as: Double.self)[place]
                #expect(abs(actual - expected) <= 1e-7 * max(1, abs(expected)))
            }
        }
    }

    @Test func unusedInputGetsZerosInItsShape() throws {
        let x = try Tensor.ones([2]).requiresGradient()
        let unused = try Tensor.ones([3, 4]).requiresGradient()
        let y = try x.sum()
        let found = try optionalGradients(of: y, withRespectTo: [x, unused], keepingGraph: true)
        #expect(found[0] != nil && found[1] == nil)
        let filled = try gradients(of: y, withRespectTo: [unused])
        #expect(try filled[0].shape == [3, 4] && filled[0].abs().sum().item() == 0)
    }

    @Test func nothingAccumulates() throws {
        let x = try Tensor([3.0]).requiresGradient()
        for _ in 0..<3 {
            #expect(try gradients(of: (x * x).sum(), withRespectTo: [x])[0].floats() == [6])
        }
    }

    @Test func outputGradientWeighsSeveralOutputs() throws {
        let x = try Tensor([1.0, 2.0]).requiresGradient()
        let y = try x * x
        let seed = try Tensor([10.0, 1.0])
        #expect(try gradients(of: y, withRespectTo: [x], gradOutput: seed)[0].floats() == [20, 4])
        let error = try tensorError { _ = try gradients(of: x * x, withRespectTo: [x]) }
        #expect(error.message.contains("float32[2]"))
    }

    @Test func secondDerivativesAreToBeHad() throws {
        let x = try Tensor([2.0]).requiresGradient()
        let first = try gradients(of: x.pow(3).sum(), withRespectTo: [x], createGraph: true)[0]
        #expect(try gradients(of: first.sum(), withRespectTo: [x])[0].floats() == [12])
    }

    @Test func graphIsUsedUpUnlessKept() throws {
        let x = try Tensor([2.0]).requiresGradient()
        let y = try (x * x).sum()
        _ = try gradients(of: y, withRespectTo: [x], keepingGraph: true)
        _ = try gradients(of: y, withRespectTo: [x])
        let error = try tensorError { _ = try gradients(of: y, withRespectTo: [x]) }
        #expect(error.code == .operatorFailed)
    }

    @Test func withoutGradientRecordsNothingAndRestoresOnThrow() throws {
        struct Stop: Error {}
        let x = try Tensor([2.0]).requiresGradient()
        #expect(try withoutGradient { try (x * x).needsGradient } == false)
        #expect(throws: Stop.self) {
            try withoutGradient { () throws(Stop) in throw Stop() }
        }
        #expect(isGradientEnabled())
        #expect(try withoutGradient { try withGradient { try (x * x).needsGradient } })
        #expect(try (x * x).detach().needsGradient == false)
        _ = try tensorError { _ = try Tensor([1]).requiresGradient() }
    }

    @Test func gradientModeBelongsToTheThread() throws {
        let (there, here) = try withoutGradient {
            (try onThread { isGradientEnabled() }, isGradientEnabled())
        }
        #expect(there && !here)
    }

    @Test func autocastCastsInsideAndIsRestored() throws {
        let x = try random([4, 8], seed: 1)
        let w = try random([3, 8], seed: 2).requiresGradient()
        let y = try withAutocast(.bfloat16) { try x.linear(weight: w) }
        #expect(y.dtype == .bfloat16)
        #expect(try x.linear(weight: w).dtype == .float32)
        let nested = try withAutocast(.bfloat16) {
            try withAutocast(nil) { try x.linear(weight: w).dtype }
        }
        #expect(nested == .float32)
        let gradient = try gradients(of: y.to(dtype: .float32).sum(), withRespectTo: [w])[0]
        #expect(gradient.dtype == .float32)
        #expect(
            try withAutocast(.bfloat16) { try onThread { try x.linear(weight: w).dtype } }
                == .float32)
    }
}

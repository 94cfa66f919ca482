import Foundation
import Synchronization
import Tensors
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite struct ThreadTests {
    init() throws { try EngineFixture.open() }

    @Test func intraOpThreadsAreASettingOfEachThread() throws {
        let counts = try onThread {
            try Engine.setIntraOpThreads(2)
            let other = try onThread {
                try Engine.setIntraOpThreads(3)
                return try Engine.intraOpThreads()
            }
            return [other, try Engine.intraOpThreads()]
        }
        #expect(counts == [3, 2])
    }

    // LibTorch sets a thread's count to the last one set anywhere when the thread enters its first
    // parallel region; our own setting must survive that.
    @Test func firstParallelWorkKeepsTheThreadsOwnSetting() throws {
        let mine = DispatchSemaphore(value: 0)
        let theirs = DispatchSemaphore(value: 0)
        let thread = OwnThread {
            try Engine.setIntraOpThreads(1)
            mine.signal()
            theirs.wait()
            let big = try Tensor.ones([1 << 20])
            _ = try (big + big).sum().item()
            return try Engine.intraOpThreads()
        }
        mine.wait()
        try onThread { try Engine.setIntraOpThreads(2) }
        theirs.signal()
        #expect(try thread.wait() == 1)
    }

    @Test func threadCountMustBePositive() throws {
        let error = try tensorError { try Engine.setIntraOpThreads(0) }
        #expect(error.message.contains("must be positive"))
    }

    /// Loss and gradients of a small network with convolutions, batch norm and residual addition.
    @Sendable static func slot(_ number: Int, _ precision: DType?) throws -> [[UInt32]] {
        try Engine.setIntraOpThreads(1)
        let shapes = [
            [16, 3, 3, 3], [16], [16], [16, 16, 3, 3], [16], [16], [32, 16, 1, 1], [8, 32],
        ]
        let weights = try shapes.enumerated().map { place, shape in
            try (random(shape, seed: UInt64(place)) * 0.3).requiresGradient()
        }
        let images = try random([6, 3, 24, 20], seed: UInt64(100 + number))
            .contiguous(.channelsLast)
        let output = try withAutocast(precision) {
            let first = try images.conv2d(weight: weights[0], padding: 1)
                .batchNorm(
                    weight: weights[1], bias: weights[2], runningMean: nil, runningVariance: nil,
                    training: true
                ).relu()
            let second = try first.conv2d(weight: weights[3], padding: 1)
                .batchNorm(
                    weight: weights[4], bias: weights[5], runningMean: nil, runningVariance: nil,
                    training: true)
            return try (first + second).relu().maxPool2d(kernel: 2).conv2d(weight: weights[6])
                .spatialMean().linear(weight: weights[7])
        }
        let loss = try output.to(dtype: .float32).square().mean()
        let found = try gradients(of: loss, withRespectTo: weights)
        return try [loss.bits()] + found.map { try $0.bits() }
    }

    @Test(arguments: [nil, DType.bfloat16])
    func slotsOnParallelThreadsHaveTheBitsOfSequentialOnes(precision: DType?) throws {
        let sequential = try onThread { try (0..<4).map { try Self.slot($0, precision) } }
        #expect(Set(sequential.map { $0[0] }).count == 4)
        for _ in 0..<3 {
            let threads = (0..<4).map { number in OwnThread { try Self.slot(number, precision) } }
            for (number, thread) in threads.enumerated() {
                #expect(try thread.wait() == sequential[number], "slot \(number)")
            }
        }
    }

    @Test func operatorsAreLookedUpFromManyThreadsAtOnce() throws {
        let names = ["exp", "log", "sqrt", "tanh", "sigmoid", "abs", "neg", "floor", "ceil", "cos"]
        let threads = (0..<4).map { _ in
            OwnThread {
                try (0..<200).map { round in
                    try callTensorOperator(
                        "aten::\(names[round % names.count])", [.tensor(Tensor(1))]
                    )
                    .item()
                }
            }
        }
        let results = try threads.map { try $0.wait() }
        #expect(results.allSatisfy { $0 == results[0] })
    }

    @Test func errorsOfThreadsDoNotMix() throws {
        let threads = (1..<5).map { size in
            OwnThread {
                for _ in 0..<100 {
                    let error = try tensorError {
                        _ = try Tensor.zeros([size, 7]).matmul(Tensor.zeros([9, size]))
                    }
                    guard error.message.contains("(\(size)x7 and 9x\(size))") else {
                        return error.message
                    }
                }
                return ""
            }
        }
        for thread in threads { #expect(try thread.wait() == "") }
    }
}

import Basics
import Foundation
import MetricLearning
import Networks
import Tensors
import Testing
import Training

@Suite struct StepTests {
    static let losses = [
        LossConfiguration(name: .batchHard, margin: .soft),
        LossConfiguration(name: .batchAll, margin: .number(0.5)),
        LossConfiguration(name: .tfBatchSemiHard, margin: .number(0.5)),
    ]

    @Test(arguments: losses) func parallelSlotsHaveTheBitsOfOneAfterAnother(
        _ loss: LossConfiguration
    ) throws {
        let configuration = Fixtures.basic(loss: loss)
        var digests: [UInt64] = []
        var histories: [[Float]] = []
        for parallel in [1, 2, 4] {
            let state = try TrainingState.initial(configuration)
            histories.append(try Fixtures.train(state, steps: 5, parallelSlots: parallel))
            digests.append(try state.digest())
        }
        #expect(Set(digests).count == 1)
        #expect(Set(histories).count == 1)
        #expect(histories[0].allSatisfy { $0.isFinite })
    }

    @Test func slotsInAnyOrderGiveTheSameEffect() throws {
        let state = try TrainingState.initial(Fixtures.basic(slots: 3))
        let inputs = Fixtures.slots(state.configuration, step: 0)
        let computer = try SlotComputer(state.configuration)
        func digest(_ order: [Int]) throws -> UInt64 {
            let count = state.layout.elementCount
            let buffers = (0..<3).map { _ in FloatBuffer(count: count) }
            var statistics = [[Float]](repeating: [], count: 3)
            for slot in order {
                let result = try computer.compute(
                    images: inputs[slot].images.base, labels: inputs[slot].labels, state: state,
                    into: buffers[slot])
                statistics[slot] = result.batchStatistics
            }
            let reduced = FloatBuffer(count: count)
            try Fold.mean(buffers, into: reduced)
            return StepEffect(
                step: 1, gradient: reduced, batchStatistics: Fold.mean(statistics),
                scalars: StepScalars(.init(), step: 1, learningRate: 1e-3)
            ).digest()
        }
        let expected = try digest([0, 1, 2])
        #expect(try digest([2, 0, 1]) == expected)
        #expect(try digest([1, 2, 0]) == expected)
    }

    @Test func applyOnOneOrTwoThreadsGivesTheSameBits() throws {
        let configuration = Fixtures.basic()
        var digests: Set<UInt64> = []
        for threads in [1, 2, 3] {
            let state = try TrainingState.initial(configuration)
            let loop = try BareLoop(state, parallelSlots: 1)
            for _ in 0..<3 {
                let inputs = Fixtures.slots(configuration, step: state.step)
                let (_, effect) = try loop.compute(inputs, learningRate: 1e-3)
                try apply(effect, to: state, threads: threads)
            }
            digests.insert(try state.digest())
        }
        #expect(digests.count == 1)
    }

    @Test func applyFollowsTheFormula() throws {
        let state = try TrainingState.initial(Fixtures.basic())
        let before = try state.copyAside()
        let gradient = FloatBuffer(count: state.layout.elementCount)
        var random = CounterRandom(seed: 1, purpose: .dataset)
        for at in 0..<gradient.count { gradient.base[at] = Float(random.uniform() - 0.5) }
        let statistics = (0..<state.layout.statisticsCount).map { Float($0) / 8 }
        let scalars = StepScalars(.init(), step: 1, learningRate: 1e-2)
        try apply(
            StepEffect(
                step: 1, gradient: gradient, batchStatistics: statistics, scalars: scalars),
            to: state)
        let after = try state.tensors()
        #expect(state.step == 1)
        let named = Dictionary(uniqueKeysWithValues: before.tensors.map { ($0.name, $0.floats()) })
        let entry = try #require(state.layout.entries.last { $0.name == "head.embedding.weight" })
        let tensor = try #require(after.first { $0.name == "network/head.embedding.weight" })
        let old = try #require(named["network/head.embedding.weight"])
        for (at, value) in tensor.floats().enumerated() {
            let g = Double(gradient.base[entry.offset + at])
            let quotient = 0.1 * g / ((0.001 * g * g).squareRoot() + scalars.effectiveEpsilon)
            let expected = Double(old[at]) - scalars.effectiveRate * quotient
            #expect(abs(Double(value) - expected) < 1e-6)
        }
        let averages = try #require(after.first { $0.name == "network/bn2.running_var" }).floats()
        // bn1 has 8 channels, bn2 16: its variance starts at 8 + 8 + 16.
        for (at, value) in averages.enumerated() {
            let momentum = Float(0.1)
            #expect(value == 1 + momentum * (Float(32 + at) / 8 - 1))
        }
    }

    @Test func effectThatDoesNotFollowIsRefusedAndChangesNothing() throws {
        let state = try TrainingState.initial(Fixtures.basic())
        let before = try state.digest()
        let count = state.layout.elementCount
        let scalars = StepScalars(.init(), step: 2, learningRate: 1e-3)
        let statistics = [Float](repeating: 0, count: state.layout.statisticsCount)
        #expect(throws: TrainingError.self) {
            try apply(
                StepEffect(
                    step: 2, gradient: FloatBuffer(count: count), batchStatistics: statistics,
                    scalars: scalars), to: state)
        }
        #expect(throws: TrainingError.self) {
            try apply(
                StepEffect(
                    step: 1, gradient: FloatBuffer(count: count - 1), batchStatistics: statistics,
                    scalars: scalars), to: state)
        }
        #expect(try state.digest() == before)
    }

    @Test func trainingLowersTheLoss() throws {
        let loss = LossConfiguration(name: .batchHard, margin: .soft)
        let state = try TrainingState.initial(Fixtures.basic(loss: loss))
        let loop = try BareLoop(state, parallelSlots: 2)
        let inputs = Fixtures.slots(state.configuration, step: 0)
        let losses = try (0..<40).map { _ in try loop.step(inputs, learningRate: 3e-3) }
        #expect(losses.last! < 0.5 * losses[0])
    }

    @Test func bf16IsCloseAndRepeatable() throws {
        let wide = try TrainingState.initial(Fixtures.basic())
        let narrow = try TrainingState.initial(Fixtures.basic(precision: .bf16))
        let again = try TrainingState.initial(Fixtures.basic(precision: .bf16))
        let wideLosses = try Fixtures.train(wide, steps: 2)
        let narrowLosses = try Fixtures.train(narrow, steps: 2)
        #expect(try Fixtures.train(again, steps: 2, parallelSlots: 2) == narrowLosses)
        #expect(try again.digest() == narrow.digest())
        #expect(try narrow.digest() != wide.digest())
        #expect(abs(wideLosses[0] - narrowLosses[0]) < 0.02 * wideLosses[0])
    }
}

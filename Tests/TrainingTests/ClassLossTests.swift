import Basics
import Foundation
import MetricLearning
import Networks
import Tensors
import Testing
import Training

/// Identities' vectors as a part of the training state.
@Suite struct ClassLossTests {
    /// softmax + batch_hard + 0.0005 center over six identities, of which a slot shows four.
    static func configuration(average: Double? = nil, weightDecay: Double = 0)
        -> TrainingConfiguration
    {
        var loss = LossConfiguration(name: .softmax)
        loss.classRateFactor = 10
        var center = LossConfiguration(name: .center)
        center.weight = 0.0005
        loss.plus = [LossConfiguration(name: .batchHard), center]
        var configuration = Fixtures.basic(loss: loss)
        configuration.classCount = 6
        configuration.optimizer.averageDecay = average
        configuration.optimizer.weightDecay = WeightDecay(rate: weightDecay)
        return configuration
    }

    private static func values(_ state: TrainingState) throws -> [String: [Float]] {
        Dictionary(uniqueKeysWithValues: try state.tensors().map { ($0.name, $0.floats()) })
    }

    @Test func theyFollowTheNetworkAndLeaveItAsItIs() throws {
        let state = try TrainingState.initial(Self.configuration(average: 0.9))
        var alone = Self.configuration(average: 0.9)
        alone.loss = LossConfiguration(name: .batchHard)
        let plain = try TrainingState.initial(alone)
        let names = try state.tensors().map(\.name)
        let network = try plain.tensors().map(\.name).filter { $0.hasPrefix("network/") }
        #expect(Array(names.prefix(network.count)) == network)
        #expect(
            names[network.count...].prefix(4)
                == ["loss/softmax", "loss/center", "loss/average/softmax", "loss/average/center"])
        #expect(names.contains("optimizer/v/loss.center"))
        // The same first weights, and the same digest of what an evaluator scores.
        #expect(try state.weightsDigest() == plain.weightsDigest())
        #expect(try state.digest() != plain.digest())
        #expect(
            Array(state.layout.entries.map(\.name).suffix(2)) == ["loss.softmax", "loss.center"])
        #expect(state.layout.elementCount == plain.layout.elementCount + 2 * 6 * 16)
        let values = try Self.values(state)
        #expect(values["loss/softmax"] == values["loss/average/softmax"])
        #expect(values["loss/softmax"] != values["loss/center"])
        var other = Self.configuration()
        other.seed += 1
        #expect(try Self.values(.initial(other))["loss/softmax"] != values["loss/softmax"])
    }

    @Test func theirBitsDependOnNeitherThreadsNorAResume() throws {
        let configuration = Self.configuration(average: 0.9, weightDecay: 0.01)
        let whole = try TrainingState.initial(configuration)
        let losses = try Fixtures.train(whole, steps: 6)
        #expect(losses.allSatisfy { $0.isFinite })
        let state = try TrainingState.initial(configuration)
        _ = try Fixtures.train(state, steps: 3, parallelSlots: 4)
        let stored = Dictionary(
            uniqueKeysWithValues: try state.copyAside().tensors.map { ($0.name, $0) })
        let loaded = try TrainingState.loading(configuration, step: 3) { name in
            stored[name].map { tensor in (tensor.shape, tensor.withUnsafeBytes { $0 }) }
        }
        _ = try Fixtures.train(loaded, steps: 3, parallelSlots: 2)
        #expect(try loaded.digest() == whole.digest())
        withExtendedLifetime(stored) {}
        let (before, after) = (try Self.values(.initial(configuration)), try Self.values(whole))
        for name in ["loss/softmax", "loss/center", "loss/average/center"] {
            #expect(before[name] != after[name])
        }
    }

    /// Adam's first step is the rate in the direction of the gradient, whatever the gradient's size.
    @Test func theyHaveARateAndADecayOfTheirOwn() throws {
        var configuration = Self.configuration()
        configuration.optimizer.weightDecay = WeightDecay(rate: 0.5, isDecoupled: true)
        configuration.loss.plus[1].weight = 1
        let before = try Self.values(.initial(configuration))
        let state = try TrainingState.initial(configuration)
        _ = try Fixtures.train(state, steps: 1, rate: 1e-3)
        let after = try Self.values(state)
        // Every identity is a wrong answer of some image, so that each vector of softmax moves.
        for (old, new) in zip(before["loss/softmax"]!, after["loss/softmax"]!) {
            #expect(abs(abs(new - old * (1 - 0.01 * 0.5)) - 0.01) < 1e-4)
        }
        // The slots show identities 0 to 3; a centre has no decay.
        let (old, new) = (before["loss/center"]!, after["loss/center"]!)
        #expect(old[(4 * 16)...] == new[(4 * 16)...])
        for at in 0..<4 * 16 { #expect(abs(abs(new[at] - old[at]) - 1e-3) < 2e-5) }
    }

    @Test func everyPartOfASumIsReported() throws {
        let state = try TrainingState.initial(Self.configuration())
        let slots = Fixtures.slots(state.configuration, step: 0)
        let (results, _) = try BareLoop(state, parallelSlots: 1).compute(slots, learningRate: 1e-3)
        for result in results {
            #expect(result.lossParts.count == 3)
            let parts = result.lossParts
            let sum = parts[0] + parts[1] + 0.0005 * parts[2]
            #expect(abs(result.loss - sum) <= 1e-5 * sum)
        }
    }

    @Test func anEmbedderTakesTheNetworkAlone() throws {
        let state = try TrainingState.initial(Self.configuration(average: 0.9))
        let embedder = try Embedder(state, usesAverage: true)
        #expect(embedder.network.parameters.count == state.network.parameters.count)
    }

    @Test func dataWithoutTwoIdentitiesOrWithOthersAreRefused() throws {
        var configuration = Self.configuration()
        for count in [0, 1] {
            configuration.classCount = count
            let error = #expect(throws: TrainingError.self) { try configuration.layout() }
            #expect(error?.message.contains("softmax has a vector for each identity") == true)
            #expect(error?.message.contains("has \(count); it needs at least 2") == true)
            #expect(error?.isBadInput == true)
        }
        let tensors = try TrainingState.initial(Self.configuration()).tensors()
        configuration.classCount = 7
        let error = #expect(throws: TrainingError.self) {
            try TrainingState.loading(configuration, step: 0) { name in
                tensors.first { $0.name == name }.map { tensor in
                    (tensor.shape, tensor.withUnsafeBytes { $0 })
                }
            }
        }
        #expect(error?.message.contains("'loss/softmax' has sizes [6, 16]") == true)
    }

    /// Eight slots' worth of the same images: whoever learns knows them after a few steps.
    @Test(arguments: LossName.allCases.filter(\.hasClasses)) func trainingLowersTheLoss(
        _ name: LossName
    ) throws {
        var configuration = Fixtures.basic(loss: LossConfiguration(name: name), slots: 2)
        configuration.classCount = 5
        let state = try TrainingState.initial(configuration)
        let loop = try BareLoop(state, parallelSlots: 2)
        let slots = Fixtures.slots(configuration, step: 0)
        let losses = try (0..<12).map { _ in try loop.step(slots, learningRate: 3e-3) }
        #expect(losses.last! < losses.first!, "\(losses)")
    }
}

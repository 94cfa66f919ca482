import Basics
import Foundation
import MetricLearning
import Networks
import Testing
import Training

@Suite struct StateTests {
    @Test func savedAndLoadedStateGoesOnToTheSameBits() throws {
        let configuration = Fixtures.basic()
        let state = try TrainingState.initial(configuration)
        _ = try Fixtures.train(state, steps: 3)
        let aside = try state.copyAside(threads: 2)
        let again = try state.copyAside(reusing: aside)
        #expect(again.digest() == aside.digest())
        for (old, new) in zip(aside.tensors, again.tensors) {
            let place = old.withUnsafeBytes { $0.baseAddress }
            #expect(new.withUnsafeBytes { $0.baseAddress } == place)
        }
        #expect(try state.digest(threads: 2) == aside.digest())
        #expect(try state.weightsDigest() == aside.weightsDigest())
        let stored = Dictionary(
            uniqueKeysWithValues: aside.tensors.map { ($0.name, ($0.shape, $0.floats())) })
        _ = try Fixtures.train(state, steps: 2)

        let loaded = try TrainingState.loading(configuration, step: aside.step) { name in
            stored[name].map { shape, floats in
                let copy = UnsafeMutableBufferPointer<Float>.allocate(capacity: floats.count)
                _ = copy.initialize(from: floats)
                return (shape, UnsafeRawBufferPointer(copy))
            }
        }
        #expect(loaded.step == 3)
        #expect(try loaded.digest() == aside.digest())
        _ = try Fixtures.train(loaded, steps: 2, parallelSlots: 2)
        #expect(try loaded.digest() == state.digest())
        #expect(try state.digest() != aside.digest())
    }

    @Test func missingAndMisshapenTensorsAreNamed() throws {
        let configuration = Fixtures.basic()
        let tensors = try TrainingState.initial(configuration).tensors()
        func load(_ change: (NamedTensor) -> [Int]?) throws {
            _ = try TrainingState.loading(configuration, step: 0) { name in
                guard let tensor = tensors.first(where: { $0.name == name }) else { return nil }
                return change(tensor).map { ($0, tensor.withUnsafeBytes { $0 }) }
            }
        }
        let missing = #expect(throws: TrainingError.self) {
            try load { $0.name == "optimizer/v/conv2.weight" ? nil : $0.shape }
        }
        #expect(missing?.message.contains("optimizer/v/conv2.weight") == true)
        let misshapen = #expect(throws: TrainingError.self) {
            try load { $0.name == "network/bn1.running_var" ? [9] : $0.shape }
        }
        #expect(misshapen?.message.contains("network/bn1.running_var") == true)
        #expect(misshapen?.isBadInput == true)
    }

    @Test func tensorsComeInTheOrderOfCheckpoints() throws {
        let names = try TrainingState.initial(Fixtures.basic()).tensors().map(\.name)
        #expect(
            names.prefix(12) == [
                "network/conv1.weight", "network/bn1.weight", "network/bn1.bias",
                "network/conv2.weight", "network/bn2.weight", "network/bn2.bias",
                "network/head.embedding.weight", "network/head.embedding.bias",
                "network/bn1.running_mean", "network/bn1.running_var", "network/bn2.running_mean",
                "network/bn2.running_var",
            ])
        #expect(names[12] == "optimizer/m/conv1.weight" && names[20] == "optimizer/v/conv1.weight")
        #expect(names.count == 28)
    }

    @Test func weightsDigestCoversNamesSizesAndBytesOfTheNetworkAlone() throws {
        let state = try TrainingState.initial(Fixtures.basic())
        let tensors = try state.tensors()
        let digests = tensors.filter { $0.name.hasPrefix("network/") }.map(\.digest)
        #expect(try state.weightsDigest() == StateDigest.combined(digests))
        let before = try state.weightsDigest()
        tensors[20].withUnsafeMutableBytes { $0[0] ^= 1 }
        #expect(try state.weightsDigest() == before)
        tensors[9].withUnsafeMutableBytes { $0[0] ^= 1 }
        #expect(try state.weightsDigest() != before)
    }

    @Test func givenWeightsStandInForTheSeed() throws {
        var configuration = Fixtures.basic()
        let trained = try TrainingState.initial(configuration)
        _ = try Fixtures.train(trained, steps: 3)
        let stored = Dictionary(
            uniqueKeysWithValues: try trained.tensors().map { ($0.name, $0) })
        configuration.seed += 1
        configuration.optimizer.averageDecay = 0.9
        let random = try TrainingState.initial(configuration)
        func start(_ names: (String) -> Bool) throws -> [String: [Float]] {
            let state = try TrainingState.initial(configuration) { name in
                stored[name].flatMap { tensor in
                    names(name) ? (tensor.shape, tensor.withUnsafeBytes { $0 }) : nil
                }
            }
            #expect(state.step == 0)
            return Dictionary(
                uniqueKeysWithValues: try state.tensors().map { ($0.name, $0.floats()) })
        }
        // The first step of the new run computes with the earlier run's network.
        let begun = try TrainingState.initial(configuration) { name in
            stored[name].map { ($0.shape, $0.withUnsafeBytes { $0 }) }
        }
        let batch = Fixtures.slots(configuration, step: 11)
        func firstLoss(_ state: TrainingState) throws -> Float {
            try BareLoop(state, parallelSlots: 1).step(batch, learningRate: 1e-3)
        }
        let whole = try start { _ in true }
        for (name, values) in whole {
            if name.hasPrefix("network/average/") {
                let parameter = "network/" + name.dropFirst("network/average/".count)
                #expect(values == whole[parameter], "\(name)")
            } else if name.hasPrefix("network/") {
                #expect(values == stored[name]?.floats(), "\(name)")
            } else {
                // No moment of the earlier run's optimizer.
                #expect(values.allSatisfy { $0 == 0 }, "\(name)")
            }
        }
        #expect(whole["network/bn1.running_mean"] != [Float](repeating: 0, count: 8))
        let body = try start { !$0.contains("head.") }
        let seeded = Dictionary(
            uniqueKeysWithValues: try random.tensors().map { ($0.name, $0.floats()) })
        #expect(body["network/head.embedding.weight"] == seeded["network/head.embedding.weight"])
        #expect(body["network/conv1.weight"] == stored["network/conv1.weight"]?.floats())
        let given = try firstLoss(begun)
        #expect(try firstLoss(trained) == given)
        #expect(try firstLoss(random) != given)
        let error = #expect(throws: TrainingError.self) {
            try TrainingState.initial(configuration) { name in
                stored[name].map { ([1] + $0.shape, $0.withUnsafeBytes { $0 }) }
            }
        }
        #expect(error?.message.contains("network/conv1.weight") == true)
    }

    @Test func seedsDecideTheFirstWeights() throws {
        var configuration = Fixtures.basic()
        let first = try TrainingState.initial(configuration).digest()
        #expect(try TrainingState.initial(configuration).digest() == first)
        configuration.seed += 1
        #expect(try TrainingState.initial(configuration).digest() != first)
    }
}

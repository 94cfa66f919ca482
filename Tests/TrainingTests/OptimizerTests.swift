import Basics
import Foundation
import MetricLearning
import Networks
import Testing
import Training

@Suite struct OptimizerTests {
    /// basic with 189 parameters, as in `Fixtures/make_optimizers.py`.
    static func small(
        _ optimizer: OptimizerConfiguration, freeze: Freeze = .init()
    ) -> TrainingConfiguration {
        TrainingConfiguration(
            network: NetworkConfiguration(
                backbone: .basic, head: .direct, embeddingDimension: 3, inputHeight: 8,
                inputWidth: 8, channels: 2),
            optimizer: optimizer, freeze: freeze, slotsPerStep: 2)
    }

    // MARK: Against torch.optim

    struct Expected: Decodable {
        struct Case: Decodable {
            let parameters: [Double]
            let average: [Double]?
        }
        let cases: [String: Case]

        static let fromTorch: Expected = {
            let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("Fixtures/optimizers.json")
            do {
                return try JSONDecoder().decode(Expected.self, from: Data(contentsOf: file))
            } catch { preconditionFailure("\(file.path): \(error)") }
        }()
    }

    static let momentum = UpdateRule.sgd(.init(momentum: 0.9))
    static let groups = WeightDecay(rate: 0.1, isDecoupled: true, normFactor: 0, biasFactor: 0.5)

    static let configurations: [String: TrainingConfiguration] = [
        "adam": small(.init()),
        "adam_l2": small(.init(weightDecay: .init(rate: 0.1))),
        "adam_tf": small(.init(rule: .adam(.init(form: .tensorflow, epsilon: 1e-2)))),
        "adamw": small(.init(weightDecay: .init(rate: 0.1, isDecoupled: true))),
        "sgd": small(.init(rule: .sgd(.init(momentum: 0)))),
        "sgd_momentum": small(.init(rule: momentum, weightDecay: .init(rate: 0.1))),
        "sgd_nesterov": small(.init(rule: .sgd(.init(momentum: 0.9, isNesterov: true)))),
        "sgdw": small(
            .init(rule: momentum, weightDecay: .init(rate: 0.1, isDecoupled: true))),
        "adamw_groups": small(
            .init(weightDecay: groups, headRateFactor: 10, biasRateFactor: 2)),
        "sgd_groups": small(
            .init(
                rule: momentum, weightDecay: .init(rate: 0.1, normFactor: 0, biasFactor: 0.5),
                headRateFactor: 10, biasRateFactor: 2)),
        "clip_norm": small(.init(rule: momentum, clipping: .norm(7.9))),
        "clip_value": small(.init(rule: momentum, clipping: .value(0.25))),
        "average": small(.init(averageDecay: 0.9)),
        "frozen": small(.init(), freeze: .init(patterns: ["conv1.*", "bn1*"], steps: 5)),
    ]

    /// Within 1e-6 of the largest parameter: about eight roundings of a 32-bit float.
    @Test(arguments: configurations.keys.sorted()) func twentyStepsAreTorchs(
        _ name: String
    ) throws {
        let expected = try #require(Expected.fromTorch.cases[name])
        let configuration = Self.configurations[name]!
        let state = try TrainingState.initial(configuration)
        let count = state.parameters.count
        let first = { (place: Int) in Float(Double(place * 6007 % 1999 - 999) / 1000) }
        let tensors = try state.tensors()
        for (index, entry) in state.layout.entries.enumerated() {
            var copies = [tensors[index]]
            if expected.average != nil {
                copies.append(tensors[count + state.buffers.count + index])
            }
            for tensor in copies {
                tensor.withUnsafeMutableBytes { bytes in
                    let values = bytes.bindMemory(to: Float.self)
                    for at in 0..<entry.count { values[at] = first(entry.offset + at) }
                }
            }
        }
        let gradient = FloatBuffer(count: state.layout.elementCount)
        for step in 1...20 {
            for place in 0..<gradient.count {
                gradient.base[place] = Float(
                    Double((place * 7919 + step * 10473) % 2001) / 1000 - 1)
            }
            let effect = StepEffect(
                step: step, gradient: gradient,
                batchStatistics: [Float](repeating: 0, count: state.layout.statisticsCount),
                scalars: StepScalars(
                    configuration.optimizer, step: step,
                    learningRate: 0.01 * (1 - Double(step) / 40)))
            try apply(effect, to: state, threads: 2)
        }
        func compare(_ tensors: ArraySlice<NamedTensor>, _ expected: [Double]) {
            let values = tensors.flatMap { $0.floats() }.map(Double.init)
            #expect(values.count == expected.count)
            let scale = expected.map(abs).max()!
            for (value, wanted) in zip(values, expected) {
                #expect(abs(value - wanted) <= 1e-6 * scale)
            }
        }
        let after = try state.tensors()
        compare(after[..<count], expected.parameters)
        if let average = expected.average {
            let start = count + state.buffers.count
            #expect(after[start].name == "network/average/conv1.weight")
            compare(after[start..<start + count], average)
        }
    }

    // MARK: Equal bits

    /// Everything at once: momentum or moments, clipping, decay, an average, layers that thaw.
    static let rich: [TrainingConfiguration] = [
        UpdateRule.adam(.init()), .sgd(.init(momentum: 0.9, isNesterov: true)),
        .sgd(.init(momentum: 0)),
    ].map { rule in
        var configuration = Fixtures.basic()
        configuration.optimizer = OptimizerConfiguration(
            rule: rule, weightDecay: .init(rate: 1e-3, isDecoupled: true, normFactor: 0),
            headRateFactor: 2, clipping: .norm(0.05), averageDecay: 0.9)
        configuration.freeze = Freeze(trainedBlocks: 1, steps: 4)
        return configuration
    }

    @Test(arguments: rich) func loadedStateGoesOnToTheSameBits(
        _ configuration: TrainingConfiguration
    ) throws {
        let whole = try TrainingState.initial(configuration)
        _ = try Fixtures.train(whole, steps: 3)
        let aside = try whole.copyAside()
        #expect(
            aside.tensors.count
                == configuration.stateFloatsPerParameter * whole.parameters.count
                + whole.buffers.count)
        _ = try Fixtures.train(whole, steps: 3)
        let places = Dictionary(uniqueKeysWithValues: aside.tensors.map { ($0.name, $0) })
        let loaded = try TrainingState.loading(configuration, step: 3) { name in
            places[name].map { tensor in (tensor.shape, tensor.withUnsafeBytes { $0 }) }
        }
        _ = try Fixtures.train(loaded, steps: 3, parallelSlots: 2)
        #expect(try loaded.digest() == whole.digest())
    }

    /// Slots 0..<3 folded at once, from two trainers' partial sums, and block by block from three.
    @Test func clippedEffectIsTheSameForAnyTrainersAndThreads() throws {
        var configuration = Fixtures.basic(slots: 3)
        configuration.network.channels = 32
        configuration.network.embeddingDimension = 512
        configuration.optimizer.clipping = .norm(3)
        configuration.optimizer.rule = .sgd(.init())
        let count = try configuration.layout().elementCount
        #expect(try configuration.layout().blockCount > 4)
        let leaves = (0..<3).map { slot in
            let buffer = FloatBuffer(count: count)
            var random = CounterRandom(seed: 4, slot: UInt64(slot), purpose: .dataset)
            for at in 0..<count { buffer.base[at] = Float(random.uniform() - 0.5) }
            return buffer
        }
        let scale = Float(1) / 3
        let slots = [SlotRun(0, 1), SlotRun(1, 2), SlotRun(2, 3)]
        let (whole, pairs, blocks) = (
            FloatBuffer(count: count), FloatBuffer(count: count), FloatBuffer(count: count)
        )
        try Fold.mean(leaves, into: whole, threads: 2)
        let left = FloatBuffer(count: count)
        try Fold.sum(
            SlotRun(0, 2),
            parts: [slots[0]: .init(leaves[0].base), slots[1]: .init(leaves[1].base)],
            into: left.base, count: count)
        try Fold.sum(
            SlotRun(0, 3),
            parts: [SlotRun(0, 2): .init(left.base), slots[2]: .init(leaves[2].base)],
            into: pairs.base, count: count, scale: scale)
        let layout = try configuration.layout()
        for block in 0..<layout.blockCount {
            let range = layout.blockRange(block)
            let parts = zip(slots, leaves).map { ($0, UnsafePointer($1.base + range.lowerBound)) }
            try Fold.sum(
                SlotRun(0, 3), parts: Dictionary(uniqueKeysWithValues: parts),
                into: blocks.base + range.lowerBound, count: range.count, scale: scale)
        }
        func digest(_ gradient: FloatBuffer, threads: Int, _ clipping: GradientClipping) throws
            -> UInt64
        {
            var configuration = configuration
            configuration.optimizer.clipping = clipping
            let state = try TrainingState.initial(configuration)
            let effect = StepEffect(
                step: 1, gradient: gradient,
                batchStatistics: [Float](repeating: 0, count: layout.statisticsCount),
                scalars: StepScalars(configuration.optimizer, step: 1, learningRate: 0.1))
            let before = effect.digest()
            try apply(effect, to: state, threads: threads)
            #expect(effect.digest() == before)
            return try state.digest()
        }
        let clipped = try digest(whole, threads: 1, .norm(3))
        for (gradient, threads) in [(whole, 3), (pairs, 1), (pairs, 2), (blocks, 2), (blocks, 5)] {
            #expect(try digest(gradient, threads: threads, .norm(3)) == clipped)
        }
        let free = try digest(whole, threads: 1, .none)
        #expect(free != clipped)
        #expect(try digest(whole, threads: 2, .norm(1e6)) == free)
    }

    // MARK: What is stored

    @Test func stateOfAnotherOptimizerIsRefused() throws {
        let rules: [UpdateRule] = [
            .adam(.init()), .sgd(.init(momentum: 0.9)), .sgd(.init(momentum: 0)),
        ]
        for written in rules {
            let state = try TrainingState.initial(Self.small(.init(rule: written)))
            let places = Dictionary(
                uniqueKeysWithValues: try state.tensors().map { ($0.name, $0) })
            for read in rules where read != written {
                let error = #expect(throws: TrainingError.self) {
                    try TrainingState.loading(Self.small(.init(rule: read)), step: 0) { name in
                        places[name].map { ($0.shape, $0.withUnsafeBytes { $0 }) }
                    }
                }
                #expect(error?.code == .otherOptimizer && error?.isBadInput == true)
                #expect(error?.message.contains("written with another optimizer") == true)
                #expect(error?.message.contains("\n") == false)
            }
        }
    }

    @Test func averagesAreWeightsAndMomentaAreNot() throws {
        let configuration = Self.small(.init(rule: Self.momentum, averageDecay: 0.5))
        let state = try TrainingState.initial(configuration)
        let names = try state.tensors().map(\.name)
        #expect(
            names[8] == "network/bn1.running_mean" && names[12] == "network/average/conv1.weight")
        #expect(names[20] == "optimizer/momentum/conv1.weight" && names.count == 28)
        let first = try state.weightsDigest()
        try state.tensors()[12].withUnsafeMutableBytes { $0[0] ^= 1 }
        #expect(try state.weightsDigest() != first)
    }

    @Test func averagedWeightsAreEmbeddedWhereAsked() throws {
        var configuration = Fixtures.basic()
        configuration.optimizer.averageDecay = 0.5
        let state = try TrainingState.initial(configuration)
        let images = Fixtures.slots(configuration, step: 0)[0].images
        func embeddings() throws -> (last: [Float], average: [Float]) {
            (
                try Embedder(state).embed(images.base, count: 4),
                try Embedder(state, usesAverage: true).embed(images.base, count: 4)
            )
        }
        let first = try embeddings()
        #expect(first.last == first.average)
        _ = try Fixtures.train(state, steps: 2, rate: 1e-2)
        let trained = try embeddings()
        #expect(trained.last != trained.average)
        // The average is where the weights were: half of the way at every step.
        let tensors = try state.tensors()
        let weights = state.parameters.count + state.buffers.count
        for (index, entry) in state.layout.entries.enumerated() {
            let bytes = tensors[weights + index].floats()
            tensors[index].withUnsafeMutableBytes { target in
                bytes.withUnsafeBytes { target.copyMemory(from: $0) }
            }
            #expect(bytes.count == entry.count)
        }
        #expect(try Embedder(state).embed(images.base, count: 4) == trained.average)
    }

    // MARK: Frozen parameters

    @Test func frozenParametersStayUntilTheyThaw() throws {
        var configuration = Fixtures.basic()
        configuration.freeze = Freeze(trainedBlocks: 0, steps: 2)
        let state = try TrainingState.initial(configuration)
        let loop = try BareLoop(state, parallelSlots: 2)
        let isBackbone = state.layout.entries.map { !$0.isHead }
        for step in 0..<3 {
            let before = try state.copyAside()
            let (_, effect) = try loop.compute(
                Fixtures.slots(configuration, step: step), learningRate: 1e-3)
            for (entry, isBackbone) in zip(state.layout.entries, isBackbone) {
                let part = effect.gradient.floats[entry.offset..<entry.offset + entry.count]
                #expect(part.contains { $0 != 0 } == (step == 2 || !isBackbone))
            }
            try apply(effect, to: state)
            for (index, tensor) in try state.tensors().prefix(isBackbone.count).enumerated() {
                let moved = tensor.floats() != before.tensors[index].floats()
                #expect(moved == (step == 2 || !isBackbone[index]), "\(tensor.name) at \(step)")
            }
        }
    }

    @Test func freezeThatFitsNothingOrAllIsRefused() throws {
        func message(_ freeze: Freeze, _ backbone: Backbone = .resnet50) throws -> String {
            let configuration = TrainingConfiguration(
                network: NetworkConfiguration(backbone: backbone), freeze: freeze)
            return try #require(throws: TrainingError.self) { try configuration.layout() }.message
        }
        #expect(
            try message(.init(patterns: ["conv1*", "layer9.*"]))
                .contains("'layer9.*', which fits no parameter of resnet50"))
        #expect(try message(.init(trainedBlocks: 5)).contains("has 5 blocks"))
        #expect(try message(.init(trainedBlocks: 2), .basic).contains("has 2 blocks"))
        #expect(try message(.init(patterns: ["*"])).contains("leave no parameter of resnet50"))
    }

    @Test func blocksAndPatternsFreezeByName() throws {
        func trained(_ freeze: Freeze) throws -> [String] {
            let network = NetworkConfiguration(backbone: .resnet50, head: .fc1024)
            return try TrainingConfiguration(network: network, freeze: freeze).layout().entries
                .filter { !$0.isFrozen(at: 1) }.map(\.name)
        }
        #expect(
            try trained(.init(trainedBlocks: 1)).allSatisfy {
                $0.hasPrefix("layer4.") || $0.hasPrefix("head.")
            })
        #expect(try trained(.init(trainedBlocks: 4)).first == "layer1.0.conv1.weight")
        #expect(
            try trained(.init(patterns: ["conv1.weight"])).first == "bn1.weight")
        #expect(try !trained(.init(patterns: ["layer*.conv2.*"])).contains("layer3.5.conv2.weight"))
        #expect(try trained(.init(patterns: ["layer*.conv2.*"])).contains("layer3.5.conv1.weight"))
        #expect(try trained(.init(patterns: ["*.bias"])).allSatisfy { !$0.hasSuffix(".bias") })
    }
}

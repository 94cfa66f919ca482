import Basics
import MetricLearning
import Testing
import Training

/// The queue of embeddings in the training state.
@Suite struct MemoryTests {
    /// Rows of the queue; a step of four slots adds 48.
    private static let size = 100

    static func configuration(
        _ name: LossName = .batchAll, mining: MiningScope = .slot, slots: Int = 4,
        startStep: Int = 0, images: Int = 12
    ) -> TrainingConfiguration {
        var loss = LossConfiguration(name: name)
        loss.memory = size
        loss.memoryStartStep = startStep
        var configuration = Fixtures.basic(loss: loss, slots: slots)
        configuration.imagesPerSlot = images
        configuration.mining = mining
        configuration.classCount = 4
        return configuration
    }

    private func floats(_ state: TrainingState, _ name: String) throws -> [Float] {
        try #require(try state.tensors().first { $0.name == "memory/\(name)" }).floats()
    }

    private func load(
        _ snapshot: StateSnapshot, _ configuration: TrainingConfiguration
    ) throws -> TrainingState {
        try withExtendedLifetime(snapshot) {
            try TrainingState.loading(configuration, step: snapshot.step) { name in
                snapshot.tensors.first { $0.name == name }.map { tensor in
                    (tensor.shape, tensor.withUnsafeBytes { $0 })
                }
            }
        }
    }

    @Test func theQueueHoldsTheLastImagesEachOverTheOldest() throws {
        let state = try TrainingState.initial(Self.configuration())
        let loop = try BareLoop(state, parallelSlots: 2)
        var rows: [[Float]] = []
        var labels: [Float] = []
        for step in 0..<5 {
            let slots = Fixtures.slots(state.configuration, step: step)
            let (results, effect) = try loop.compute(slots, learningRate: 1e-3)
            for (slot, result) in zip(slots, results) {
                for row in slot.labels.indices {
                    rows.append(Array(result.embeddings[row * 16..<(row + 1) * 16]))
                }
                labels += slot.labels.map { Float($0 + 1) }
            }
            try apply(effect, to: state, threads: 2)
            var (wanted, identities) = (
                [Float](repeating: 0, count: Self.size * 16),
                [Float](repeating: 0, count: Self.size)
            )
            for (place, row) in rows.enumerated() {
                let at = place % Self.size
                wanted.replaceSubrange(at * 16..<(at + 1) * 16, with: row)
                identities[at] = labels[place]
            }
            #expect(try floats(state, "embeddings") == wanted)
            #expect(try floats(state, "identities") == identities)
            #expect(try floats(state, "next") == [Float(rows.count % Self.size)])
        }
    }

    /// Across the place where the queue begins again; threads share the slots otherwise.
    @Test(arguments: [MiningScope.slot, .step(keepsGraphs: true)])
    func aStoredQueueGoesOnToTheSameBits(mining: MiningScope) throws {
        for name in [LossName.batchHard, .batchSample, .multiSimilarity] {
            let configuration = Self.configuration(name, mining: mining)
            let state = try TrainingState.initial(configuration)
            _ = try Fixtures.train(state, steps: 3)
            let aside = try state.copyAside()
            #expect(try aside.digest() == state.digest())
            let loaded = try load(aside, configuration)
            #expect(try loaded.digest() == state.digest())
            _ = try Fixtures.train(state, steps: 3)
            _ = try Fixtures.train(loaded, steps: 3, parallelSlots: 3)
            #expect(try loaded.digest() == state.digest())
        }
    }

    @Test func anEmptiedQueueGivesOtherWeights() throws {
        let configuration = Self.configuration()
        let state = try TrainingState.initial(configuration)
        _ = try Fixtures.train(state, steps: 3)
        let aside = try state.copyAside()
        let (whole, weights) = (aside.digest(), aside.weightsDigest())
        for tensor in aside.tensors where tensor.name.hasPrefix("memory/") {
            tensor.withUnsafeMutableBytes { bytes in for at in bytes.indices { bytes[at] = 0 } }
        }
        #expect(aside.digest() != whole && aside.weightsDigest() == weights)
        let emptied = try load(aside, configuration)
        _ = try Fixtures.train(state, steps: 1)
        _ = try Fixtures.train(emptied, steps: 1)
        #expect(try emptied.weightsDigest() != state.weightsDigest())
    }

    @Test func upToItsFirstStepTheMemoryChangesNoWeight() throws {
        let with = try TrainingState.initial(Self.configuration(startStep: 2))
        var plain = Self.configuration()
        plain.loss.memory = 0
        let without = try TrainingState.initial(plain)
        #expect(try Fixtures.train(with, steps: 2) == Fixtures.train(without, steps: 2))
        #expect(try with.weightsDigest() == without.weightsDigest())
        #expect(try with.digest() != without.digest())
        #expect(try Fixtures.train(with, steps: 1) != Fixtures.train(without, steps: 1))
        #expect(try with.weightsDigest() != without.weightsDigest())
    }

    @Test(arguments: [LossName.batchHard, .batchSample, .supervisedContrastive])
    func ofOneSlotTheStepIsTheSlot(name: LossName) throws {
        var digests: Set<UInt64> = []
        for mining in [
            MiningScope.slot, .step(keepsGraphs: true), .step(keepsGraphs: false),
        ] {
            let state = try TrainingState.initial(
                Self.configuration(name, mining: mining, slots: 1))
            _ = try Fixtures.train(state, steps: 4)
            digests.insert(try state.digest())
        }
        #expect(digests.count == 1)
    }

    @Test func slotsOfFewerImagesLeaveNoGaps() throws {
        let state = try TrainingState.initial(Self.configuration(slots: 2, images: 20))
        let loop = try BareLoop(state, parallelSlots: 1)
        try loop.step(Fixtures.slots(state.configuration, step: 0), learningRate: 1e-3)
        #expect(try floats(state, "next") == [24])
        #expect(try floats(state, "identities").prefix(25).map { $0 > 0 }.lastIndex(of: true) == 23)
        try loop.step(
            Fixtures.slots(state.configuration, step: 1, identities: 2), learningRate: 1e-3)
        #expect(try floats(state, "next") == [36])
    }

    @Test func effectsAndCheckpointsThatDoNotFitAreRefused() throws {
        let configuration = Self.configuration()
        let state = try TrainingState.initial(configuration)
        let shape = try #require(configuration.memory)
        let before = try state.digest()
        func effect(_ entries: [Float]) -> StepEffect {
            StepEffect(
                step: 1, gradient: FloatBuffer(count: state.layout.elementCount),
                batchStatistics: [Float](repeating: 0, count: state.layout.statisticsCount),
                entries: entries,
                scalars: StepScalars(configuration.optimizer, step: 1, learningRate: 1e-3))
        }
        let zeros = [Float](repeating: 0, count: shape.entryCount)
        for wrong in [Float.nan, -1, 0.5, .infinity, 0x1p24] {
            var entries = zeros
            entries[shape.dimension] = wrong
            #expect(throws: TrainingError.self) { try apply(effect(entries), to: state) }
        }
        #expect(throws: TrainingError.self) { try apply(effect([]), to: state) }
        #expect(try state.digest() == before)
        try apply(effect(zeros), to: state)

        for (name, value) in [("next", Float(Self.size)), ("next", 0.5), ("identities", .nan)] {
            let aside = try state.copyAside()
            let tensor = try #require(aside.tensors.first { $0.name == "memory/\(name)" })
            tensor.withUnsafeMutableBytes { $0.bindMemory(to: Float.self)[0] = value }
            let error = #expect(throws: TrainingError.self) { try load(aside, configuration) }
            #expect(error?.message.contains("memory/next") == true)
        }
        var small = configuration
        small.loss.memory = 47
        #expect(throws: TrainingError.self) { try TrainingState.initial(small) }
    }
}

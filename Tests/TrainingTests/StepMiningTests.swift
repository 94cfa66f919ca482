import Basics
import MetricLearning
import Networks
import Tensors
import Testing
import Training

/// Steps that mine over all of their slots.
@Suite struct StepMiningTests {
    /// One of each kind: triplets by a graph, by a pass over anchors, drawn, similarities, a sum with
    /// vectors of identities, and triplets that are given.
    static let losses: [LossConfiguration] = [
        .init(name: .batchHard, margin: .soft),
        .init(name: .batchAll, margin: .number(0.5), reducer: .meanNonzero),
        .init(name: .batchSample, margin: .number(0.5)),
        .init(name: .lifted, margin: .number(1)),
        .init(name: .supervisedContrastive, margin: Margin.none, distance: .cosine),
        ClassLossTests.configuration().loss,
        .init(name: .triplet), .init(name: .dotTriplet),
    ]

    private static func configuration(
        _ loss: LossConfiguration, _ mining: MiningScope, slots: Int = 4,
        precision: Precision = .fp32, batchNorm: Bool = true
    ) -> TrainingConfiguration {
        var configuration = Fixtures.basic(loss: loss, slots: slots, precision: precision)
        configuration.classCount = 6
        configuration.network.batchNorm = batchNorm
        configuration.mining = mining
        return configuration
    }

    @Test(arguments: losses, [Precision.fp32, .bf16])
    func forwardTwiceGivesTheBitsOfForwardOnce(loss: LossConfiguration, precision: Precision) throws
    {
        var digests: Set<UInt64> = []
        for keepsGraphs in [true, false] {
            for threads in [1, 3] {
                let state = try TrainingState.initial(
                    Self.configuration(loss, .step(keepsGraphs: keepsGraphs), precision: precision))
                _ = try Fixtures.train(state, steps: 4, parallelSlots: threads)
                digests.insert(try state.digest())
            }
        }
        #expect(digests.count == 1)
    }

    @Test(arguments: losses)
    func ofOneSlotItIsWhatTheSlotGivesByItself(loss: LossConfiguration) throws {
        var digests: Set<UInt64> = []
        for mining in [MiningScope.slot, .step(keepsGraphs: true)] {
            let state = try TrainingState.initial(Self.configuration(loss, mining, slots: 1))
            _ = try Fixtures.train(state, steps: 3)
            digests.insert(try state.digest())
        }
        #expect(digests.count == 1)
    }

    @Test(arguments: losses)
    func aSlotHasItsRowsOfTheStepsLoss(loss: LossConfiguration) throws {
        let configuration = Self.configuration(loss, .step(keepsGraphs: true), slots: 3)
        let state = try TrainingState.initial(configuration)
        let computer = try SlotComputer(configuration)
        let slots = Fixtures.slots(configuration, step: 0)
        let embedded = try slots.map {
            try computer.embed(images: $0.images.base, count: $0.labels.count, state: state)
        }
        let step = try computer.loss(
            of: embedded.flatMap(\.embeddings), labels: slots.flatMap(\.labels), state: state)
        var rows: [Float] = []
        for (slot, input) in slots.enumerated() {
            let result = try computer.backward(
                embedded[slot], firstRow: rows.count, of: step, images: input.images.base,
                state: state, into: FloatBuffer(count: state.layout.elementCount))
            #expect(result.rowLosses.count == input.labels.count)
            rows += result.rowLosses
        }
        #expect(rows.map(\.bitPattern) == step.rowLosses.map(\.bitPattern))
        #expect(Set(rows).count > 1)
        // Of a triplet only the anchor has a term.
        let isOfTriplets = loss.name.isOfTriplets
        #expect(rows.indices.allSatisfy { rows[$0].isFinite || isOfTriplets && $0 % 3 > 0 })
    }

    @Test func itIsAnotherLossThanTheMeanOverSlots() throws {
        let slot = try TrainingState.initial(Self.configuration(Self.losses[1], .slot))
        let step = try TrainingState.initial(
            Self.configuration(Self.losses[1], .step(keepsGraphs: true)))
        #expect(
            try Fixtures.train(slot, steps: 1) != Fixtures.train(step, steps: 1))
    }

    /// Given triplets lie within a slot: over the step they are the same loss.
    @Test(arguments: [LossName.triplet, .dotTriplet])
    func ofGivenTripletsItIsTheMeanOverSlots(_ name: LossName) throws {
        let losses = try [MiningScope.slot, .step(keepsGraphs: true)].map { mining in
            try Fixtures.train(
                TrainingState.initial(Self.configuration(.init(name: name), mining)), steps: 3)
        }
        for (slot, step) in zip(losses[0], losses[1]) {
            // Adam enlarges what rounding leaves of gradients that are nearly 0.
            #expect(abs(slot - step) <= 1e-3 * slot && slot > 0, "\(losses)")
        }
    }

    /// Float64 throughout: slots of the two phases beside one graph over all images.
    @Test(arguments: losses, [1, 3, 4])
    func theGradientIsThatOfOneGraph(loss: LossConfiguration, slots: Int) throws {
        let configuration = Self.configuration(
            loss, .step(keepsGraphs: true), slots: slots, batchNorm: false)
        let state = try TrainingState.initial(configuration)
        let computer = try SlotComputer(configuration)
        let inputs = Fixtures.slots(configuration, step: 0)
        let labels = inputs.flatMap(\.labels)
        let leaves = try state.parameters.map {
            try $0.detach().to(dtype: .float64).requiresGradient()
        }
        let ofNetwork = Array(leaves[..<state.network.parameters.count])
        let classes = Array(leaves[ofNetwork.count...])
        func forward(_ slot: SlotInput) throws -> Tensor {
            let network = configuration.network
            let images = try Tensor(
                Array(slot.images.floats),
                shape: [slot.labels.count, 3, network.inputHeight, network.inputWidth])
            return try state.network.forward(
                images.to(dtype: .float64), parameters: ofNetwork,
                batchNorm: .training(
                    BatchStatistics(state.network, device: .cpu, dtype: .float64)))
        }
        try withGradient {
            let parts = try inputs.map(forward)
            let whole = try computer.loss(
                of: Tensor.cat(parts.map { try $0.detach() }), labels: labels, classes: classes,
                step: 0)
            var sums = [[Double]](repeating: [], count: ofNetwork.count)
            var row = 0
            for part in parts {
                let rows = part.size(0)
                let found = try gradients(
                    of: part, withRespectTo: ofNetwork,
                    gradOutput: whole.derivative.narrow(0, start: row, length: rows))
                row += rows
                for (place, gradient) in found.enumerated() {
                    let values = try gradient.values(as: Double.self)
                    sums[place] =
                        sums[place].isEmpty ? values : zip(sums[place], values).map { $0 + $1 }
                }
            }
            for derivative in whole.classDerivatives {
                sums.append(try derivative.values(as: Double.self).map { $0 * Double(slots) })
            }
            let expected = try computer.expectedGradients(
                Tensor.cat(inputs.map(forward)), labels: labels, classes: classes, leaves)
            let values = try expected.map { try $0.values(as: Double.self) }
            // Of all: distances do not see the last bias, whose gradient is rounding.
            let largest = values.joined().reduce(0) { max($0, abs($1)) }
            for (sum, values) in zip(sums, values) {
                for (mine, theirs) in zip(sum, values) {
                    #expect(abs(mine / Double(slots) - theirs) <= 1e-6 * largest)
                }
            }
        }
    }
}

extension SlotComputer {
    /// The gradients of the loss in one graph, with the draws that a step has.
    fileprivate func expectedGradients(
        _ embeddings: Tensor, labels: [Int], classes: [Tensor], _ leaves: [Tensor]
    ) throws -> [Tensor] {
        var hash = XXH64()
        for label in labels { hash.update(UInt64(bitPattern: Int64(label))) }
        let random = CounterRandom(
            seed: configuration.seed, step: 0, item: hash.finish(), purpose: .mining)
        let result = try MetricLoss(configuration.loss)(
            embeddings, labels: labels, classes: classes, random: random)
        return try gradients(of: result.loss, withRespectTo: leaves)
    }
}

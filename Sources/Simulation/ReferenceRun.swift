internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// Numbers of the simulated training, which are digests.
///
/// A slot's gradient is a digest of (state, step, samples) and a sum is a digest of (left, right). A
/// wrong order, a wrong state or a slot counted twice changes the result, so that equal digests mean
/// equal expression trees. Where mining spans the step that digest is of the slot's embeddings, and the
/// gradient's is of them and of those of all slots.
struct ReferenceRun {
    let slots: Int
    let blocks: Int
    /// State after step n, at index n.
    let states: [UInt64]
    /// Effect of step n, at index n; the first is unused.
    let effects: [UInt64]
    /// History digest after step n, at index n.
    let histories: [UInt64]

    /// Computes the undisturbed run of one worker, without any machine.
    init(slots: Int, blocks: Int, steps: Int, minesStep: Bool = false) {
        self.slots = slots
        self.blocks = blocks
        var state = Self.mix(7)
        var history = HistoryDigest.start
        var states = [state]
        var effects: [UInt64] = [0]
        var histories = [history]
        for step in 1...max(1, steps) {
            var values = (0..<slots).map { Self.mix(state, UInt64(step), Self.sample(step, $0)) }
            if minesStep {
                let loss = Self.stepLoss(values)
                values = values.map { Self.mix($0, loss) }
            }
            let sums = (0..<blocks).map { block in
                FoldTree.fold(values.map { Self.gradient($0, block) }) { Self.mix($0, $1) }
            }
            let effect = Self.effect(sums, step: step)
            state = Self.mix(state, effect)
            history = HistoryDigest.next(history, effect: effect)
            states.append(state)
            effects.append(effect)
            histories.append(history)
        }
        self.states = states
        self.effects = effects
        self.histories = histories
    }

    static func mix(_ a: UInt64, _ b: UInt64 = 0, _ c: UInt64 = 0, _ d: UInt64 = 0) -> UInt64 {
        // One after another, so that the order of the values counts.
        turn(turn(turn(turn(0x9E37_79B9_7F4A_7C15, a), b), c), d)
    }

    private static func turn(_ hash: UInt64, _ value: UInt64) -> UInt64 {
        var hash = (hash ^ value) &* 0xBF58_476D_1CE4_E5B9
        hash ^= hash >> 29
        hash = hash &* 0x94D0_49BB_1331_11EB
        return hash ^ (hash >> 32)
    }

    /// One block of a slot's gradient; `slot` is a digest of all that the slot is computed from.
    static func gradient(_ slot: UInt64, _ block: Int) -> UInt64 { mix(slot, UInt64(block)) }

    /// The one sample of a slot: no other slot of the run has it.
    static func sample(_ step: Int, _ slot: Int) -> UInt64 {
        UInt64(UInt32(truncatingIfNeeded: step << 14 | slot))
    }

    static func effect(_ blocks: [UInt64], step: Int) -> UInt64 {
        blocks.reduce(UInt64(step)) { mix($0, $1) }
    }

    /// The same from the state before the step.
    func stepLoss(_ state: UInt64, _ step: Int) -> UInt64 {
        Self.stepLoss(
            (0..<slots).map { Self.mix(state, UInt64(step), Self.sample(step, $0)) })
    }

    /// The loss of a step that mines over all of its slots, and its derivative, from all embeddings in
    /// slot order.
    static func stepLoss(_ embeddings: [UInt64]) -> UInt64 {
        embeddings.reduce(0) { mix($0, $1) }
    }

    static func loss(_ state: UInt64, _ step: Int, _ slot: Int) -> Float {
        Float(mix(state, UInt64(step), UInt64(slot)) >> 44)
    }
}

/// What is trained on in a simulated run.
struct SimulatedSource: StepSource {
    let slots: Int

    func samples(step: Int) -> WireStepSamples {
        var message = WireStepSamples()
        message.step = UInt64(step)
        message.slots = (0..<slots).map { slot in
            var samples = WireSlotSamples()
            samples.indices = [UInt32(ReferenceRun.sample(step, slot))]
            samples.labels = [0]
            return samples
        }
        return message
    }

    func scalars(step: Int) -> WireStepScalars {
        var scalars = WireStepScalars()
        scalars.learningRate = (1 / Double(step)).bitPattern
        return scalars
    }
}

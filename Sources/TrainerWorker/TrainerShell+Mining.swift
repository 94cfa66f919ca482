internal import ClusterCore
internal import Exchange
internal import Foundation
internal import Logging
internal import Protocol
internal import Settings
internal import Training
internal import Transport

/// What a trainer holds between the phases of a step that mines over all of its slots.
struct MinedStep {
    struct Slot {
        let embedded: EmbeddedSlot
        /// The mini-batch, for a second forward pass.
        let pixels: FloatBuffer
        let done: WireSlotDone
    }

    var samples = WireStepSamples()
    /// Slots whose forward pass was done here.
    var slots: [Int: Slot] = [:]
    /// nil before all embeddings are here, and when some were dropped.
    var loss: SharedStepLoss?
}

/// What a slot's forward pass gave.
struct EmbeddedSlotResult: Sendable {
    let done: WireSlotDone
    let contribution: SlotContribution
    let embedded: EmbeddedSlot
    /// XXH64 of the embeddings.
    let digest: UInt64
    let pixels: FloatBuffer
}

/// Steps that mine over all of their slots: forward, embeddings to everybody, loss of all, backward.
extension TrainerShell {
    var isMiningStep: Bool { prepared?.settings.mining.scope == .step }

    /// Most numbers of a slot's embeddings; 0 where they stay in the slot.
    static func embeddingCount(_ settings: Settings) -> Int {
        guard settings.mining.scope == .step, let images = try? settings.batch.imagesOfLargestSlot
        else { return 0 }
        return images * settings.network.embeddingDim
    }

    func embed(step: Int, slots: [Int], samples: WireStepSamples, epoch: Int) {
        let (prepared, state) = (prepared!, state!)
        mined.samples = samples
        prefetch([samples], slots: slots)
        submit(step: step, slots: slots, epoch: epoch) { slot in
            let contribution = spare!.take()
            let count = samples.slots[slot].labels.count
            let named = named(slot, step: step)
            return {
                .embedded(
                    try Self.embedSlot(
                        named, count: count, prepared: prepared, state: state,
                        into: contribution), epoch: epoch)
            }
        }
    }

    private static func embedSlot(
        _ done: WireSlotDone, count: Int, prepared: Prepared, state: TrainingState,
        into contribution: SlotContribution
    ) throws -> EmbeddedSlotResult {
        let clock = ContinuousClock()
        let start = clock.now
        let pixels = try prepared.inputs.take(
            .init(step: Int(done.step), slot: Int(done.slot)))
        let decoded = clock.now
        let embedded = try prepared.computer.embed(
            images: pixels.base, count: count, state: state)
        guard embedded.embeddings.allSatisfy(\.isFinite) else {
            throw diverged("embeddings are not finite")
        }
        let digest = contribution.store(
            embeddings: embedded.embeddings, statistics: embedded.batchStatistics)
        var done = done
        // 0 says that there is none.
        done.embeddings = max(1, digest)
        done.decodeSeconds = (decoded - start).seconds
        done.computeSeconds = (clock.now - decoded).seconds
        return EmbeddedSlotResult(
            done: done, contribution: contribution, embedded: embedded, digest: digest,
            pixels: pixels)
    }

    func keep(_ slot: EmbeddedSlotResult, in buffers: StepBuffers) {
        let number = Int(slot.done.slot)
        guard mined.slots[number] == nil else { return }
        buffers.keepEmbeddings(
            slot: number, slot.contribution, count: slot.embedded.embeddings.count,
            digest: slot.digest)
        mined.slots[number] = MinedStep.Slot(
            embedded: slot.embedded, pixels: slot.pixels, done: slot.done)
    }

    func backward(step: Int, slots: [Int], epoch: Int) throws {
        let (prepared, state, pause) = (prepared!, state!, options.slotPause)
        let loss = try mined.loss ?? stepLoss(prepared.computer, state)
        mined.loss = loss
        let isSummarised = prepared.settings.logging.summarises(step: step)
        submit(step: step, slots: slots, epoch: epoch) { slot in
            let own = mined.slots[slot]!
            let labels = mined.samples.slots[slot].labels.map { Int($0) }
            let contribution = buffers!.contribution(ofEmbedded: slot)!
            let firstRow = mined.samples.slots[..<slot].reduce(0) { $0 + $1.labels.count }
            let sealer = sealer(of: slot, step: step)
            return {
                let clock = ContinuousClock()
                let start = clock.now
                let result = try prepared.computer.backward(
                    own.embedded, firstRow: firstRow, of: loss.value(),
                    images: own.pixels.base, state: state, into: contribution.gradient)
                if let memory = prepared.configuration.memory {
                    contribution.store(
                        entries: result.embeddings, labels: labels, slot: slot, memory)
                }
                Self.rest(pause)
                var done = own.done
                try Self.report(result, in: &done)
                // The step's, said once.
                if slot == 0, isSummarised { done.summary = try loss.summary() }
                done.computeSeconds += (clock.now - start).seconds
                return .computed(
                    ComputedSlot(
                        done, contribution, sealer, detail: Self.detail(of: result, prepared),
                        loss: loss), epoch: epoch)
            }
        }
    }

    private func stepLoss(
        _ computer: SlotComputer, _ state: TrainingState
    ) throws -> SharedStepLoss {
        SharedStepLoss(
            embeddings: try buffers!.allEmbeddings(),
            labels: mined.samples.slots.flatMap { $0.labels.map { Int($0) } }
        ) { embeddings, labels in
            try computer.loss(of: embeddings, labels: labels, state: state)
        }
    }

    /// No slot reads or writes what belongs to the step any more.
    func endMinedStep() {
        for slot in mined.slots.values { prepared!.inputs.recycle(slot.pixels) }
        mined = MinedStep()
    }

    // MARK: Embeddings

    func perform(_ action: GatherStateMachine.Action) throws {
        let stamp = BlockCarrier.Stamp(run: link.run, fold: machine.fold)
        switch action {
        case .send(let slots, let names):
            for slot in slots {
                for name in names {
                    try carrier.sendEmbeddings(ofSlot: slot, of: buffers!, stamp, to: name)
                }
            }
        case .want(let slots, let peer):
            carrier.sendWant(.wantEmbeddings, slots, of: buffers!, stamp, to: peer)
        case .forget(let slots):
            buffers!.forgetEmbeddings(ofSlots: slots)
            mined.loss = nil
        case .startOver:
            buffers!.startOver()
            // A backward pass may still read the mini-batches: they are not used again.
            mined.slots = [:]
            mined.loss = nil
        }
    }

    func takeEmbeddings(_ header: WireDataHeader, _ frame: Frame, from peer: String) {
        let slot = Int(header.low)
        guard isMiningStep, slot < machine.slotCount else { return }
        let isEmbeddings = header.kind == .embeddings
        let place = machine.place(
            step: Int(clamping: header.step), history: header.history,
            fold: isEmbeddings ? Int(header.fold) : nil, from: peer, isEmbeddings: isEmbeddings)
        switch place {
        case .nowhere: return
        case .later:
            if isEmbeddings, frame.count <= layout!.embeddingCount * 4 {
                parked.park(.init(header: header, payload: frame, peer: peer))
            }
            return
        case .here: break
        }
        guard isEmbeddings else {
            guard
                let slots = BlockCarrier.blocks(
                    wantedBy: header, frame, blockCount: machine.slotCount)
            else { return }
            carrier.noteWant(from: peer, step: Int(clamping: header.step))
            return carrier.copying { perform(tell(.embeddingsWanted(slots, by: peer))) }
        }
        guard machine.wantsEmbeddings(ofSlot: slot) else { return }
        let count = machine.imageCount(ofSlot: slot) * prepared!.settings.network.embeddingDim
        guard
            let payload = carrier.payload(header, frame, from: peer, byteCount: count * 4),
            buffers!.keepEmbeddings(slot: slot, payload, digest: header.digest)
        else { return noteDamage(header, from: peer) }
        perform(tell(.embeddingsReceived(slot, from: peer)))
    }
}

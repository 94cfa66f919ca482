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
    var done: WireSlotDone
    let contribution: SlotContribution
    let embedded: EmbeddedSlot
    let pixels: FloatBuffer
}

/// Steps that mine over all of their slots: forward, embeddings to everybody, loss of all, backward.
extension TrainerShell {
    var isMiningStep: Bool { prepared?.settings.mining.scope == .step }

    /// Most numbers of a slot's embeddings; 0 where they stay in the slot.
    static func embeddingCount(_ settings: Settings) -> Int {
        guard settings.mining.scope == .step, let phases = try? BatchPhase.all(of: settings.batch)
        else { return 0 }
        return phases.reduce(0) { max($0, $1.identities * $1.imagesPerIdentity) }
            * settings.network.embeddingDim
    }

    func embed(step: Int, slots: [Int], samples: WireStepSamples, epoch: Int) {
        let prepared = prepared!
        let state = state!
        let mailbox = mailbox
        let tickets = tickets
        mined.samples = samples
        prefetch([samples], slots: slots)
        for slot in slots {
            let contribution = spare!.take()
            let count = samples.slots[slot].labels.count
            let attempt = machine.attempt(ofSlot: slot)
            let key = SlotInputs.Key(step: step, slot: slot)
            let ticket = tickets.issue(key)
            pool.submit {
                guard tickets.isValid(ticket, for: key) else { return }
                var done = WireSlotDone()
                done.step = UInt64(step)
                done.slot = UInt32(slot)
                done.attempt = attempt
                do {
                    let clock = ContinuousClock()
                    let start = clock.now
                    let pixels = try prepared.inputs.take(key)
                    let decoded = clock.now
                    let embedded = try prepared.computer.embed(
                        images: pixels.base, count: count, state: state)
                    guard embedded.embeddings.allSatisfy(\.isFinite) else {
                        throw Self.diverged("embeddings are not finite")
                    }
                    done.embeddings = contribution.store(
                        embeddings: embedded.embeddings, statistics: embedded.batchStatistics)
                    done.decodeSeconds = (decoded - start).seconds
                    done.computeSeconds = (clock.now - decoded).seconds
                    mailbox.post(
                        .embedded(
                            EmbeddedSlotResult(
                                done: done, contribution: contribution, embedded: embedded,
                                pixels: pixels), epoch: epoch))
                } catch {
                    mailbox.post(Self.failure(error, step: step, slot: slot, epoch: epoch))
                }
            }
        }
    }

    func keep(_ slot: EmbeddedSlotResult, in buffers: StepBuffers) {
        let number = Int(slot.done.slot)
        guard mined.slots[number] == nil else { return }
        buffers.keepEmbeddings(
            slot: number, slot.contribution, count: slot.embedded.embeddings.count)
        mined.slots[number] = MinedStep.Slot(
            embedded: slot.embedded, pixels: slot.pixels, done: slot.done)
    }

    func backward(step: Int, slots: [Int], epoch: Int) {
        let prepared = prepared!
        let state = state!
        let mailbox = mailbox
        let tickets = tickets
        let pause = options.slotPause
        let loss = mined.loss ?? stepLoss(prepared.computer, state)
        mined.loss = loss
        for slot in slots {
            let own = mined.slots[slot]!
            let labels = mined.samples.slots[slot].labels.map { Int($0) }
            let contribution = buffers!.contribution(ofEmbedded: slot)!
            let firstRow = mined.samples.slots[..<slot].reduce(0) { $0 + $1.labels.count }
            let isAudited = machine.isAudited(slot: slot, step: step)
            let isFlipped = isAudited && takeSlotFlip(at: step)
            let key = SlotInputs.Key(step: step, slot: slot)
            let ticket = tickets.issue(key)
            pool.submit {
                guard tickets.isValid(ticket, for: key) else { return }
                do {
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
                    if slot == 0, prepared.settings.logging.summarises(step: step) {
                        done.summary = loss.summary
                    }
                    done.computeSeconds += (clock.now - start).seconds
                    if isFlipped { contribution.flipBit() }
                    if isAudited { done.digest = contribution.digest }
                    mailbox.post(
                        .computed(
                            ComputedSlot(done: done, contribution: contribution, loss: loss),
                            epoch: epoch))
                } catch {
                    mailbox.post(Self.failure(error, step: step, slot: slot, epoch: epoch))
                }
            }
        }
    }

    private func stepLoss(_ computer: SlotComputer, _ state: TrainingState) -> SharedStepLoss {
        SharedStepLoss(
            embeddings: buffers!.allEmbeddings,
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

    func perform(_ action: GatherStateMachine.Action) {
        let stamp = BlockCarrier.Stamp(run: link.run, fold: machine.fold)
        switch action {
        case .send(let slots, let names):
            for slot in slots {
                for name in names {
                    carrier.sendEmbeddings(ofSlot: slot, of: buffers!, stamp, to: name)
                }
            }
        case .want(let slots, let peer):
            carrier.sendWant(.wantEmbeddings, slots, of: buffers!, stamp, to: peer)
        case .forget(let slots):
            buffers!.forgetEmbeddings(ofSlots: slots)
            mined.loss = nil
        }
    }

    func takeEmbeddings(_ header: WireDataHeader, _ frame: Frame, from peer: String) {
        let slot = Int(header.low)
        guard isMiningStep, slot < machine.slotCount else { return }
        let place = machine.place(
            step: Int(clamping: header.step), history: header.history, fold: nil, from: peer)
        switch place {
        case .nowhere: return
        case .later:
            if header.kind == .embeddings, frame.count <= layout!.embeddingCount * 4 {
                parked.park(.init(header: header, payload: frame, peer: peer))
            }
            return
        case .here: break
        }
        guard header.kind == .embeddings else {
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

internal import ClusterCore
internal import Exchange
internal import Foundation
internal import MetricLearning
internal import Protocol
internal import Settings
internal import Training
internal import Transport

/// Slots, each on a thread of the pool.
extension TrainerShell {
    func prefetch(_ steps: [WireStepSamples], slots: [Int]) {
        for samples in steps {
            for slot in slots {
                prepared!.inputs.request(
                    .init(step: Int(samples.step), slot: slot),
                    indices: samples.slots[slot].indices.map { Int($0) })
            }
        }
    }

    func compute(step: Int, slots: [Int], samples: WireStepSamples, epoch: Int) {
        let (prepared, state, pause) = (prepared!, state!, options.slotPause)
        prefetch([samples], slots: slots)
        submit(step: step, slots: slots, epoch: epoch) { slot in
            let contribution = spare!.take()
            let labels = samples.slots[slot].labels.map { Int($0) }
            let named = named(slot, step: step)
            let sealer = sealer(of: slot, step: step)
            return {
                let (done, detail) = try Self.computeSlot(
                    named, labels: labels, prepared: prepared, state: state, into: contribution)
                Self.rest(pause)
                return .computed(
                    ComputedSlot(done, contribution, sealer, detail: detail), epoch: epoch)
            }
        }
    }

    /// Has a part of each slot done on the pool's threads, unless it is cancelled before it has begun.
    ///
    /// - Parameter prepare: takes here what the part needs, and returns the part; what comes of it is
    ///   handled here, and a failure as the slot's.
    func submit(
        step: Int, slots: [Int], epoch: Int,
        _ prepare: (_ slot: Int) -> @Sendable () throws -> Input
    ) {
        let (mailbox, tickets) = (mailbox, tickets)
        for slot in slots {
            let work = prepare(slot)
            let key = SlotInputs.Key(step: step, slot: slot)
            let ticket = tickets.issue(key)
            pool.submit {
                guard tickets.isValid(ticket, for: key) else { return }
                do {
                    mailbox.post(try work())
                } catch {
                    mailbox.post(Self.failure(error, step: step, slot: slot, epoch: epoch))
                }
            }
        }
    }

    /// A slot of the step in hand, of which nothing is said yet.
    func named(_ slot: Int, step: Int) -> WireSlotDone {
        var done = WireSlotDone()
        done.step = UInt64(step)
        done.slot = UInt32(slot)
        done.attempt = machine.attempt(ofSlot: slot)
        return done
    }

    /// Digests the slot once it is computed; nil where nobody else computes it.
    func sealer(of slot: Int, step: Int) -> SlotSealer? {
        guard machine.isAudited(slot: slot, step: step) else { return nil }
        guard let flip, flip.kind != .fold, flip.step <= step else {
            return SlotSealer(layout: layout!, flip: nil)
        }
        self.flip = nil
        return SlotSealer(layout: layout!, flip: flip.kind)
    }

    /// Sleeps in short pieces, so that time in which the process is halted hardly counts.
    static func rest(_ pause: Duration) {
        let clock = ContinuousClock()
        let piece = Duration.milliseconds(2)
        var rested = Duration.zero
        while rested < pause {
            let start = clock.now
            Thread.sleep(forTimeInterval: min(piece, pause - rested).seconds)
            rested += min(clock.now - start, piece * 2)
        }
    }

    /// - Returns: what is said of the slot, and what logging.detailed writes of it.
    private static func computeSlot(
        _ done: WireSlotDone, labels: [Int], prepared: Prepared, state: TrainingState,
        into contribution: SlotContribution
    ) throws -> (WireSlotDone, Data) {
        let clock = ContinuousClock()
        let start = clock.now
        let pixels = try prepared.inputs.take(
            .init(step: Int(done.step), slot: Int(done.slot)))
        let decoded = clock.now
        let result = try prepared.computer.compute(
            images: pixels.base, labels: labels, state: state, into: contribution.gradient)
        prepared.inputs.recycle(pixels)
        result.batchStatistics.withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(contribution.statistics.floats).copyMemory(from: bytes)
        }
        if let memory = prepared.configuration.memory {
            contribution.store(
                entries: result.embeddings, labels: labels, slot: Int(done.slot), memory)
        }
        var done = done
        try report(result, in: &done)
        if prepared.settings.logging.summarises(step: Int(done.step)) {
            done.summary = WireSlotSummary(
                BatchSummary(
                    embeddings: result.embeddings, labels: labels, rowLosses: result.rowLosses))
        }
        done.decodeSeconds = (decoded - start).seconds
        done.computeSeconds = (clock.now - decoded).seconds
        return (done, detail(of: result, prepared))
    }

    /// What is said of a slot.
    static func report(
        _ result: SlotResult, in done: inout WireSlotDone
    ) throws(TrainerError) {
        if let what = result.whatIsNotFinite { throw diverged(what) }
        done.loss = result.loss.bitPattern
        done.fractionPositive = result.fractionPositive
        done.activeCount = UInt64(result.activeCount)
        done.validCount = UInt64(result.validCount)
        done.spread = result.spread
        done.lossParts = result.lossParts.map(\.bitPattern)
    }

    static func diverged(_ what: String) -> TrainerError {
        TrainerError(
            .diverged,
            "\(what): the training diverged; lower optimizer.learning_rate, or limit gradients "
                + "with optimizer.clip_norm")
    }

    /// What is said of a slot that gave none.
    static func failure(_ error: any Error, step: Int, slot: Int, epoch: Int) -> Input {
        .slotFailed(
            step: step, slot: slot, why: "\(error)",
            diverged: (error as? TrainerError)?.code == .diverged, epoch: epoch)
    }
}

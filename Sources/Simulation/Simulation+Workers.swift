internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// What the shells of trainers and evaluators do.
extension Simulation {
    /// Most packets that a trainer keeps for later: the blocks and runs of the steps it may lie
    /// behind, and of some folds.
    var parkedMax: Int {
        4 * (TrainerStateMachine.backlogMax + 1) * configuration.blocks
            * (2 * configuration.slots + 1)
    }

    static let dataIsBad = "bad data here"

    func perform(_ actions: [TrainerAction], at worker: WorkerProcess) {
        for action in actions where worker.isAlive { perform(action, at: worker) }
    }

    private func perform(_ action: TrainerAction, at worker: WorkerProcess) {
        let index = worker.index
        switch action {
        case .send(let body): sendUp(completed(body, worker), from: worker)
        case .prepare(_, let epoch):
            push(.prepared(index, epoch: epoch), after: draw(5, 80) * Self.millisecond)
        case .load(let load, let epoch): self.load(load, epoch, worker)
        case .donate(let donation): donate(donation, worker)
        case .compute(let step, let slots, let samples, let epoch):
            for slot in slots {
                slotsComputed += 1
                let sample = UInt64(samples.slots[slot].indices[0])
                let state = worker.trainer!.state
                if configuration.minesStep {
                    let end = endOfWork(worker, percent: 33)
                    queue.push(
                        .embedded(
                            index, step: step, slot: slot, sample: sample, state: state,
                            epoch: epoch), at: end)
                } else {
                    queue.push(
                        .slotDone(
                            index, step: step, slot: slot, sample: sample, state: state,
                            epoch: epoch), at: endOfWork(worker, percent: 100))
                }
            }
        case .backward(let step, let slots, let epoch):
            guard let loss = stepLoss(worker) else {
                return fail("S2", "\(worker.name) was told to mine over slots that it lacks")
            }
            for slot in slots {
                queue.push(
                    .minedSlot(
                        index, step: step, slot: slot, loss: loss, state: worker.trainer!.state,
                        epoch: epoch), at: endOfWork(worker, percent: 67))
            }
        case .gather(let gather): perform(gather, at: worker)
        case .openExchange:
            worker.trainer!.slots = [:]
            worker.trainer!.damagedSlots = []
            worker.trainer!.embedded = [:]
            worker.trainer!.received = [:]
            clearExchange(worker)
        case .refold(_, let slots):
            for slot in slots { worker.trainer!.slots[slot] = nil }
            worker.trainer!.damagedSlots.subtract(slots)
            worker.trainer!.ready = nil
            worker.trainer!.partials = [:]
            worker.trainer!.effect = [:]
            worker.trainer!.flippedBlocks = []
        case .takeParked: takeParked(worker)
        case .exchange(let exchange): perform(exchange, at: worker)
        case .digestEffect(let step, let fold, _, let epoch):
            push(
                .digested(index, step: step, fold: fold, epoch: epoch),
                after: draw(100, 800))
        case .apply(let step, _, let epoch):
            push(.applied(index, step: step, epoch: epoch), after: draw(200, 2000))
        case .snapshot(let step, let recovery, let send):
            worker.trainer!.copies[step] = copy(worker)
            if send { sendCopy(step, recovery, worker) }
        case .sendSnapshot(let step, let recovery): sendCopy(step, recovery, worker)
        case .releaseSnapshot(let step):
            worker.trainer!.copies = worker.trainer!.copies.filter { $0.key > step }
        case .keepForJoiners(let step): worker.trainer!.kept[step] = copy(worker)
        case .releaseForJoiners(let step): worker.trainer!.kept[step] = nil
        case .digestState(let step, let epoch):
            push(
                .stateDigested(
                    index, step: step, state: worker.trainer!.state, epoch: epoch),
                after: draw(100, 2000))
        case .fail(let why): fail("S4", "\(worker.name) gives up: \(why)")
        case .note(let text): note("\(worker.name): \(text)")
        case .leave(let stop): exit(worker, stop.message)
        case .refused(let refusal):
            if worker.trainer!.numerics == "class", worker.trainer!.version == "test",
                refusal.code != .ended, !quarantined.contains(worker.name)
            {
                fail("L2", "\(worker.name) was refused: \(refusal.message)")
            }
            exit(worker, refusal.message)
        case .prefetch, .cancel, .peersChanged: break
        }
    }

    private func completed(_ body: WireBody, _ worker: WorkerProcess) -> WireBody {
        switch body {
        case .hello(var hello):
            checkHello(hello, worker)
            hello.lineupVersion = worker.trainer?.version ?? "test"
            hello.dataAddress = worker.name
            return .hello(hello)
        case .ready(let ready):
            worker.trainer!.ready = ready
            return body
        default: return body
        }
    }

    /// A copy of the state, of which a bit may flip.
    private func copy(_ worker: WorkerProcess) -> StateCopy {
        defer { worker.trainer!.copyFlip = 0 }
        if worker.trainer!.copyFlip != 0 {
            copiesFlipped += 1
            note("a bit of a copy of step \(worker.trainer!.machine.step) flips at \(worker.name)")
        }
        return StateCopy(
            state: worker.trainer!.state ^ worker.trainer!.copyFlip,
            history: worker.trainer!.machine.history)
    }

    func handleTrainer(_ event: Event, at worker: WorkerProcess) {
        switch event {
        case .prepared(_, let epoch):
            var message = WirePrepared()
            message.datasetDigest = 5
            message.blockCount = UInt64(configuration.blocks)
            message.numerics.description_p = worker.trainer!.numerics
            perform(
                worker.trainer!.machine.prepared(
                    message, slotCount: configuration.slots, audit: configuration.audit,
                    minesStep: configuration.minesStep, epoch: epoch), at: worker)
        case .loaded(_, let step, let state, let epoch):
            guard worker.trainer!.machine.epoch == epoch else { return }
            worker.trainer!.state = state
            // Whoever got a copy with a flipped bit is told to get another before it counts.
            worker.trainer!.isMisled =
                copiesFlipped > 0 && worker.trainer!.isFromPeer && state != reference.states[step]
            if !worker.trainer!.isMisled { checkState(worker, step: step) }
            perform(
                worker.trainer!.machine.stateLoaded(step: step, digest: state, epoch: epoch),
                at: worker)
        case .loadFailed(_, let epoch):
            perform(
                worker.trainer!.machine.loadFailed("cannot be read", epoch: epoch), at: worker)
        case .slotDone(_, let step, let slot, let sample, let state, let epoch):
            computed(step, slot, sample, state, epoch, worker)
        case .embedded(_, let step, let slot, let sample, let state, let epoch):
            embedded(step, slot, sample, state, epoch, worker)
        case .minedSlot(_, let step, let slot, let loss, let state, let epoch):
            mined(step, slot, loss, state, epoch, worker)
        case .digested(_, let step, let fold, let epoch): digest(step, fold, epoch, worker)
        case .applied(_, let step, let epoch): apply(step, epoch, worker)
        case .stateDigested(_, let step, let state, let epoch):
            worker.trainer!.machine.stateDigested(step: step, digest: state, epoch: epoch)
        default: break
        }
    }

    /// When a trainer, which does one thing after the other, is done with a part of a slot that is given
    /// to it now.
    private func endOfWork(_ worker: WorkerProcess, percent: Int64) -> Int64 {
        let start = max(now, worker.trainer!.busyUntil)
        let end = start + worker.slotTime * draw(80, 130) * percent / 10_000
        worker.trainer!.busyUntil = end
        return end
    }

    private func computed(
        _ step: Int, _ slot: Int, _ sample: UInt64, _ state: UInt64, _ epoch: Int,
        _ worker: WorkerProcess
    ) {
        let machine = worker.trainer!.machine
        guard machine.epoch == epoch, machine.step + 1 == step else { return }
        guard isReadable(step, slot, epoch, worker),
            machine.awaits(name(of: slot, step, worker))
        else { return }
        // What the slot is computed from, and thereby all that its blocks depend on.
        let value = ReferenceRun.mix(state ^ worker.trainer!.wrongness, UInt64(step), sample)
        worker.trainer!.slots[slot] = value ^ slotFlip(step, slot, worker)
        flipSealed(step, slot, worker)
        perform(
            worker.trainer!.machine.slotComputed(done(step, slot, worker), epoch: epoch),
            at: worker)
    }

    /// Whether a slot's samples can be read; where they cannot, the slot goes back.
    private func isReadable(
        _ step: Int, _ slot: Int, _ epoch: Int, _ worker: WorkerProcess
    ) -> Bool {
        guard worker.trainer!.unreadableUntil > now else { return true }
        occurrences[.slotReturned, default: 0] += 1
        worker.trainer!.returnedStep = step
        perform(
            worker.trainer!.machine.slotFailed(
                step: step, slot: slot, reason: Self.dataIsBad, epoch: epoch), at: worker)
        return false
    }

    /// A slot's forward pass, in a step that mines over all of its slots.
    private func embedded(
        _ step: Int, _ slot: Int, _ sample: UInt64, _ state: UInt64, _ epoch: Int,
        _ worker: WorkerProcess
    ) {
        let machine = worker.trainer!.machine
        guard machine.epoch == epoch, machine.step + 1 == step else { return }
        guard isReadable(step, slot, epoch, worker),
            machine.awaitsEmbeddings(name(of: slot, step, worker))
        else { return }
        let value = ReferenceRun.mix(state ^ worker.trainer!.wrongness, UInt64(step), sample)
        if worker.trainer!.embedded[slot] == nil {
            // In the first phase or in the second.
            let flip = step % 2 == 0 ? slotFlip(step, slot, worker) : 0
            worker.trainer!.embedded[slot] = value ^ flip
        }
        var message = name(of: slot, step, worker)
        message.embeddings = max(1, worker.trainer!.embedded[slot]!)
        perform(worker.trainer!.machine.slotEmbedded(message, epoch: epoch), at: worker)
    }

    /// Its backward pass; the loss may have been dropped meanwhile.
    private func mined(
        _ step: Int, _ slot: Int, _ loss: UInt64, _ state: UInt64, _ epoch: Int,
        _ worker: WorkerProcess
    ) {
        let machine = worker.trainer!.machine
        guard machine.epoch == epoch, machine.step + 1 == step, stepLoss(worker) == loss,
            worker.trainer!.embedded[slot] != nil, machine.awaits(name(of: slot, step, worker))
        else { return }
        if worker.trainer!.slots[slot] == nil {
            let value = ReferenceRun.mix(worker.trainer!.embedded[slot]!, loss)
            worker.trainer!.slots[slot] = value ^ slotFlip(step, slot, worker)
            flipSealed(step, slot, worker)
        }
        var message = done(step, slot, worker)
        // A loss of other embeddings is another one.
        if loss != reference.stepLoss(state, step) { message.loss ^= UInt32(loss & 0xFF) | 1 }
        perform(worker.trainer!.machine.slotComputed(message, epoch: epoch), at: worker)
    }

    /// The loss of the step from the embeddings that are held; nil where some are missing.
    private func stepLoss(_ worker: WorkerProcess) -> UInt64? {
        let all = (0..<configuration.slots).compactMap { slot in
            worker.trainer!.received[slot] ?? worker.trainer!.embedded[slot]
        }
        return all.count == configuration.slots ? ReferenceRun.stepLoss(all) : nil
    }

    private func perform(_ action: GatherStateMachine.Action, at worker: WorkerProcess) {
        let (step, history) = (worker.trainer!.machine.step + 1, worker.trainer!.machine.history)
        switch action {
        case .send(let slots, let peers):
            for peer in peers {
                guard let to = names[peer] else { continue }
                for slot in slots {
                    guard let value = worker.trainer!.embedded[slot] else {
                        return fail("S2", "\(worker.name) was told to send what it lacks")
                    }
                    sendData(
                        .embeddings(
                            step: step, history: history, fold: worker.trainer!.machine.fold,
                            slot: slot, value), from: worker.index, to: to)
                }
            }
        case .want(let slots, let peer):
            guard let to = names[peer] else { return }
            sendData(
                .wantEmbeddings(step: step, history: history, slots: slots), from: worker.index,
                to: to)
        case .forget(let slots):
            for slot in slots { worker.trainer!.received[slot] = nil }
            worker.trainer!.slots = [:]
            worker.trainer!.damagedSlots = []
        case .startOver:
            worker.trainer!.embedded = [:]
            worker.trainer!.received = [:]
            worker.trainer!.slots = [:]
            worker.trainer!.damagedSlots = []
        }
    }

    private func name(of slot: Int, _ step: Int, _ worker: WorkerProcess) -> WireSlotDone {
        var done = WireSlotDone()
        done.step = UInt64(step)
        done.slot = UInt32(slot)
        done.attempt = worker.trainer!.machine.attempt(ofSlot: slot)
        return done
    }

    private func done(_ step: Int, _ slot: Int, _ worker: WorkerProcess) -> WireSlotDone {
        var done = name(of: slot, step, worker)
        done.loss = loss(worker.trainer!.state, step, slot).bitPattern
        done.fractionPositive = 0.5
        if worker.trainer!.machine.isAudited(slot: slot, step: step) {
            done.digest = max(1, worker.trainer!.slots[slot]!)
        }
        return done
    }

    /// A bit that flips in a slot that somebody else computes too.
    private func slotFlip(_ step: Int, _ slot: Int, _ worker: WorkerProcess) -> UInt64 {
        guard worker.trainer!.machine.isAudited(slot: slot, step: step),
            worker.trainer!.slotFlip != 0, isFlippable(step)
        else { return 0 }
        flipped(worker, step: step, isAudited: true)
        defer { worker.trainer!.slotFlip = 0 }
        return worker.trainer!.slotFlip
    }

    /// A bit that flips in such a slot once it is digested: what SLOT_DONE says is right, and the bits
    /// are not.
    private func flipSealed(_ step: Int, _ slot: Int, _ worker: WorkerProcess) {
        guard worker.trainer!.machine.isAudited(slot: slot, step: step),
            worker.trainer!.flipsSealed, isFlippable(step)
        else { return }
        worker.trainer!.flipsSealed = false
        worker.trainer!.damagedSlots.insert(slot)
        // Found when it is used, and not before.
        flipped(worker, step: step, isAudited: false)
    }

    /// Whether a slot of a run is no longer what was digested: its trainer, which compares whatever it
    /// sends or folds, says so and ends, and is started again.
    private func isDamaged(_ run: SlotRun, _ worker: WorkerProcess) -> Bool {
        let step = worker.trainer!.machine.step + 1
        guard
            let slot = worker.trainer!.damagedSlots.sorted()
                .first(where: { run.low <= $0 && $0 < run.high })
        else { return false }
        auditedFlips.insert(Flip(step: step, trainer: worker.name))
        var message = WireGoodbye()
        message.reason = "slot \(slot)" + Self.damage(step: step)
        message.failed = true
        exit(worker, saying: message)
        push(.spawn, after: draw(100, 2000) * Self.millisecond)
        return true
    }

    /// One bit a step, and only where somebody else can notice.
    private func isFlippable(_ step: Int) -> Bool {
        !flippedSteps.contains(step) && (coordinator?.machine.members.count ?? 0) > 1
    }

    private func flipped(_ worker: WorkerProcess, step: Int, isAudited: Bool) {
        note("a bit of step \(step) flips at \(worker.name)")
        flippedSteps.insert(step)
        flippedTrainers.insert(worker.name)
        guard isAudited else { return }
        auditedFlips.insert(Flip(step: step, trainer: worker.name))
    }

    /// What flips in a sum of several slots of an audited block, whoever makes it.
    private func foldFlip(_ block: Int, _ worker: WorkerProcess) -> UInt64 {
        let step = worker.trainer!.machine.step + 1
        guard worker.trainer!.foldFlip != 0, isFlippable(step),
            worker.trainer!.machine.isAudited(block: block)
        else { return 0 }
        flipped(worker, step: step, isAudited: true)
        defer { worker.trainer!.foldFlip = 0 }
        return worker.trainer!.foldFlip
    }

    private func digest(_ step: Int, _ fold: Int, _ epoch: Int, _ worker: WorkerProcess) {
        guard worker.trainer!.machine.epoch == epoch,
            worker.trainer!.effect.count == configuration.blocks
        else { return }
        if worker.trainer!.isFaulty { worker.trainer!.flip = 1 << UInt64(step % 64) }
        // One that errs at every step does so beside others too: they are the majority.
        if worker.trainer!.flip != 0, worker.trainer!.isFaulty || !flippedSteps.contains(step) {
            // Nobody but another member can notice.
            if let members = coordinator?.machine.members, members.count >= 2 {
                worker.trainer!.effect[0]! ^= worker.trainer!.flip
                worker.trainer!.flippedBlocks.insert(0)
                flipped(worker, step: step, isAudited: false)
            }
            worker.trainer!.flip = 0
        }
        perform(
            worker.trainer!.machine.effectDigested(
                step: step, fold: fold, digest: effect(worker, step),
                state: worker.trainer!.state, epoch: epoch), at: worker)
    }

    private func effect(_ worker: WorkerProcess, _ step: Int) -> UInt64 {
        ReferenceRun.effect(
            (0..<configuration.blocks).map { worker.trainer!.effect[$0]! }, step: step)
    }

    private func apply(_ step: Int, _ epoch: Int, _ worker: WorkerProcess) {
        guard worker.trainer!.machine.epoch == epoch else { return }
        #if PLANTED_BUGS
            // The last block stands for batch-norm statistics; a joiner that catches up leaves it out.
            if Planted.has(.statisticsNotReplayed), worker.trainer!.machine.isListening {
                worker.trainer!.effect[configuration.blocks - 1] = 0
            }
        #endif
        worker.trainer!.state = ReferenceRun.mix(worker.trainer!.state, effect(worker, step))
        checkApplied(worker, step: step)
        perform(worker.trainer!.machine.applied(step: step, epoch: epoch), at: worker)
    }

    // MARK: State

    private func load(_ load: WireLoadState, _ epoch: Int, _ worker: WorkerProcess) {
        worker.trainer!.slots = [:]
        worker.trainer!.damagedSlots = []
        worker.trainer!.embedded = [:]
        worker.trainer!.received = [:]
        worker.trainer!.partials = [:]
        worker.trainer!.effect = [:]
        worker.trainer!.parked = []
        worker.trainer!.parkedNames = []
        worker.trainer!.copies = [:]
        worker.trainer!.kept = [:]
        worker.trainer!.pieces = [:]
        worker.trainer!.awaitedEpoch = nil
        worker.trainer!.ready = nil
        let step = Int(load.step)
        let delay = draw(1, 30) * Self.millisecond
        worker.trainer!.isFromPeer = load.source == .peer
        switch load.source {
        case .initial:
            push(
                .loaded(
                    worker.index, step: step, state: reference.states[0], epoch: epoch),
                after: delay)
        case .checkpoint:
            guard let file = disk.files[load.file], file.isWhole, file.state == load.digest
            else {
                push(.loadFailed(worker.index, epoch: epoch), after: delay)
                return
            }
            push(
                .loaded(worker.index, step: step, state: file.state, epoch: epoch),
                after: delay)
        default:
            worker.trainer!.awaitedEpoch = epoch
            worker.trainer!.loadStep = step
        }
    }

    private func donate(_ donation: WireDonateState, _ worker: WorkerProcess) {
        guard let copy = worker.trainer!.kept[Int(donation.step)],
            let joiner = names[donation.worker]
        else { return }
        for piece in 0..<Self.pieceCount {
            sendData(
                .state(step: Int(donation.step), piece: piece, copy.state), from: worker.index,
                to: joiner)
        }
    }

    private func sendCopy(_ step: Int, _ recovery: Bool, _ worker: WorkerProcess) {
        guard let copy = worker.trainer!.copies[step] else {
            var message = WireCheckpointFailed()
            message.step = UInt64(step)
            message.reason = "no copy"
            sendUp(.checkpointFailed(message), from: worker)
            return
        }
        guard let process = coordinator else { return }
        let file = SimulatedDisk.File(
            step: step, state: copy.state, history: copy.history, isRecovery: recovery)
        var time = now
        for piece in 0..<Self.pieceCount {
            time += draw(200, 4000)
            if weather.lossUntil > now, chance(weather.lossPercent) { continue }
            queue.push(
                .bulk(process.index, from: worker.index, file, piece: piece), at: time)
        }
    }

    // MARK: Exchange

    private func clearExchange(_ worker: WorkerProcess) {
        worker.trainer!.partials = [:]
        worker.trainer!.effect = [:]
        worker.trainer!.flippedBlocks = []
        takeParked(worker)
    }

    private func takeParked(_ worker: WorkerProcess) {
        let parked = worker.trainer!.parked
        worker.trainer!.parked = []
        worker.trainer!.parkedNames = []
        for (packet, from) in parked where worker.isAlive { take(packet, from: from, at: worker) }
    }

    func take(_ packet: Packet, from: Int, at worker: WorkerProcess) {
        let name = workers[from].name
        switch packet {
        case .state(let step, let piece, let state):
            guard let epoch = worker.trainer!.awaitedEpoch, worker.trainer!.loadStep == step
            else { return }
            worker.trainer!.machine.statePieceReceived()
            worker.trainer!.pieces[piece] = state
            guard worker.trainer!.pieces.count == Self.pieceCount else { return }
            worker.trainer!.awaitedEpoch = nil
            push(
                .loaded(worker.index, step: step, state: state, epoch: epoch),
                after: draw(100, 2000))
        case .partial(let step, let history, let fold, let block, let run, let value):
            guard isHere(packet, step, history, fold, from, name, worker),
                worker.trainer!.machine.wantsPartial(block, run: run)
            else { return }
            checkKept(block, run, from: name, at: worker)
            worker.trainer!.partials[block, default: [:]][run] = value
            perform(worker.trainer!.machine.partialReceived(block, run: run), at: worker)
        case .result(let step, let history, let fold, let block, let value):
            guard isHere(packet, step, history, fold, from, name, worker),
                worker.trainer!.machine.wantsResult(block)
            else { return }
            checkKept(block, nil, from: name, at: worker)
            worker.trainer!.effect[block] = value
            perform(
                worker.trainer!.machine.resultReceived(block, digest: value), at: worker)
        case .embeddings(let step, let history, let fold, let slot, let value):
            guard isHere(packet, step, history, fold, from, name, worker, isEmbeddings: true),
                worker.trainer!.machine.wantsEmbeddings(ofSlot: slot)
            else { return }
            worker.trainer!.received[slot] = value
            perform(
                worker.trainer!.machine.embeddingsReceived(slot, from: name), at: worker)
        case .wantEmbeddings(let step, let history, let slots):
            guard
                worker.trainer!.machine.place(
                    step: step, history: history, fold: nil, from: name) == .here
            else { return }
            perform(worker.trainer!.machine.embeddingsWanted(slots, by: name), at: worker)
        case .want(let step, let history, let fold, let blocks, let partials):
            guard
                worker.trainer!.machine.place(
                    step: step, history: history, fold: fold, from: name, isRequest: true)
                    == .here
            else { return }
            perform(
                worker.trainer!.machine.wanted(blocks, partials: partials, by: name), at: worker)
        }
    }

    private func isHere(
        _ packet: Packet, _ step: Int, _ history: UInt64, _ fold: Int?, _ from: Int,
        _ name: String, _ worker: WorkerProcess, isEmbeddings: Bool = false
    ) -> Bool {
        switch worker.trainer!.machine.place(
            step: step, history: history, fold: fold, from: name, isEmbeddings: isEmbeddings)
        {
        case .here: return true
        case .later:
            // The same again is the same bits.
            if let name = packet.name, worker.trainer!.parkedNames.insert(name).inserted {
                worker.trainer!.parked.append((packet, from))
            }
            return false
        case .nowhere: return false
        }
    }

    private func perform(_ action: ExchangeStateMachine.Action, at worker: WorkerProcess) {
        let machine = worker.trainer!.machine
        let (step, history) = (machine.step + 1, machine.history)
        let fold = machine.fold
        let root = SlotRun(0, configuration.slots)
        switch action {
        case .sendPartial(let run, let blocks, let peer):
            guard let to = names[peer], !isDamaged(run, worker) else { return }
            for block in blocks {
                guard let value = sum(run, block, worker) else {
                    return fail("S2", "\(worker.name) was told to send slots that it lacks")
                }
                let flip = run.count > 1 ? foldFlip(block, worker) : 0
                sendData(
                    .partial(
                        step: step, history: history, fold: fold, block: block, run,
                        value ^ flip),
                    from: worker.index, to: to)
            }
        case .finish(let blocks):
            guard !isDamaged(root, worker) else { return }
            for block in blocks {
                guard let value = sum(root, block, worker) else {
                    return fail("S2", "\(worker.name) was told to finish what it lacks")
                }
                worker.trainer!.effect[block] = value ^ foldFlip(block, worker)
            }
        case .audit(let blocks):
            guard !isDamaged(root, worker) else { return }
            for block in blocks {
                guard let value = sum(root, block, worker) else {
                    return fail("S2", "\(worker.name) was told to audit what it lacks")
                }
                perform(
                    worker.trainer!.machine.blockAudited(
                        block, digest: value ^ foldFlip(block, worker)), at: worker)
            }
        case .broadcast(let blocks, let peers):
            for peer in peers {
                guard let to = names[peer] else { continue }
                // The digest that was taken before the flip travels with a block: it is refused.
                for block in blocks where !worker.trainer!.flippedBlocks.contains(block) {
                    guard let value = worker.trainer!.effect[block] else {
                        return fail("S2", "\(worker.name) was told to send what it lacks")
                    }
                    sendData(
                        .result(
                            step: step, history: history, fold: fold, block: block, value),
                        from: worker.index, to: to)
                }
            }
        case .wantPartials(let blocks, let peer), .wantResults(let blocks, let peer):
            guard let to = names[peer] else { return }
            var isPartials = false
            if case .wantPartials = action { isPartials = true }
            sendData(
                .want(
                    step: step, history: history, fold: fold, blocks: blocks,
                    partials: isPartials), from: worker.index, to: to)
        case .keepPartial, .combine, .complete: break
        }
    }

    /// Sum of a run in tree order from what is held.
    private func sum(_ run: SlotRun, _ block: Int, _ worker: WorkerProcess) -> UInt64? {
        #if PLANTED_BUGS
            if Planted.has(.foldInArrivalOrder) {
                return arrivalSum(run, block, worker)
            }
        #endif
        if let part = worker.trainer!.partials[block]?[run] { return part }
        if run.count == 1 {
            return worker.trainer!.slots[run.low].map { ReferenceRun.gradient($0, block) }
        }
        let (left, right) = FoldTree.split(run)
        guard let low = sum(left, block, worker), let high = sum(right, block, worker)
        else { return nil }
        return ReferenceRun.mix(low, high)
    }

    #if PLANTED_BUGS
        /// The planted mistake: what came first is added first.
        private func arrivalSum(_ run: SlotRun, _ block: Int, _ worker: WorkerProcess) -> UInt64? {
            let held = worker.trainer!.slots.keys.sorted().filter { run.low <= $0 && $0 < run.high }
            var total: UInt64?
            for slot in held {
                let value = ReferenceRun.gradient(worker.trainer!.slots[slot]!, block)
                total = total.map { ReferenceRun.mix($0, value) } ?? value
            }
            for part in (worker.trainer!.partials[block] ?? [:]).sorted(by: { $0.key < $1.key }) {
                total = total.map { ReferenceRun.mix($0, part.value) } ?? part.value
            }
            return total
        }
    #endif

    // MARK: Evaluators

    func perform(_ actions: [EvaluatorAction], at worker: WorkerProcess) {
        for action in actions where worker.isAlive {
            switch action {
            case .send(let body): sendUp(completed(body, worker), from: worker)
            case .prepare:
                let time = time(of: worker)
                var message = WirePrepared()
                message.datasetDigest = 5
                message.numerics.description_p = "evaluation class"
                perform(
                    worker.evaluator!.machine.prepared(
                        message, pollSeconds: 0.25, timeoutSeconds: 10_000, now: time), at: worker)
            case .score(let grant):
                worker.evaluator!.scoringLeft = grant.sets.count
                for set in grant.sets {
                    push(
                        .scored(worker.index, grant, set: set),
                        after: draw(20, 400) * Self.millisecond)
                }
            case .leave: exit(worker, "done")
            case .refused(let why): exit(worker, why)
            }
        }
    }

    func handleEvaluator(_ event: Event, at worker: WorkerProcess) {
        switch event {
        case .scored(_, let grant, let set):
            var rows = WireEvaluationRows()
            rows.step = grant.step
            rows.set = set
            rows.checkpointDigest = grant.digest
            if let file = disk.files[grant.file], file.isWhole, file.state == grant.digest {
                var metric = WireMetricValue()
                metric.metric = "general_accuracy"
                metric.value = Double(
                    ReferenceRun.mix(file.state, UInt64(set.utf8.count)) >> 12)
                rows.metrics = [metric]
            } else {
                rows.failure = "cannot be read"
            }
            let time = time(of: worker)
            perform(worker.evaluator!.machine.scored(rows, now: time), at: worker)
            guard worker.isAlive else { return }
            worker.evaluator!.scoringLeft -= 1
            if worker.evaluator!.scoringLeft == 0 { push(.scoringEnded(worker.index), after: 50) }
        case .scoringEnded:
            let time = time(of: worker)
            perform(worker.evaluator!.machine.scoringEnded(now: time), at: worker)
        default: break
        }
    }
}

internal import Basics
internal import Protocol

/// Who takes part: HELLO and what follows, joins at boundaries, losses.
extension CoordinatorStateMachine {
    // MARK: Coming

    mutating func helloReceived(
        _ hello: WireHello, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        func refuse(_ code: WireRefusal.Code, _ text: String) -> [CoordinatorAction] {
            Self.refuse(worker, code, text)
        }
        if let objection = MessageLimits.objection(hello, slotCount: configuration.slotCount) {
            return refuse(.role, "worker \(worker): \(objection)")
        }
        guard hello.worker == worker else {
            return refuse(.role, "worker \(hello.worker) speaks on the connection of \(worker)")
        }
        guard hello.lineupVersion == configuration.lineupVersion else {
            return refuse(
                .version,
                "worker \(worker) is lineup \(hello.lineupVersion), the coordinator is "
                    + "\(configuration.lineupVersion): run the same version on every node")
        }
        #if PLANTED_BUGS
            let isAnyRole = Planted.has(.strangerHeard)
        #else
            let isAnyRole = false
        #endif
        guard [.trainer, .evaluator, .observer].contains(hello.role) || isAnyRole else {
            return refuse(.role, "worker \(worker) has no role that this coordinator knows")
        }
        if case .ended = phase, hello.role != .observer {
            return refuse(.ended, "the run has ended")
        }
        #if PLANTED_BUGS
            if Planted.has(.olderCoordinatorRefuses), hello.stateStep > UInt64(tip.step) {
                return refuse(.history, "worker \(worker) is ahead of the ledger")
            }
        #endif
        // Somebody may have started another coordinator of this run: the ledger knows.
        if hello.term > term { return [.readTerm(worker)] }
        if WorkerName.isAmong(quarantined.all, worker) {
            return refuse(.numerics, "worker \(worker) has computed wrongly; check its machine")
        }
        if hello.role == .trainer, hello.hasState_p,
            hello.stateStep > UInt64(max(tip.step, supersededStep))
        {
            let text =
                "worker \(worker) holds the state of step \(hello.stateStep), the ledger ends at "
                + "step \(tip.step)"
            guard case .recovering = phase else { return refuse(.history, text) }
            return end(
                .failed(
                    text + ": the disk has lost what it had confirmed; nothing was changed: "
                        + "restore the ledger, or stop the trainers and resume"))
        }
        var actions: [CoordinatorAction] = []
        if let known = workers[worker], known.stage == .preparing, known.hello == hello {
            workers[worker]!.lastHeard = now
            return [.send(.welcome(welcome(worker)), to: worker)]
        }
        if let known = workers[worker] {
            // Its HELLO may also be said twice.
            if known.stage == .member, hello.role == known.hello.role, standsAtCursor(hello),
                known.awayAt != nil || known.hello == hello
            {
                return cameBack(hello, now: now)
            }
            actions += workerGone(worker, why: "started over", failed: false, now: now)
        }
        var entry = Worker(hello: hello, lastHeard: now, toldAt: now)
        entry.holdsState = hello.hasState_p
        entry.appliedStep = Int(clamping: hello.stateStep)
        entry.lineage = "of \(worker)"
        if hello.role == .evaluator {
            evaluatorRoll.append(worker)
            hadEvaluator = true
            lastEvaluatorActivity = now
        }
        workers[worker] = entry
        order.append(worker)
        if hello.role != .observer { actions.append(.workerJoined(hello)) }
        // The shell adds settings and addresses.
        actions.append(.send(.welcome(welcome(worker)), to: worker))
        return actions
    }

    /// Whether a worker has the state on which the step in flight stands, or the effect that makes it.
    private func standsAtCursor(_ hello: WireHello) -> Bool {
        guard hello.hasState_p else { return false }
        if hello.stateStep == UInt64(cursor) { return hello.history == history }
        return hello.stateStep + 1 == UInt64(cursor) && hello.hasStaged_p
            && hello.stagedStep == UInt64(cursor) && hello.stagedDigest == lastCommit?.digest
    }

    /// A member's connection broke and is there again: nothing has changed but what was under way.
    private mutating func cameBack(_ hello: WireHello, now: Duration) -> [CoordinatorAction] {
        let id = hello.worker
        workers[id]!.hello = hello
        workers[id]!.awayAt = nil
        workers[id]!.lastHeard = now
        var actions: [CoordinatorAction] = [.send(.welcome(welcome(id)), to: id)]
        if phase == .stepping { return actions + sendPlan(to: [id], now: now) }
        if let lastCommit { actions.append(.send(.commit(lastCommit), to: id)) }
        if let pending, pending.sender == id { actions.append(request(pending)) }
        return actions
    }

    /// The ledger's term, for a worker that speaks of a newer one than this coordinator's.
    public mutating func termRead(
        _ current: UInt64, for worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard current == term else { return end(.superseded) }
        return Self.refuse(worker, .run, "worker \(worker) speaks of a term that has not begun")
    }

    private static func refusal(_ code: WireRefusal.Code, _ text: String) -> WireRefusal {
        var refusal = WireRefusal()
        refusal.code = code
        refusal.message = text
        return refusal
    }

    private static func refuse(
        _ worker: String, _ code: WireRefusal.Code, _ text: String
    ) -> [CoordinatorAction] {
        [
            .send(.refusal(refusal(code, text)), to: worker), .forget(worker),
            .event(kind: "refused", severity: .warning, text: "\(worker): \(text)"),
        ]
    }

    func welcome(_ worker: String) -> WireWelcome {
        var welcome = WireWelcome()
        welcome.term = term
        welcome.committedStep = UInt64(tip.step)
        welcome.worker = worker
        welcome.datasetDigest = configuration.datasetDigest
        return welcome
    }

    mutating func preparedReceived(
        _ message: WirePrepared, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard workers[worker]!.stage == .preparing else { return [] }
        func refuse(_ code: WireRefusal.Code, _ text: String) -> [CoordinatorAction] {
            [.send(.refusal(Self.refusal(code, text)), to: worker)]
                + workerGone(worker, why: text, failed: true, now: now)
        }
        guard message.datasetDigest == configuration.datasetDigest else {
            return refuse(
                .dataset,
                "the data set of worker \(worker) has digest \(message.datasetDigest.hex), the "
                    + "run's has \(configuration.datasetDigest.hex): give it the run's data with "
                    + "--data-root")
        }
        guard message.numerics.description_p.utf8.count <= MessageLimits.numericsBytesMax else {
            return refuse(.numerics, "worker \(worker) describes its numerics at too great length")
        }
        let (noted, objection) = noteClass(message.numerics.description_p, of: worker)
        var actions = noted
        if let objection { return actions + refuse(.numerics, objection) }
        workers[worker]!.stage = .prepared
        guard workers[worker]!.hello.role == .trainer else { return actions }
        workers[worker]!.phase = "standing by"
        // With other settings than before it has prepared anew.
        if message.lostState { workers[worker]!.holdsState = false }
        standby.append(worker)
        expectedBack.remove(worker)
        if firstPreparedAt == nil { firstPreparedAt = now }
        switch phase {
        case .recovering: actions += recoverIfSettled(now: now)
        case .gathering: actions += boundary(now: now)
        case .stepping: actions += followAtOnce(worker, now: now)
        default: break
        }
        return actions
    }

    /// Whether a worker's own state is that of the last commit, applied or staged.
    func holdsTip(_ id: String) -> Bool {
        guard let worker = workers[id], worker.holdsState else { return false }
        let hello = worker.hello
        if hello.stateStep == UInt64(tip.step) { return hello.history == tip.history }
        return hello.stateStep + 1 == UInt64(tip.step) && hello.history == tip.previousHistory
            && hello.hasStaged_p && hello.stagedStep == UInt64(tip.step)
            && hello.stagedDigest == tip.digest
    }

    /// A new term goes on with those who come back, once all have or none is waited for any more.
    mutating func recoverIfSettled(now: Duration) -> [CoordinatorAction] {
        guard case .recovering(let until) = phase else { return [] }
        let isOver = until.map { now >= $0 } ?? false
        guard isOver || expectedBack.isEmpty else { return [] }
        expectedBack = []
        phase = .gathering
        return boundary(now: now)
    }

    /// Workers that hold the last commit come in without loading, also where the run went back for
    /// want of them.
    mutating func takeReturned(now: Duration) -> [CoordinatorAction] {
        if case .recovering = phase { return [] }
        // Among members a state that is up to date enters as a follower.
        guard roster.isEmpty || cursor < tip.step else { return [] }
        let holders = standby.all.filter { holdsTip($0) }.prefix(membersMax)
        guard !holders.isEmpty else { return [] }
        // A checkpoint that is due and lies behind must still be kept aside by somebody.
        let due = dueCheckpoint
        let keepers = due.map { step in
            standby.all.filter { workers[$0]!.hello.copies.contains(UInt64(step)) }
        }
        if let keepers, keepers.isEmpty { return [] }
        goTo(step: tip.step, history: tip.history)
        pending = nil
        var actions: [CoordinatorAction] = []
        if let due, let keepers {
            actions += takeUp(
                checkpoint: due, sender: keepers[0], backup: keepers.dropFirst().first ?? "",
                now: now)
        }
        if tip.step > 0 {
            lastCommit = commit(step: tip.step, digest: tip.digest, history: tip.history)
        }
        for id in holders {
            standby.remove(id)
            roster.append(id)
            workers[id]!.stage = .member
            workers[id]!.holdsState = true
            workers[id]!.appliedStep = cursor
        }
        if let due { askForStates(of: due, keepers: keepers ?? []) }
        generation += 1
        phase = .holding
        return actions + [membersEvent] + commitToMembers()
    }

    /// A step before the last commit whose checkpoint is not stored.
    private var dueCheckpoint: Int? {
        #if PLANTED_BUGS
            if Planted.has(.dueCheckpointForgotten) { return nil }
        #endif
        let stored = durable.last { !$0.isRecovery }?.step ?? -1
        return stride(from: tip.step - 1, to: stored, by: -1).first { isCheckpointStep($0) }
    }

    var membersEvent: CoordinatorAction {
        var text = "generation \(generation): \(roster.count) trainers at step \(cursor)"
        if cursor < tip.step {
            text += "; steps \(cursor + 1) to \(tip.step) are done again and compared"
        }
        return .event(kind: "members", severity: .info, text: text)
    }

    // MARK: Joining

    mutating func tellToLoad(
        _ id: String, from donor: String, now: Duration
    ) -> [CoordinatorAction] {
        loads += 1
        var message = WireLoadState()
        message.step = UInt64(cursor)
        message.history = history
        message.number = loads
        if !donor.isEmpty {
            message.source = .peer
            message.peer = donor
        } else if let checkpoint = durable.last {
            message.source = .checkpoint
            message.file = checkpoint.file
            message.byteCount = UInt64(checkpoint.byteCount)
            message.digest = checkpoint.digest
        } else {
            message.source = .initial
        }
        workers[id]!.load = message
        workers[id]!.lineage = lineage(of: id, from: donor)
        workers[id]!.hasLoaded = false
        workers[id]!.holdsState = false
        workers[id]!.begunStep = 0
        workers[id]!.toldAt = now
        flight?.listenersReady[id] = nil
        return [.send(.loadState(message), to: id)]
    }

    /// Workers that stand by get the state of this boundary while the next steps go on.
    mutating func startJoin(now: Duration) -> [CoordinatorAction] {
        let room = membersMax - roster.count - followers.count
        guard join == nil, room > 0, !standby.isEmpty, !roster.isEmpty else { return [] }
        let donors = holders.filter { refusedCopies[$0] == refusedCopies[holders[0]] }
        let donor = donors[Int(loads % UInt64(donors.count))]
        var joiners = Roll()
        var actions: [CoordinatorAction] = []
        // Who sends a checkpoint keeps its copy until that is done.
        for id in standby.all.filter({ $0 != pending?.sender }).prefix(room) {
            standby.remove(id)
            followers.append(id)
            joiners.append(id)
            workers[id]!.stage = .following
            workers[id]!.appliedStep = cursor
            actions += tellToLoad(id, from: donor, now: now)
        }
        if !joiners.isEmpty { join = Join(step: cursor, donor: donor, joiners: joiners) }
        return actions
    }

    /// A worker that was away for a moment, with the state on which the step in flight stands.
    private mutating func followAtOnce(_ id: String, now: Duration) -> [CoordinatorAction] {
        let worker = workers[id]!
        guard worker.holdsState, worker.hello.stateStep == UInt64(cursor),
            worker.hello.history == history, roster.count + followers.count < membersMax
        else { return [] }
        standby.remove(id)
        followers.append(id)
        workers[id]!.stage = .following
        workers[id]!.hasLoaded = true
        workers[id]!.appliedStep = cursor
        return replan(now: now)
    }

    /// Followers that have staged the committed step are members from the next one on.
    mutating func admitFollowers(_ digest: UInt64, of flight: StepInFlight) -> [CoordinatorAction] {
        var hasGrown = false
        for id in followers.all {
            if flight.listenersReady[id] == digest {
                followers.remove(id)
                roster.append(id)
                workers[id]!.stage = .member
                leaveJoin(id)
                hasGrown = true
            } else if cursor - workers[id]!.appliedStep >= TrainerStateMachine.backlogMax {
                // Too far behind to catch up: begin anew from a younger state.
                followers.remove(id)
                leaveJoin(id)
                workers[id]!.stage = .prepared
                workers[id]!.holdsState = false
                standby.append(id)
            }
        }
        guard hasGrown else { return releaseJoin() }
        generation += 1
        return [membersEvent] + releaseJoin()
    }

    mutating func leaveJoin(_ id: String) { join?.joiners.remove(id) }

    /// The donor's copy is let go when nobody waits for it.
    mutating func releaseJoin() -> [CoordinatorAction] {
        guard let join, join.joiners.isEmpty else { return [] }
        self.join = nil
        var release = WireReleaseCheckpoint()
        release.step = UInt64(join.step)
        release.donation = true
        return [.send(.releaseCheckpoint(release), to: join.donor)]
    }

    /// The joiner listens: its donor may send.
    mutating func stateAwaited(
        _ message: WireStateAwaited, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        let joiner = workers[worker]!
        guard message.number == joiner.load.number else { return [] }
        if !message.failure.isEmpty {
            return loadFailed(worker, message.failure.clipped(), now: now)
        }
        guard joiner.stage == .following, let join, join.joiners.contains(worker) else { return [] }
        var donation = WireDonateState()
        donation.step = UInt64(join.step)
        donation.worker = worker
        donation.dataAddress = joiner.hello.dataAddress
        return [.send(.donateState(donation), to: join.donor)]
    }

    private mutating func loadFailed(
        _ worker: String, _ why: String, now: Duration
    ) -> [CoordinatorAction] {
        let event = CoordinatorAction.event(
            kind: "load_failed", severity: .warning,
            text: "trainer \(worker) did not get the state: \(why)")
        switch workers[worker]!.stage {
        case .following:
            followers.remove(worker)
            leaveJoin(worker)
            workers[worker]!.stage = .prepared
            standby.append(worker)
            return [event] + releaseJoin()
        case .loading:
            workers[worker]!.stage = .prepared
            standby.append(worker)
            // Either the file is damaged, or this worker cannot reach it.
            guard
                let checkpoint = durable.last(where: {
                    $0.file == workers[worker]!.load.file && $0.step == cursor
                }), doubted == nil
            else { return [event] + loadingSettled(now: now) }
            doubted = checkpoint.file
            return [event, .verifyCheckpoint(checkpoint)] + loadingSettled(now: now)
        default: return []
        }
    }

    mutating func stateLoaded(
        _ message: WireStateLoaded, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        let joiner = workers[worker]!
        guard message.number == joiner.load.number, message.step == joiner.load.step,
            !joiner.hasLoaded,
            // It says so again.
            let objection = objection(to: message, of: worker)
        else { return [] }
        guard objection.isEmpty else {
            refusedCopies[joiner.load.peer, default: 0] += 1
            return loadFailed(worker, objection, now: now)
        }
        workers[worker]!.hasLoaded = true
        switch joiner.stage {
        case .following:
            leaveJoin(worker)
            #if PLANTED_BUGS
                if Planted.has(.joinerEntersInMidStep), phase == .stepping {
                    followers.remove(worker)
                    roster.append(worker)
                    workers[worker]!.stage = .member
                    return releaseJoin() + replan(now: now)
                }
            #endif
            return releaseJoin()
        case .loading:
            workers[worker]!.stage = .member
            workers[worker]!.appliedStep = cursor
            roster.append(worker)
            return loadingSettled(now: now)
        default: return []
        }
    }

    mutating func loadingSettled(now: Duration) -> [CoordinatorAction] {
        guard case .loading = phase,
            !order.all.contains(where: { workers[$0]?.stage == .loading })
        else { return [] }
        if roster.isEmpty { return rollBack(now: now) }
        generation += 1
        phase = .holding
        return [membersEvent] + boundary(now: now)
    }

    // MARK: Leaving

    mutating func goodbyeReceived(
        _ message: WireGoodbye, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard message.drain, workers[worker]!.hello.role == .trainer else {
            return workerGone(
                worker, why: message.reason.clipped(), failed: message.failed, now: now)
        }
        workers[worker]!.isLeaving = true
        #if PLANTED_BUGS
            if Planted.has(.drainDropsLease), phase == .stepping, roster.count > 1 {
                return [.send(.stop(Self.stop(.drained, "asked to stop")), to: worker)]
                    + workerGone(
                        worker, why: "asked to stop", failed: false, isSettled: false, now: now)
            }
        #endif
        guard workers[worker]!.stage == .member else { return dismiss(worker, now: now) }
        if case .holding = phase { return boundary(now: now) }
        return []
    }

    private mutating func dismiss(_ id: String, now: Duration) -> [CoordinatorAction] {
        [.send(.stop(Self.stop(.drained, "asked to stop")), to: id)]
            + workerGone(id, why: "asked to stop", failed: false, now: now)
    }

    /// Members that asked to leave go at the boundary; the last of them once its state is durable.
    ///
    /// - Returns: what is to be done, and whether the next step may begin.
    mutating func letLeave(now: Duration) -> ([CoordinatorAction], Bool) {
        let leaving = roster.all.filter { workers[$0]!.isLeaving }
        guard !leaving.isEmpty else { return ([], true) }
        var actions: [CoordinatorAction] = []
        if leaving.count == roster.count, !durable.contains(where: { $0.step == cursor }) {
            phase = .holding
            actions += commitToMembers()
            if pending == nil {
                actions += askForCheckpoint(recovery: !isCheckpointStep(cursor), now: now)
            }
            return (actions, false)
        }
        actions += commitToMembers()
        for id in leaving where pending?.sender != id {
            actions.append(.send(.stop(Self.stop(.drained, "asked to stop")), to: id))
            actions += workerGone(
                id, why: "asked to stop", failed: false, isSettled: false, now: now)
        }
        guard roster.isEmpty else { return (actions, true) }
        // The newest checkpoint may be of a later step than one that is done again.
        return (actions + boundary(now: now), false)
    }

    /// - Parameter isSettled: whether what follows for the step is decided here; not so where several
    ///   go at a boundary.
    mutating func workerGone(
        _ id: String, why: String, failed: Bool, isSettled: Bool = true, now: Duration
    ) -> [CoordinatorAction] {
        // In the end everybody was told to stop, and leaves.
        if case .ended = phase { return [] }
        guard let worker = workers.removeValue(forKey: id) else { return [] }
        order.remove(id)
        var actions: [CoordinatorAction] = []
        if worker.hello.role != .observer {
            actions.append(.workerLeft(id, why: why))
            let name = worker.hello.role == .trainer ? "trainer" : "evaluator"
            actions.append(
                .event(
                    kind: "worker_left", severity: failed ? .warning : .info,
                    text: "\(name) \(id) left: \(why)"))
        }
        switch worker.hello.role {
        case .evaluator:
            evaluatorRoll.remove(id)
            idleEvaluators.remove(id)
            queue.evaluatorLeft(id)
            lastEvaluatorActivity = now
            return actions + finishIfDone(now: now)
        case .trainer:
            return actions + trainerGone(id, worker, isSettled: isSettled, now: now)
        default:
            return actions
        }
    }

    private mutating func trainerGone(
        _ id: String, _ worker: Worker, isSettled: Bool, now: Duration
    ) -> [CoordinatorAction] {
        let wasMember = roster.contains(id)
        roster.remove(id)
        followers.remove(id)
        standby.remove(id)
        leaveJoin(id)
        var actions: [CoordinatorAction] = []
        if wasMember, roster.isEmpty, isSettled {
            if phase == .committing { return actions }  // the boundary finds nobody
            return actions + rollBack(now: now)
        }
        if let join, join.donor == id {
            // Its joiners begin anew at the next boundary, with another donor.
            for joiner in join.joiners.all {
                followers.remove(joiner)
                workers[joiner]!.stage = .prepared
                standby.append(joiner)
            }
            self.join = nil
        } else {
            actions += releaseJoin()
        }
        if let pending, pending.sender == id || pending.backup == id {
            actions += holderGone(id, now: now)
        }
        guard isSettled else { return actions }
        switch phase {
        case .loading: actions += loadingSettled(now: now)
        case .stepping where wasMember:
            takeOver(from: id, now: now)
            flight!.movedAt = now
            actions += replan(now: now)
        case .holding, .gathering: actions += boundary(now: now)
        default: break
        }
        return actions
    }
}

internal import Basics
internal import Protocol

/// The step transaction: plan, results, READY, commit; and what happens when it does not come
/// forward.
extension CoordinatorStateMachine {
    // MARK: Plan

    mutating func beginStep(now: Duration) -> [CoordinatorAction] {
        let step = cursor + 1
        var actions = startJoin(now: now)
        // Those that load hear the commit on which their first step stands with its plan.
        let scalars = source.scalars(step: step, reductions: reductions)
        lastRate = Double(bitPattern: scalars.learningRate)
        flight = StepInFlight(
            step: step, samples: samples(step), scalars: scalars,
            slotCount: configuration.slotCount, audit: configuration.audit,
            minesStep: configuration.minesStep, now: now)
        flightCount += 1
        flightGeneration = generation
        // Members of an earlier term's fold may have been others.
        if isOwnerFixed { flight!.fold = Int(term & 0xFF_FFFF) << 8 }
        flight!.donor = join?.step == cursor ? join!.donor : ""
        leaseAll(now: now)
        phase = .stepping
        if lastStoredAt == nil { lastStoredAt = now }
        if pending == nil {
            if isCheckpointStep(cursor), !isStored(cursor) {
                pending = newCheckpoint(recovery: false, now: now)
            } else if let interval = configuration.recoveryInterval,
                now - lastStoredAt! >= interval,
                !durable.contains(where: { $0.step >= cursor })
            {
                pending = newCheckpoint(recovery: true, now: now)
            }
        }
        if pending?.step == cursor || join?.step == cursor { askForStates(of: cursor) }
        actions += sendPlan(now: now)
        return actions
    }

    /// Samples of this step and the next few, each asked for once.
    private mutating func samples(_ step: Int) -> WireStepSamples {
        let last = max(step, min(step + configuration.stepsAhead, lastSampledStep))
        if samplesAhead.first.map({ Int($0.step) <= step }) != true { samplesAhead = [] }
        samplesAhead.removeAll { Int($0.step) < step }
        let next = samplesAhead.last.map { Int($0.step) + 1 } ?? step
        if next <= last { samplesAhead += (next...last).map { source.samples(step: $0) } }
        return samplesAhead[0]
    }

    /// Contiguous runs of slots, as equal as they can be.
    ///
    /// They are aligned where the members are a power of two, so that a member's slots form one
    /// subtree. Who has computed a slot already keeps it.
    private mutating func leaseAll(now: Duration) {
        let members = roster.all
        var held: [Int: String] = [:]
        for id in members {
            let hello = workers[id]!.hello
            guard workers[id]!.holdsState, !hello.heldSlots.isEmpty,
                hello.hasStaged_p && hello.stagedStep == UInt64(cursor)
                    ? false : hello.stateStep == UInt64(cursor) && hello.history == history
            else { continue }
            for slot in hello.heldSlots where held[Int(slot)] == nil { held[Int(slot)] = id }
        }
        let shares = max(configuration.slotCount, members.count)
        for slot in 0..<configuration.slotCount {
            flight!.lease(
                slot, to: held[slot] ?? members[slot * members.count / shares], now: now)
        }
        leaseAudits(now: now)
    }

    /// Gives what a worker had to members; it is no longer one.
    mutating func takeOver(from id: String, now: Duration) {
        lease(flight!.release(id), now: now)
        leaseAudits(now: now)
        // Who folds a block and who audits it stays the same within a fold.
        if isOwnerFixed { flight!.fold += 1 }
    }

    /// Gives slots that nobody has to the members with the fewest.
    mutating func lease(_ slots: [Int], now: Duration) {
        guard !slots.isEmpty else { return }
        let members = roster.all
        var load = Dictionary(uniqueKeysWithValues: members.map { ($0, 0) })
        for slot in 0..<configuration.slotCount {
            for lease in flight!.leases[slot] { load[lease.worker, default: 0] += 1 }
        }
        for slot in slots {
            let able = members.filter { flight!.returned[slot][$0] == nil }
            let heir = (able.isEmpty ? members : able).min { (load[$0]!, $0) < (load[$1]!, $1) }!
            load[heir]! += 1
            flight!.lease(slot, to: heir, now: now)
        }
    }

    private func plan() -> WirePlan {
        let flight = flight!
        var plan = WirePlan()
        plan.term = term
        plan.generation = generation
        plan.step = UInt64(flight.step)
        plan.history = history
        func member(_ id: String) -> WireMember {
            var member = WireMember()
            member.worker = id
            member.dataAddress = workers[id]!.hello.dataAddress
            return member
        }
        plan.members = roster.all.map(member)
        plan.listeners = followers.all.map(member)
        // Appended to the message's own property each would copy all.
        var leases: [WireLease] = []
        for slot in flight.leases.indices {
            let result = flight.result(of: slot)
            for held in flight.leases[slot] {
                var lease = WireLease()
                lease.slot = UInt32(slot)
                lease.worker = held.worker
                lease.attempt = UInt32(held.attempt)
                lease.optional =
                    result != nil && result!.worker != held.worker
                    && !flight.awaitsAudit(of: slot) && flight.agrees(on: slot)
                leases.append(lease)
            }
        }
        plan.leases = leases
        plan.scalars = flight.scalars
        plan.fold = UInt32(flight.fold)
        plan.donor = flight.donor
        plan.quarantined = quarantined.all
        for (slot, retrial) in flight.retrials.sorted(by: { $0.key < $1.key }) {
            var outdated = WireSlotAttempt()
            outdated.slot = UInt32(slot)
            outdated.attempt = UInt32(retrial.attempt)
            plan.outdated.append(outdated)
        }
        if let lastCommit { plan.previous = lastCommit }
        // In every plan of the step: a newer one replaces an older one that is not begun.
        if let pending, pending.step == cursor {
            plan.checkpoint.step = UInt64(pending.step)
            plan.checkpoint.recovery = pending.isRecovery
            plan.checkpoint.primary = pending.sender
            plan.checkpoint.backup = pending.backup
        }
        plan.samples = samplesAhead
        return plan
    }

    mutating func sendPlan(now: Duration) -> [CoordinatorAction] {
        sendPlan(to: roster.all + followers.all, now: now)
    }

    mutating func sendPlan(to names: [String], now: Duration) -> [CoordinatorAction] {
        let plan = plan()
        var brief = plan
        brief.samples = []
        return names.map { id in
            workers[id]!.toldAt = now
            let hasBegun = workers[id]!.begunStep == flight!.step
            return .send(.plan(hasBegun ? brief : plan), to: id)
        }
    }

    // MARK: Results

    mutating func slotDone(
        _ done: WireSlotDone, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard phase == .stepping, UInt64(flight!.step) == done.step,
            Int(done.slot) < configuration.slotCount,
            done.lossParts.count <= MessageLimits.listMax,
            let attempt = flight!.grants[Int(done.slot)][worker]
        else { return [] }
        var done = done
        if done.hasSummary, !done.summary.isWithinBounds { done.clearSummary() }
        return slotClaimed(done, by: worker, attempt: attempt, now: now)
    }

    private mutating func slotClaimed(
        _ done: WireSlotDone, by worker: String, attempt: Int, now: Duration
    ) -> [CoordinatorAction] {
        guard !flight!.isOutdated(done) else { return [] }
        guard configuration.minesStep else {
            return gradientClaimed(done, by: worker, attempt: attempt, now: now)
        }
        let actions = embeddingsClaimed(done, by: worker, attempt: attempt, now: now)
        // Whoever is wrong may be gone by now.
        guard !done.forward, phase == .stepping, workers[worker] != nil,
            flight!.grants[Int(done.slot)][worker] != nil, !flight!.isStale(done)
        else { return actions }
        return actions + gradientClaimed(done, by: worker, attempt: attempt, now: now)
    }

    /// A slot's forward pass is done, and maybe more of it.
    private mutating func embeddingsClaimed(
        _ done: WireSlotDone, by worker: String, attempt: Int, now: Duration
    ) -> [CoordinatorAction] {
        let slot = Int(done.slot)
        guard !flight!.embeddings[slot].contains(where: { $0.worker == worker }) else { return [] }
        var done = done
        done.forward = true
        let wasEmbedding = flight!.isEmbedding
        let claim = StepInFlight.Claim(
            worker: worker, attempt: attempt, group: slotGroup(of: worker), done: done)
        flight!.recordEmbeddings(claim, slot: slot, now: now)
        flight!.movedAt = now
        workers[worker]!.begunStep = flight!.step
        guard flight!.agrees(on: slot) else { return compareClaims(of: slot, now: now) }
        guard !flight!.awaitsEmbeddingAudit(of: slot) else { return [] }
        let known = generation
        let blame = blameWaverers(on: slot, forward: true, now: now)
        guard wasEmbedding, phase == .stepping, generation == known else { return blame }
        return blame + embeddingsAgreed(slot, by: worker, now: now)
    }

    /// Every worker that was to do a slot's forward pass has, or one where one is enough.
    private mutating func embeddingsAgreed(
        _ slot: Int, by worker: String, now: Duration
    ) -> [CoordinatorAction] {
        if flight!.leases[slot].contains(where: { $0.worker == worker }) {
            endLeases(of: slot, unless: flight!.embeddings[slot])
        }
        guard flight!.isEmbedding else {
            return flight!.isReplanDue ? replan(now: now) : []
        }
        return flight!.isShort ? speculate(now: now) : []
    }

    /// Whoever else has a slot under way need not go on.
    private mutating func endLeases(of slot: Int, unless claims: [StepInFlight.Claim]) {
        let asked = Set(claims.map(\.worker))
        for lease in flight!.leases[slot] where !asked.contains(lease.worker) {
            flight!.release(slot, of: lease.worker)
            flight!.isReplanDue = true
        }
    }

    private mutating func gradientClaimed(
        _ done: WireSlotDone, by worker: String, attempt: Int, now: Duration
    ) -> [CoordinatorAction] {
        let slot = Int(done.slot)
        let claim = StepInFlight.Claim(
            worker: worker, attempt: attempt, group: slotGroup(of: worker), done: done)
        flight!.record(claim, slot: slot, now: now)
        flight!.movedAt = now
        workers[worker]!.begunStep = flight!.step
        guard flight!.agrees(on: slot) else { return compareClaims(of: slot, now: now) }
        guard !flight!.awaitsAudit(of: slot) else { return [] }
        let known = generation
        let blame = blameWaverers(on: slot, forward: false, now: now)
        guard phase == .stepping, generation == known else { return blame }
        return blame + slotAgreed(slot, by: worker, now: now)
    }

    /// Says who contradicts himself about a slot that was computed once more.
    private mutating func blameWaverers(
        on slot: Int, forward: Bool, now: Duration
    ) -> [CoordinatorAction] {
        let step = flight!.step
        return flight!.waverers(on: slot, forward: forward).flatMap { id in
            suspect(
                id,
                why:
                    "it said something else of slot \(slot) of step \(step) when it was asked again",
                now: now)
        }
    }

    /// Every worker that was to compute a slot has, or one where one is enough.
    private mutating func slotAgreed(
        _ slot: Int, by worker: String, now: Duration
    ) -> [CoordinatorAction] {
        // Unless the worker only listens by now: then it does not share what it has computed.
        if flight!.leases[slot].contains(where: { $0.worker == worker }) {
            endLeases(of: slot, unless: flight!.claims[slot])
        }
        if flight!.isShort, !flight!.hasAllResults {
            let actions = speculate(now: now)
            if !actions.isEmpty { return actions }
        }
        guard flight!.isReplanDue else { return commitIfReady(now: now) }
        // One plan for many slots, and none too late for the end of the step.
        return flight!.hasAllResults ? replan(now: now) : []
    }

    /// Something about the step has changed: a new generation, in which everybody says READY anew.
    mutating func replan(now: Duration) -> [CoordinatorAction] {
        generation += 1
        #if PLANTED_BUGS
            if Planted.has(.readyKeptAcrossGenerations) { return sendPlan(now: now) }
        #endif
        flight!.ready = [:]
        flight!.isReplanDue = false
        return sendPlan(now: now)
    }

    /// One slot gave different numbers at different workers: a third decides who is wrong, and where
    /// there is none each of them computes it once more.
    private mutating func compareClaims(of slot: Int, now: Duration) -> [CoordinatorAction] {
        let claims = flight!.dispute(on: slot)
        guard !claims.isEmpty else { return [] }
        let told = claims.map { claim in
            guard !claim.done.forward else {
                return "embeddings \(claim.done.embeddings.hex) at \(claim.worker)"
            }
            let digest = claim.done.digest == 0 ? "" : ", digest \(claim.done.digest.hex)"
            return "loss \(Float(bitPattern: claim.done.loss))\(digest) at \(claim.worker)"
        }
        let text = "slot \(slot) of step \(flight!.step) gave " + told.joined(separator: "; ")
        for word in Set(claims.map(\.word)).sorted() {
            let agreeing = claims.filter { $0.word == word }
            guard 2 * agreeing.count > claims.count, claims.count > 2 else { continue }
            forgetFolds()
            var actions: [CoordinatorAction] = []
            for wrong in claims where wrong.word != word {
                actions += quarantine(wrong.worker, why: text, now: now)
            }
            return actions
        }
        let holders = flight!.leases[slot].map(\.worker)
        let asked = Set(claims.map(\.worker))
            .union(holders.filter { slotGroup(of: $0) == claims[0].group })
        let judge = roster.all.first {
            !asked.contains($0) && flight!.returned[slot][$0] == nil
                && slotGroup(of: $0) == claims[0].group
        }
        guard let judge else {
            // The third is still at it, or there is none.
            guard asked.count == claims.count else { return [] }
            guard computeAgain(slot, disputed: claims, now: now) else {
                return end(.disagreed(text + "; run 'lineup doctor' on these machines"))
            }
            return [.event(kind: "disagreement", severity: .warning, text: text)]
                + replan(now: now)
        }
        flight!.lease(slot, to: judge, now: now)
        return [.event(kind: "disagreement", severity: .warning, text: text)] + replan(now: now)
    }

    /// Those who differ about a slot compute it once more; where mining spans the step everybody computes
    /// everything once more, since embeddings have gone round.
    ///
    /// - Returns: false where that was done before, or nobody of them is left.
    private mutating func computeAgain(
        _ slot: Int, disputed claims: [StepInFlight.Claim], now: Duration
    ) -> Bool {
        let members = roster.all.filter { id in
            flight!.hasClaimed(id, slot: slot) || claims.contains { $0.worker == id }
        }
        guard flight!.retrials[slot] == nil, !members.isEmpty else { return false }
        forgetFolds()
        flight!.fold += 1
        if configuration.minesStep {
            flight!.startOver(for: slot, by: members, first: claims, now: now)
        } else {
            flight!.tryAgain(slot, by: members, now: now)
        }
        return true
    }

    /// A slot was wrong, and others may have folded it.
    private mutating func forgetFolds() {
        flight!.foldClaims = [:]
        flight!.firstDigests = [:]
    }

    /// Nothing of this worker is used any more: the step is folded again without it.
    mutating func quarantine(_ id: String, why: String, now: Duration) -> [CoordinatorAction] {
        quarantined.append(id)
        let event = CoordinatorAction.event(
            kind: "quarantined", severity: .error,
            text: "\(id) computes wrongly and is not used any more: \(why)")
        #if PLANTED_BUGS
            if Planted.has(.quarantinedResultKept) {
                return [event] + expel(id, why: Self.quarantineReason, now: now)
            }
        #endif
        guard phase == .stepping else {
            return [event] + expel(id, why: Self.quarantineReason, now: now)
        }
        flight!.forget(id)
        flight!.fold += 1
        flight!.forgetGradients()
        let known = generation
        let actions = [event] + expel(id, why: Self.quarantineReason, now: now)
        guard phase == .stepping, generation == known else { return actions }
        // It had left before.
        leaseAudits(now: now)
        return actions + replan(now: now)
    }

    mutating func slotReturned(
        _ message: WireSlotReturned, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard phase == .stepping, message.step == UInt64(flight!.step),
            Int(message.slot) < configuration.slotCount,
            flight!.leases[Int(message.slot)].contains(where: { $0.worker == worker })
        else { return [] }
        let slot = Int(message.slot)
        let reason = message.reason.clipped()
        flight!.returned[slot][worker] = reason
        flight!.release(slot, of: worker)
        let text = "step \(message.step), slot \(slot): \(reason) (worker \(worker))"
        if message.diverged {
            // One alone may have a fault of its own.
            flight!.diverged[slot, default: []].insert(worker)
            if flight!.diverged[slot]!.count >= min(2, roster.count) {
                return diverge(slot: slot, text, now: now)
            }
        }
        if roster.all.allSatisfy({ flight!.returned[slot][$0] != nil }) {
            return end(.failed(text))
        }
        if flight!.leases[slot].isEmpty { lease([slot], now: now) }
        leaseAudits(now: now)
        return [.event(kind: "slot_returned", severity: .warning, text: text)] + replan(now: now)
    }

    /// Nothing finite comes of the step: the state before it is kept, and the run ends.
    private mutating func diverge(
        slot: Int, _ text: String, now: Duration
    ) -> [CoordinatorAction] {
        // A loss of the whole step is of all its images.
        let slots =
            configuration.minesStep && !flight!.isEmbedding
            ? flight!.samples.slots[...]
            : flight!.samples.slots[slot...slot]
        let images = slots.flatMap { source.names(of: $0) }
        let event = CoordinatorAction.event(
            kind: "diverged", severity: .error,
            text: "\(text); its images: " + images.joined(separator: ", "))
        divergence =
            "\(text); the ledger's event 'diverged' names its images, and step \(cursor) is the "
            + "last good one"
        phase = .holding
        return [event] + boundary(now: now)
    }

    // MARK: READY and commit

    mutating func readyReceived(
        _ ready: WireReady, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard phase == .stepping, ready.term == term, ready.step == UInt64(flight!.step)
        else { return [] }
        switch workers[worker]!.stage {
        case .following:
            // What was staged before the step was folded again is gone, and so is a state that it has
            // been told to replace. Who the members are does not matter: it is the same effect.
            if Int(ready.fold) == flight!.fold, workers[worker]!.hasLoaded {
                flight!.listenersReady[worker] = ready.effectDigest
            }
            return []
        case .member:
            #if PLANTED_BUGS
                let isAnyGeneration = Planted.has(.generationNotCompared)
            #else
                let isAnyGeneration = false
            #endif
            guard ready.generation == generation || isAnyGeneration else { return [] }
            flight!.ready[worker] = ready
            flight!.movedAt = now
            // What it computed under an earlier plan is in its partials too.
            for done in ready.held where flight!.audited.contains(Int(clamping: done.slot)) {
                let slot = Int(done.slot)
                guard done.step == ready.step, !flight!.hasClaimed(worker, slot: slot) else {
                    continue
                }
                let actions = slotClaimed(
                    done, by: worker, attempt: flight!.grants[slot][worker] ?? 1, now: now)
                if !actions.isEmpty { return actions }
            }
            return commitIfReady(now: now)
        default: return []
        }
    }

    private mutating func commitIfReady(now: Duration) -> [CoordinatorAction] {
        #if PLANTED_BUGS
            let missing = Planted.has(.commitWithoutEveryMember) && roster.count > 1 ? 1 : 0
            let readyCount = roster.count - missing
        #else
            let readyCount = roster.count
        #endif
        guard phase == .stepping, flight!.hasAllResults, flight!.ready.count >= readyCount
        else { return [] }
        #if PLANTED_BUGS
            let isReplanned = generation > flightGeneration
            let isSettled =
                flight!.isSettled
                || Planted.has(.auditNotAwaited) && isReplanned && flight!.isAgreed
        #else
            let isSettled = flight!.isSettled
        #endif
        guard isSettled else { return [] }
        if let actions = compareFolds(now: now) { return actions }
        let members = roster.all.filter { flight!.ready[$0] != nil }
        guard let first = members.first.map({ flight!.ready[$0]! }) else { return [] }
        guard members.allSatisfy({ flight!.ready[$0]!.effectDigest == first.effectDigest }),
            membersInOtherStates(among: members).isEmpty
        else { return settleDisagreement(now: now) }
        let known = generation
        var actions: [CoordinatorAction] = []
        for member in members where !isMixed {
            // The first that is quarantined may take the step with it, where it held the last copy of a
            // checkpoint.
            guard phase == .stepping, let before = flight!.firstDigests[member],
                before != first.effectDigest
            else { continue }
            actions += suspect(
                member, why: "its effect of step \(flight!.step) was another one", now: now)
        }
        guard generation == known else { return actions }
        actions += blameFolders(now: now)
        guard generation == known else { return actions }
        let record = record(digest: first, now: now)
        phase = .committing
        #if PLANTED_BUGS
            let isFoldedAgain = flight!.fold & 0xFF > 0
            if Planted.has(.redoWritesRows), isFoldedAgain { return actions + [.commit(record)] }
            if Planted.has(.commitBeforeLedger), flight!.step > tip.step {
                let early = commit(
                    step: record.step, digest: record.digest, history: record.history)
                return roster.all.map { .send(.commit(early), to: $0) } + [.commit(record)]
            }
        #endif
        return actions + [flight!.step <= tip.step ? .compareRedone(record) : .commit(record)]
    }

    /// Members have staged different effects, or stand on different states: the step is folded once
    /// more, by others, from the slots' gradients; then the many are right.
    private mutating func settleDisagreement(now: Duration) -> [CoordinatorAction] {
        let flight = flight!
        var members = roster.all.filter { flight.ready[$0] != nil }
        let inOtherStates = membersInOtherStates(among: members)
        let sameState = inOtherStates.isEmpty
        let text = disagreement(flight)
        if sameState, flight.firstDigests.isEmpty {
            for member in members {
                self.flight!.firstDigests[member] = flight.ready[member]!.effectDigest
            }
            self.flight!.fold += 1
            return [.event(kind: "disagreement", severity: .warning, text: text)]
                + replan(now: now)
        }
        if !sameState { members = inOtherStates }
        func word(_ id: String) -> UInt64 {
            sameState ? flight.ready[id]!.effectDigest : flight.ready[id]!.stateDigest
        }
        var votes: [UInt64: Int] = [:]
        for member in members { votes[word(member), default: 0] += 1 }
        guard let winner = votes.first(where: { 2 * $0.value > members.count })?.key else {
            return end(
                .disagreed(
                    text + "; nothing was committed: run 'lineup doctor' on these machines, then "
                        + "resume"))
        }
        var actions: [CoordinatorAction] = []
        for member in members where word(member) != winner {
            actions += quarantine(member, why: text, now: now)
        }
        return actions
    }

    private func disagreement(_ flight: StepInFlight) -> String {
        var groups: [(effect: UInt64, state: UInt64, names: [String])] = []
        for member in roster.all {
            guard let ready = flight.ready[member] else { continue }
            if let place = groups.firstIndex(where: {
                $0.effect == ready.effectDigest && $0.state == ready.stateDigest
            }) {
                groups[place].names.append(member)
            } else {
                groups.append((ready.effectDigest, ready.stateDigest, [member]))
            }
        }
        let told = groups.map { group in
            let more = group.names.count > 1 ? " and \(group.names.count - 1) more" : ""
            return "\(group.names[0])\(more): effect \(group.effect.hex), state \(group.state.hex)"
        }
        return "step \(flight.step): members disagree (" + told.joined(separator: "; ") + ")"
    }

    /// The mean over slots of each loss of a sum, in tree order; none where slots differ in number.
    private static func means(of parts: [[UInt32]], _ scale: Float) -> [Float] {
        guard let count = parts.first?.count, parts.allSatisfy({ $0.count == count }) else {
            return []
        }
        return (0..<count).map { part in
            FoldTree.fold(parts.map { Float(bitPattern: $0[part]) }, +) * scale
        }
    }

    private func record(digest ready: WireReady, now: Duration) -> StepRecord {
        let flight = flight!
        #if PLANTED_BUGS
            let known = (0..<configuration.slotCount).compactMap { flight.result(of: $0) }
            let claims = (0..<configuration.slotCount).map { flight.result(of: $0) ?? known[0] }
        #else
            let claims = (0..<configuration.slotCount).map { flight.result(of: $0)! }
        #endif
        let batches = claims.map { claim in
            StepRecord.MiniBatch(
                slot: Int(claim.done.slot), worker: claim.worker, attempt: claim.attempt,
                loss: Float(bitPattern: claim.done.loss),
                decodeSeconds: claim.done.decodeSeconds,
                computeSeconds: claim.done.computeSeconds)
        }
        // Every slot of a step that mines over all of them tells the same: the step's own.
        let parts = configuration.minesStep ? [claims[0].done] : claims.map(\.done)
        let losses = FoldTree.fold(parts.map { Float(bitPattern: $0.loss) }, +)
        let scale = Float(1) / Float(parts.count)
        let fractions = FoldTree.fold(parts.map(\.fractionPositive), +)
        return StepRecord(
            step: flight.step, loss: losses * scale,
            lossParts: Self.means(of: parts.map(\.lossParts), scale),
            fractionPositive: fractions / Double(parts.count),
            activeCount: parts.reduce(0) { $0 + Int(UInt32(clamping: $1.activeCount)) },
            spread: parts.reduce(0) { $0 + $1.spread } / Double(parts.count),
            summary: StepSummary(parts),
            learningRate: Double(bitPattern: flight.scalars.learningRate),
            scalars: flight.scalars,
            samples: flight.samples.slots.reduce(0) { $0 + $1.indices.count },
            digest: ready.effectDigest, stateDigest: ready.stateDigest,
            history: HistoryDigest.next(history, effect: ready.effectDigest),
            miniBatches: batches, totalSeconds: (now - flight.startedAt).seconds,
            exchangeSeconds: flight.ready.values.map(\.exchangeSeconds).max() ?? 0)
    }

    /// The ledger holds the step: from here on it has happened.
    public mutating func stepCommitted(_ record: StepRecord, now: Duration) -> [CoordinatorAction] {
        // Also when the run has gone back meanwhile: what is committed is compared from now on.
        if record.step == tip.step + 1 {
            tip = Tip(
                step: record.step, history: record.history, digest: record.digest,
                previousHistory: tip.history)
        }
        guard phase == .committing, flight?.step == record.step else { return [] }
        return stepDone(record, now: now)
    }

    /// A redone step was compared with the ledger's row.
    public mutating func stepCompared(
        _ record: StepRecord, matches: Bool, now: Duration
    ) -> [CoordinatorAction] {
        guard phase == .committing, flight?.step == record.step else { return [] }
        if !matches, !configuration.isBitwise { return supersede(from: record) }
        if !matches {
            return end(
                .failed(
                    "step \(record.step), done again after a loss of state, has digest "
                        + "\(record.digest.hex), another one than the ledger's; this machine does "
                        + "not repeat its numbers: resume on a machine like the one where the run "
                        + "began"))
        }
        // The first and the last of them: where it began, and that it is over.
        guard record.step == tip.step || record.step - 1 == durable.last?.step ?? 0 else {
            return stepDone(record, now: now)
        }
        let event = CoordinatorAction.event(
            kind: "redone", severity: .info,
            text: "step \(record.step) of \(tip.step) is done again, to the ledger's digest")
        return [event] + stepDone(record, now: now)
    }

    func commit(step: Int, digest: UInt64, history: UInt64) -> WireCommit {
        var commit = WireCommit()
        commit.term = term
        commit.generation = generation
        commit.step = UInt64(step)
        commit.digest = digest
        commit.history = history
        return commit
    }

    private mutating func stepDone(_ record: StepRecord, now: Duration) -> [CoordinatorAction] {
        cursor = record.step
        history = record.history
        lastCommit = commit(step: record.step, digest: record.digest, history: record.history)
        lastLoss = Double(record.loss)
        lastFraction = record.fractionPositive
        lastSamples = record.samples
        stepSeconds.append(record.totalSeconds)
        if stepSeconds.count > 50 { stepSeconds.removeFirst() }
        let flight = flight!
        for (id, tempo) in flight.tempos {
            workers[id]?.pace = tempo.pace(since: flight.phaseStartedAt)
        }
        for (id, tempo) in flight.embeddingTempos {
            workers[id]?.embeddingPace = tempo.pace(since: flight.startedAt)
        }
        self.flight = nil
        phase = .holding
        let finding = collapse?.observe(
            .init(
                loss: Double(record.lossParts.first ?? record.loss),
                fractionPositive: record.fractionPositive,
                spread: record.spread))
        let news = finding.map {
            CoordinatorAction.event(kind: $0.kind, severity: .warning, text: $0.text)
        }
        return (news.map { [$0] } ?? []) + admitFollowers(record.digest, of: flight)
            + boundary(now: now)
    }

    // MARK: What does not come forward

    /// A slot that a second worker could compute.
    private struct Wanting {
        let slot: Int
        /// Who has it.
        let holder: String
        /// Until it is probably done there; infinite where nobody is at it.
        let seconds: Double
    }

    /// Somebody who has nothing left to compute.
    private struct Helper {
        let worker: String
        /// Seconds a slot.
        let pace: Double
        var given = 0

        /// Until one more slot would be done.
        var seconds: Double { pace * Double(given + 1) }
    }

    /// What a second worker has to gain at least before it gets a slot; a plan goes to everybody.
    private static let gainSecondsMin = 0.1

    /// Slots whose holder is absent, or would be done much later than somebody who has nothing left to
    /// compute, go to that one too; nobody is removed.
    mutating func speculate(now: Duration) -> [CoordinatorAction] {
        guard !flight!.hasAllResults || !flight!.isSettled, roster.count > 1 else { return [] }
        if let actions = embedAgain(now: now) { return actions }
        let queues = flight!.queues()
        let members = roster.all
        let present = members.filter { !isAbsent($0, now: now) }
        flight!.isShort = present.count < members.count
        var helpers = present.filter { queues[$0] == nil }
            .map { Helper(worker: $0, pace: wholePace(of: $0)) }
        guard !helpers.isEmpty else { return [] }
        let wanting = wantingSlots(queues, now: now)
            .sorted { ($1.seconds, $0.slot) < ($0.seconds, $1.slot) }
        // Those that will soon have nothing left either take their part of what the absent have.
        let abandoned = Set(members).subtracting(present)
            .reduce(0) { $0 + (queues[$1]?.count ?? 0) }
        let share = (abandoned + present.count - 1) / present.count
        var actions: [CoordinatorAction] = []
        for one in wanting {
            let able = helpers.indices.filter { place in
                let helper = helpers[place]
                return flight!.returned[one.slot][helper.worker] == nil
                    && !flight!.hasSaid(helper.worker, slot: one.slot)
                    && (one.seconds < .infinity || helper.given < share)
            }
            guard let place = able.min(by: { helpers[$0].seconds < helpers[$1].seconds })
            else { continue }
            guard one.seconds > 1.5 * helpers[place].seconds + Self.gainSecondsMin else { break }
            helpers[place].given += 1
            let heir = helpers[place].worker
            flight!.lease(one.slot, to: heir, now: now)
            actions.append(
                .event(
                    kind: "leased_again", severity: .info,
                    text: "slot \(one.slot) of step \(flight!.step) goes to \(heir) too: "
                        + one.holder + (one.seconds == .infinity ? " is silent" : " takes long")))
        }
        return actions.isEmpty ? [] : actions + replan(now: now)
    }

    private func wantingSlots(_ queues: [String: [Int]], now: Duration) -> [Wanting] {
        (0..<configuration.slotCount).compactMap { slot in
            let (claims, wanted) = (flight!.said(of: slot).count, flight!.claimsWanted(of: slot))
            guard claims < wanted else { return nil }
            let open = flight!.openLeases(of: slot)
            // One helper more than needed.
            guard !open.isEmpty, claims + open.count <= wanted else { return nil }
            if let absent = open.first(where: { isAbsent($0.worker, now: now) }) {
                return Wanting(slot: slot, holder: absent.worker, seconds: .infinity)
            }
            // In the first steps memory is found and kernels are chosen.
            guard stepSeconds.count >= 3 else { return nil }
            return open.map { lease in
                let queue = queues[lease.worker]!
                return Wanting(
                    slot: slot, holder: lease.worker,
                    seconds: remaining(of: slot, at: lease, in: queue, now: now))
            }.max { $0.seconds < $1.seconds }
        }
    }

    /// Seconds until a worker has computed a slot, by its pace.
    ///
    /// The one that it is at is not worth a second worker, unless it is overdue: then it will take as
    /// long again.
    private func remaining(
        of slot: Int, at lease: StepInFlight.Lease, in queue: [Int], now: Duration
    ) -> Double {
        let begun = max(
            lease.since, flight!.phaseStartedAt, flight!.tempos[lease.worker]?.lastAt ?? .zero)
        let left = pace(of: lease.worker) - (now - begun).seconds
        let place = queue.firstIndex(of: slot)!
        return place == 0 ? max(0, -left) : Double(place) * pace(of: lease.worker) + abs(left)
    }

    /// Seconds a slot of a worker in the phase in hand: in this step, in the last that it took part in,
    /// or anybody's.
    private func pace(of id: String) -> Double {
        if let tempo = flight!.tempos[id] { return tempo.pace(since: flight!.phaseStartedAt) }
        return usualPace(of: id, flight!.isEmbedding ? \.embeddingPace : \.pace)
    }

    /// Seconds until a worker that has nothing of a slot would be done with it.
    private func wholePace(of id: String) -> Double {
        guard configuration.minesStep, !flight!.isEmbedding else { return pace(of: id) }
        return pace(of: id) + usualPace(of: id, \.embeddingPace)
    }

    private func usualPace(of id: String, _ pace: KeyPath<Worker, Double>) -> Double {
        let usual = workers[id]?[keyPath: pace] ?? 0
        return usual > 0
            ? usual : roster.all.reduce(0) { max($0, workers[$1]![keyPath: pace]) }
    }

    /// A slot on which workers disagree, and whose judge has gone, gets another one.
    mutating func judgeAgain(now: Duration) -> [CoordinatorAction] {
        let slot = flight!.claims.indices.first { slot in
            guard let disputed = flight!.dispute(on: slot).first else { return false }
            let said = disputed.done.forward ? flight!.embeddings[slot] : flight!.claims[slot]
            return flight!.leases[slot].allSatisfy { lease in
                said.contains { $0.worker == lease.worker }
            }
        }
        return slot.map { compareClaims(of: $0, now: now) } ?? []
    }

    /// Whether nothing is to be expected of a worker for the moment.
    private func isAbsent(_ id: String, now: Duration) -> Bool {
        workers[id]?.awayAt != nil || isSilent(id, now: now) || isStuck(id, now: now)
    }

    // MARK: Embeddings that do not come

    /// How long a member may wait for embeddings that others have, having asked for them; then it is
    /// taken for one that cannot be reached.
    private static let embeddingPatience = TrainerStateMachine.missingPatience * 2

    /// Since when a member waits for embeddings, although all are computed.
    private func lackingSince(_ id: String) -> Duration? {
        guard !flight!.isEmbedding, let worker = workers[id], worker.lackingStep == flight!.step,
            !worker.lacking.isEmpty
        else { return nil }
        return max(worker.lackingSince, flight!.phaseStartedAt)
    }

    private func isStuck(_ id: String, now: Duration) -> Bool {
        guard configuration.minesStep, let since = lackingSince(id) else { return false }
        return now - since > Self.embeddingPatience
    }

    /// Where everybody waits for embeddings whose holder is gone or cannot be reached, one of those who
    /// wait computes them.
    ///
    /// - Returns: nil where there is nothing of the kind to do.
    private mutating func embedAgain(now: Duration) -> [CoordinatorAction]? {
        guard configuration.minesStep else { return nil }
        let present = roster.all.filter {
            workers[$0]?.awayAt == nil && !isSilent($0, now: now)
        }
        guard present.allSatisfy({ lackingSince($0) != nil }),
            let heir = present.min(by: { workers[$0]!.lacking.count < workers[$1]!.lacking.count })
        else { return nil }
        let slots = workers[heir]!.lacking.filter { slot in
            let holders = flight!.leases[slot].map(\.worker)
            return !holders.contains(heir)
                && (isStuck(heir, now: now) || holders.allSatisfy { !present.contains($0) })
        }
        guard !slots.isEmpty else { return nil }
        for slot in slots { flight!.lease(slot, to: heir, now: now) }
        let event = CoordinatorAction.event(
            kind: "leased_again", severity: .info,
            text: "slots \(slots) of step \(flight!.step) go to \(heir) too: their embeddings do "
                + "not come")
        return [event] + replan(now: now)
    }

    private func isSilent(_ id: String, now: Duration) -> Bool {
        workers[id].map { now - $0.lastHeard > $0.rhythm.limit(in: configuration.suspicion) }
            ?? true
    }

    /// A step whose slots all have results does not wait for silent members: they listen until they
    /// have caught up, and are members again from the next step on that they have staged.
    mutating func sideline(now: Duration) -> [CoordinatorAction] {
        guard flight!.hasAllResults else { return [] }
        let silent = roster.all.filter { isSilent($0, now: now) }
        let missing = silent.filter { flight!.ready[$0] == nil }
        guard !missing.isEmpty, silent.count < roster.count else { return [] }
        var actions: [CoordinatorAction] = []
        for id in missing {
            roster.remove(id)
            followers.append(id)
            workers[id]!.stage = .following
            workers[id]!.hasLoaded = true
            workers[id]!.appliedStep = cursor
            takeOver(from: id, now: now)
            actions.append(
                .event(
                    kind: "sidelined", severity: .info,
                    text: "step \(flight!.step) does not wait for \(id), which is silent"))
        }
        flight!.movedAt = now
        return actions + replan(now: now)
    }

    /// A member that alone holds up a step that is otherwise done, or whose data connections do not
    /// work, is let go; it may come back.
    mutating func expelBlocker(now: Duration) -> [CoordinatorAction] {
        guard roster.count > 1, flight!.hasAllResults,
            now - flight!.movedAt > configuration.silenceMax,
            let blocker = roster.all.last(where: { flight!.ready[$0] == nil })
        else { return [] }
        flight!.movedAt = now
        return expel(blocker, why: "step \(flight!.step) does not come forward", now: now)
    }

    // MARK: What got lost

    mutating func progressReceived(
        _ message: WireProgress, from id: String, now: Duration
    ) -> [CoordinatorAction] {
        statesHeard(message, from: id)
        workers[id]!.phase = message.phase.clipped(32)
        workers[id]!.begunStep = Int(clamping: message.planStep)
        noteLacking(message, of: id, now: now)
        if workers[id]!.counter != message.counter {
            workers[id]!.counter = message.counter
            flight?.movedAt = now
        }
        workers[id]!.rhythm.heard(message.active ? now : nil)
        if message.active {
            // Only forward: a state that is loaded anew is another matter.
            workers[id]!.appliedStep = max(
                workers[id]!.appliedStep, min(Int(clamping: message.step), cursor))
        }
        let worker = workers[id]!
        guard now - worker.toldAt >= configuration.repeatInterval else { return [] }
        workers[id]!.toldAt = now
        switch worker.stage {
        case .preparing:
            guard message.prepared else { return [] }
            return [.send(.welcome(welcome(id)), to: id)]
        case .loading, .following:
            if worker.load.number > 0, !worker.hasLoaded,
                message.load != worker.load.number || message.active
            {
                return [.send(.loadState(worker.load), to: id)]
            }
            guard worker.stage == .following, phase == .stepping, message.active,
                message.step == UInt64(cursor),
                message.planStep != UInt64(flight!.step) || message.generation != generation
            else { return [] }
            return sendPlan(to: [id], now: now)
        case .member:
            switch phase {
            case .stepping:
                let isOld =
                    message.term != term || message.generation != generation
                    || message.planStep != UInt64(flight!.step)
                let isUnheard =
                    message.ready && flight!.ready[id] == nil
                    || message.slotsLeased > 0 && message.slotsDone >= message.slotsLeased
                        && flight!.slots(of: id).contains {
                            !flight!.hasClaimed(id, slot: $0)
                        }
                    || !message.lacking.isEmpty
                        && flight!.slots(of: id).contains {
                            flight!.isEmbedding && !flight!.hasSaid(id, slot: $0)
                        }
                return isOld || isUnheard ? sendPlan(to: [id], now: now) : []
            case .holding, .finishing:
                guard message.step < UInt64(cursor), let lastCommit else { return [] }
                return [.send(.commit(lastCommit), to: id)]
            default: return []
            }
        case .prepared:
            guard case .finishing = phase, message.active, message.step < UInt64(cursor),
                let lastCommit
            else { return [] }
            return [.send(.commit(lastCommit), to: id)]
        }
    }

    /// Notes whose embeddings a member waits for, and since when.
    private mutating func noteLacking(_ message: WireProgress, of id: String, now: Duration) {
        guard configuration.minesStep, let flight, message.planStep == UInt64(flight.step) else {
            return
        }
        let slots = Set(message.lacking.map { Int($0) }.filter { $0 < configuration.slotCount })
        if workers[id]!.lacking.isEmpty || workers[id]!.lackingStep != flight.step {
            workers[id]!.lackingSince = now
        }
        workers[id]!.lacking = slots.sorted()
        workers[id]!.lackingStep = flight.step
    }
}

internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// The promises, checked where they could be broken.
extension Simulation {
    /// S2, S3, S5, S11, before a step is written.
    func checkCommit(_ record: StepRecord, _ process: CoordinatorProcess) {
        guard process.term == ledger.term else { return }
        checkMembers(record, process)
        let due = (record.step - 3) / configuration.checkpointEvery * configuration.checkpointEvery
        if record.step > 2, ledger.checkpoints[due] == nil {
            fail("S8", "step \(record.step) is committed before the checkpoint of step \(due)")
        }
        let slots = record.miniBatches.map(\.slot)
        if configuration.minesStep, record.loss != record.miniBatches.first?.loss {
            fail("S12", "step \(record.step) has loss \(record.loss), not that of its slots")
        }
        if slots != Array(0..<configuration.slots) || record.samples != configuration.slots {
            fail("S3", "step \(record.step) has results of slots \(slots)")
        }
        for batch in record.miniBatches {
            if quarantined.contains(batch.worker) {
                fail("S11", "step \(record.step) uses a slot of \(batch.worker), quarantined")
            }
            let expected = loss(
                reference.states[record.step - 1], record.step, batch.slot)
            if batch.loss != expected {
                fail("S12", "step \(record.step), slot \(batch.slot): loss \(batch.loss)")
            }
        }
    }

    /// What a slot tells as its loss: where mining spans the step, that of the step.
    func loss(_ state: UInt64, _ step: Int, _ slot: Int) -> Float {
        ReferenceRun.loss(state, step, configuration.minesStep ? 0 : slot)
    }

    /// S4 and S6: members hold what a plan stands on, and no two leases of a slot are the same.
    func checkPlan(_ plan: WirePlan, _ process: CoordinatorProcess) {
        let key = (plan.term, plan.generation, plan.step)
        guard key != lastPlan else { return }
        lastPlan = key
        for member in plan.members where process.term == ledger.term {
            if quarantined.contains(member.worker) {
                fail("S11", "\(member.worker), quarantined, is a member in step \(plan.step)")
            }
        }
        for member in plan.members {
            // Those that have gone over to another coordinator are not this one's any more.
            guard let index = names[member.worker], let trainer = workers[index].trainer,
                workers[index].link?.coordinator == process.index
            else { continue }
            if trainer.isMisled {
                fail("S4", "\(member.worker) is a member with the state of a flipped copy")
            }
            if trainer.machine.step + 2 < Int(plan.step) {
                fail(
                    "S4",
                    "\(member.worker) is a member in step \(plan.step) and stands at "
                        + "\(trainer.machine.step)")
            }
        }
        // Where several members go at once, the step of the first plans may be over already.
        guard plan.generation >= process.machine.flightGeneration else { return }
        let flight = process.machine.flightCount
        if process.index != leasesOf.coordinator || flight != leasesOf.flight {
            leasesOf = (process.index, flight, [:])
        }
        for lease in plan.leases {
            let key = UInt64(lease.slot) << 32 | UInt64(lease.attempt)
            if let other = leasesOf.holders[key], other != lease.worker {
                fail(
                    "S6",
                    "slot \(lease.slot) of step \(plan.step) is leased to \(other) and "
                        + "\(lease.worker) as attempt \(lease.attempt)")
            }
            leasesOf.holders[key] = lease.worker
        }
    }

    /// S4: what was promised with READY is kept until it is committed or replaced.
    func checkHello(_ hello: WireHello, _ worker: WorkerProcess) {
        guard let trainer = worker.trainer, let ready = trainer.ready, hello.hasState_p,
            ready.step == hello.stateStep + 1
        else { return }
        if !hello.hasStaged_p || hello.stagedDigest != ready.effectDigest {
            fail("S4", "\(worker.name) has forgotten the effect of step \(ready.step)")
        }
    }

    /// Every member has said READY in the membership that is counted, for what is written.
    func checkMembers(_ record: StepRecord, _ process: CoordinatorProcess) {
        for name in process.machine.members {
            guard let index = names[name], let trainer = workers[index].trainer else { continue }
            guard let ready = trainer.ready, ready.step == UInt64(record.step),
                ready.effectDigest == record.digest
            else {
                return fail("S5", "\(name) did not say READY for step \(record.step)")
            }
            if ready.term != process.term
                || ready.generation != process.machine.currentGeneration
            {
                fail("S5", "READY of \(name) for step \(record.step) is of another membership")
            }
        }
    }

    /// S1 and S2, once a step is written.
    func checkRow(_ record: StepRecord) {
        if ledger.steps.count != record.step {
            fail("S1", "step \(record.step) is row \(ledger.steps.count)")
        } else if record.digest != reference.effects[record.step] {
            fail("S2", "step \(record.step) has another digest than the undisturbed run's")
        } else if record.history != reference.histories[record.step] {
            fail("S2", "step \(record.step) has another history than the undisturbed run's")
        }
    }

    /// S4: nobody applies what is not committed, or something else.
    func checkApplied(_ worker: WorkerProcess, step: Int) {
        if step > ledger.steps.count {
            fail("S4", "\(worker.name) applied step \(step), which is not committed")
        }
        if !worker.trainer!.isMisled { checkState(worker, step: step) }
    }

    func checkState(_ worker: WorkerProcess, step: Int) {
        if worker.trainer!.state != reference.states[step] {
            fail("S4", "\(worker.name) holds another state at step \(step)")
        }
    }

    /// S6: every slot of the step in flight has a result or somebody who computes it.
    func checkLeases(_ process: CoordinatorProcess) {
        guard process.isAlive else { return }
        // Those of members that are no more are seen when the members have changed.
        let seen = (
            process.index, process.machine.flightCount, process.machine.memberCount,
            process.machine.currentGeneration
        )
        guard process.machine.orphanCount > 0 || seen != membershipSeen else { return }
        membershipSeen = seen
        let orphans = process.machine.orphanedSlots
        if !orphans.isEmpty { fail("S6", "nobody computes slots \(orphans)") }
    }

    /// S11: only who is wrong is called so.
    func checkBlame(_ text: String) {
        let name = String(text.prefix { $0 != " " })
        guard flippedTrainers.contains(name) else {
            return fail("S11", "\(name) is blamed for nothing: \(text)")
        }
        for flip in auditedFlips
        where flip.trainer == name
            && [" ", ":"].contains(where: { text.contains("step \(flip.step)\($0)") })
        {
            namedFlips.insert(flip)
        }
    }

    /// A trainer that has found a flip in a slot of its own says so when it leaves.
    func noteDamage(_ text: String) {
        for flip in auditedFlips
        where text.hasPrefix("trainer \(flip.trainer) left: ")
            && text.hasSuffix(Self.damage(step: flip.step))
        {
            namedFlips.insert(flip)
        }
    }

    static func damage(step: Int) -> String { " of step \(step) changed in memory" }

    /// S7: rows only of what is durable, and equal to what a lone evaluator finds.
    func checkEvaluation(_ rows: WireEvaluationRows) {
        let step = Int(clamping: rows.step)
        guard let digest = ledger.checkpoints[step], digest == rows.checkpointDigest else {
            return fail("S7", "\(rows.set) of step \(step) was scored, which is not in the ledger")
        }
        let expected = Double(
            ReferenceRun.mix(reference.states[step], UInt64(rows.set.utf8.count)) >> 12)
        if rows.metrics.map(\.value) != [expected] {
            fail("S7", "\(rows.set) of step \(step) has another score")
        }
    }

    /// S8: what the ledger names can be read.
    func checkCheckpoint(_ file: SimulatedDisk.File) {
        let name = SimulatedDisk.name(file.step, recovery: false)
        if disk.files[name]?.isWhole != true {
            fail("S8", "the checkpoint of step \(file.step) is listed and cannot be read")
        }
        if file.state != reference.states[file.step] {
            fail("S8", "the checkpoint of step \(file.step) holds another state")
        }
        if file.step > ledger.steps.count {
            fail("S8", "the checkpoint of step \(file.step) is newer than the ledger")
        }
    }

    /// S8: what is deleted is not the newest that can be read, and is scored unless too many wait.
    func checkDeletion(_ checkpoint: DurableCheckpoint) {
        let newer = disk.files.values.filter {
            !$0.isRecovery && $0.isWhole && $0.step > checkpoint.step
        }
        if newer.isEmpty {
            return fail("S8", "the newest checkpoint, of step \(checkpoint.step), is deleted")
        }
        let isScored = { [ledger] in ledger.isScored(step: $0, sets: Self.evaluationSets) }
        let waiting = newer.count { !isScored($0.step) }
        if !isScored(checkpoint.step), waiting < configuration.retention.unscored {
            fail(
                "S8",
                "the checkpoint of step \(checkpoint.step) is deleted before it is scored, and "
                    + "\(waiting) newer ones wait")
        }
    }

    /// S9: memory stays within what is documented.
    func checkMemory(of worker: WorkerProcess) {
        guard worker.isAlive, let trainer = worker.trainer else { return }
        if trainer.machine.waitingCount > 2 * (TrainerStateMachine.backlogMax + 1) {
            fail("S9", "\(worker.name) keeps \(trainer.machine.waitingCount) messages")
        }
        if trainer.parked.count > parkedMax {
            fail("S9", "\(worker.name) keeps \(trainer.parked.count) packets for later")
        }
        if trainer.copies.count > 4 || trainer.kept.count > 1 {
            fail(
                "S9",
                "\(worker.name) keeps \(trainer.copies.count) copies of its state and "
                    + "\(trainer.kept.count) for joiners")
        }
    }

    /// Longer than a worker of which nothing is heard is kept, and any halt of a coordinator.
    private static let forgottenAfter = 180 * second

    /// S9: nothing is kept of those that are long gone, nor more checkpoints than retention leaves.
    func checkMemory(of process: CoordinatorProcess) {
        guard process.isAlive else { return }
        for worker in workers
        where !worker.isAlive && now - worker.diedAt > Self.forgottenAfter
            && process.machine.knows(worker.name)
        {
            fail("S9", "coordinator \(process.index) has not forgotten \(worker.name)")
        }
    }

    /// S10: garbage of a worker that is known changes neither membership nor the step in flight.
    func garbageArrives(_ body: WireBody, from name: String, at process: CoordinatorProcess) {
        let machine = process.machine
        let actions = process.machine.received(body, from: name, now: time(of: process))
        if process.machine.members != machine.members
            || process.machine.workerCount != machine.workerCount
            || process.machine.currentGeneration != machine.currentGeneration
            || process.machine.flightFacts != machine.flightFacts
        {
            fail("S10", "garbage of \(name) changed the cluster: \(body)")
        }
        for action in actions {
            switch action {
            case .event: break
            case .send(_, let to): if to != name { fail("S10", "garbage was answered to \(to)") }
            default: fail("S10", "garbage of \(name) caused \(action)")
            }
        }
        perform(actions, by: process)
    }

    /// S10: what is kept for the step in hand is part of it.
    func checkKept(_ block: Int, _ run: SlotRun?, from name: String, at worker: WorkerProcess) {
        if !(0..<configuration.blocks).contains(block) || (run?.high ?? 0) > configuration.slots {
            fail("S10", "\(worker.name) keeps block \(block) of \(name), which does not exist")
        }
    }

    /// S10: what a stranger says changes nothing.
    func strangerSpeaks(_ body: WireBody, _ name: String, to process: CoordinatorProcess) {
        let members = process.machine.members
        let generation = process.machine.currentGeneration
        let count = process.machine.workerCount
        let actions = process.machine.received(body, from: name, now: time(of: process))
        if process.machine.members != members || process.machine.workerCount != count
            || process.machine.currentGeneration != generation
        {
            fail("S10", "a stranger changed the membership with \(body)")
        }
        for action in actions {
            switch action {
            case .event, .forget: break
            case .send(.stop, let to), .send(.refusal, let to):
                if to != name { fail("S10", "a stranger made the coordinator speak to \(to)") }
            default: fail("S10", "a stranger caused \(action)")
            }
        }
    }

    /// L1 to L3, once everything is healed.
    func checkLiveness() {
        guard isHealed, violation == nil else { return }
        let since = max(healedAt, progressAt)
        if now - since > 90 * Self.second, ledger.steps.count < configuration.steps {
            fail(
                "L1",
                "no step was committed for 90 s after everything was healed; \(situation)")
        } else if now - since > 240 * Self.second {
            fail("L1", "the run does not end; \(situation)")
        }
        for worker in workers where worker.isAlive && worker.haltedUntil <= now {
            if let asked = worker.drainedAt, now - max(asked, healedAt) > 60 * Self.second {
                fail("L3", "\(worker.name) asked to leave and was not let go; \(situation)")
            }
            let age = now - max(worker.bornAt, healedAt)
            guard let trainer = worker.trainer, age > 60 * Self.second else { continue }
            if ["greeting", "preparing", "loading"].contains(trainer.machine.phaseName) {
                fail("L2", "\(worker.name) is still \(trainer.machine.phaseName); \(situation)")
            }
        }
    }

    /// At the end every step is there once, and what is due is stored.
    func checkEnd() {
        if ledger.steps.map(\.step) != Array(1...configuration.steps) {
            fail("S1", "the ledger ends with \(ledger.steps.count) steps")
        }
        var due = stride(from: 0, through: configuration.steps, by: configuration.checkpointEvery)
            .map { $0 }
        if due.last != configuration.steps { due.append(configuration.steps) }
        for step in due where ledger.checkpoints[step] != reference.states[step] {
            fail("S8", "the checkpoint of step \(step) is missing or differs")
        }
        if disk.files[SimulatedDisk.name(configuration.steps, recovery: false)]?.isWhole != true {
            fail("S8", "the last checkpoint is not on the disk")
        }
    }

    /// Who waits for what, for a run that does not come forward.
    var situation: String {
        let cluster = coordinator.map { process -> String in
            let status = process.machine.status(now: .zero)
            return "\(status.state) at step \(status.step), members \(process.machine.members)"
        }
        let told = trainersAlive.prefix(8).map { worker in
            "\(worker.name) \(worker.trainer!.machine.phaseName) at \(worker.trainer!.machine.step)"
        }
        return "\(cluster ?? "no coordinator"); \(told.joined(separator: ", ")); ledger at "
            + "\(ledger.steps.count)"
    }
}

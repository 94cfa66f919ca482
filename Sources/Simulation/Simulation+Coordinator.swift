internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// What a coordinator's shell does: ledger, checkpoint folder, sockets.
extension Simulation {
    func perform(_ actions: [CoordinatorAction], by process: CoordinatorProcess) {
        for action in actions where process.isAlive && !isOver { perform(action, by: process) }
        checkLeases(process)
    }

    private func perform(_ action: CoordinatorAction, by process: CoordinatorProcess) {
        switch action {
        case .send(let body, let name):
            if case .plan(let plan) = body { checkPlan(plan, process) }
            if let worker = names[name] { sendDown(body, to: worker, from: process) }
        case .commit(let record):
            push(.ledgerWrite(process.index, record), after: draw(100, 1500))
        case .supersede(let step): fail("S2", "rows from step \(step) on are superseded")
        case .compareRedone(let record):
            push(.compared(process.index, record), after: draw(50, 500))
        case .workerJoined(let hello):
            guard isWritable(process) else { return }
            if hello.role == .trainer { ledger.joined(hello.worker) }
        case .workerPrepared: break
        case .workerLeft(let name, let why):
            guard isWritable(process) else { return }
            ledger.left(name, why: why)
            guard why == CoordinatorStateMachine.quarantineReason else { return }
            quarantined.insert(name)
            // The moment at which a coordinator's memory matters.
            if !isHealed, configuration.faults.contains(.coordinatorCrash), chance(50) {
                killCoordinator(process)
            }
        case .recordNumerics(let text, let role):
            guard isWritable(process) else { return }
            if role == .trainer {
                ledger.numericsClass = text
            } else {
                ledger.evaluationClass = text
            }
        case .verifyCheckpoint(let checkpoint):
            let isWhole = disk.files[checkpoint.file]?.isWhole ?? false
            perform(
                process.machine.checkpointVerified(
                    checkpoint, isWhole: isWhole, now: time(of: process)), by: process)
        case .deleteCheckpoint(let checkpoint):
            guard process.term == ledger.term else {
                return perform(process.machine.ledgerRefused(), by: process)
            }
            checkDeletion(checkpoint)
            // The file stays too, and the next start lists it again.
            guard !disk.isFullForLedger else { return }
            push(
                .checkpointVanishes(process.index, file: checkpoint.file), after: draw(10, 2000))
        case .dropRecoverySnapshots(let step): disk.dropRecoverySnapshots(before: step)
        case .readTerm(let name):
            perform(
                process.machine.termRead(ledger.term, for: name, now: time(of: process)),
                by: process)
        case .forget: break
        case .event(let kind, _, let text):
            note("coordinator \(process.index): \(kind): \(text)")
            if ["suspected", "quarantined"].contains(kind) { checkBlame(text) }
            if kind == "worker_left" { noteDamage(text) }
        case .recordEvaluation(let rows, let worker):
            recordEvaluation(rows, from: worker, by: process)
        case .finish(let outcome): finish(outcome, process)
        }
    }

    private func finish(_ outcome: CoordinatorOutcome, _ process: CoordinatorProcess) {
        note("coordinator \(process.index) ends: \(outcome)")
        // The shell sends what is queued before it ends.
        retire(process)
        switch outcome {
        case .finished:
            isOver = true
            checkEnd()
        case .drained, .disagreed, .superseded: restartAfterEnd()
        case .failed(let why):
            let isUnreadable = why.contains(Self.dataIsBad) && nobodyCanRead(why, process)
            guard isUnreadable || why.contains(Self.diskIsFull) else {
                return fail("L1", "the run failed: \(why)")
            }
            restartAfterEnd()
        }
    }

    private static let diskIsFull = "the disk is full"

    /// Whether every member has handed back a slot of the step in flight.
    private func nobodyCanRead(_ why: String, _ process: CoordinatorProcess) -> Bool {
        process.machine.members.allSatisfy { name in
            names[name].map { why.contains("step \(workers[$0].trainer!.returnedStep),") } ?? true
        }
    }

    /// Whoever looks after the cluster starts it again, with the workers that were told to stop.
    private func restartAfterEnd() {
        guard coordinator == nil else { return }
        restartCoordinator()
        for _ in 0..<configuration.trainers { push(.spawn, after: draw(1, 4) * Self.second) }
        if configuration.evaluators > 0 { push(.spawnEvaluator, after: Self.second) }
    }

    func handleStorage(_ event: Event, at process: CoordinatorProcess) {
        switch event {
        case .ledgerWrite(_, let record): write(record, process)
        case .ledgerWritten(_, let record):
            perform(
                process.machine.stepCommitted(record, now: time(of: process)), by: process)
        case .compared(_, let record):
            stepsRedone += 1
            guard process.term == ledger.term else {
                return perform(process.machine.ledgerRefused(), by: process)
            }
            if isLoneFlip(record, process) { return }
            let matches = ledger.steps[record.step - 1].digest == record.digest
            if !matches {
                fail("S2", "step \(record.step), done again, has another digest")
            }
            checkMembers(record, process)
            perform(
                process.machine.stepCompared(
                    record, matches: matches, now: time(of: process)), by: process)
        case .bulk(_, let from, let file, let piece): take(file, piece, from: from, process)
        case .checkpointAppears(_, let file): store(file, process)
        case .checkpointListed(_, let file): list(file, process)
        case .checkpointVanishes(_, let file): disk.vanish(file)
        default: break
        }
    }

    private func write(_ record: StepRecord, _ process: CoordinatorProcess) {
        if isLoneFlip(record, process) { return }
        checkCommit(record, process)
        guard isWritable(process) else { return }
        guard ledger.commit(record, term: process.term) else {
            return perform(process.machine.ledgerRefused(), by: process)
        }
        checkRow(record)
        progressAt = now
        if killsAtCommit {
            killsAtCommit = false
            for trainer in trainersAlive {
                kill(trainer)
                push(.spawn, after: draw(100, 2000) * Self.millisecond)
            }
        }
        push(.ledgerWritten(process.index, record), after: draw(10, 300))
        if !isHealed, ledger.steps.count * 10 >= configuration.steps * 8 { healAll() }
    }

    /// Whether there is room for the ledger; where there is none the coordinator ends.
    private func isWritable(_ process: CoordinatorProcess) -> Bool {
        // The ledger takes nothing from a coordinator of an older term.
        guard process.term == ledger.term else {
            perform(process.machine.ledgerRefused(), by: process)
            return false
        }
        guard disk.isFullForLedger else { return true }
        let actions = process.machine.ledgerFailed(Self.diskIsFull)
        if !actions.isEmpty { occurrences[.ledgerFailed, default: 0] += 1 }
        perform(actions, by: process)
        return false
    }

    /// Whether a bit flipped at a member that is the only one left, or the only one that has not handed
    /// slots back: nobody can know, and this run has nothing more to say.
    private func isLoneFlip(_ record: StepRecord, _ process: CoordinatorProcess) -> Bool {
        guard flippedSteps.contains(record.step),
            record.digest != reference.effects[record.step]
        else { return false }
        let comparing = process.machine.members.count { name in
            names[name].map { workers[$0].trainer!.returnedStep } != record.step
        }
        guard comparing <= 1 else { return false }
        note("a bit that flipped at the last member cannot be noticed: the run is left")
        isOver = true
        return true
    }

    // MARK: Checkpoints

    private func take(
        _ file: SimulatedDisk.File, _ piece: Int, from: Int, _ process: CoordinatorProcess
    ) {
        let name = SimulatedDisk.name(file.step, recovery: file.isRecovery)
        process.machine.checkpointPieceReceived(step: file.step, now: time(of: process))
        if piece == 0 { process.incoming[name] = 0 }
        guard process.incoming[name] == piece else { return }
        process.incoming[name] = piece + 1
        if tearsNext { return tear(process) }
        guard piece + 1 == Self.pieceCount else { return }
        process.incoming[name] = nil
        workers[from].trainer?.sending.remove(file.step)
        guard !disk.isFull else {
            perform(
                process.machine.checkpointWriteFailed(
                    step: file.step, reason: Self.diskIsFull, now: time(of: process)),
                by: process)
            return
        }
        #if PLANTED_BUGS
            if Planted.has(.checkpointRowBeforeRename) { return list(file, process) }
        #endif
        push(.checkpointAppears(process.index, file), after: draw(200, 5000))
    }

    private func list(_ file: SimulatedDisk.File, _ process: CoordinatorProcess) {
        if !file.isRecovery {
            // Meanwhile another coordinator may have stored, and deleted, the same.
            guard process.term == ledger.term else {
                return perform(process.machine.ledgerRefused(), by: process)
            }
            checkCheckpoint(file)
            guard !disk.isFullForLedger else {
                return perform(
                    process.machine.checkpointWriteFailed(
                        step: file.step, reason: Self.diskIsFull, now: time(of: process)),
                    by: process)
            }
            ledger.insertCheckpoint(step: file.step, digest: file.state)
        }
        let stored = DurableCheckpoint(
            step: file.step, history: file.history,
            file: SimulatedDisk.name(file.step, recovery: file.isRecovery), byteCount: 1,
            digest: file.state, isRecovery: file.isRecovery)
        perform(process.machine.checkpointStored(stored, now: time(of: process)), by: process)
    }

    /// A file gets its name once members have said that they hold what it holds.
    private func store(_ file: SimulatedDisk.File, _ process: CoordinatorProcess) {
        let awaited = process.machine.awaitedCheckpoint
        // Nobody may wait for it any more.
        guard let awaited, awaited.step == file.step, awaited.isRecovery == file.isRecovery else {
            return
        }
        switch awaited.state {
        case .open, .split:
            push(.checkpointAppears(process.index, file), after: 20 * Self.millisecond)
        case .any, .agreed(file.state):
            disk.appear(file)
            push(.checkpointListed(process.index, file), after: draw(50, 1000))
        case .agreed, .unknown:
            if file.state == reference.states[file.step] {
                fail("S8", "the checkpoint of step \(file.step) is refused for nothing")
            }
            copiesRefused += 1
            perform(
                process.machine.checkpointRefused(
                    step: file.step, reason: "members hold another state",
                    now: time(of: process)), by: process)
        }
    }

    // MARK: Evaluations

    private func recordEvaluation(
        _ rows: WireEvaluationRows, from worker: String, by process: CoordinatorProcess
    ) {
        checkEvaluation(rows)
        guard isWritable(process) else { return }
        if process.term == ledger.term {
            let value = rows.metrics.first.map { $0.value.bitPattern } ?? 0
            if !ledger.insertEvaluation(step: Int(rows.step), set: rows.set, value: value) {
                fail("S7", "\(rows.set) of step \(rows.step) was scored twice, differently")
            }
        }
        perform(
            process.machine.evaluationRecorded(rows, from: worker, now: time(of: process)),
            by: process)
    }
}

internal import Basics
internal import Protocol

/// Checkpoints and recovery snapshots: who copies the state aside, who sends it.
extension CoordinatorStateMachine {
    func isCheckpointStep(_ step: Int) -> Bool {
        if step == 0 || step == lastStep { return true }
        return configuration.checkpointEverySteps > 0
            && step % configuration.checkpointEverySteps == 0
    }

    func isStored(_ step: Int) -> Bool {
        durable.contains { $0.step == step && !$0.isRecovery }
    }

    /// A checkpoint or snapshot is durable, and in the ledger where it is listed.
    public mutating func checkpointStored(
        _ checkpoint: DurableCheckpoint, now: Duration
    ) -> [CoordinatorAction] {
        if let known = durable.first(where: {
            $0.step == checkpoint.step && $0.isRecovery == checkpoint.isRecovery
        }) {
            // Sent twice, by two holders: they must be the same where they compute the same.
            guard known.digest == checkpoint.digest || !configuration.isBitwise else {
                return end(
                    .failed(
                        "the checkpoint of step \(checkpoint.step) came twice, with states "
                            + "\(known.digest.hex) and \(checkpoint.digest.hex); run 'lineup "
                            + "doctor' on the trainers' machines, then resume"))
            }
        } else {
            durable.append(checkpoint)
            durable.sort { ($0.step, $0.isRecovery ? 0 : 1) < ($1.step, $1.isRecovery ? 0 : 1) }
        }
        if !checkpoint.isRecovery { deletedDigests[checkpoint.step] = nil }
        isRetentionDue = true
        var actions: [CoordinatorAction] = []
        if !checkpoint.isRecovery {
            queue.checkpointStored(step: checkpoint.step)
            actions += offerWork(now: now)
        }
        if durable.contains(where: { $0.isRecovery && $0.step < checkpoint.step }) {
            durable.removeAll { $0.isRecovery && $0.step < checkpoint.step }
            actions.append(.dropRecoverySnapshots(before: checkpoint.step))
        }
        lastStoredAt = now
        guard let pending, pending.step == checkpoint.step else { return actions }
        self.pending = nil
        var release = WireReleaseCheckpoint()
        release.step = UInt64(checkpoint.step)
        for holder in [pending.sender, pending.backup] where workers[holder] != nil {
            actions.append(.send(.releaseCheckpoint(release), to: holder))
        }
        switch phase {
        case .holding: return actions + boundary(now: now)
        case .finishing: return actions + finishIfDone(now: now)
        default: return actions
        }
    }

    /// A checkpoint that a worker could not load was read again.
    public mutating func checkpointVerified(
        _ checkpoint: DurableCheckpoint, isWhole: Bool, now: Duration
    ) -> [CoordinatorAction] {
        if doubted == checkpoint.file { doubted = nil }
        var actions: [CoordinatorAction] = []
        if !isWhole {
            durable.removeAll { $0.file == checkpoint.file }
            actions.append(
                .event(
                    kind: "checkpoint_skipped", severity: .warning,
                    text: "checkpoint \(checkpoint.file) is damaged and not used"))
        }
        guard case .gathering = phase else { return actions }
        return actions + boundary(now: now)
    }

    /// The checkpoint that somebody was asked to send, and who may.
    public var awaitedCheckpoint: AwaitedCheckpoint? {
        pending.map {
            AwaitedCheckpoint(
                step: $0.step, isRecovery: $0.isRecovery,
                senders: [$0.sender, $0.backup].filter { !$0.isEmpty },
                state: heldState(after: $0.step))
        }
    }

    /// A piece of a checkpoint has come from its sender.
    public mutating func checkpointPieceReceived(step: Int, now: Duration) {
        if pending?.step == step { pending!.movedAt = now }
    }

    /// A checkpoint could not be written: the run ends before anything is lost.
    public mutating func checkpointWriteFailed(
        step: Int, reason: String, now: Duration
    ) -> [CoordinatorAction] {
        end(.failed("checkpoint of step \(step): \(reason)"))
    }

    func newCheckpoint(recovery: Bool, now: Duration) -> PendingCheckpoint {
        let holders = holders
        return PendingCheckpoint(
            step: cursor, isRecovery: recovery, sender: holders[0],
            backup: holders.count > 1 ? holders[1] : "", movedAt: now)
    }

    /// Asks for a checkpoint of the members' state without a next step.
    mutating func askForCheckpoint(recovery: Bool, now: Duration) -> [CoordinatorAction] {
        let asked = newCheckpoint(recovery: recovery, now: now)
        pending = asked
        askForStates(of: cursor)
        return [request(asked)] + requestStates(of: cursor)
    }

    func request(_ checkpoint: PendingCheckpoint) -> CoordinatorAction {
        var message = WireSendCheckpoint()
        message.step = UInt64(checkpoint.step)
        message.recovery = checkpoint.isRecovery
        return .send(.sendCheckpoint(message), to: checkpoint.sender)
    }

    /// A checkpoint of an earlier step that workers still keep aside.
    mutating func takeUp(
        checkpoint step: Int, sender: String, backup: String, now: Duration
    ) -> [CoordinatorAction] {
        let taken = PendingCheckpoint(
            step: step, isRecovery: false, sender: sender, backup: backup,
            movedAt: now)
        pending = taken
        return [request(taken)]
    }

    /// Nothing of a checkpoint comes: its sender has not heard, or its connection broke.
    mutating func askAgainForCheckpoint(now: Duration) -> [CoordinatorAction] {
        guard let pending, now - pending.movedAt > configuration.silenceMax else { return [] }
        switch phase {
        case .stepping, .holding, .finishing: break
        default: return []
        }
        self.pending!.movedAt = now
        return [request(pending)] + requestStates(of: pending.step)
    }

    mutating func holderGone(_ id: String, now: Duration) -> [CoordinatorAction] {
        guard var pending else { return [] }
        if pending.backup == id {
            pending.backup = ""
            self.pending = pending
            return []
        }
        // The sender is gone. A second holder has the copy; and every member still has the state
        // itself until it hears of the next commit.
        let isAtStep = pending.step == cursor
        let heir =
            !pending.backup.isEmpty ? pending.backup : (isAtStep ? holders.first ?? "" : "")
        guard !heir.isEmpty else {
            // A snapshot is for bad days alone; the next one comes soon.
            guard pending.isRecovery && ending == nil else { return rollBack(now: now) }
            self.pending = nil
            return []
        }
        pending.sender = heir
        pending.backup = ""
        pending.movedAt = now
        self.pending = pending
        return [request(pending)]
    }

    mutating func senderFailed(
        step: Int, reason: String, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard let pending, pending.step == step, pending.sender == worker else { return [] }
        let event = CoordinatorAction.event(
            kind: "checkpoint_lost", severity: .warning,
            text: "\(worker) could not send the state of step \(step): \(reason)")
        if pending.isRecovery && ending == nil {
            // A snapshot is for bad days alone; the next one comes soon.
            self.pending = nil
            lastStoredAt = now
            if case .holding = phase { return [event] + boundary(now: now) }
            return [event]
        }
        streamFailures[step, default: 0] += 1
        guard streamFailures[step]! < 3 else {
            return [event]
                + end(.failed("the checkpoint of step \(step) cannot be sent: \(reason)"))
        }
        return [event] + holderGone(worker, now: now)
    }
}

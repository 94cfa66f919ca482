internal import Basics
internal import Protocol

/// Members say what their whole states digest to, where a copy of one is to be relied on: a checkpoint
/// that is to be stored, a state that a joiner got.
extension CoordinatorStateMachine {
    /// Every member is asked for its state after a step: that of this boundary, or an earlier one of
    /// which it may know the digest still, as do those that keep copies of it.
    mutating func askForStates(of step: Int, keepers: [String] = []) {
        guard configuration.isBitwise, stateVotes[step] == nil, !roster.isEmpty else { return }
        stateVotes = stateVotes.filter { $0.key == pending?.step || $0.key == join?.step }
        stateVotes[step] = StateVote(of: roster.all + keepers)
    }

    /// Asks those again that have not said what their state of a step is.
    func requestStates(of step: Int) -> [CoordinatorAction] {
        var message = WireSendCheckpoint()
        message.step = UInt64(step)
        message.digestOnly = true
        let unheard = stateVotes[step]?.awaited.all.filter(roster.contains) ?? []
        return unheard.map { .send(.sendCheckpoint(message), to: $0) }
    }

    /// What a worker says of its states.
    mutating func statesHeard(_ message: WireProgress, from id: String) {
        guard !stateVotes.isEmpty, message.active else { return }
        for step in stateVotes.keys {
            let held = message.states.prefix(MessageLimits.listMax).first {
                $0.step == UInt64(step)
            }
            if let held {
                // 0 while it is taken.
                if held.digest != 0 { stateVotes[step]!.hear(held.digest, from: id) }
            } else if message.step > UInt64(step) {
                stateVotes[step]!.giveUp(on: id)
            }
        }
    }

    /// Who holds another state than most is not used any more; without a majority the run stops.
    mutating func settleStates(now: Duration) -> [CoordinatorAction] {
        for step in stateVotes.keys.sorted() {
            switch heldState(after: step) {
            case .agreed(let digest):
                let wrong = stateVotes[step]!.others(than: digest)
                guard let id = wrong.first(where: { workers[$0] != nil }) else { continue }
                return quarantine(id, why: words(after: step), now: now)
            case .split:
                return end(
                    .disagreed(
                        words(after: step) + "; no checkpoint of it is listed: run 'lineup doctor' "
                            + "on these machines, then resume"))
            case .open, .unknown, .any: continue
            }
        }
        return []
    }

    private func words(after step: Int) -> String {
        let told = stateVotes[step]!.digests.sorted { $0.key < $1.key }.prefix(4)
        return "members hold different states after step \(step) ("
            + told.map { "\($0.key): \($0.value.hex)" }.joined(separator: ", ") + ")"
    }

    /// What a copy of the state after a step has to be.
    func heldState(after step: Int) -> StateVerdict {
        guard configuration.isBitwise else { return .any }
        return stateVotes[step]?.verdict { roster.contains($0) || $0 == pending?.sender }
            ?? .unknown
    }

    /// Why the state that a peer gave a worker is not the members'; empty where it is, nil while that is
    /// not known.
    func objection(to message: WireStateLoaded, of worker: String) -> String? {
        let load = workers[worker]!.load
        guard load.source == .peer else { return "" }
        switch heldState(after: Int(clamping: load.step)) {
        case .any, .agreed(message.digest): return ""
        case .agreed(let digest):
            return "\(load.peer) gave state \(message.digest.hex), the members' is \(digest.hex)"
        case .unknown: return "no member knows any more what that state was"
        case .open, .split: return nil
        }
    }

    // MARK: Copies that are refused

    /// Members, those first whose copies were refused least often.
    var holders: [String] {
        guard !refusedCopies.isEmpty else { return roster.all }
        let order = roster.all.enumerated().map {
            (refusals: refusedCopies[$1] ?? 0, place: $0, id: $1)
        }
        return order.sorted { ($0.refusals, $0.place) < ($1.refusals, $1.place) }.map(\.id)
    }

    /// What came for a checkpoint is not the state that members hold, or cannot be read: another
    /// holder sends it, however often that happens.
    public mutating func checkpointRefused(
        step: Int, reason: String, now: Duration
    ) -> [CoordinatorAction] {
        guard let sender = pending?.sender, pending?.step == step else { return [] }
        refusedCopies[sender, default: 0] += 1
        var actions: [CoordinatorAction] = [
            .event(
                kind: "checkpoint_refused", severity: .error,
                text: "what \(sender) sent is not stored: \(reason)")
        ]
        var release = WireReleaseCheckpoint()
        release.step = UInt64(step)
        if workers[sender] != nil { actions.append(.send(.releaseCheckpoint(release), to: sender)) }
        return actions + holderGone(sender, now: now)
    }
}

internal import Basics
internal import Protocol

/// Numerics classes: whose numbers have to be the same bits, and what follows where not everybody's
/// have to.
///
/// A `bitwise` run has one class. In a `statistical` one each slot counts as the first worker computed
/// it, whoever else computes it too; only what workers of one class did from the same numbers is
/// compared.
extension CoordinatorStateMachine {
    /// The numerics class of a worker that is here and has said it.
    public func numericsClass(of worker: String) -> String? {
        workers[worker].flatMap { $0.numericsClass.isEmpty ? nil : $0.numericsClass }
    }

    /// Notes the class of a worker; that of a role's first is the run's.
    ///
    /// - Returns: what is to be done, and why the worker is refused; nil where it is not.
    mutating func noteClass(_ told: String, of id: String) -> ([CoordinatorAction], String?) {
        let role = workers[id]!.hello.role
        workers[id]!.numericsClass = told
        var actions = [CoordinatorAction.workerPrepared(id, numericsClass: told)]
        #if PLANTED_BUGS
            if Planted.has(.numericsNotCompared), !numericsClass.isEmpty, firstStep > 0 {
                return (actions, nil)
            }
        #endif
        let known = role == .trainer ? numericsClass : evaluationClass
        if known == told { return (actions, nil) }
        if NumericsDescription(told).covers(NumericsDescription(known)) {
            // The first, or the first by a Lineup that says more of the same machine.
            if role == .trainer { numericsClass = told } else { evaluationClass = told }
            actions.append(.recordNumerics(told, of: role))
            return (actions, nil)
        }
        let text =
            "\(role.word) \(id) computes with \(NumericsDescription(told).without(known)), the run "
            + "with \(NumericsDescription(known).without(told)): their bits differ"
        guard !configuration.isBitwise else {
            return (
                actions,
                text
                    + "; use the same software and device kind, or numerics.mode=statistical, or go on "
                    + "with 'lineup resume RUN --accept-numerics' where every machine has changed"
            )
        }
        return (actions + [.event(kind: "numerics", severity: .warning, text: text)], nil)
    }

    /// Whose slots have to be equal.
    func slotGroup(of id: String) -> String {
        configuration.isBitwise ? "" : workers[id]?.numericsClass ?? ""
    }

    /// Whose states have to be equal: those of one class that applied the same steps to the same state.
    private func stateGroup(of id: String) -> String {
        guard !configuration.isBitwise, let worker = workers[id] else { return "" }
        return worker.numericsClass + " " + worker.lineage
    }

    /// Whether members of several classes may have computed the same slots: then a sum depends on whose
    /// was first, and two sums differ with nobody wrong.
    var isMixed: Bool {
        guard !configuration.isBitwise, let first = roster.all.first else { return false }
        let group = slotGroup(of: first)
        return (roster.all + followers.all).contains { slotGroup(of: $0) != group }
    }

    /// Whether a block's owner stays the same within a fold: what another owner sums may be other bits,
    /// or not what was audited.
    var isOwnerFixed: Bool { configuration.audit.isOn || !configuration.isBitwise }

    /// Members whose states should be equal and are not; empty where all are as they should be.
    func membersInOtherStates(among members: [String]) -> [String] {
        var told: [String: UInt64] = [:]
        for id in members {
            let (group, digest) = (stateGroup(of: id), flight!.ready[id]!.stateDigest)
            guard told[group] ?? digest == digest else {
                return members.filter { stateGroup(of: $0) == group }
            }
            told[group] = digest
        }
        return []
    }

    /// From where a worker's state comes that it is told to load from a donor, or from a file.
    func lineage(of id: String, from donor: String) -> String {
        guard let giver = workers[donor] else { return "step \(cursor)" }
        // Another class has computed it until now, and this one goes on with it.
        return giver.numericsClass == workers[id]!.numericsClass ? giver.lineage : "load \(loads)"
    }

    /// A step that is done again came out differently, by other arithmetic: what the ledger holds from
    /// there on is superseded, and the run goes on from here.
    mutating func supersede(from record: StepRecord) -> [CoordinatorAction] {
        let (step, last) = (record.step, tip.step)
        supersededStep = max(supersededStep, last)
        tip = Tip(
            step: step - 1, history: history, digest: lastCommit?.digest ?? 0, previousHistory: 0)
        // A sender that was slow may have brought one of the steps that are done again.
        let old = durable.filter { $0.step >= step }
        durable.removeAll { $0.step >= step }
        queue.superseded(from: step)
        rankingValues = rankingValues.filter { $0.key < step }
        deletedDigests = deletedDigests.filter { $0.key < step }
        // What was mined from a state that is superseded is mined anew.
        minedRounds.removeAll { $0 >= step }
        if let round = askedRound, round >= step { askedRound = nil }
        scores.removeAll { $0.step >= UInt64(step) }
        let text =
            "step \(step), done again after a loss of state, has digest \(record.digest.hex), "
            + "another one than the ledger's: rows of steps \(step) to \(last) are superseded"
        return [
            .event(kind: "steps_superseded", severity: .warning, text: text),
            .supersede(from: step), .commit(record),
        ] + old.filter { !$0.isRecovery }.map { .deleteCheckpoint($0) }
    }
}

internal import Basics
internal import Protocol

/// Audits: slots and folds that two workers compute, and who is wrong when they differ.
extension CoordinatorStateMachine {
    /// Gives every audited slot a second member; one that nobody else can compute goes unaudited.
    mutating func leaseAudits(now: Duration) {
        guard roster.count > 1, !flight!.audited.isEmpty else { return }
        var load: [String: Int] = [:]
        for lease in flight!.leases.joined() { load[lease.worker, default: 0] += 1 }
        for slot in flight!.audited.sorted() {
            let asked = Set(flight!.claims[slot].map(\.worker))
                .union(flight!.leases[slot].map(\.worker))
            guard asked.count < 2 else { continue }
            let group =
                flight!.result(of: slot)?.group
                ?? flight!.leases[slot].first.map { slotGroup(of: $0.worker) }
            let able = roster.all.filter {
                !asked.contains($0) && flight!.returned[slot][$0] == nil
                    && slotGroup(of: $0) == group
            }
            guard let auditor = able.min(by: { (load[$0] ?? 0, $0) < (load[$1] ?? 0, $1) })
            else { continue }
            load[auditor, default: 0] += 1
            flight!.lease(slot, to: auditor, now: now)
        }
    }

    /// Compares audited folds, once everybody has folded the same slots.
    ///
    /// - Returns: nil where the step can go on to its commit.
    mutating func compareFolds(now: Duration) -> [CoordinatorAction]? {
        if isMixed { return nil }
        var dispute: (auditor: String, check: WireFoldCheck)?
        let members = roster.all
        for auditor in members {
            for check in flight!.ready[auditor]?.checks ?? [] {
                // Of blocks that it had to audit, and of those who had to fold them.
                let place = Int(check.block) + flight!.fold
                guard configuration.audit.covers(block: Int(check.block), step: flight!.step),
                    check.owner == members[place % members.count],
                    auditor == members[(place + 1) % members.count]
                else { continue }
                let told = [
                    StepInFlight.FoldClaim(worker: check.owner, digest: check.folded),
                    StepInFlight.FoldClaim(worker: auditor, digest: check.audited),
                ]
                var known = flight!.foldClaims[Int(check.block)] ?? []
                known += told.filter { !known.contains($0) }
                flight!.foldClaims[Int(check.block)] = known
                if check.folded != check.audited { dispute = (auditor, check) }
            }
        }
        #if PLANTED_BUGS
            if Planted.has(.auditorNotHeard) { dispute = nil }
        #endif
        guard let (auditor, check) = dispute else { return nil }
        let text =
            "block \(check.block) of step \(flight!.step) is \(check.folded.hex) as folded by "
            + "\(check.owner) and \(check.audited.hex) as folded by \(auditor)"
        var actions = [CoordinatorAction.event(kind: "audit", severity: .warning, text: text)]
        let known = generation
        for id in wrongFolders() {
            for block in flight!.foldClaims.keys {
                flight!.foldClaims[block]!.removeAll { $0.worker == id }
            }
            actions += suspect(id, why: text, now: now)
        }
        // Whoever is wrong twice is gone, and everything is folded again.
        guard generation == known else { return actions }
        flight!.disputes += 1
        guard flight!.disputes < max(2, roster.count) else {
            return end(
                .disagreed(
                    text + "; nothing was committed: run 'lineup doctor' on these machines, then "
                        + "resume"))
        }
        flight!.fold += 1
        return actions + replan(now: now)
    }

    /// Those that have contradicted themselves, or most of the others.
    private func wrongFolders() -> [String] {
        var wrong = Roll()
        for block in flight!.foldClaims.keys.sorted() {
            let claims = flight!.foldClaims[block]!
            let names = Set(claims.map(\.worker)).sorted()
            for name in names where claims.count(where: { $0.worker == name }) > 1 {
                wrong.append(name)
            }
            let digests = Set(claims.map(\.digest)).sorted()
            guard names.count > 2,
                let agreed = digests.first(where: { digest in
                    2 * claims.count { $0.digest == digest } > names.count
                })
            else { continue }
            for claim in claims where claim.digest != agreed { wrong.append(claim.worker) }
        }
        return wrong.all
    }

    /// Says who folded audited blocks wrongly, once a later fold has shown what is right.
    mutating func blameFolders(now: Duration) -> [CoordinatorAction] {
        var wrong: [String: Int] = [:]
        for member in roster.all {
            for check in flight!.ready[member]?.checks ?? [] {
                for claim in flight!.foldClaims[Int(check.block)] ?? []
                where claim.digest != check.audited {
                    wrong[claim.worker] = Int(check.block)
                }
            }
        }
        flight!.foldClaims = [:]
        return wrong.keys.sorted().flatMap { id in
            suspect(
                id, why: "it folded block \(wrong[id]!) of step \(flight!.step) wrongly", now: now)
        }
    }

    /// A worker was wrong; who is so twice is not used any more.
    mutating func suspect(_ id: String, why: String, now: Duration) -> [CoordinatorAction] {
        let event = CoordinatorAction.event(
            kind: "suspected", severity: .warning, text: "\(id) computes wrongly: \(why)")
        guard workers[id] != nil else { return [event] }
        workers[id]!.suspicion += 1
        guard workers[id]!.suspicion > 1, roster.count > 1 else { return [event] }
        return quarantine(id, why: why, now: now)
    }
}

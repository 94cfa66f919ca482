internal import Basics
internal import Protocol

/// The step that is computed and exchanged, as the coordinator knows it.
struct StepInFlight: Codable, Sendable {
    /// A slot given to a worker.
    struct Lease: Codable, Sendable, Equatable {
        let worker: String
        /// Counts the leases of this slot in this step, from 1.
        let attempt: Int
        let since: Duration
    }

    /// What a worker says of a slot that it has computed.
    struct Claim: Codable, Sendable {
        let worker: String
        let attempt: Int
        /// Whose results of a slot have to be equal.
        let group: String
        let done: WireSlotDone

        /// What has to be equal wherever the slot is computed by one group.
        var word: Word {
            done.forward
                ? Word(loss: 0, digest: done.embeddings)
                : Word(loss: done.loss, digest: done.digest)
        }

        struct Word: Hashable, Comparable {
            let loss: UInt32
            let digest: UInt64

            static func < (left: Word, right: Word) -> Bool {
                (left.loss, left.digest) < (right.loss, right.digest)
            }
        }
    }

    /// How many slots a worker has computed in this step, and when the last of them.
    struct Tempo: Codable, Sendable {
        let count: Int
        let lastAt: Duration

        /// Seconds a slot.
        func pace(since start: Duration) -> Double { (lastAt - start).seconds / Double(count) }
    }

    /// A slot that is computed once more: by those who differ about it, since nobody else can judge, or
    /// since what they differ about went into it.
    struct Retrial: Codable, Sendable {
        /// Whether they differ about this slot.
        var isDisputed = true
        /// What they said first; empty once it is known who was wrong.
        var first: [Claim]
        /// Results of this lease and earlier ones count for nothing.
        let attempt: Int
    }

    /// What a worker has folded a block to, by its own word or an auditor's.
    struct FoldClaim: Codable, Sendable, Hashable {
        let worker: String
        let digest: UInt64
    }

    let step: Int
    let samples: WireStepSamples
    let scalars: WireStepScalars
    /// Slots that two workers compute.
    let audited: Set<Int>
    let startedAt: Duration
    /// Who keeps a copy of the state before this step for joiners.
    var donor = ""
    /// How often the step is folded again.
    var fold = 0 {
        // What was staged before is gone.
        didSet { listenersReady = [:] }
    }
    /// Live leases of every slot.
    private(set) var leases: [[Lease]]
    private var attempts: [Int]
    /// Every worker that a slot was ever leased to, with the attempt.
    private(set) var grants: [[String: Int]]
    /// First result of every slot, and what others said of it later.
    private(set) var claims: [[Claim]]
    /// Slots that are computed once more, by slot.
    private(set) var retrials: [Int: Retrial] = [:]
    private(set) var resultCount = 0
    /// Slots that are leased to nobody and have no result.
    private(set) var orphanCount: Int
    /// Whether the step mines over all of its slots: then these are the same of their forward passes.
    private let minesStep: Bool
    private(set) var embeddings: [[Claim]]
    private(set) var embeddedCount = 0
    /// Gradients of earlier folds may stem from embeddings that are not used any more.
    private var soundFold = 0
    /// When the phase in hand began.
    private(set) var phaseStartedAt: Duration
    /// Members that are READY in this generation.
    var ready: [String: WireReady] = [:]
    /// Listeners that have staged the effect of this fold, with its digest.
    var listenersReady: [String: UInt64] = [:]
    /// What members said before the step was folded again.
    var firstDigests: [String: UInt64] = [:]
    /// What audits say of blocks that came out differently, by block.
    var foldClaims: [Int: [FoldClaim]] = [:]
    /// How often audits made the step be folded again.
    var disputes = 0
    /// Who gave a slot back, and why.
    var returned: [[String: String]]
    /// Who found a slot's loss or gradient not to be finite.
    var diverged: [Int: Set<String>] = [:]
    /// When the step last came forward.
    var movedAt: Duration
    /// How fast each worker computes in the phase in hand.
    private(set) var tempos: [String: Tempo] = [:]
    /// How fast each worker was in forward passes, once all are done.
    private(set) var embeddingTempos: [String: Tempo] = [:]
    /// Whether leases have ended of which nobody was told.
    var isReplanDue = false
    /// Whether somebody was absent when it was last looked.
    var isShort = false

    init(
        step: Int, samples: WireStepSamples, scalars: WireStepScalars, slotCount: Int,
        audit: Audit, minesStep: Bool = false, now: Duration
    ) {
        self.step = step
        self.samples = samples
        self.scalars = scalars
        audited = Set((0..<slotCount).filter { audit.covers(slot: $0, step: step) })
        startedAt = now
        phaseStartedAt = now
        movedAt = now
        orphanCount = slotCount
        self.minesStep = minesStep
        embeddings = Array(repeating: [], count: slotCount)
        leases = Array(repeating: [], count: slotCount)
        attempts = Array(repeating: 0, count: slotCount)
        grants = Array(repeating: [:], count: slotCount)
        claims = Array(repeating: [], count: slotCount)
        returned = Array(repeating: [:], count: slotCount)
    }

    var slotCount: Int { leases.count }
    var hasAllResults: Bool { resultCount >= slotCount }

    /// Whether forward passes are still to be done, on which everything else waits.
    var isEmbedding: Bool { minesStep && embeddedCount < slotCount }

    /// What workers have said of a slot in the phase in hand.
    func said(of slot: Int) -> [Claim] { isEmbedding ? embeddings[slot] : claims[slot] }

    func result(of slot: Int) -> Claim? { claims[slot].first }

    func hasClaimed(_ worker: String, slot: Int) -> Bool {
        claims[slot].contains { $0.worker == worker }
    }

    /// Whether a worker has nothing to say of a slot any more in the phase in hand.
    func hasSaid(_ worker: String, slot: Int) -> Bool {
        said(of: slot).contains { $0.worker == worker }
    }

    /// Whether all that have computed the slot say what they have to say alike.
    func agrees(on slot: Int) -> Bool {
        Self.dispute(among: claims[slot]).isEmpty && Self.dispute(among: embeddings[slot]).isEmpty
    }

    /// What those say who should say the same of a slot and do not; empty where nobody contradicts.
    ///
    /// Where mining spans the step gradients depend on the embeddings of all slots, and are not judged
    /// before those are.
    func dispute(on slot: Int) -> [Claim] {
        let ofEmbeddings = Self.dispute(among: embeddings[slot])
        guard ofEmbeddings.isEmpty, areEmbeddingsSettled else { return ofEmbeddings }
        return Self.dispute(among: claims[slot])
    }

    private var areEmbeddingsSettled: Bool {
        embeddings.indices.allSatisfy {
            Self.dispute(among: embeddings[$0]).isEmpty && !awaitsEmbeddingAudit(of: $0)
        }
    }

    private static func dispute(among claims: [Claim]) -> [Claim] {
        guard claims.count > 1 else { return [] }
        for claim in claims {
            let comparable = claims.filter { $0.group == claim.group }
            if comparable.contains(where: { $0.word != claim.word }) { return comparable }
        }
        return []
    }

    /// How many workers have to compute the slot.
    func claimsWanted(of slot: Int) -> Int {
        audited.contains(slot) || retrials[slot]?.isDisputed == true ? 2 : 1
    }

    /// Whether a result was computed before the slot was given out once more.
    func isOutdated(_ done: WireSlotDone) -> Bool {
        retrials[Int(done.slot)].map { Int(done.attempt) <= $0.attempt } ?? false
    }

    /// Leases of workers that have not computed the slot in the phase in hand.
    func openLeases(of slot: Int) -> [Lease] {
        leases[slot].filter { !hasSaid($0.worker, slot: slot) }
    }

    /// Whether a second worker is still to say what the slot gives.
    func awaitsAudit(of slot: Int) -> Bool { isAwaited(claims[slot], of: slot) }

    /// The same of its forward pass.
    func awaitsEmbeddingAudit(of slot: Int) -> Bool { isAwaited(embeddings[slot], of: slot) }

    private func isAwaited(_ claims: [Claim], of slot: Int) -> Bool {
        guard claimsWanted(of: slot) > 1, !claims.isEmpty else { return false }
        let comparable = claims.map { claim in claims.count { $0.group == claim.group } }
        return comparable.max()! < claimsWanted(of: slot)
            && leases[slot].contains { lease in !claims.contains { $0.worker == lease.worker } }
    }

    /// Whether all that computed a slot agree, for every slot.
    var isAgreed: Bool { claims.indices.allSatisfy { agrees(on: $0) } }

    /// Whether all that computed a slot agree, and nobody is waited for who shall audit one.
    var isSettled: Bool {
        isAgreed && !claims.indices.contains { awaitsAudit(of: $0) }
    }

    /// Slots leased to a worker, in order.
    func slots(of worker: String) -> [Int] {
        leases.indices.filter { slot in leases[slot].contains { $0.worker == worker } }
    }

    mutating func lease(_ slot: Int, to worker: String, now: Duration) {
        #if PLANTED_BUGS
            if !Planted.has(.leaseWithoutAttempt) || attempts[slot] == 0 { attempts[slot] += 1 }
        #else
            attempts[slot] += 1
        #endif
        change(slot) {
            $0.leases[slot].append(Lease(worker: worker, attempt: $0.attempts[slot], since: now))
        }
        grants[slot][worker] = attempts[slot]
    }

    /// Slots that workers have yet to compute, in the order in which they do; nobody without one.
    func queues() -> [String: [Int]] {
        var queues: [String: [Int]] = [:]
        for slot in leases.indices {
            for lease in openLeases(of: slot) {
                queues[lease.worker, default: []].append(slot)
            }
        }
        return queues
    }

    /// Ends every lease of a worker.
    ///
    /// - Returns: slots that nobody has any more, results or not.
    mutating func release(_ worker: String) -> [Int] {
        var orphans: [Int] = []
        for slot in leases.indices where leases[slot].contains(where: { $0.worker == worker }) {
            release(slot, of: worker)
            if leases[slot].isEmpty { orphans.append(slot) }
        }
        return orphans
    }

    mutating func release(_ slot: Int, of worker: String) {
        change(slot) { $0.leases[slot].removeAll { $0.worker == worker } }
    }

    /// Changes the leases or claims of a slot.
    private mutating func change(_ slot: Int, _ body: (inout StepInFlight) -> Void) {
        func isOrphan() -> Bool { leases[slot].isEmpty && claims[slot].isEmpty }
        let was = isOrphan()
        body(&self)
        if isOrphan() != was { orphanCount += was ? -1 : 1 }
    }

    /// Notes a result; a second one of the same worker replaces nothing.
    mutating func record(_ claim: Claim, slot: Int, now: Duration) {
        guard !hasClaimed(claim.worker, slot: slot) else { return }
        change(slot) { $0.claims[slot].append(claim) }
        if !isEmbedding { noteTempo(of: claim.worker, now: now) }
        #if PLANTED_BUGS
            if Planted.has(.slotCountedTwice), claims[slot].count > 1 { resultCount += 1 }
        #endif
        if claims[slot].count == 1 { resultCount += 1 }
    }

    /// No worker gives out as many leases of a slot; what one claims is no more.
    private static let attemptMax: UInt32 = 1 << 16

    /// Gives a slot to workers that differ about it once more; what they said so far is no result.
    mutating func tryAgain(_ slot: Int, by workers: [String], now: Duration) {
        // Attempts of an earlier term may be higher.
        let said = claims[slot].map { Int(min($0.done.attempt, Self.attemptMax)) }
        attempts[slot] = said.reduce(attempts[slot], max)
        retrials[slot] = Retrial(first: claims[slot], attempt: attempts[slot])
        change(slot) {
            $0.claims[slot] = []
            $0.leases[slot] = []
        }
        resultCount -= 1
        for worker in workers { lease(slot, to: worker, now: now) }
    }

    /// Gives out all slots of a step that mines over them once more, since whatever is wrong with one is in
    /// the loss of all.
    ///
    /// - Parameters:
    ///   - slot: on which some differ; `workers` compute it, the others go to whoever has them.
    ///   - first: what they say of it.
    mutating func startOver(
        for slot: Int, by workers: [String], first: [Claim], now: Duration
    ) {
        let holders = leases.map { $0.map(\.worker) }
        for other in claims.indices {
            let said = (claims[other] + embeddings[other])
                .map { Int(min($0.done.attempt, Self.attemptMax)) }
            attempts[other] = said.reduce(attempts[other], max)
            retrials[other] = Retrial(
                isDisputed: other == slot, first: other == slot ? first : [],
                attempt: attempts[other])
            change(other) {
                $0.claims[other] = []
                $0.leases[other] = []
            }
            embeddings[other] = []
            let heirs = other == slot || holders[other].isEmpty ? workers : holders[other]
            for worker in heirs { lease(other, to: worker, now: now) }
        }
        (resultCount, embeddedCount, soundFold) = (0, 0, fold)
        tempos = [:]
        phaseStartedAt = now
    }

    /// Those who say something else of a slot than they first did, once all agree on it.
    ///
    /// - Parameter forward: whether it is its forward pass on which all agree.
    mutating func waverers(on slot: Int, forward: Bool) -> [String] {
        guard let first = retrials[slot]?.first, first.first?.done.forward == forward else {
            return []
        }
        let said = forward ? embeddings[slot] : claims[slot]
        guard let agreed = said.first?.word else { return [] }
        retrials[slot]!.first = []
        return first.filter { claim in
            claim.word != agreed && said.contains { $0.worker == claim.worker }
        }.map(\.worker)
    }

    /// Notes that a slot's forward pass is done; a second word of the same worker replaces nothing.
    mutating func recordEmbeddings(_ claim: Claim, slot: Int, now: Duration) {
        guard !embeddings[slot].contains(where: { $0.worker == claim.worker }) else { return }
        if isEmbedding { noteTempo(of: claim.worker, now: now) }
        embeddings[slot].append(claim)
        guard embeddings[slot].count == 1 else { return }
        embeddedCount += 1
        guard !isEmbedding else { return }
        embeddingTempos = tempos
        tempos = [:]
        phaseStartedAt = now
    }

    private mutating func noteTempo(of worker: String, now: Duration) {
        tempos[worker] = Tempo(count: (tempos[worker]?.count ?? 0) + 1, lastAt: now)
    }

    /// Whether a gradient can stem from embeddings that are not used any more.
    func isStale(_ done: WireSlotDone) -> Bool { minesStep && Int(done.fold) < soundFold }

    /// Forgets all gradients: somebody's embeddings, on which they depend, are not used any more.
    mutating func forgetGradients() {
        guard minesStep else { return }
        #if PLANTED_BUGS
            if Planted.has(.gradientsOfWrongKept) { return }
        #endif
        soundFold = fold
        resultCount = 0
        for slot in claims.indices { change(slot) { $0.claims[slot] = [] } }
    }

    /// Forgets everything that a worker has said and done.
    mutating func forget(_ worker: String) {
        for slot in retrials.keys { retrials[slot]!.first.removeAll { $0.worker == worker } }
        for slot in claims.indices where hasClaimed(worker, slot: slot) {
            change(slot) { $0.claims[slot].removeAll { $0.worker == worker } }
            if claims[slot].isEmpty { resultCount -= 1 }
        }
        for slot in embeddings.indices
        where embeddings[slot].contains(where: { $0.worker == worker }) {
            embeddings[slot].removeAll { $0.worker == worker }
            if embeddings[slot].isEmpty { embeddedCount -= 1 }
        }
        for slot in grants.indices { grants[slot][worker] = nil }
        ready[worker] = nil
        listenersReady[worker] = nil
    }
}

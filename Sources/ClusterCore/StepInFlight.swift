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
        let done: WireSlotDone

        /// What has to be equal wherever the slot is computed.
        var word: Word { Word(loss: done.loss, digest: done.digest) }

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
    private(set) var resultCount = 0
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
    /// When the step last came forward.
    var movedAt: Duration
    /// How fast each worker computes.
    private(set) var tempos: [String: Tempo] = [:]
    /// Whether leases have ended of which nobody was told.
    var isReplanDue = false
    /// Whether somebody was absent when it was last looked.
    var isShort = false

    init(
        step: Int, samples: WireStepSamples, scalars: WireStepScalars, slotCount: Int,
        audit: Audit, now: Duration
    ) {
        self.step = step
        self.samples = samples
        self.scalars = scalars
        audited = Set((0..<slotCount).filter { audit.covers(slot: $0, step: step) })
        startedAt = now
        movedAt = now
        leases = Array(repeating: [], count: slotCount)
        attempts = Array(repeating: 0, count: slotCount)
        grants = Array(repeating: [:], count: slotCount)
        claims = Array(repeating: [], count: slotCount)
        returned = Array(repeating: [:], count: slotCount)
    }

    var slotCount: Int { leases.count }
    var hasAllResults: Bool { resultCount >= slotCount }

    func result(of slot: Int) -> Claim? { claims[slot].first }

    func hasClaimed(_ worker: String, slot: Int) -> Bool {
        claims[slot].contains { $0.worker == worker }
    }

    /// Whether all that have computed the slot say the same.
    func agrees(on slot: Int) -> Bool {
        claims[slot].allSatisfy { $0.word == claims[slot][0].word }
    }

    /// How many workers have to compute the slot.
    func claimsWanted(of slot: Int) -> Int { audited.contains(slot) ? 2 : 1 }

    /// Leases of workers that have not computed the slot yet.
    func openLeases(of slot: Int) -> [Lease] {
        leases[slot].filter { !hasClaimed($0.worker, slot: slot) }
    }

    /// Whether a second worker is still to say what the slot gives.
    func awaitsAudit(of slot: Int) -> Bool {
        claims[slot].count < claimsWanted(of: slot) && !claims[slot].isEmpty
            && !openLeases(of: slot).isEmpty
    }

    /// Whether all that computed a slot agree, and nobody is waited for who shall audit one.
    var isSettled: Bool {
        claims.indices.allSatisfy { claims[$0].count < 2 || agrees(on: $0) }
            && !audited.contains { awaitsAudit(of: $0) }
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
        leases[slot].append(Lease(worker: worker, attempt: attempts[slot], since: now))
        grants[slot][worker] = attempts[slot]
    }

    /// Slots that workers have yet to compute, in the order in which they do; nobody without one.
    func queues() -> [String: [Int]] {
        var queues: [String: [Int]] = [:]
        for slot in leases.indices {
            for lease in leases[slot] where !hasClaimed(lease.worker, slot: slot) {
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
            leases[slot].removeAll { $0.worker == worker }
            if leases[slot].isEmpty { orphans.append(slot) }
        }
        return orphans
    }

    mutating func release(_ slot: Int, of worker: String) {
        leases[slot].removeAll { $0.worker == worker }
    }

    /// Notes a result; a second one of the same worker replaces nothing.
    mutating func record(_ claim: Claim, slot: Int, now: Duration) {
        guard !hasClaimed(claim.worker, slot: slot) else { return }
        claims[slot].append(claim)
        let count = tempos[claim.worker]?.count ?? 0
        tempos[claim.worker] = Tempo(count: count + 1, lastAt: now)
        #if PLANTED_BUGS
            if Planted.has(.slotCountedTwice), claims[slot].count > 1 { resultCount += 1 }
        #endif
        if claims[slot].count == 1 { resultCount += 1 }
    }

    /// Forgets everything that a worker has said and done.
    mutating func forget(_ worker: String) {
        for slot in claims.indices where hasClaimed(worker, slot: slot) {
            claims[slot].removeAll { $0.worker == worker }
            if claims[slot].isEmpty { resultCount -= 1 }
        }
        for slot in grants.indices { grants[slot][worker] = nil }
        ready[worker] = nil
        listenersReady[worker] = nil
    }
}

internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// The ledger of a simulated run: transactions are whole or not at all, and survive every crash.
struct SimulatedLedger {
    private(set) var term: UInt64 = 0
    private(set) var steps: [StepRecord] = []
    /// Digest of the state, by step of the checkpoint.
    private(set) var checkpoints: [Int: UInt64] = [:]
    private(set) var evaluations: [String: UInt64] = [:]
    private(set) var liveTrainers: Set<String> = []
    private(set) var quarantined: Set<String> = []
    var numericsClass = ""
    var evaluationClass = ""

    /// Begins a term; older ones can write nothing any more.
    mutating func beginTerm() -> UInt64 {
        #if PLANTED_BUGS
            if Planted.has(.coordinatorsShareTerm), term > 0 { return term }
        #endif
        term += 1
        return term
    }

    /// Writes a step.
    ///
    /// - Returns: whether it was written; an older term writes nothing.
    mutating func commit(_ record: StepRecord, term: UInt64) -> Bool {
        guard term == self.term else { return false }
        steps.append(record)
        return true
    }

    mutating func insertCheckpoint(step: Int, digest: UInt64) { checkpoints[step] = digest }

    /// Writes a row once.
    ///
    /// - Returns: whether it is new or equal to what is there.
    mutating func insertEvaluation(step: Int, set: String, value: UInt64) -> Bool {
        let key = "\(step) \(set)"
        if let known = evaluations[key] { return known == value }
        evaluations[key] = value
        return true
    }

    func isScored(step: Int, sets: [String]) -> Bool {
        sets.allSatisfy { evaluations["\(step) \($0)"] != nil }
    }

    mutating func joined(_ trainer: String) { liveTrainers.insert(trainer) }
    mutating func left(_ trainer: String, why: String) {
        liveTrainers.remove(trainer)
        if why == CoordinatorStateMachine.quarantineReason { quarantined.insert(trainer) }
    }
}

/// The folder of checkpoints of a simulated run.
struct SimulatedDisk {
    struct File {
        let step: Int
        let state: UInt64
        let history: UInt64
        let isRecovery: Bool
        /// What verifying it would say.
        var isWhole = true
    }

    private(set) var files: [String: File] = [:]
    /// No checkpoint can be written.
    var isFull = false
    /// Nor can the ledger.
    var isFullForLedger = false

    static func name(_ step: Int, recovery: Bool) -> String {
        (recovery ? "recovery/" : "listed/") + "\(step)"
    }

    /// The rename that makes a written file appear.
    mutating func appear(_ file: File) {
        files[Self.name(file.step, recovery: file.isRecovery)] = file
    }

    mutating func vanish(_ name: String) { files[name] = nil }

    mutating func damage(_ name: String) { files[name]?.isWhole = false }

    mutating func dropRecoverySnapshots(before step: Int) {
        files = files.filter { !($0.value.isRecovery && $0.value.step < step) }
    }

    /// Files that verify, oldest first.
    var durable: [DurableCheckpoint] {
        files.values.filter(\.isWhole).map {
            DurableCheckpoint(
                step: $0.step, history: $0.history,
                file: Self.name($0.step, recovery: $0.isRecovery), byteCount: 1,
                digest: $0.state, isRecovery: $0.isRecovery)
        }.sorted { ($0.step, $0.isRecovery ? 0 : 1) < ($1.step, $1.isRecovery ? 0 : 1) }
    }
}

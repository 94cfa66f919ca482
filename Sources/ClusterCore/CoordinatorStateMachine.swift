internal import Basics
public import Protocol

/// Everything the coordinator decides: membership, leases, the step transaction, checkpoints and
/// evaluations.
///
/// Holds no clock, socket or file: every input is a call, every effect leaves as a
/// ``CoordinatorAction``. `now` is the time since any fixed instant. A step is committed by the
/// ledger (``stepCommitted(_:now:)``); nobody is told before.
///
/// Nothing is taken for delivered: workers say several times a second what they stand on, and what
/// they lack is said again.
public struct CoordinatorStateMachine: Codable, Sendable {
    enum Phase: Codable, Sendable, Equatable {
        /// A new term: those who trained in the last one come back with what they hold. Leaves for
        /// the boundary when all are there or at `until`; nil until the first tick.
        case recovering(until: Duration?)
        /// At a boundary without members. Leaves for `loading` when enough trainers are prepared.
        case gathering
        /// The first members load the state of `cursor`. Leaves for the boundary when each has, or
        /// is gone.
        case loading(since: Duration)
        /// A step is computed and exchanged. Leaves for `committing` when all slots have results
        /// and all members are ready.
        case stepping
        /// The ledger is written. Leaves for the boundary when it says so.
        case committing
        /// At a boundary, until a checkpoint is durable.
        case holding
        /// Every step is committed. Leaves for `ended` when the last checkpoint is durable and
        /// evaluators have nothing left.
        case finishing(since: Duration)
        /// Nothing happens any more.
        case ended
    }

    struct Worker: Sendable {
        enum Stage: UInt8, Sendable {
            /// Welcomed; loads its settings, data set and engine.
            case preparing
            /// Stands by: could take part from a boundary on.
            case prepared
            /// One of the first members; loads the state of the boundary.
            case loading
            /// Gets and applies every effect, and becomes a member at a boundary.
            case following
            /// Takes part.
            case member
        }
        var hello: WireHello
        var stage: Stage = .preparing
        var lastHeard: Duration
        var rhythm = Rhythm()
        /// Seconds a slot in the last step that it computed in; 0 before.
        var pace = 0.0
        /// Seconds a slot's forward pass, where mining spans the step; ``pace`` is of the rest then.
        var embeddingPace = 0.0
        /// Slots whose embeddings it waits for in a step, and since when.
        var lacking: [Int] = []
        var lackingStep = 0
        var lackingSince: Duration = .zero
        var phase = "starting"
        var appliedStep = 0
        var counter: UInt64 = 0
        /// Whether it came with a state that no LOAD has replaced.
        var holdsState = false
        /// The load that it was told last; answers to earlier ones count for nothing.
        var load = WireLoadState()
        var hasLoaded = false
        /// When it was last told something that it may not have got.
        var toldAt: Duration
        var isLeaving = false
        /// When its connection broke; nil while it has one.
        var awayAt: Duration?
        /// The last step that it has begun, and has the samples of.
        var begunStep = 0
        /// How it computes, as it said when it was prepared.
        var numericsClass = ""
        /// Where its state comes from: whoever has the same applied the same steps to the same bits.
        var lineage = ""
        /// Folds in which it said something else than the others.
        var suspicion = 0
    }

    struct PendingCheckpoint: Codable, Sendable {
        let step: Int
        let isRecovery: Bool
        var sender: String
        var backup: String
        /// When the sender was asked, or a piece of it came.
        var movedAt: Duration
    }

    /// Joiners that get the state of one boundary from one donor.
    struct Join: Codable, Sendable {
        let step: Int
        let donor: String
        var joiners: Roll
    }

    /// The last commit in the ledger.
    struct Tip: Codable, Sendable {
        var step: Int
        var history: UInt64
        var digest: UInt64
        var previousHistory: UInt64
    }

    let configuration: CoordinatorConfiguration
    let source: HeldSource
    let term: UInt64
    var generation: UInt64 = 0
    var phase: Phase
    var flight: StepInFlight?
    /// Last step whose effect the members have, or will have with the next message.
    var cursor: Int
    var history: UInt64
    /// Ahead of `cursor` while steps are redone.
    var tip: Tip
    var lastCommit: WireCommit?
    var workers: [String: Worker] = [:]
    /// Workers in the order in which they said HELLO.
    var order = Roll()
    var roster = Roll()
    var followers = Roll()
    var standby = Roll()
    var evaluatorRoll = Roll()
    /// Evaluators that wait for work.
    var idleEvaluators: Set<String> = []
    /// Trainers of the last term that have not come back.
    var expectedBack: Set<String>
    var join: Join?
    var quarantined = Roll()
    /// A checkpoint that could not be loaded, while it is read again.
    var doubted: String?
    var durable: [DurableCheckpoint]
    var pending: PendingCheckpoint?
    /// Whether something has changed that ``CheckpointRetention`` looks at.
    var isRetentionDue = true
    /// By step of the checkpoint.
    var rankingValues: [Int: Double]
    var decisionScores: [Int: Double]
    /// Steps of the rounds of mining whose triplets are known, the last one at the end.
    var minedRounds: [Int] = []
    /// The round that was asked for last.
    var askedRound: Int?
    /// How often the rate has fallen on a plateau.
    var reductions = 0
    /// Where scores have ended the run.
    var earlyStop: Int?
    /// States of checkpoints whose files are deleted; scores of them may still come.
    var deletedDigests: [Int: UInt64]
    var queue: EvaluationQueue
    var numericsClass: String
    var evaluationClass: String
    /// The last step that other arithmetic has superseded; who holds it holds nothing of this run's.
    var supersededStep: Int
    var firstPreparedAt: Duration?
    /// Number of the last LOAD; the term is in its upper half, so that none is said twice in a run.
    var loads: UInt64
    var lastStoredAt: Duration?
    /// An evaluator that is away for a moment may come back.
    var hadEvaluator = false
    /// Up to then nobody can have been silent for too long.
    private var silenceCheckedUntil: Duration?
    /// When the step in flight was last looked at for slots and members that are late.
    private var lookedAt: Duration?
    private static let lookInterval = Duration.milliseconds(50)
    var streamFailures: [Int: Int] = [:]
    var collapse: CollapseDetector?
    /// What members say of their states, by step.
    var stateVotes: [Int: StateVote] = [:]
    /// How often a copy that a worker sent was another state than it holds.
    var refusedCopies: [String: Int] = [:]
    var isDraining = false
    /// Why training cannot go on from the state that the members hold.
    var divergence: String?
    var lastEvaluatorActivity: Duration = .zero
    let firstStep: Int
    var samplesAhead: [WireStepSamples] = []
    // For observers.
    var lastLoss = 0.0
    var lastFraction = 0.0
    var lastRate = 0.0
    var stepSeconds: [Double] = []
    var lastSamples = 0
    var scores: [WireScoreStatus] = []
    var recentEvents: [String] = []

    /// Starts a term from what ledger and checkpoint folder hold.
    public init(
        configuration: CoordinatorConfiguration, source: any StepSource,
        recovery: CoordinatorRecovery
    ) {
        precondition(configuration.slotCount > 0, "a step needs at least one slot")
        self.configuration = configuration
        self.source = HeldSource(source)
        term = recovery.term
        loads = recovery.term << 32
        #if PLANTED_BUGS
            if Planted.has(.loadNumberReused) { loads = 0 }
        #endif
        firstStep = recovery.committedStep
        collapse = configuration.collapse
        durable = recovery.checkpoints
        rankingValues = recovery.rankingValues
        decisionScores = recovery.decisionScores
        deletedDigests = recovery.deletedDigests
        tip = Tip(
            step: recovery.committedStep, history: recovery.committedHistory,
            digest: recovery.committedDigest, previousHistory: recovery.previousHistory)
        for id in recovery.quarantined { quarantined.append(id) }
        #if PLANTED_BUGS
            if Planted.has(.quarantineForgotten), recovery.committedStep > 0 {
                quarantined = Roll()
            }
        #endif
        expectedBack = Set(recovery.liveTrainers).subtracting(recovery.quarantined)
        let newest = recovery.checkpoints.last
        cursor = newest?.step ?? 0
        history = newest?.history ?? HistoryDigest.start
        phase =
            recovery.committedStep > 0 && !expectedBack.isEmpty
            ? .recovering(until: nil) : .gathering
        numericsClass = recovery.numericsClass
        evaluationClass = recovery.evaluationClass
        supersededStep = recovery.supersededStep
        queue = EvaluationQueue(
            sets: configuration.evaluationSets, lease: configuration.silenceMax * 6,
            scored: recovery.scored)
        for checkpoint in recovery.checkpoints where !checkpoint.isRecovery {
            queue.checkpointStored(step: checkpoint.step)
        }
    }

    /// Members in joining order.
    public var members: [String] { roster.all }

    /// Workers that only look on.
    public var observers: [String] {
        order.all.filter { workers[$0]?.hello.role == .observer }
    }

    /// Workers of which nothing is used any more.
    public var quarantinedWorkers: [String] { quarantined.all }

    /// Fingerprints of their keys that nobody else who is here has.
    public var barredKeys: Set<String> {
        guard !quarantined.isEmpty else { return [] }
        return Set(quarantined.all.compactMap { WorkerName.key(of: $0) })
            .subtracting(workers.keys.compactMap { WorkerName.key(of: $0) })
    }

    var evaluators: [String] { evaluatorRoll.all }

    /// Why a worker left whose results are not used any more; the ledger keeps it.
    public static let quarantineReason = "it computes wrongly"

    /// Membership that READY is counted in.
    public var currentGeneration: UInt64 { generation }

    /// How many slots of the step in flight have neither a result nor a lease; none in a machine that
    /// works.
    public var orphanCount: Int { phase == .stepping ? flight!.orphanCount : 0 }

    /// Slots of the step in flight that have neither a result nor a member that computes them; none in a
    /// machine that works.
    public var orphanedSlots: [Int] {
        guard phase == .stepping, let flight else { return [] }
        return flight.leases.indices.filter {
            flight.leases[$0].allSatisfy { !roster.contains($0.worker) }
                && flight.result(of: $0) == nil
        }
    }

    /// How often a step was begun in this term.
    public internal(set) var flightCount = 0
    /// The generation in which the step in flight was begun.
    public internal(set) var flightGeneration: UInt64 = 0

    /// Everything that is kept of workers, for limits on memory.
    public var workerCount: Int { workers.count }

    /// Whether anything is kept of a worker.
    public func knows(_ worker: String) -> Bool { workers[worker] != nil }

    /// How many members there are.
    public var memberCount: Int { roster.count }

    /// Numbers of the step in flight that a message without a meaning leaves as they are.
    public var flightFacts: [Int] {
        guard let flight else { return [] }
        return [
            flight.step, flight.fold, flight.resultCount, flight.ready.count,
            flight.listenersReady.count, flight.leases.joined().count,
            flight.claims.joined().count, flight.returned.reduce(0) { $0 + $1.count },
        ]
    }

    /// Last step in the ledger.
    public var ledgerStep: Int { tip.step }

    /// Trainers that can take part; one more than there are slots, so that one can always be lost.
    var membersMax: Int { configuration.slotCount + 1 }

    // MARK: Inputs

    /// A control message arrived from the worker that owns the connection.
    public mutating func received(
        _ body: WireBody, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        if case .hello(let hello) = body { return helloReceived(hello, from: worker, now: now) }
        guard let role = workers[worker]?.hello.role else {
            // A worker of an earlier term, or one that was expelled: it starts over.
            return [.send(.stop(Self.stop(.expelled, "say HELLO again")), to: worker)]
        }
        workers[worker]!.lastHeard = now
        switch (body, role) {
        case (.goodbye(let message), _):
            return goodbyeReceived(message, from: worker, now: now)
        case (.prepared(let message), .trainer), (.prepared(let message), .evaluator):
            return preparedReceived(message, from: worker, now: now)
        case (.slotDone(let message), .trainer): return slotDone(message, from: worker, now: now)
        case (.slotReturned(let message), .trainer):
            return slotReturned(message, from: worker, now: now)
        case (.ready(let message), .trainer):
            return readyReceived(message, from: worker, now: now)
        case (.progress(let message), .trainer):
            return progressReceived(message, from: worker, now: now)
        case (.stateAwaited(let message), .trainer):
            return stateAwaited(message, from: worker, now: now)
        case (.stateLoaded(let message), .trainer):
            return stateLoaded(message, from: worker, now: now)
        case (.checkpointFailed(let message), .trainer):
            return senderFailed(
                step: Int(clamping: message.step), reason: message.reason.clipped(), from: worker,
                now: now)
        case (.evaluationPoll(let message), .evaluator):
            return evaluationPoll(message, from: worker, now: now)
        case (.evaluationRows(let message), .evaluator):
            return evaluationRows(message, from: worker, now: now)
        case (.progress, .evaluator), (.progress, .observer): return []
        default:
            return [
                .event(
                    kind: "protocol", severity: .warning,
                    text: "\(worker) sent a message that its role does not send; ignored")
            ]
        }
    }

    /// The connection of a worker is closed.
    ///
    /// A member whose connection broke is back at once; one that has died is not. Meanwhile those who
    /// have nothing left to compute take what it has.
    public mutating func disconnected(_ worker: String, now: Duration) -> [CoordinatorAction] {
        guard roster.contains(worker), roster.count > 1 else {
            return workerGone(worker, why: "connection lost", failed: true, now: now)
        }
        workers[worker]!.awayAt = now
        silenceCheckedUntil = nil
        return phase == .stepping ? speculate(now: now) : []
    }

    /// The ledger refuses to write: a newer term has begun.
    public mutating func ledgerRefused() -> [CoordinatorAction] { end(.superseded) }

    /// The ledger cannot be written: everybody is told.
    public mutating func ledgerFailed(_ why: String) -> [CoordinatorAction] { end(.failed(why)) }

    /// A signal asks to stop at the next step boundary.
    public mutating func drain(now: Duration) -> [CoordinatorAction] {
        guard !isDraining else { return [] }
        isDraining = true
        switch phase {
        case .gathering, .holding, .recovering: return boundary(now: now)
        case .loading, .stepping, .committing: return []
        // The last checkpoint is waited for: without it the last steps would be done again.
        case .finishing: return pending == nil ? end(.drained) : []
        case .ended: return []
        }
    }

    /// Time has passed.
    public mutating func tick(now: Duration) -> [CoordinatorAction] {
        var actions = expelSilent(now: now) + settleStates(now: now)
        queue.tick(now: now)
        switch phase {
        case .recovering(let until):
            if until == nil { phase = .recovering(until: now + configuration.returnPatience) }
            actions += recoverIfSettled(now: now)
        case .gathering: actions += boundary(now: now)
        case .loading(let since):
            if now - since > configuration.silenceMax * 24 {
                for id in order.all where workers[id]?.stage == .loading {
                    actions += expel(id, why: "did not get the state", now: now)
                }
            }
        case .stepping:
            if let last = lookedAt, now - last < Self.lookInterval { break }
            lookedAt = now
            actions += judgeAgain(now: now)
            guard phase == .stepping else { return actions }
            actions += speculate(now: now)
            actions += sideline(now: now)
            actions += expelBlocker(now: now)
            if flight?.isReplanDue == true { actions += replan(now: now) }
        case .finishing: actions += finishIfDone(now: now)
        default: break
        }
        return actions + askAgainForCheckpoint(now: now) + retain()
    }

    private mutating func expelSilent(now: Duration) -> [CoordinatorAction] {
        if let until = silenceCheckedUntil, now <= until { return [] }
        var actions: [CoordinatorAction] = []
        // Whoever comes or is heard from now on may be silent for that long.
        var until = now + configuration.silenceMax
        for id in order.all {
            guard let worker = workers[id], worker.hello.role != .observer else { continue }
            let deadline = deadline(of: worker)
            if now <= deadline {
                until = min(until, deadline)
            } else if worker.awayAt != nil {
                actions += workerGone(id, why: "connection lost", failed: true, now: now)
            } else {
                let silent = now - worker.lastHeard
                actions += expel(
                    id, why: "silent for \(silent.components.seconds) s", now: now)
            }
        }
        silenceCheckedUntil = until
        return actions
    }

    /// Until when a worker of which nothing is heard is not let go.
    private func deadline(of worker: Worker) -> Duration {
        if let awayAt = worker.awayAt { return awayAt + configuration.reconnectGrace }
        // Loading data and engine may take its time; a dead process is seen by its connection.
        let isPreparing = worker.stage == .preparing && worker.hello.role == .trainer
        return worker.lastHeard + configuration.silenceMax * (isPreparing ? 24 : 1)
    }

    /// Lets go of a worker and tells it; it may come back.
    mutating func expel(_ id: String, why: String, now: Duration) -> [CoordinatorAction] {
        [.send(.stop(Self.stop(.expelled, why)), to: id)]
            + workerGone(id, why: why, failed: true, now: now)
    }

    // MARK: The boundary between two steps

    #if PLANTED_BUGS
        private var ignoresLag: Bool { Planted.has(.checkpointLagIgnored) }
    #else
        private var ignoresLag: Bool { false }
    #endif

    /// Decides what happens next at a step boundary; every path between steps leads through here.
    mutating func boundary(now: Duration) -> [CoordinatorAction] {
        if case .ended = phase { return [] }
        var actions = takeReturned(now: now) + decide()
        if roster.isEmpty {
            phase = .gathering
            if let ending { return actions + end(ending) }
            // All who held the state may have died during the commit.
            let newest = durable.last?.step ?? 0
            if cursor != newest { return actions + rollBack(now: now) }
            if cursor == lastStep, pending == nil, isStored(cursor) {
                phase = .finishing(since: now)
                lastEvaluatorActivity = now
                return actions + finishIfDone(now: now)
            }
            return actions + gather(now: now)
        }
        if let ending { return actions + store(thenEnd: ending, now: now) }
        if cursor == lastStep { return actions + finishTraining(now: now) }
        if awaitedScore != nil || awaitedRound != nil {
            phase = .holding
            return actions + commitToMembers() + fetchAwaited(now: now)
        }
        if let pending, !ignoresLag {
            let nextIsDue = isCheckpointStep(cursor) && pending.step != cursor
            if nextIsDue || cursor + 1 > pending.step + configuration.checkpointMaxLagSteps {
                phase = .holding
                return actions + commitToMembers()
            }
        }
        let (leaving, isLeft) = letLeave(now: now)
        actions += leaving
        guard isLeft else { return actions }
        return actions + beginStep(now: now)
    }

    mutating func gather(now: Duration) -> [CoordinatorAction] {
        guard !standby.isEmpty else {
            firstPreparedAt = nil
            return []
        }
        guard doubted == nil else { return [] }
        let waited = now - (firstPreparedAt ?? now)
        guard
            standby.count >= min(configuration.expectedTrainers, membersMax)
                || waited >= configuration.startPatience
        else { return [] }
        phase = .loading(since: now)
        var actions: [CoordinatorAction] = []
        for id in standby.all.prefix(membersMax) {
            workers[id]!.stage = .loading
            standby.remove(id)
            actions += tellToLoad(id, from: "", now: now)
        }
        return actions
    }

    /// Nobody alive holds the state, or that of a checkpoint that is due: go back to the newest durable one.
    mutating func rollBack(now: Duration) -> [CoordinatorAction] {
        if case .finishing = phase, pending == nil { return [] }
        if case .ended = phase { return [] }
        var actions: [CoordinatorAction] = []
        let target = durable.last
        if cursor != (target?.step ?? 0) || pending != nil {
            let lost = roster.isEmpty ? cursor : pending?.step ?? cursor
            actions.append(
                .event(
                    kind: "redo", severity: .warning,
                    text: "no live trainer holds step \(lost); going back to step "
                        + "\(target?.step ?? 0) and doing the steps up to \(tip.step) again"))
        }
        goTo(step: target?.step ?? 0, history: target?.history ?? HistoryDigest.start)
        pending = nil
        phase = .gathering
        return actions + boundary(now: now)
    }

    /// Leaves whatever is under way for another boundary; everybody stands by.
    mutating func goTo(step: Int, history: UInt64) {
        cursor = step
        self.history = history
        lastCommit = nil
        flight = nil
        join = nil
        stateVotes = [:]
        for id in order.all where [.member, .loading, .following].contains(workers[id]!.stage) {
            workers[id]!.stage = .prepared
            workers[id]!.holdsState = false
            standby.append(id)
        }
        roster = Roll()
        followers = Roll()
    }

    func commitToMembers() -> [CoordinatorAction] {
        guard let lastCommit else { return [] }
        return (roster.all + followers.all).map { .send(.commit(lastCommit), to: $0) }
    }

    // MARK: The end

    /// How this coordinator's life ends once the members' state is durable; nil while training goes on.
    var ending: CoordinatorOutcome? {
        divergence.map { .failed($0) } ?? (isDraining ? .drained : nil)
    }

    private mutating func store(
        thenEnd ending: CoordinatorOutcome, now: Duration
    ) -> [CoordinatorAction] {
        if durable.contains(where: { $0.step == cursor }) {
            return commitToMembers() + end(ending)
        }
        phase = .holding
        if pending != nil { return commitToMembers() }
        let isListed = isCheckpointStep(cursor)
        return commitToMembers() + askForCheckpoint(recovery: !isListed, now: now)
    }

    mutating func finishTraining(now: Duration) -> [CoordinatorAction] {
        if pending != nil {
            phase = .holding
            return commitToMembers()
        }
        var actions = commitToMembers()
        phase = .finishing(since: now)
        lastEvaluatorActivity = now
        if !isStored(cursor) { actions += askForCheckpoint(recovery: false, now: now) }
        return actions + finishIfDone(now: now)
    }

    mutating func finishIfDone(now: Duration) -> [CoordinatorAction] {
        guard case .finishing(let since) = phase, pending == nil else { return [] }
        if isDraining { return end(.drained) }
        let waited = now - max(since, lastEvaluatorActivity)
        let patience: Duration =
            if !evaluatorRoll.isEmpty {
                configuration.evaluationTimeout
            } else if configuration.expectedEvaluators > 0 || hadEvaluator {
                configuration.startPatience
            } else {
                .seconds(-1)
            }
        let nobodyComes = waited > patience
        guard queue.isDone || nobodyComes else { return [] }
        return retain() + end(.finished)
    }

    /// Ends the coordinator's life and tells everybody.
    mutating func end(_ outcome: CoordinatorOutcome) -> [CoordinatorAction] {
        if case .ended = phase { return [] }
        phase = .ended
        if outcome == .superseded {
            // Its workers are not told anything: they are the other coordinator's.
            return [
                .event(
                    kind: "superseded", severity: .error,
                    text: "another coordinator has begun a newer term of this run"),
                .finish(outcome),
            ]
        }
        let stop =
            switch outcome {
            case .finished: Self.stop(.finished, "the run is finished")
            case .drained: Self.stop(.drained, "the coordinator was asked to stop")
            case .failed(let why), .disagreed(let why): Self.stop(.failed, why)
            case .superseded: Self.stop(.expelled, "another coordinator has begun")
            }
        var actions: [CoordinatorAction] = []
        switch outcome {
        case .failed(let why), .disagreed(let why):
            actions.append(.event(kind: "failed", severity: .error, text: why))
        default: break
        }
        for id in order.all {
            actions.append(.send(.stop(stop), to: id))
            if workers[id]?.hello.role != .observer {
                actions.append(.workerLeft(id, why: stop.message))
            }
        }
        return actions + [.finish(outcome)]
    }

    static func stop(_ reason: WireStop.Reason, _ text: String) -> WireStop {
        var stop = WireStop()
        stop.reason = reason
        stop.message = text
        return stop
    }
}

extension Duration {
    /// The duration as a floating-point number of seconds.
    public var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}

internal import Basics
public import Protocol

/// Everything the coordinator decides: membership, leases, the step transaction, checkpoints and
/// evaluations.
///
/// Holds no clock, socket or file: every input is a call, every effect leaves as a
/// ``CoordinatorAction``. `now` is the time since any fixed instant. A step is committed by the
/// ledger (``stepCommitted(_:now:)``); nobody is told before.
public struct CoordinatorStateMachine: Sendable {
    enum Phase: Sendable {
        /// At a boundary without members. Leaves for `loading` when enough trainers are prepared.
        case gathering
        /// Joiners load the state of `cursor`. Leaves for `stepping` when each has, or is gone.
        case loading(since: Duration)
        /// A step is computed and exchanged. Leaves for `committing` when all slots have results
        /// and all members are ready.
        case stepping(StepInFlight)
        /// The ledger is written. Leaves for the boundary when it says so.
        case committing(StepInFlight)
        /// At a boundary, until a checkpoint is durable.
        case holding
        /// Every step is committed. Leaves for `ended` when the last checkpoint is durable and
        /// evaluators have nothing left.
        case finishing(since: Duration)
        /// Nothing happens any more.
        case ended
    }

    struct StepInFlight: Sendable {
        let step: Int
        let samples: WireStepSamples
        let scalars: WireStepScalars
        let startedAt: Duration
        var leases: [WireLease]
        var results: [Int: StepRecord.MiniBatch] = [:]
        var statistics: [Int: WireSlotDone] = [:]
        var ready: [String: WireReady] = [:]
    }

    struct Worker: Sendable {
        enum Stage: Sendable, Equatable {
            /// Welcomed; loads its settings, data set and engine.
            case preparing
            /// Could take part from the next boundary on.
            case prepared
            /// Loads the state of the boundary.
            case loading
            /// Takes part.
            case member
        }
        let hello: WireHello
        var stage: Stage = .preparing
        var lastHeard: Duration
        var phase = "starting"
        var appliedStep = 0
        var slotsLeased = 0
        var isIdle = false
        var stateDigest: UInt64 = 0
        /// Who sends it the state, while it loads.
        var donor = ""
        /// The load that it was told last; answers to earlier ones count for nothing.
        var load: UInt64 = 0
    }

    struct PendingCheckpoint: Sendable {
        let step: Int
        let history: UInt64
        let isRecovery: Bool
        var sender: String
        var backup: String
    }

    let configuration: CoordinatorConfiguration
    let source: any StepSource
    let term: UInt64
    var generation: UInt64 = 0
    var phase = Phase.gathering
    /// Last step whose effect the members have, or will have with the next message.
    var cursor: Int
    var history: UInt64
    /// Last step in the ledger; ahead of `cursor` while steps are redone.
    var ledgerStep: Int
    var lastCommit: WireCommit?
    var workers: [String: Worker] = [:]
    /// Workers in the order in which they said HELLO.
    var order: [String] = []
    var durable: [DurableCheckpoint]
    var pending: PendingCheckpoint?
    var queue: EvaluationQueue
    var numericsClass: String
    var firstPreparedAt: Duration?
    var loads: UInt64 = 0
    var lastStoredAt: Duration?
    /// An evaluator that is away for a moment may come back.
    var hadEvaluator = false
    /// When the step under way last came forward.
    var progressAt: Duration = .zero
    var streamFailures: [Int: Int] = [:]
    var isDraining = false
    var lastEvaluatorActivity: Duration = .zero
    let firstStep: Int
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
        self.source = source
        term = recovery.term
        ledgerStep = recovery.committedStep
        firstStep = recovery.committedStep
        durable = recovery.checkpoints
        cursor = recovery.checkpoints.last?.step ?? 0
        history = recovery.checkpoints.last?.history ?? HistoryDigest.start
        numericsClass = recovery.numericsClass
        queue = EvaluationQueue(
            sets: configuration.evaluationSets, lease: configuration.silenceMax * 3)
        for checkpoint in recovery.checkpoints where !checkpoint.isRecovery {
            queue.checkpointStored(
                step: checkpoint.step, scored: recovery.scored[checkpoint.step] ?? [])
        }
    }

    /// Members in joining order.
    public var members: [String] { order.filter { workers[$0]?.stage == .member } }

    /// Workers that only look on.
    public var observers: [String] { order.filter { workers[$0]?.hello.role == .observer } }

    var evaluators: [String] { order.filter { workers[$0]?.hello.role == .evaluator } }

    // MARK: Inputs

    /// A control message arrived from the worker that owns the connection.
    public mutating func received(
        _ body: WireBody, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        if case .hello(let hello) = body { return helloReceived(hello, from: worker, now: now) }
        guard workers[worker] != nil else {
            // A worker of an earlier term, or one that was expelled: it starts over.
            return [.send(.stop(Self.stop(.expelled, "say HELLO again")), to: worker)]
        }
        workers[worker]!.lastHeard = now
        switch body {
        case .prepared(let message): return preparedReceived(message, from: worker, now: now)
        case .slotDone(let message): return slotDone(message, from: worker, now: now)
        case .slotReturned(let message): return slotReturned(message, from: worker, now: now)
        case .ready(let message): return readyReceived(message, from: worker, now: now)
        case .progress(let message):
            workers[worker]!.phase = message.phase
            workers[worker]!.appliedStep = Int(clamping: message.step)
            return []
        case .stateAwaited(let message): return stateAwaited(message, from: worker)
        case .stateLoaded(let message): return stateLoaded(message, from: worker, now: now)
        case .goodbye(let message):
            return workerGone(worker, why: message.reason, failed: message.failed, now: now)
        case .evaluationPoll(let message): return evaluationPoll(message, from: worker, now: now)
        case .evaluationRows(let message): return evaluationRows(message, from: worker, now: now)
        case .checkpointFailed(let message):
            return senderFailed(
                step: Int(clamping: message.step), reason: message.reason, from: worker, now: now)
        default:
            return [
                .event(
                    kind: "protocol", severity: .warning,
                    text: "\(worker) sent a message that only a coordinator sends; ignored")
            ]
        }
    }

    /// The connection of a worker is closed.
    public mutating func disconnected(_ worker: String, now: Duration) -> [CoordinatorAction] {
        workerGone(worker, why: "connection lost", failed: true, now: now)
    }

    /// The ledger holds the step: from here on it has happened.
    public mutating func stepCommitted(_ record: StepRecord, now: Duration) -> [CoordinatorAction] {
        // Also when the run has gone back meanwhile: what is committed is compared from now on.
        ledgerStep = max(ledgerStep, record.step)
        guard case .committing(let flight) = phase, flight.step == record.step else { return [] }
        return stepDone(record, now: now)
    }

    /// A redone step was compared with the ledger's row.
    public mutating func stepCompared(
        _ record: StepRecord, matches: Bool, now: Duration
    ) -> [CoordinatorAction] {
        guard case .committing(let flight) = phase, flight.step == record.step else { return [] }
        if !matches {
            return end(
                .failed(
                    "step \(record.step), done again after a loss of state, has digest "
                        + "\(record.digest.hex), another one than the ledger's; this machine does "
                        + "not repeat its numbers: resume on a machine like the one where the run "
                        + "began"))
        }
        return stepDone(record, now: now)
    }

    /// A checkpoint or snapshot is durable, and in the ledger where it is listed.
    public mutating func checkpointStored(
        _ checkpoint: DurableCheckpoint, now: Duration
    ) -> [CoordinatorAction] {
        durable.append(checkpoint)
        durable.sort { ($0.step, $0.isRecovery ? 0 : 1) < ($1.step, $1.isRecovery ? 0 : 1) }
        if !checkpoint.isRecovery { queue.checkpointStored(step: checkpoint.step) }
        var actions: [CoordinatorAction] = []
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

    /// A checkpoint could not be written: the run ends before anything is lost.
    public mutating func checkpointWriteFailed(
        step: Int, reason: String, now: Duration
    ) -> [CoordinatorAction] {
        end(.failed("checkpoint of step \(step): \(reason)"))
    }

    /// The rows of an evaluation are in the ledger.
    public mutating func evaluationRecorded(
        _ rows: WireEvaluationRows, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        queue.recorded(.init(step: Int(clamping: rows.step), set: rows.set))
        noteScore(rows)
        lastEvaluatorActivity = now
        var ack = WireEvaluationAck()
        ack.step = rows.step
        ack.set = rows.set
        return [.send(.evaluationAck(ack), to: worker)] + finishIfDone(now: now)
    }

    /// A signal asks to stop at the next step boundary.
    public mutating func drain(now: Duration) -> [CoordinatorAction] {
        guard !isDraining else { return [] }
        isDraining = true
        switch phase {
        case .gathering, .holding: return boundary(now: now)
        case .loading, .stepping, .committing: return []
        // The last checkpoint is waited for: without it the last steps would be done again.
        case .finishing: return pending == nil ? end(.drained) : []
        case .ended: return []
        }
    }

    /// Time has passed.
    public mutating func tick(now: Duration) -> [CoordinatorAction] {
        var actions: [CoordinatorAction] = []
        for id in order {
            guard let worker = workers[id], worker.hello.role != .observer else { continue }
            let silent = now - worker.lastHeard
            // Loading data and engine may take its time; a dead process is seen by its connection.
            let limit =
                worker.stage == .preparing
                ? configuration.silenceMax * 12 : configuration.silenceMax
            if silent > limit {
                actions += workerGone(
                    id, why: "silent for \(silent.components.seconds) s", failed: true, now: now)
                actions.append(
                    .send(.stop(Self.stop(.expelled, "you were silent too long")), to: id))
            }
        }
        queue.tick(now: now)
        if case .loading(let since) = phase, now - since > configuration.silenceMax * 12 {
            for id in order where workers[id]?.stage == .loading {
                actions += workerGone(id, why: "did not get the state", failed: true, now: now)
                actions.append(
                    .send(.stop(Self.stop(.expelled, "you did not get the state")), to: id))
            }
        }
        switch phase {
        case .gathering: actions += boundary(now: now)
        case .finishing: actions += finishIfDone(now: now)
        case .stepping(let flight): actions += expelBlocker(of: flight, now: now)
        default: break
        }
        return actions
    }

    /// A step that does not come forward has a member who alone holds it up, or whose data
    /// connections do not work: the last to join of those that are not ready goes.
    private mutating func expelBlocker(
        of flight: StepInFlight, now: Duration
    ) -> [CoordinatorAction] {
        let mean =
            stepSeconds.isEmpty ? 0 : stepSeconds.reduce(0, +) / Double(stepSeconds.count)
        let patience = max(configuration.silenceMax * 12, .seconds(20 * mean))
        guard members.count > 1, now - max(progressAt, flight.startedAt) > patience,
            let blocker = members.last(where: { flight.ready[$0] == nil })
        else { return [] }
        progressAt = now
        let text = "step \(flight.step) does not come forward"
        return [.send(.stop(Self.stop(.expelled, text)), to: blocker)]
            + workerGone(blocker, why: text, failed: true, now: now)
    }

    // MARK: Membership

    private mutating func helloReceived(
        _ hello: WireHello, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        func refuse(_ code: WireRefusal.Code, _ text: String) -> [CoordinatorAction] {
            var refusal = WireRefusal()
            refusal.code = code
            refusal.message = text
            return [
                .send(.refusal(refusal), to: worker), .forget(worker),
                .event(kind: "refused", severity: .warning, text: "\(worker): \(text)"),
            ]
        }
        guard hello.worker == worker else {
            return refuse(.role, "worker \(hello.worker) speaks on the connection of \(worker)")
        }
        guard hello.lineupVersion == configuration.lineupVersion else {
            return refuse(
                .version,
                "worker \(worker) is lineup \(hello.lineupVersion), the coordinator is "
                    + "\(configuration.lineupVersion): run the same version on every node")
        }
        guard [.trainer, .evaluator, .observer].contains(hello.role) else {
            return refuse(.role, "worker \(worker) has no role that this coordinator knows")
        }
        if case .ended = phase, hello.role != .observer {
            return refuse(.ended, "the run has ended")
        }
        var actions: [CoordinatorAction] = []
        if workers[worker] != nil {
            actions += workerGone(worker, why: "started over", failed: false, now: now)
        }
        workers[worker] = Worker(hello: hello, lastHeard: now)
        order.append(worker)
        if hello.role == .evaluator {
            workers[worker]!.stage = .prepared
            hadEvaluator = true
            lastEvaluatorActivity = now
        }
        if hello.role != .observer { actions.append(.workerJoined(hello)) }
        var welcome = WireWelcome()
        welcome.term = term
        welcome.committedStep = UInt64(ledgerStep)
        welcome.worker = worker
        welcome.datasetDigest = configuration.datasetDigest
        // The shell adds settings and addresses.
        actions.append(.send(.welcome(welcome), to: worker))
        return actions
    }

    private mutating func preparedReceived(
        _ message: WirePrepared, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard workers[worker]!.stage == .preparing else { return [] }
        func refuse(_ code: WireRefusal.Code, _ text: String) -> [CoordinatorAction] {
            var refusal = WireRefusal()
            refusal.code = code
            refusal.message = text
            return [.send(.refusal(refusal), to: worker)]
                + workerGone(worker, why: text, failed: true, now: now)
        }
        guard message.datasetDigest == configuration.datasetDigest else {
            return refuse(
                .dataset,
                "the data set of worker \(worker) has digest \(message.datasetDigest.hex), the "
                    + "run's has \(configuration.datasetDigest.hex): give it the run's data with "
                    + "--data-root")
        }
        var actions: [CoordinatorAction] = []
        if numericsClass.isEmpty {
            numericsClass = message.numerics.description_p
            actions.append(.recordNumerics(numericsClass))
        } else if numericsClass != message.numerics.description_p {
            let text =
                "worker \(worker) computes in class '\(message.numerics.description_p)', the run "
                + "in '\(numericsClass)': their bits differ"
            if configuration.isBitwise {
                return refuse(
                    .numerics,
                    text + "; use the same software and device kind, or "
                        + "numerics.mode=statistical")
            }
            actions.append(.event(kind: "numerics", severity: .warning, text: text))
        }
        workers[worker]!.stage = .prepared
        workers[worker]!.phase = "standing by"
        if firstPreparedAt == nil { firstPreparedAt = now }
        if case .gathering = phase { actions += boundary(now: now) }
        return actions
    }

    private mutating func workerGone(
        _ id: String, why: String, failed: Bool, now: Duration
    ) -> [CoordinatorAction] {
        // In the end everybody was told to stop, and leaves.
        if case .ended = phase { return [] }
        guard let worker = workers.removeValue(forKey: id) else { return [] }
        order.removeAll { $0 == id }
        var actions: [CoordinatorAction] = []
        if worker.hello.role != .observer {
            actions.append(.workerLeft(id, why: why))
            let name = worker.hello.role == .trainer ? "trainer" : "evaluator"
            actions.append(
                .event(
                    kind: "worker_left", severity: failed ? .warning : .info,
                    text: "\(name) \(id) left: \(why)"))
        }
        switch worker.hello.role {
        case .evaluator:
            queue.evaluatorLeft(id)
            lastEvaluatorActivity = now
            return actions + finishIfDone(now: now)
        case .trainer:
            return actions + trainerGone(id, worker, now: now)
        default:
            return actions
        }
    }

    private mutating func trainerGone(
        _ id: String, _ worker: Worker, now: Duration
    ) -> [CoordinatorAction] {
        var actions: [CoordinatorAction] = []
        if members.isEmpty, worker.stage == .member || worker.stage == .loading {
            if case .committing = phase { return actions }  // the boundary finds nobody
            return actions + rollBack(now: now)
        }
        if let pending, pending.sender == id || pending.backup == id {
            actions += holderGone(id, now: now)
        }
        switch phase {
        case .loading:
            if worker.stage == .loading {
                actions += loadingSettled(now: now)
            } else if worker.stage == .member {
                // The donor may be gone: joiners ask again at the next boundary.
                for other in order where workers[other]?.stage == .loading {
                    workers[other]!.stage = .prepared
                }
                actions += boundary(now: now)
            }
        case .stepping(var flight) where worker.stage == .member:
            generation += 1
            release(slotsOf: id, in: &flight)
            flight.ready = [:]
            phase = .stepping(flight)
            actions += sendPlan(flight, to: members)
        case .holding, .gathering:
            actions += boundary(now: now)
        default: break
        }
        return actions
    }

    /// Gives the slots of a member that is gone to the others, the ones with fewest leases first.
    private func release(slotsOf id: String, in flight: inout StepInFlight) {
        var load: [String: Int] = [:]
        for lease in flight.leases { load[lease.worker, default: 0] += 1 }
        for place in flight.leases.indices where flight.leases[place].worker == id {
            let heir = members.min { (load[$0] ?? 0, $0) < (load[$1] ?? 0, $1) }!
            load[heir, default: 0] += 1
            flight.leases[place].worker = heir
            flight.leases[place].attempt += 1
            let slot = Int(flight.leases[place].slot)
            flight.leases[place].optional = flight.results[slot] != nil
        }
    }

    /// Nobody alive holds the state: go back to the newest durable one.
    private mutating func rollBack(now: Duration) -> [CoordinatorAction] {
        if case .finishing = phase, pending == nil { return [] }
        if case .ended = phase { return [] }
        var actions: [CoordinatorAction] = []
        let target = durable.last
        if cursor != (target?.step ?? 0) || pending != nil {
            actions.append(
                .event(
                    kind: "redo", severity: .warning,
                    text: "no live trainer holds step \(cursor); going back to step "
                        + "\(target?.step ?? 0) and doing the steps up to \(ledgerStep) again"))
        }
        cursor = target?.step ?? 0
        history = target?.history ?? HistoryDigest.start
        lastCommit = nil
        pending = nil
        for id in order where [.member, .loading].contains(workers[id]!.stage) {
            workers[id]!.stage = .prepared
        }
        phase = .gathering
        return actions + boundary(now: now)
    }

    // MARK: The boundary between two steps

    /// Decides what happens next at a step boundary; every path between steps leads through here.
    mutating func boundary(now: Duration) -> [CoordinatorAction] {
        if case .ended = phase { return [] }
        if members.isEmpty {
            phase = .gathering
            if isDraining { return end(.drained) }
            // All who held the state may have died during the commit.
            if let newest = durable.last, cursor != newest.step { return rollBack(now: now) }
            if durable.isEmpty, cursor != 0 { return rollBack(now: now) }
            if cursor == configuration.totalSteps, pending == nil, isStored(cursor) {
                phase = .finishing(since: now)
                lastEvaluatorActivity = now
                return finishIfDone(now: now)
            }
            return gather(now: now)
        }
        if isDraining { return drainAtBoundary(now: now) }
        if cursor == configuration.totalSteps { return finishTraining(now: now) }
        if let pending {
            let nextIsDue = isCheckpointStep(cursor) && pending.step != cursor
            if nextIsDue || cursor + 1 > pending.step + configuration.checkpointMaxLagSteps {
                phase = .holding
                return []
            }
        }
        let joiners = order.filter { workers[$0]?.stage == .prepared && isTrainer($0) }
        if !joiners.isEmpty { return load(joiners, now: now) }
        return beginStep(now: now)
    }

    private mutating func gather(now: Duration) -> [CoordinatorAction] {
        let joiners = order.filter { workers[$0]?.stage == .prepared && isTrainer($0) }
        guard !joiners.isEmpty else {
            firstPreparedAt = nil
            return []
        }
        let waited = now - (firstPreparedAt ?? now)
        guard
            joiners.count >= configuration.expectedTrainers || waited >= configuration.startPatience
        else { return [] }
        return load(joiners, now: now)
    }

    private mutating func load(_ joiners: [String], now: Duration) -> [CoordinatorAction] {
        var actions = commitToMembers()
        phase = .loading(since: now)
        var message = WireLoadState()
        message.step = UInt64(cursor)
        message.history = history
        for (number, joiner) in joiners.enumerated() {
            workers[joiner]!.stage = .loading
            loads += 1
            workers[joiner]!.load = loads
            message.number = loads
            let donors = members
            if !donors.isEmpty {
                let donor = donors[number % donors.count]
                message.source = .peer
                message.peer = donor
                workers[joiner]!.donor = donor
                actions.append(.send(.loadState(message), to: joiner))
            } else if let checkpoint = durable.last {
                message.source = .checkpoint
                message.file = checkpoint.file
                message.byteCount = UInt64(checkpoint.byteCount)
                message.digest = checkpoint.digest
                actions.append(.send(.loadState(message), to: joiner))
            } else {
                message.source = .initial
                actions.append(.send(.loadState(message), to: joiner))
            }
        }
        return actions
    }

    /// The joiner listens: its donor may send.
    private func stateAwaited(
        _ message: WireStateAwaited, from worker: String
    ) -> [CoordinatorAction] {
        guard case .loading = phase, let joiner = workers[worker], joiner.stage == .loading,
            message.number == joiner.load, workers[joiner.donor]?.stage == .member
        else { return [] }
        var donation = WireDonateState()
        donation.step = UInt64(cursor)
        donation.worker = worker
        donation.dataAddress = joiner.hello.dataAddress
        return [.send(.donateState(donation), to: joiner.donor)]
    }

    private mutating func stateLoaded(
        _ message: WireStateLoaded, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard case .loading = phase, workers[worker]!.stage == .loading,
            message.number == workers[worker]!.load, message.step == UInt64(cursor)
        else { return [] }
        workers[worker]!.stage = .member
        workers[worker]!.appliedStep = cursor
        workers[worker]!.stateDigest = message.digest
        return loadingSettled(now: now)
    }

    private mutating func loadingSettled(now: Duration) -> [CoordinatorAction] {
        guard !order.contains(where: { workers[$0]?.stage == .loading }) else { return [] }
        if members.isEmpty { return rollBack(now: now) }
        generation += 1
        var text = "generation \(generation): \(members.count) trainers at step \(cursor)"
        if cursor < ledgerStep {
            text += "; steps \(cursor + 1) to \(ledgerStep) are done again and compared"
        }
        let actions: [CoordinatorAction] = [
            .event(kind: "members", severity: .info, text: text)
        ]
        phase = .holding
        return actions + boundary(now: now)
    }

    private mutating func beginStep(now: Duration) -> [CoordinatorAction] {
        let step = cursor + 1
        let scalars = source.scalars(step: step)
        lastRate = Double(bitPattern: scalars.learningRate)
        let flight = StepInFlight(
            step: step, samples: source.samples(step: step), scalars: scalars, startedAt: now,
            leases: leases(members))
        phase = .stepping(flight)
        if lastStoredAt == nil { lastStoredAt = now }
        if pending == nil {
            if isCheckpointStep(cursor), !isStored(cursor) {
                pending = newCheckpoint(recovery: false)
            } else if let interval = configuration.recoveryInterval,
                now - lastStoredAt! >= interval,
                !durable.contains(where: { $0.step >= cursor })
            {
                pending = newCheckpoint(recovery: true)
            }
        }
        return sendPlan(flight, to: members)
    }

    /// Contiguous runs of slots, as equal as they can be; aligned where the members are a power of
    /// two, so that a member's slots form one subtree.
    private func leases(_ members: [String]) -> [WireLease] {
        (0..<configuration.slotCount).map { slot in
            var lease = WireLease()
            lease.slot = UInt32(slot)
            lease.worker =
                members[slot * members.count / max(configuration.slotCount, members.count)]
            lease.attempt = 1
            return lease
        }
    }

    private func sendPlan(
        _ flight: StepInFlight, to members: [String]
    ) -> [CoordinatorAction] {
        var plan = WirePlan()
        plan.term = term
        plan.generation = generation
        plan.step = UInt64(flight.step)
        plan.history = history
        plan.members = members.map { id in
            var member = WireMember()
            member.worker = id
            member.dataAddress = workers[id]!.hello.dataAddress
            return member
        }
        plan.leases = flight.leases
        plan.scalars = flight.scalars
        if let lastCommit { plan.previous = lastCommit }
        // In every plan of the step: a newer one replaces an older one that is not begun.
        if let pending, pending.step == cursor {
            plan.checkpoint.step = UInt64(pending.step)
            plan.checkpoint.recovery = pending.isRecovery
            plan.checkpoint.primary = pending.sender
            plan.checkpoint.backup = pending.backup
        }
        plan.samples = [flight.samples]
        let last = min(flight.step + configuration.stepsAhead, configuration.totalSteps)
        if flight.step < last {
            plan.samples += (flight.step + 1...last).map { source.samples(step: $0) }
        }
        return members.map { .send(.plan(plan), to: $0) }
    }

    // MARK: The step

    private mutating func slotDone(
        _ done: WireSlotDone, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard case .stepping(var flight) = phase, UInt64(flight.step) == done.step,
            Int(done.slot) < configuration.slotCount
        else { return [] }
        let slot = Int(done.slot)
        if let before = flight.results[slot] {
            guard before.loss.bitPattern != done.loss else { return [] }
            return end(
                .failed(
                    "slot \(slot) of step \(flight.step) gave loss \(before.loss) at "
                        + "\(before.worker) and \(Float(bitPattern: done.loss)) at \(worker): one "
                        + "of them computes wrongly; run 'lineup doctor' on both"))
        }
        flight.results[slot] = StepRecord.MiniBatch(
            slot: slot, worker: worker, attempt: Int(done.attempt),
            loss: Float(bitPattern: done.loss), decodeSeconds: done.decodeSeconds,
            computeSeconds: done.computeSeconds)
        flight.statistics[slot] = done
        progressAt = now
        phase = .stepping(flight)
        return commitIfReady(now: now)
    }

    private mutating func slotReturned(
        _ message: WireSlotReturned, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard case .stepping(let flight) = phase, message.step == UInt64(flight.step),
            workers[worker]!.stage == .member
        else { return [] }
        return end(
            .failed(
                "step \(message.step), slot \(message.slot): \(message.reason) (worker \(worker))"))
    }

    private mutating func readyReceived(
        _ ready: WireReady, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard case .stepping(var flight) = phase, ready.term == term,
            ready.generation == generation, ready.step == UInt64(flight.step),
            workers[worker]!.stage == .member
        else { return [] }
        flight.ready[worker] = ready
        progressAt = now
        phase = .stepping(flight)
        return commitIfReady(now: now)
    }

    private mutating func commitIfReady(now: Duration) -> [CoordinatorAction] {
        guard case .stepping(let flight) = phase,
            flight.results.count == configuration.slotCount,
            members.allSatisfy({ flight.ready[$0] != nil })
        else { return [] }
        let first = flight.ready[members[0]]!
        for member in members {
            let ready = flight.ready[member]!
            guard ready.effectDigest == first.effectDigest,
                ready.stateDigest == first.stateDigest
            else {
                return end(
                    .failed(
                        "step \(flight.step): \(members[0]) and \(member) disagree (effect "
                            + "\(first.effectDigest.hex) and \(ready.effectDigest.hex), state "
                            + "\(first.stateDigest.hex) and \(ready.stateDigest.hex)); nothing was "
                            + "committed: run 'lineup doctor' on both, then resume"))
            }
        }
        let record = record(of: flight, digest: first, now: now)
        phase = .committing(flight)
        return flight.step <= ledgerStep ? [.compareRedone(record)] : [.commit(record)]
    }

    private func record(
        of flight: StepInFlight, digest ready: WireReady, now: Duration
    ) -> StepRecord {
        let batches = (0..<configuration.slotCount).map { flight.results[$0]! }
        let statistics = (0..<configuration.slotCount).map { flight.statistics[$0]! }
        let scale = Float(1) / Float(configuration.slotCount)
        let fractions = FoldTree.fold(statistics.map(\.fractionPositive), +)
        return StepRecord(
            step: flight.step, loss: FoldTree.fold(batches.map(\.loss), +) * scale,
            fractionPositive: fractions / Double(configuration.slotCount),
            activeCount: statistics.reduce(0) { $0 + Int(UInt32(clamping: $1.activeCount)) },
            learningRate: Double(bitPattern: flight.scalars.learningRate),
            scalars: flight.scalars,
            samples: flight.samples.slots.reduce(0) { $0 + $1.indices.count },
            digest: ready.effectDigest, stateDigest: ready.stateDigest,
            history: HistoryDigest.next(history, effect: ready.effectDigest),
            miniBatches: batches, totalSeconds: (now - flight.startedAt).seconds,
            exchangeSeconds: flight.ready.values.map(\.exchangeSeconds).max() ?? 0)
    }

    private mutating func stepDone(_ record: StepRecord, now: Duration) -> [CoordinatorAction] {
        cursor = record.step
        history = record.history
        var commit = WireCommit()
        commit.term = term
        commit.generation = generation
        commit.step = UInt64(record.step)
        commit.digest = record.digest
        commit.history = record.history
        lastCommit = commit
        lastLoss = Double(record.loss)
        lastFraction = record.fractionPositive
        lastSamples = record.samples
        stepSeconds.append(record.totalSeconds)
        if stepSeconds.count > 50 { stepSeconds.removeFirst() }
        phase = .holding
        return boundary(now: now)
    }

    private func commitToMembers() -> [CoordinatorAction] {
        guard let lastCommit else { return [] }
        return members.map { .send(.commit(lastCommit), to: $0) }
    }

    // MARK: Checkpoints

    func isCheckpointStep(_ step: Int) -> Bool {
        if step == 0 || step == configuration.totalSteps { return true }
        return configuration.checkpointEverySteps > 0
            && step % configuration.checkpointEverySteps == 0
    }

    func isStored(_ step: Int) -> Bool {
        durable.contains { $0.step == step && !$0.isRecovery }
    }

    private func newCheckpoint(recovery: Bool) -> PendingCheckpoint {
        let holders = members
        return PendingCheckpoint(
            step: cursor, history: history, isRecovery: recovery, sender: holders[0],
            backup: holders.count > 1 ? holders[1] : "")
    }

    /// Asks for a checkpoint of the members' state without a next step.
    private mutating func askForCheckpoint(recovery: Bool) -> [CoordinatorAction] {
        let asked = newCheckpoint(recovery: recovery)
        pending = asked
        var message = WireSendCheckpoint()
        message.step = UInt64(asked.step)
        message.recovery = recovery
        return [.send(.sendCheckpoint(message), to: asked.sender)]
    }

    private mutating func holderGone(_ id: String, now: Duration) -> [CoordinatorAction] {
        guard var pending else { return [] }
        if pending.backup == id {
            pending.backup = ""
            self.pending = pending
            return []
        }
        // The sender is gone. A second holder has the copy; at the boundary of that very step
        // every member still has the state itself.
        let heir =
            !pending.backup.isEmpty
            ? pending.backup
            : (pending.step == cursor && !isStepping ? members.first ?? "" : "")
        guard !heir.isEmpty else {
            self.pending = nil
            return rollBack(now: now)
        }
        pending.sender = heir
        pending.backup = ""
        self.pending = pending
        var message = WireSendCheckpoint()
        message.step = UInt64(pending.step)
        message.recovery = pending.isRecovery
        return [.send(.sendCheckpoint(message), to: heir)]
    }

    private var isStepping: Bool {
        switch phase {
        case .stepping, .committing: true
        default: false
        }
    }

    private mutating func senderFailed(
        step: Int, reason: String, from worker: String, now: Duration
    ) -> [CoordinatorAction] {
        guard let pending, pending.step == step, pending.sender == worker else { return [] }
        let event = CoordinatorAction.event(
            kind: "checkpoint_lost", severity: .warning,
            text: "\(worker) could not send the state of step \(step): \(reason)")
        if pending.isRecovery && !isDraining {
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

    private mutating func drainAtBoundary(now: Duration) -> [CoordinatorAction] {
        if durable.contains(where: { $0.step == cursor }) {
            return commitToMembers() + end(.drained)
        }
        phase = .holding
        if pending != nil { return commitToMembers() }
        let isListed = isCheckpointStep(cursor)
        return commitToMembers() + askForCheckpoint(recovery: !isListed)
    }

    private mutating func finishTraining(now: Duration) -> [CoordinatorAction] {
        if pending != nil {
            phase = .holding
            return commitToMembers()
        }
        var actions = commitToMembers()
        phase = .finishing(since: now)
        lastEvaluatorActivity = now
        if !isStored(cursor) { actions += askForCheckpoint(recovery: false) }
        return actions + finishIfDone(now: now)
    }

    private mutating func finishIfDone(now: Duration) -> [CoordinatorAction] {
        guard case .finishing(let since) = phase, pending == nil else { return [] }
        if isDraining { return end(.drained) }
        let waited = now - max(since, lastEvaluatorActivity)
        let patience: Duration =
            if !evaluators.isEmpty {
                configuration.evaluationTimeout
            } else if configuration.expectedEvaluators > 0 || hadEvaluator {
                configuration.startPatience
            } else {
                .seconds(-1)
            }
        let nobodyComes = waited > patience
        guard queue.isDone || nobodyComes else { return [] }
        return end(.finished)
    }

    /// Ends the coordinator's life and tells everybody.
    private mutating func end(_ outcome: CoordinatorOutcome) -> [CoordinatorAction] {
        if case .ended = phase { return [] }
        phase = .ended
        let stop =
            switch outcome {
            case .finished: Self.stop(.finished, "the run is finished")
            case .drained: Self.stop(.drained, "the coordinator was asked to stop")
            case .failed(let why): Self.stop(.failed, why)
            }
        var actions: [CoordinatorAction] = []
        if case .failed(let why) = outcome {
            actions.append(.event(kind: "failed", severity: .error, text: why))
        }
        for id in order {
            actions.append(.send(.stop(stop), to: id))
            if workers[id]?.hello.role != .observer {
                actions.append(.workerLeft(id, why: stop.message))
            }
        }
        return actions + [.finish(outcome)]
    }

    private func isTrainer(_ id: String) -> Bool { workers[id]?.hello.role == .trainer }

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

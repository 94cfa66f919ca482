public import Basics
public import Protocol

/// Effects of a trainer's decisions, carried out by its shell in order.
public enum TrainerAction: Sendable, Equatable {
    /// Send a control message to the coordinator.
    case send(WireBody)
    /// Load settings, data set and engine, then report ``TrainerStateMachine/prepared(_:)``.
    case prepare(WireWelcome)
    /// Get the state, then report ``TrainerStateMachine/stateLoaded(step:digest:)``.
    case load(WireLoadState)
    /// Send the committed state of this step to a joiner.
    case donate(WireDonateState)
    /// Start decoding these mini-batches; those of the first step are needed first.
    case prefetch([WireStepSamples], slots: [Int])
    /// Compute these slots, reporting ``TrainerStateMachine/slotComputed(_:)`` for each.
    case compute(step: Int, slots: [Int], samples: WireStepSamples)
    /// Open the exchange of a step; parked data of it can be taken in.
    case openExchange(step: Int, history: UInt64, members: [WireMember])
    /// The members changed: connect to whoever is new.
    case membersChanged([WireMember])
    /// Carry out what the exchange decided.
    case exchange(ExchangeStateMachine.Action)
    /// Digest the complete effect, then report ``TrainerStateMachine/effectDigested(_:state:)``.
    case digestEffect(step: Int, scalars: WireStepScalars)
    /// Change the state by the staged effect, then report ``TrainerStateMachine/applied(step:)``.
    case apply(step: Int, scalars: WireStepScalars)
    /// Copy the state aside before the next apply; send it when `send` is set.
    case snapshot(step: Int, recovery: Bool, send: Bool)
    /// Send the copy made before.
    case sendSnapshot(step: Int, recovery: Bool)
    /// The copy is no longer needed.
    case releaseSnapshot(step: Int)
    /// The trainer's work is over.
    case leave(WireStop)
    /// The coordinator does not want this worker.
    case refused(WireRefusal)
    /// Something is wrong with this worker's state: say so and leave.
    case fail(String)
}

/// Everything a trainer decides: what to compute, when to say READY, when to apply.
///
/// Holds no clock, socket, file or tensor. The one place where training state changes is
/// ``TrainerAction/apply(step:scalars:)``, and it leaves here only after the coordinator's COMMIT
/// with the digest of the effect that was staged.
public struct TrainerStateMachine: Sendable {
    enum Phase: Sendable, Equatable {
        /// HELLO is sent. Leaves for `preparing` at WELCOME.
        case greeting
        /// The shell loads data set and engine. Leaves for `standingBy`.
        case preparing
        /// Waits for LOAD. Leaves for `loading`.
        case standingBy
        /// The shell gets the state. Leaves for `active`.
        case loading
        /// Takes part in steps.
        case active
        /// Left, refused or stopped.
        case gone
    }

    struct StepWork: Sendable {
        var plan: WirePlan
        let samples: WireStepSamples
        var exchange: ExchangeStateMachine
        /// Slots under way or done here.
        var started: Set<Int> = []
        var done: Set<Int> = []
        var digest: UInt64?
        var stateDigest: UInt64 = 0
        var isDigesting = false
        var readySaid: UInt64?
    }

    let me: String
    /// Slots in a step.
    public let slotCount: Int
    /// History digest up to ``step``.
    public private(set) var history: UInt64 = 0
    private(set) var phase = Phase.greeting
    private var blockCount = 1
    private var work: StepWork?
    private var appliedStep = 0
    private var isApplying = false
    private var nextPlan: WirePlan?
    private var pendingDuty: WireCheckpointDuty?
    private var pendingDonations: [WireDonateState] = []
    private var pendingLoad: WireLoadState?
    private var loadNumber: UInt64 = 0

    /// Starts a trainer that has not said HELLO.
    public init(worker: String, slotCount: Int) {
        me = worker
        self.slotCount = slotCount
    }

    /// Step whose effect was applied last.
    public var step: Int { appliedStep }

    /// For the coordinator's view: what the trainer is doing.
    public var phaseName: String {
        switch phase {
        case .greeting: return "greeting"
        case .preparing: return "preparing"
        case .standingBy: return "standing by"
        case .loading: return "loading"
        case .gone: return "gone"
        case .active:
            if isApplying { return "applying" }
            guard let work else { return "waiting" }
            if work.readySaid != nil { return "ready" }
            return work.done == mySlots(work) ? "exchanging" : "computing"
        }
    }

    /// Which lease of a slot this trainer holds in the step under way, from 1.
    public func attempt(ofSlot slot: Int) -> UInt32 {
        work?.plan.leases.first { Int($0.slot) == slot && $0.worker == me }?.attempt ?? 1
    }

    /// Slots of the step under way: done and leased.
    public var slots: (done: Int, leased: Int) {
        guard let work else { return (0, 0) }
        return (work.done.count, mySlots(work).count)
    }

    // MARK: Inputs

    /// A control message arrived.
    public mutating func received(_ body: WireBody) -> [TrainerAction] {
        guard phase != .gone else { return [] }
        switch body {
        case .welcome(let welcome):
            guard phase == .greeting else { return [] }
            phase = .preparing
            return [.prepare(welcome)]
        case .refusal(let refusal):
            phase = .gone
            return [.refused(refusal)]
        case .stop(let stop):
            phase = .gone
            return [.leave(stop)]
        case .loadState(let load): return loadReceived(load)
        case .plan(let plan): return planReceived(plan)
        case .commit(let commit): return commitReceived(commit)
        case .donateState(let donation):
            guard phase == .active else { return [] }
            pendingDonations.append(donation)
            return donateIfPossible()
        case .sendCheckpoint(let message):
            guard phase == .active else { return [] }
            var duty = WireCheckpointDuty()
            duty.step = message.step
            duty.recovery = message.recovery
            duty.primary = me
            return dutyReceived(duty)
        case .releaseCheckpoint(let message):
            return [.releaseSnapshot(step: Int(clamping: message.step))]
        default: return []
        }
    }

    /// The shell has data set and engine.
    public mutating func prepared(_ message: WirePrepared) -> [TrainerAction] {
        guard phase == .preparing else { return [] }
        phase = .standingBy
        blockCount = Int(clamping: message.blockCount)
        return [.send(.prepared(message))]
    }

    /// The state is there.
    public mutating func stateLoaded(step: Int, digest: UInt64) -> [TrainerAction] {
        guard phase == .loading else { return [] }
        phase = .active
        appliedStep = step
        var message = WireStateLoaded()
        message.step = UInt64(step)
        message.digest = digest
        message.number = loadNumber
        return [.send(.stateLoaded(message))]
    }

    /// A slot is computed and its gradient held.
    public mutating func slotComputed(_ done: WireSlotDone) -> [TrainerAction] {
        guard var work, work.plan.step == done.step else { return [] }
        let slot = Int(done.slot)
        guard work.started.contains(slot), !work.done.contains(slot) else { return [] }
        work.done.insert(slot)
        var actions: [TrainerAction] = [.send(.slotDone(done))]
        if work.started == work.done {
            actions += work.exchange.slotsComputed(work.done).map { .exchange($0) }
        }
        self.work = work
        return actions + digestIfComplete()
    }

    /// A slot could not be computed for a fault of its data.
    public mutating func slotFailed(step: Int, slot: Int, reason: String) -> [TrainerAction] {
        var message = WireSlotReturned()
        message.step = UInt64(step)
        message.slot = UInt32(slot)
        message.reason = reason
        return [.send(.slotReturned(message))]
    }

    /// Whether data of a step belongs to the exchange that is open.
    public func isExchanging(step: Int, history: UInt64) -> Bool {
        work.map { Int($0.plan.step) == step && $0.plan.history == history } ?? false
    }

    /// Whether a partial that arrived is to be kept; report it kept with
    /// ``partialReceived(_:run:)``.
    public func wantsPartial(_ block: Int, run: SlotRun) -> Bool {
        work?.exchange.wantsPartial(block, run: run) ?? false
    }

    /// Whether a finished block that arrived is to be kept; report it kept with
    /// ``resultReceived(_:)``.
    public func wantsResult(_ block: Int) -> Bool {
        work?.exchange.wantsResult(block) ?? false
    }

    /// A partial was kept.
    public mutating func partialReceived(_ block: Int, run: SlotRun) -> [TrainerAction] {
        guard work != nil else { return [] }
        let actions = work!.exchange.partialReceived(block, run: run)
        return actions.map { .exchange($0) } + digestIfComplete()
    }

    /// A finished block was kept.
    public mutating func resultReceived(_ block: Int) -> [TrainerAction] {
        guard work != nil else { return [] }
        let actions = work!.exchange.resultReceived(block)
        return actions.map { .exchange($0) } + digestIfComplete()
    }

    /// The effect is digested, and the part of the state that this step checks.
    public mutating func effectDigested(
        step: Int, digest: UInt64, state: UInt64
    ) -> [TrainerAction] {
        guard work != nil, Int(work!.plan.step) == step else { return [] }
        work!.digest = digest
        work!.stateDigest = state
        return readyIfDone()
    }

    /// The staged effect is applied.
    public mutating func applied(step: Int) -> [TrainerAction] {
        guard isApplying, let work, Int(work.plan.step) == step else { return [] }
        isApplying = false
        appliedStep = step
        history = HistoryDigest.next(work.plan.history, effect: work.digest ?? 0)
        self.work = nil
        var actions: [TrainerAction] = []
        if let duty = pendingDuty, Int(duty.step) == step {
            pendingDuty = nil
            actions += dutyReceived(duty)
        }
        actions += donateIfPossible()
        if let load = pendingLoad {
            pendingLoad = nil
            return actions + loadReceived(load)
        }
        if let plan = nextPlan {
            nextPlan = nil
            return actions + planReceived(plan)
        }
        return actions
    }

    // MARK: Steps

    private mutating func loadReceived(_ load: WireLoadState) -> [TrainerAction] {
        // A message to this worker's former life may still arrive after a reconnect.
        guard [.standingBy, .loading, .active].contains(phase) else { return [] }
        if isApplying {
            pendingLoad = load
            return []
        }
        // A member is told to load when the run goes back to a checkpoint.
        work = nil
        nextPlan = nil
        pendingDuty = nil
        pendingDonations = []
        phase = .loading
        history = load.history
        loadNumber = load.number
        guard load.source == .peer else { return [.load(load)] }
        var awaited = WireStateAwaited()
        awaited.step = load.step
        awaited.number = load.number
        return [.load(load), .send(.stateAwaited(awaited))]
    }

    private mutating func planReceived(_ plan: WirePlan) -> [TrainerAction] {
        guard phase == .active else { return [] }
        if isApplying {
            nextPlan = plan
            return []
        }
        let step = Int(clamping: plan.step)
        if let work {
            if work.plan.step == plan.step { return membersChanged(plan) }
            if plan.hasPrevious, plan.previous.step == work.plan.step {
                nextPlan = plan
                return commitReceived(plan.previous)
            }
            return []
        }
        guard step == appliedStep + 1 else {
            guard step > appliedStep else { return [] }
            phase = .gone
            return [
                .fail("told to compute step \(step) but holds the state of step \(appliedStep)")
            ]
        }
        return begin(plan, step: step)
    }

    private mutating func begin(_ plan: WirePlan, step: Int) -> [TrainerAction] {
        guard let samples = plan.samples.first(where: { $0.step == plan.step }),
            plan.samples.allSatisfy({ $0.slots.count == slotCount }),
            plan.leases.allSatisfy({ Int($0.slot) < slotCount }),
            plan.members.contains(where: { $0.worker == me })
        else {
            phase = .gone
            return [
                .fail("plan of step \(step) does not fit this run or does not name this worker")
            ]
        }
        var actions: [TrainerAction] = []
        if plan.hasCheckpoint { actions += dutyReceived(plan.checkpoint) }
        var work = StepWork(
            plan: plan, samples: samples,
            exchange: ExchangeStateMachine(
                me: me, members: plan.members.map(\.worker), slotCount: slotCount,
                blockCount: blockCount))
        let mine = mySlots(work)
        work.started = mine
        actions.append(
            .openExchange(step: step, history: plan.history, members: plan.members))
        let slots = mine.sorted()
        if !slots.isEmpty {
            actions.append(.compute(step: step, slots: slots, samples: samples))
            let ahead = plan.samples.filter { $0.step > plan.step }
            if !ahead.isEmpty { actions.append(.prefetch(ahead, slots: slots)) }
        }
        self.work = work
        return actions
    }

    private mutating func membersChanged(_ plan: WirePlan) -> [TrainerAction] {
        guard var work, plan.generation > work.plan.generation || plan.term > work.plan.term,
            plan.leases.allSatisfy({ Int($0.slot) < slotCount })
        else { return [] }
        work.plan.term = plan.term
        work.plan.generation = plan.generation
        work.plan.members = plan.members
        work.plan.leases = plan.leases
        guard plan.members.contains(where: { $0.worker == me }) else {
            phase = .gone
            return [.fail("is no longer a member")]
        }
        var actions: [TrainerAction] = [.membersChanged(plan.members)]
        let isComplete = work.exchange.isComplete
        let wanted = plan.leases.filter {
            $0.worker == me && !($0.optional && isComplete)
        }.map { Int($0.slot) }
        let new = Set(wanted).subtracting(work.started).sorted()
        work.started.formUnion(new)
        if !new.isEmpty {
            actions.append(
                .compute(step: Int(plan.step), slots: new, samples: work.samples))
        }
        actions += work.exchange.membersChanged(plan.members.map(\.worker)).map { .exchange($0) }
        self.work = work
        return actions + digestIfComplete() + readyIfDone()
    }

    private mutating func digestIfComplete() -> [TrainerAction] {
        guard let work, work.exchange.isComplete, !work.isDigesting else { return [] }
        self.work!.isDigesting = true
        return [.digestEffect(step: Int(work.plan.step), scalars: work.plan.scalars)]
    }

    private mutating func readyIfDone() -> [TrainerAction] {
        guard let work, let digest = work.digest, work.readySaid != work.plan.generation
        else { return [] }
        self.work!.readySaid = work.plan.generation
        var ready = WireReady()
        ready.term = work.plan.term
        ready.generation = work.plan.generation
        ready.step = work.plan.step
        ready.effectDigest = digest
        ready.stateDigest = work.stateDigest
        return [.send(.ready(ready))]
    }

    private mutating func commitReceived(_ commit: WireCommit) -> [TrainerAction] {
        guard phase == .active, !isApplying, let work, work.plan.step == commit.step
        else { return [] }
        guard let digest = work.digest, digest == commit.digest else {
            phase = .gone
            return [
                .fail(
                    "step \(commit.step) was committed with digest \(commit.digest.hex), this "
                        + "worker staged \(work.digest?.hex ?? "nothing"); its state is not used "
                        + "any more")
            ]
        }
        isApplying = true
        return [.apply(step: Int(commit.step), scalars: work.plan.scalars)]
    }

    // MARK: Copies of the state

    private mutating func dutyReceived(_ duty: WireCheckpointDuty) -> [TrainerAction] {
        guard duty.primary == me || duty.backup == me else { return [] }
        let step = Int(clamping: duty.step)
        if step == appliedStep && !isApplying {
            return [.snapshot(step: step, recovery: duty.recovery, send: duty.primary == me)]
        }
        if step < appliedStep {
            // This worker was the second holder and has the copy.
            return [.sendSnapshot(step: step, recovery: duty.recovery)]
        }
        pendingDuty = duty
        return []
    }

    private mutating func donateIfPossible() -> [TrainerAction] {
        guard phase == .active, !isApplying else { return [] }
        let ready = pendingDonations.filter { Int($0.step) == appliedStep }
        pendingDonations.removeAll { Int($0.step) <= appliedStep }
        return ready.map { .donate($0) }
    }

    private func mySlots(_ work: StepWork) -> Set<Int> {
        Set(work.plan.leases.filter { $0.worker == me }.map { Int($0.slot) })
    }
}

public import Basics
public import Protocol

/// Everything a trainer decides: what to compute, when to say READY, when to apply.
///
/// Holds no clock, socket, file or tensor. The one place where training state changes is
/// ``TrainerAction/apply(step:scalars:epoch:)``, and it leaves here only after the coordinator's
/// COMMIT with the digest of the effect that was staged. A connection that is lost changes nothing:
/// the step in hand goes on, and the next coordinator is told what there is.
///
/// What is lost on the way is repeated: this machine says several times a second what it stands on,
/// and the coordinator answers what is not up to date.
public struct TrainerStateMachine: Codable, Sendable {
    enum Phase: Codable, Sendable, Equatable {
        /// Not welcomed yet. Leaves for `preparing` at WELCOME.
        case greeting
        /// The shell loads data set and engine. Leaves for `standingBy`.
        case preparing
        /// Waits for LOAD. Leaves for `loading`.
        case standingBy
        /// The shell gets the state. Leaves for `active`.
        case loading
        /// Holds a state: takes part in steps, or listens to them.
        case active
        /// Left, refused or stopped.
        case gone
    }

    struct StepWork: Codable, Sendable {
        var plan: WirePlan
        let samples: WireStepSamples
        var exchange: ExchangeStateMachine
        /// Slots under way or done here.
        var started: Set<Int> = []
        var done: [Int: WireSlotDone] = [:]
        /// Slots that could not be computed here.
        var returned: [Int: WireSlotReturned] = [:]
        /// Where mining spans the step: whose embeddings are here, slots whose forward pass is done as
        /// it was said, and those whose backward pass is under way or done.
        var gather: GatherStateMachine?
        var embedded: [Int: WireSlotDone] = [:]
        var backward: Set<Int> = []
        /// Embeddings that were sent in an earlier fold are not used any more.
        var soundFold = 0
        var digest: UInt64?
        var stateDigest: UInt64 = 0
        var isDigesting = false
        /// (term, generation) in which READY was said.
        var readySaid: Standing?

        var step: Int { Int(clamping: plan.step) }
        var fold: Int { Int(plan.fold) }
        var doneSlots: Set<Int> { Set(done.keys) }

        /// Slots whose embeddings it waits for, with nothing else to compute.
        var lacking: [Int] {
            guard let gather, !gather.isComplete, !started.isSubset(of: doneSlots),
                started.isSubset(of: embedded.keys)
            else { return [] }
            return gather.lacking
        }
    }

    /// Which coordinator and which membership a message speaks for.
    struct Standing: Codable, Sendable, Comparable {
        var term: UInt64
        var generation: UInt64

        static func < (left: Standing, right: Standing) -> Bool {
            (left.term, left.generation) < (right.term, right.generation)
        }
    }

    /// How often a trainer says what it stands on; silence is judged by that.
    public static let progressInterval = Duration.milliseconds(100)
    /// How often one that stands by does: there may be thousands of them.
    static let idleProgressInterval = Duration.seconds(1)
    /// How long nothing may come before what is missing is asked for.
    public static let missingPatience = Duration.seconds(1)
    /// Steps that a joiner may lie behind; beyond that it begins anew from a younger state.
    public static let backlogMax = 8
    /// No run has this many steps; sums of a step and a few more stay far from overflow.
    static let stepMax: UInt64 = 1 << 60

    let me: String
    /// History digest up to ``step``.
    public private(set) var history: UInt64 = 0
    /// Slots in a step; known once prepared.
    public private(set) var slotCount = 1
    private var audit = Audit.none
    /// Whether a step mines over all of its slots, and so has two phases.
    private var minesStep = false
    private(set) var phase = Phase.greeting
    private var isConnected = false
    private var isWelcome = false
    /// Whether what was said before WELCOME may not have been heard.
    private var isUnheard = false
    private var standing = Standing(term: 0, generation: 0)
    private var blockCount = 1
    /// Digests of the settings and the data set that it was welcomed with.
    private var welcomed: [UInt64] = []
    private var preparedMessage: WirePrepared?
    /// Grows whenever what is under way becomes useless.
    public private(set) var epoch = 0
    private var work: StepWork?
    private var appliedStep = 0
    private var isApplying = false
    /// Plans of later steps, while the one in hand is not committed or the state is not there.
    private var plans: [Int: WirePlan] = [:]
    private var commits: [Int: WireCommit] = [:]
    /// As the last plan named them; members and listeners where there are any.
    private var quarantined: [String] = []
    private var planned: [String] = []
    private var pendingDuty: WireCheckpointDuty?
    private var pendingLoad: WireLoadState?
    private var load = WireLoadState()
    /// Steps whose state is kept aside for a checkpoint.
    private var copies: Set<Int> = []
    /// Step whose copy is kept for joiners.
    private var keptStep: Int?
    /// Whether the state is what the members hold, so far as is known: one that a peer gave is not
    /// spoken of before it has counted.
    private var isConfirmed = false
    /// What the whole state digested to, by step: the last few, and those of copies; 0 while it is taken.
    private var heldStates: [Int: UInt64] = [:]
    /// A later step whose state is to be digested once it is there.
    private var dueDigest: Int?
    private static let heldStatesMax = 4
    private var isDraining = false
    // What tick goes by.
    private var helloAt: Duration?
    private var progressAt: Duration?
    private var moves: UInt64 = 0
    private var movesSeen: UInt64 = 0
    private var movedAt: Duration = .zero
    private var missingAsked = 0

    /// Starts a trainer that has not said HELLO.
    public init(worker: String) { me = worker }

    /// Step whose effect was applied last.
    public var step: Int { appliedStep }

    /// Whether it gets the effect of the step in hand without taking part in it.
    public var isListening: Bool {
        work.map { work in !work.plan.members.contains { $0.worker == me } } ?? false
    }

    /// How often the step in hand was folded before.
    public var fold: Int { work?.fold ?? 0 }

    /// Messages that wait for their turn, at most ``backlogMax`` + 1 of each kind.
    public var waitingCount: Int { plans.count + commits.count }

    /// Whether the worker has been let go, refused or has given up.
    public var isGone: Bool { phase == .gone }

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
            if !work.plan.members.contains(where: { $0.worker == me }) { return "catching up" }
            if !work.lacking.isEmpty { return "gathering" }
            return work.doneSlots == work.started ? "exchanging" : "computing"
        }
    }

    /// Which lease of a slot this trainer holds in the step under way, from 1.
    public func attempt(ofSlot slot: Int) -> UInt32 {
        work?.plan.leases.first { Int($0.slot) == slot && $0.worker == me }?.attempt ?? 1
    }

    /// Slots of the step under way: done or handed back, and leased.
    public var slots: (done: Int, leased: Int) {
        guard let work else { return (0, 0) }
        let leased = leased(work.plan)
        let returned = leased.count { work.done[$0] == nil && work.returned[$0] != nil }
        return (work.done.count + returned, leased.count)
    }

    // MARK: The connection

    /// A connection to the coordinator is there.
    public mutating func connectionOpened(now: Duration) -> [TrainerAction] {
        guard phase != .gone else { return [] }
        isConnected = true
        return sayHello(now: now)
    }

    /// The connection is gone; the step in hand goes on.
    public mutating func connectionClosed() {
        isConnected = false
        isWelcome = false
    }

    private mutating func sayHello(now: Duration) -> [TrainerAction] {
        isWelcome = false
        helloAt = now
        var hello = WireHello()
        hello.worker = me
        hello.role = .trainer
        hello.term = standing.term
        if phase == .active, isConfirmed {
            hello.hasState_p = true
            hello.stateStep = UInt64(appliedStep)
            hello.history = history
            hello.copies = copies.sorted().map { UInt64($0) }
            if let work, work.step == appliedStep + 1 {
                hello.heldSlots = work.doneSlots.union(work.embedded.keys).sorted()
                    .map { UInt32($0) }
                if let digest = work.digest {
                    hello.hasStaged_p = true
                    hello.stagedStep = work.plan.step
                    hello.stagedDigest = digest
                }
            }
        }
        return [.send(.hello(hello))]
    }

    /// Time has passed; `now` is the time since any fixed instant.
    public mutating func tick(now: Duration) -> [TrainerAction] {
        guard phase != .gone else { return [] }
        if moves != movesSeen {
            movesSeen = moves
            movedAt = now
            missingAsked = 0
        }
        var actions: [TrainerAction] = []
        let pause = phase == .standingBy ? Self.idleProgressInterval : Self.progressInterval
        if isConnected && !isWelcome {
            if helloAt.map({ now - $0 >= .seconds(1) }) ?? true { actions += sayHello(now: now) }
        } else if isConnected, progressAt.map({ now - $0 >= pause }) ?? true {
            progressAt = now
            actions.append(.send(.progress(progress)))
        }
        if let work, !work.exchange.isComplete, work.started.isSubset(of: work.doneSlots),
            missingAsked < 8,
            now - movedAt >= Self.missingPatience * (1 << min(missingAsked, 3))
        {
            missingAsked += 1
            movedAt = now
            actions += work.exchange.missing().map { .exchange($0) }
        } else if let work, !work.lacking.isEmpty,
            now - movedAt >= Self.missingPatience * (1 << min(missingAsked, 3))
        {
            missingAsked += 1
            movedAt = now
            let holders = Dictionary(grouping: work.plan.leases) { Int($0.slot) }
                .mapValues { $0.map(\.worker) }
            actions += work.gather!.missing(holders: holders).map { .gather($0) }
        } else if phase == .loading, load.source == .peer, isWelcome,
            now - movedAt >= Self.missingPatience * (1 << min(missingAsked, 3))
        {
            missingAsked += 1
            movedAt = now
            actions += awaited
        }
        return actions
    }

    private var progress: WireProgress {
        var message = WireProgress()
        message.step = UInt64(appliedStep)
        message.phase = phaseName
        message.slotsDone = UInt32(slots.done)
        message.slotsLeased = UInt32(slots.leased)
        message.counter = moves
        message.term = standing.term
        message.generation = standing.generation
        message.planStep = work?.plan.step ?? 0
        message.ready = work?.readySaid == standing
        message.load = load.number
        message.prepared = preparedMessage != nil && phase != .preparing
        message.active = phase == .active
        message.states = heldStates.keys.sorted().map { step in
            var state = WireHeldState()
            state.step = UInt64(step)
            state.digest = heldStates[step]!
            return state
        }
        message.lacking = work?.lacking.map { UInt32($0) } ?? []
        return message
    }

    /// A signal asks to leave: at the next step boundary, when the coordinator lets go.
    public mutating func drain() -> [TrainerAction] {
        guard phase != .gone, !isDraining else { return [] }
        isDraining = true
        guard isConnected, isWelcome else {
            phase = .gone
            return [.leave(Self.drained)]
        }
        return [.send(.goodbye(goodbye))]
    }

    private var goodbye: WireGoodbye {
        var message = WireGoodbye()
        message.reason = "asked to stop"
        message.drain = true
        return message
    }

    private static var drained: WireStop {
        var stop = WireStop()
        stop.reason = .drained
        stop.message = "asked to stop"
        return stop
    }

    // MARK: Control messages

    /// A control message arrived.
    public mutating func received(_ body: WireBody, now: Duration) -> [TrainerAction] {
        guard phase != .gone else { return [] }
        switch body {
        case .welcome(let welcome): return welcomeReceived(welcome)
        case .refusal(let refusal):
            phase = .gone
            return [.refused(refusal)]
        case .stop(let stop):
            if stop.reason == .expelled {
                // Between HELLO and WELCOME this answers something older.
                return isWelcome ? sayHello(now: now) : []
            }
            phase = .gone
            return [.leave(stop)]
        case .loadState(let load): return isWelcome ? loadReceived(load) : []
        case .plan(let plan): return isWelcome ? planReceived(plan) : []
        case .commit(let commit): return isWelcome ? commitReceived(commit) : []
        case .donateState(let donation):
            guard phase == .active, keptStep == Int(clamping: donation.step) else { return [] }
            return [.donate(donation)]
        case .sendCheckpoint(let message):
            guard phase == .active else { return [] }
            guard !message.digestOnly else { return digestDue(Int(clamping: message.step)) }
            var duty = WireCheckpointDuty()
            duty.step = message.step
            duty.recovery = message.recovery
            duty.primary = me
            return dutyReceived(duty)
        case .releaseCheckpoint(let message):
            let step = Int(clamping: message.step)
            guard message.donation else {
                #if PLANTED_BUGS
                    if Planted.has(.copiesKeptForever) { return [] }
                #endif
                copies = copies.filter { $0 > step }
                return [.releaseSnapshot(step: step)]
            }
            if keptStep == step { keptStep = nil }
            return [.releaseForJoiners(step: step)]
        default: return []
        }
    }

    private mutating func welcomeReceived(_ welcome: WireWelcome) -> [TrainerAction] {
        // A coordinator that was replaced may still speak.
        guard welcome.term >= standing.term else { return [] }
        isWelcome = true
        isUnheard = true
        let digests = [welcome.settingsDigest, welcome.datasetDigest]
        if welcome.term > standing.term {
            standing = Standing(term: welcome.term, generation: 0)
            // What was committed stays so; what comes next is the new coordinator's to say.
            plans = [:]
            #if PLANTED_BUGS
                if Planted.has(.stagedEffectDropped), !isApplying, fold > 0 { work = nil }
            #endif
            // It knows nothing of a LOAD under way.
            if phase == .loading { letGo(.standingBy) }
        }
        let isKnown = welcomed == digests
        var actions: [TrainerAction] = isDraining ? [.send(.goodbye(goodbye))] : []
        if phase == .preparing && isKnown { return actions }
        if isKnown, var preparedMessage {
            preparedMessage.lostState = phase != .active || !isConfirmed
            actions.append(.send(.prepared(preparedMessage)))
            return actions
        }
        welcomed = digests
        letGo(.preparing)
        return actions + [.prepare(welcome, epoch: epoch)]
    }

    /// Drops everything that belongs to a state, in favour of what comes.
    private mutating func letGo(_ next: Phase) {
        epoch += 1
        work = nil
        isApplying = false
        plans = [:]
        commits = [:]
        pendingDuty = nil
        pendingLoad = nil
        keptStep = nil
        copies = []
        heldStates = [:]
        dueDigest = nil
        phase = next
    }

    /// The shell has data set and engine.
    public mutating func prepared(
        _ message: WirePrepared, slotCount: Int, audit: Audit = .none, minesStep: Bool = false,
        epoch: Int
    ) -> [TrainerAction] {
        guard phase == .preparing, epoch == self.epoch else { return [] }
        phase = .standingBy
        self.slotCount = slotCount
        self.audit = audit
        self.minesStep = minesStep
        blockCount = Int(clamping: message.blockCount)
        preparedMessage = message
        preparedMessage!.lostState = true
        return [.send(.prepared(preparedMessage!))]
    }

    // MARK: State

    private mutating func loadReceived(_ load: WireLoadState) -> [TrainerAction] {
        guard [.standingBy, .loading, .active].contains(phase) else { return [] }
        if load.number == self.load.number {
            // Said again, since the answer was lost.
            if phase == .loading { return awaited }
            return phase == .active ? [.send(.stateLoaded(loaded))] : []
        }
        // Numbers only grow, across terms too: an older one was overtaken.
        guard load.number > self.load.number, load.step <= Self.stepMax else { return [] }
        if isApplying {
            pendingLoad = load
            return []
        }
        // A member is told to load when the run goes back to a checkpoint.
        letGo(.loading)
        history = load.history
        appliedStep = Int(clamping: load.step)
        self.load = load
        return [.load(load, epoch: epoch)] + awaited
    }

    private var awaited: [TrainerAction] {
        guard load.source == .peer else { return [] }
        var awaited = WireStateAwaited()
        awaited.step = load.step
        awaited.number = load.number
        return [.send(.stateAwaited(awaited))]
    }

    private var loaded: WireStateLoaded {
        var message = WireStateLoaded()
        message.step = load.step
        message.digest = loadedDigest
        message.number = load.number
        return message
    }
    private var loadedDigest: UInt64 = 0
    #if PLANTED_BUGS
        private var lastCommit: WireCommit?
    #endif

    /// The state is there.
    public mutating func stateLoaded(step: Int, digest: UInt64, epoch: Int) -> [TrainerAction] {
        guard phase == .loading, epoch == self.epoch, step == appliedStep else { return [] }
        phase = .active
        isConfirmed = load.source != .peer
        loadedDigest = digest
        moves += 1
        return [.send(.stateLoaded(loaded))] + advance()
    }

    /// Something is under way that takes longer than a trainer may be silent.
    public mutating func stillBusy() { moves += 1 }

    /// Whether WELCOME has come on the present connection.
    public var isKnown: Bool { isConnected && isWelcome }

    /// A piece of the state has come.
    public mutating func statePieceReceived() { moves += 1 }

    /// The state did not come: the coordinator finds another way.
    public mutating func loadFailed(_ reason: String, epoch: Int) -> [TrainerAction] {
        guard phase == .loading, epoch == self.epoch else { return [] }
        letGo(.standingBy)
        var message = WireStateAwaited()
        message.number = load.number
        message.failure = reason
        load = WireLoadState()
        return [.send(.stateAwaited(message))]
    }

    // MARK: Steps

    private mutating func planReceived(_ plan: WirePlan) -> [TrainerAction] {
        let now = Standing(term: plan.term, generation: plan.generation)
        guard phase == .active || phase == .loading, now >= standing else { return [] }
        let isRepeated = now == standing || isUnheard
        isUnheard = false
        standing = now
        quarantined = plan.quarantined
        planned = quarantined.isEmpty ? [] : (plan.members + plan.listeners).map(\.worker)
        let step = Int(clamping: plan.step)
        if plan.hasPrevious { keep(plan.previous) }
        if phase == .active, plan.members.contains(where: { $0.worker == me }) {
            isConfirmed = true
        }
        if let work, work.plan.step == plan.step, work.plan.history == plan.history {
            return planChanged(plan, isRepeated: isRepeated)
        }
        guard step > appliedStep, step <= appliedStep + Self.backlogMax + 1,
            // Those who have begun are not told the samples again.
            !plan.samples.isEmpty
        else { return [] }
        plans[step] = plan
        return advance()
    }

    private mutating func commitReceived(_ commit: WireCommit) -> [TrainerAction] {
        guard commit.term >= standing.term else { return [] }
        #if PLANTED_BUGS
            lastCommit = commit
            defer { lastCommit = nil }
        #endif
        keep(commit)
        return advance()
    }

    private mutating func keep(_ commit: WireCommit) {
        let step = Int(clamping: commit.step)
        if step > appliedStep, step <= appliedStep + Self.backlogMax { commits[step] = commit }
    }

    /// Does what has become possible: apply what is committed, begin what is planned.
    private mutating func advance() -> [TrainerAction] {
        guard phase == .active, !isApplying else { return [] }
        guard let work else {
            guard let plan = plans.removeValue(forKey: appliedStep + 1) else { return [] }
            return begin(plan)
        }
        #if PLANTED_BUGS
            if Planted.has(.staleCommit), lastCommit != nil, work.digest != nil {
                isApplying = true
                return [.apply(step: work.step, scalars: work.plan.scalars, epoch: epoch)]
            }
        #endif
        guard let commit = commits[work.step], let digest = work.digest else { return [] }
        guard digest == commit.digest else {
            // Members agreed without this worker: its own numbers are wrong, and it begins anew.
            let text =
                "step \(commit.step) was committed with digest \(commit.digest.hex), this worker "
                + "staged \(digest.hex); it gets the state anew"
            letGo(.standingBy)
            isWelcome = false
            helloAt = nil
            return [.note(text)]
        }
        isApplying = true
        return [.apply(step: work.step, scalars: work.plan.scalars, epoch: epoch)]
    }

    /// The staged effect is applied.
    public mutating func applied(step: Int, epoch: Int) -> [TrainerAction] {
        guard isApplying, epoch == self.epoch, let work, work.step == step else { return [] }
        isApplying = false
        appliedStep = step
        moves += 1
        history = HistoryDigest.next(work.plan.history, effect: work.digest ?? 0)
        self.work = nil
        plans = plans.filter { $0.key > step }
        commits = commits.filter { $0.key > step }
        if let load = pendingLoad {
            pendingLoad = nil
            return loadReceived(load)
        }
        var actions: [TrainerAction] = []
        if let duty = pendingDuty, Int(clamping: duty.step) == step {
            pendingDuty = nil
            actions += dutyReceived(duty)
        }
        if dueDigest == step {
            dueDigest = nil
            actions += digestDue(step)
        }
        return actions + advance()
    }

    private mutating func begin(_ plan: WirePlan) -> [TrainerAction] {
        let step = Int(clamping: plan.step)
        let isMember = plan.members.contains { $0.worker == me }
        guard isMember || plan.listeners.contains(where: { $0.worker == me }) else { return [] }
        guard let samples = plan.samples.first(where: { $0.step == plan.step }),
            plan.samples.allSatisfy({ $0.slots.count == slotCount }),
            plan.leases.allSatisfy({ Int($0.slot) < slotCount }), !plan.members.isEmpty
        else {
            phase = .gone
            return [.fail("plan of step \(step) does not fit this run")]
        }
        guard plan.history == history else {
            phase = .gone
            return [
                .fail(
                    "told to compute step \(step) on history \(plan.history.hex), but holds "
                        + "\(history.hex)")
            ]
        }
        var actions: [TrainerAction] = []
        if plan.hasCheckpoint { actions += dutyReceived(plan.checkpoint) }
        actions += keepForJoiners(plan)
        var work = StepWork(
            plan: plan, samples: samples, exchange: exchange(of: plan))
        if minesStep {
            work.gather = GatherStateMachine(
                me: me, members: plan.members.map(\.worker), slotCount: slotCount)
            work.soundFold = plan.outdated.isEmpty ? 0 : Int(plan.fold)
        }
        if isMember { actions += digestIfAsked(plan) }
        let mine = isMember ? leased(plan) : []
        work.started = mine
        moves += 1
        actions.append(
            .openExchange(
                step: step, history: plan.history, peers: plan.members + plan.listeners))
        self.work = work
        let slots = mine.sorted()
        if !slots.isEmpty {
            actions.append(.compute(step: step, slots: slots, samples: samples, epoch: epoch))
            let ahead = plan.samples.filter { $0.step > plan.step }
            if !ahead.isEmpty { actions.append(.prefetch(ahead, slots: slots)) }
        }
        return actions
    }

    private func exchange(of plan: WirePlan) -> ExchangeStateMachine {
        ExchangeStateMachine(
            me: me, members: plan.members.map(\.worker),
            listeners: plan.listeners.map(\.worker), slotCount: slotCount,
            blockCount: blockCount, fold: Int(plan.fold),
            audited: audit.blocks(step: Int(clamping: plan.step), count: blockCount))
    }

    /// Whether a slot is computed by two, and therefore digested.
    public func isAudited(slot: Int, step: Int) -> Bool { audit.covers(slot: slot, step: step) }

    /// Whether two members fold a block of the step in hand.
    public func isAudited(block: Int) -> Bool { work?.exchange.auditor(of: block) != nil }

    /// Whether a peer only listens to the step in hand.
    public func isListener(_ name: String) -> Bool {
        work?.plan.listeners.contains { $0.worker == name } ?? false
    }

    /// Whether a block is still to be folded a second time here.
    public func awaitsAudit(ofBlock block: Int) -> Bool {
        work?.exchange.awaitsAudit(of: block) ?? false
    }

    private mutating func planChanged(_ plan: WirePlan, isRepeated: Bool) -> [TrainerAction] {
        guard var work, !isApplying, plan.leases.allSatisfy({ Int($0.slot) < slotCount }),
            !plan.members.isEmpty
        else { return [] }
        let before = work.plan
        work.plan.term = plan.term
        work.plan.generation = plan.generation
        work.plan.members = plan.members
        work.plan.listeners = plan.listeners
        work.plan.leases = plan.leases
        work.plan.fold = plan.fold
        let outdated = outdatedSlots(of: work, told: plan)
        work.plan.outdated = plan.outdated
        for slot in outdated { work.done[slot] = nil }
        work.started.subtract(outdated)
        // A new coordinator has not heard of what is done; nor has one that says it all again.
        let isDeaf = isRepeated || plan.term > before.term
        work.plan.quarantined = plan.quarantined
        #if PLANTED_BUGS
            let forgotten =
                work.gather?.distrust {
                    isQuarantined($0) && !Planted.has(.embeddingsOfWrongKept)
                } ?? []
        #else
            let forgotten = work.gather?.distrust(isQuarantined) ?? []
        #endif
        var actions = forgotten.isEmpty ? [] : forget(&work, forgotten)
        if minesStep, !plan.outdated.isEmpty, plan.outdated != before.outdated {
            actions += startOver(&work)
        }
        if minesStep {
            for slot in work.doneSlots { work.done[slot]!.fold = plan.fold }
        }
        // Where somebody is quarantined all gradients were forgotten.
        if isDeaf || minesStep && plan.quarantined != before.quarantined {
            for slot in work.doneSlots.union(work.embedded.keys).sorted() {
                actions.append(.send(.slotDone(work.done[slot] ?? work.embedded[slot]!)))
            }
        }
        if isDeaf {
            for slot in leased(plan).sorted() {
                if let message = work.returned[slot] {
                    actions.append(.send(.slotReturned(message)))
                }
            }
        }
        if isRepeated { work.readySaid = nil }
        actions.append(.peersChanged(plan.members + plan.listeners))
        let isMember = plan.members.contains { $0.worker == me }
        if isMember { actions += keepForJoiners(plan) + digestIfAsked(plan) }
        let isRefolded = plan.fold != before.fold || !forgotten.isEmpty
        let isComplete = work.exchange.isComplete && !isRefolded
        let wanted = Set(
            plan.leases.filter {
                isMember && $0.worker == me && !($0.optional && isComplete)
            }.map { Int($0.slot) })
        let new = wanted.subtracting(work.started).sorted()
        let dropped = work.started.subtracting(wanted).subtracting(work.doneSlots).sorted()
        let wasWaiting = !work.started.isSubset(of: work.doneSlots)
        work.started.formUnion(new)
        work.started.subtract(dropped)
        work.backward.subtract(dropped)
        if !dropped.isEmpty { actions.append(.cancel(step: work.step, slots: dropped)) }
        let unseen = new.filter { work.embedded[$0] == nil }
        if !unseen.isEmpty {
            actions.append(
                .compute(step: work.step, slots: unseen, samples: work.samples, epoch: epoch))
        }
        actions +=
            work.gather?.membersChanged(plan.members.map(\.worker)).map { .gather($0) } ?? []
        let isShareDue =
            work.started.isSubset(of: work.doneSlots) && !work.done.isEmpty && mayShare(plan)
        if isRefolded {
            work.exchange = exchange(of: plan)
            work.digest = nil
            work.isDigesting = false
            work.readySaid = nil
            actions.append(.refold(step: work.step, without: outdated.sorted()))
            if isShareDue {
                actions += work.exchange.slotsComputed(work.doneSlots).map { .exchange($0) }
            }
        } else {
            actions += work.exchange.membersChanged(
                plan.members.map(\.worker), listeners: plan.listeners.map(\.worker)
            ).map { .exchange($0) }
            if wasWaiting && isShareDue {
                actions += work.exchange.slotsComputed(work.doneSlots).map { .exchange($0) }
            }
        }
        if isRefolded { actions.append(.takeParked(step: work.step)) }
        moves += 1
        self.work = work
        return actions + backwardIfGathered() + digestIfComplete() + readyIfDone() + advance()
    }

    /// Drops embeddings that somebody sent who computes wrongly, and all that was computed from them.
    private func forget(_ work: inout StepWork, _ slots: [Int]) -> [TrainerAction] {
        let computed = work.backward.sorted()
        work.backward = []
        work.done = [:]
        return [.cancel(step: work.step, slots: computed), .gather(.forget(slots: slots))]
    }

    // MARK: Mining over the step

    /// Drops all that the step has come to: some of it was wrong, and went into everything else.
    private func startOver(_ work: inout StepWork) -> [TrainerAction] {
        let begun = work.started.union(work.embedded.keys).sorted()
        work.started = []
        work.done = [:]
        work.embedded = [:]
        work.backward = []
        work.soundFold = Int(work.plan.fold)
        work.gather = GatherStateMachine(
            me: me, members: work.plan.members.map(\.worker), slotCount: slotCount)
        let cancel = TrainerAction.cancel(step: work.step, slots: begun)
        return (begun.isEmpty ? [] : [cancel]) + [.gather(.startOver)]
    }

    /// Whether what a slot's forward pass gave is used; the shell keeps it then.
    public func awaitsEmbeddings(_ done: WireSlotDone) -> Bool {
        guard let work, work.plan.step == done.step, work.gather != nil else { return false }
        return Int(done.slot) < slotCount && work.embedded[Int(done.slot)] == nil
            && !Self.isOutdated(done, by: work.plan)
    }

    /// A slot's forward pass is done and its embeddings held.
    public mutating func slotEmbedded(_ done: WireSlotDone, epoch: Int) -> [TrainerAction] {
        let slot = Int(done.slot)
        guard epoch == self.epoch, awaitsEmbeddings(done), var work else { return [] }
        moves += 1
        var done = done
        done.forward = true
        work.embedded[slot] = done
        let actions = work.gather!.embedded(slot)
        self.work = work
        return [.send(.slotDone(done))] + actions.map { .gather($0) } + backwardIfGathered()
    }

    /// Whether embeddings that arrived are to be kept; report them kept with
    /// ``embeddingsReceived(_:from:)``.
    public func wantsEmbeddings(ofSlot slot: Int) -> Bool { work?.gather?.wants(slot) ?? false }

    /// Images in a slot of the step in hand.
    public func imageCount(ofSlot slot: Int) -> Int { work?.samples.slots[slot].labels.count ?? 0 }

    /// Embeddings of a slot were kept.
    public mutating func embeddingsReceived(_ slot: Int, from peer: String) -> [TrainerAction] {
        guard wantsEmbeddings(ofSlot: slot) else { return [] }
        moves += 1
        work!.gather!.received(slot, from: peer)
        return backwardIfGathered()
    }

    /// A peer lacks embeddings of the step in hand.
    public func embeddingsWanted(_ slots: [Int], by peer: String) -> [TrainerAction] {
        work?.gather?.wanted(slots, by: peer).map { .gather($0) } ?? []
    }

    /// The loss of the step, and the backward pass of the slots that are leased here.
    private mutating func backwardIfGathered() -> [TrainerAction] {
        guard let work, let gather = work.gather, gather.isComplete else { return [] }
        let due = work.started.intersection(work.embedded.keys)
            .subtracting(work.doneSlots).subtracting(work.backward)
        guard !due.isEmpty else { return [] }
        self.work!.backward.formUnion(due)
        return [.backward(step: work.step, slots: due.sorted(), epoch: epoch)]
    }

    /// Slots done or under way whose lease is outdated.
    private func outdatedSlots(of work: StepWork, told plan: WirePlan) -> Set<Int> {
        Set(
            plan.outdated.filter { outdated in
                let slot = Int(outdated.slot)
                let attempt = work.done[slot]?.attempt ?? attempt(ofSlot: slot)
                return work.started.contains(slot) && attempt <= outdated.attempt
            }.map { Int($0.slot) })
    }

    /// Whether what came of a slot is used; the shell keeps its gradient then.
    public func awaits(_ done: WireSlotDone) -> Bool {
        guard let work, work.plan.step == done.step else { return false }
        return Int(done.slot) < slotCount && work.done[Int(done.slot)] == nil
            && !Self.isOutdated(done, by: work.plan)
    }

    /// Whether a slot was computed before it was given out once more.
    private static func isOutdated(_ done: WireSlotDone, by plan: WirePlan) -> Bool {
        plan.outdated.contains { $0.slot == done.slot && done.attempt <= $0.attempt }
    }

    /// A slot is computed and its gradient held.
    public mutating func slotComputed(_ done: WireSlotDone, epoch: Int) -> [TrainerAction] {
        guard epoch == self.epoch, awaits(done), var work else { return [] }
        let slot = Int(done.slot)
        moves += 1
        // Also where it was leased to somebody else meanwhile: it is the same slot.
        work.started.insert(slot)
        var done = done
        if let embedded = work.embedded[slot] {
            done.embeddings = embedded.embeddings
            done.fold = work.plan.fold
        }
        work.done[slot] = done
        var actions: [TrainerAction] = [.send(.slotDone(done))]
        if work.started.isSubset(of: work.doneSlots), mayShare(work.plan) {
            actions += work.exchange.slotsComputed(work.doneSlots).map { .exchange($0) }
        }
        self.work = work
        return actions + digestIfComplete()
    }

    /// Whether what this trainer computed goes into the sum.
    ///
    /// Where there are audits a step is committed when its members' slots are compared: what others
    /// send might never be.
    private func mayShare(_ plan: WirePlan) -> Bool {
        !audit.isOn || plan.members.contains { $0.worker == me }
    }

    /// A slot could not be computed for a fault of its data, or what came of it is not finite
    /// (`diverged`): the lease goes back.
    public mutating func slotFailed(
        step: Int, slot: Int, reason: String, diverged: Bool = false, epoch: Int
    ) -> [TrainerAction] {
        guard epoch == self.epoch, let work, work.step == step else { return [] }
        moves += 1
        var message = WireSlotReturned()
        message.step = UInt64(step)
        message.slot = UInt32(slot)
        message.attempt = attempt(ofSlot: slot)
        message.reason = reason
        message.diverged = diverged
        self.work!.returned[slot] = message
        return [.send(.slotReturned(message))]
    }

    // MARK: Data from peers

    /// What is to be done with data that arrived.
    public enum DataPlace: Sendable, Equatable {
        /// It belongs to the exchange that is open.
        case here
        /// It may belong to one that opens later: keep it for then, within bounds.
        case later
        /// It belongs to nothing.
        case nowhere
    }

    /// Whether nothing that a peer sends is used; so it is with whatever has a quarantined key, but for
    /// workers with which the coordinator goes on.
    public func isQuarantined(_ peer: String) -> Bool {
        guard WorkerName.isAmong(quarantined, peer) else { return false }
        let owner = WorkerName.owner(of: peer)
        return quarantined.contains(owner) || !planned.contains(owner)
    }

    /// Where data of a step belongs.
    ///
    /// - Parameters:
    ///   - fold: nil for requests for embeddings.
    ///   - isEmbeddings: whether it is embeddings, which are the same in every fold unless the step began
    ///     anew.
    public func place(
        step: Int, history: UInt64, fold: Int?, from peer: String, isRequest: Bool = false,
        isEmbeddings: Bool = false
    ) -> DataPlace {
        guard !isQuarantined(peer) else { return .nowhere }
        if let work {
            if work.step == step {
                let isIn = work.plan.members.contains { $0.worker == peer }
                guard work.plan.history == history, isIn || isRequest && isListener(peer) else {
                    return .nowhere
                }
                let fold = fold ?? work.fold
                if isEmbeddings, work.soundFold <= fold, fold <= work.fold { return .here }
                if work.fold == fold { return .here }
                return fold > work.fold ? .later : .nowhere
            }
        } else if phase != .active && phase != .loading {
            return .nowhere
        }
        // A peer may be ahead: it has this trainer's part of the last step already.
        let ahead = isBehind ? Self.backlogMax : 2
        return step > appliedStep && step <= appliedStep + ahead ? .later : .nowhere
    }

    /// Whether this trainer may lie some steps behind the others.
    private var isBehind: Bool {
        phase != .active || work == nil || isListening
    }

    /// Whether a partial that arrived is to be kept; report it kept with
    /// ``partialReceived(_:run:)``.
    public func wantsPartial(_ block: Int, run: SlotRun) -> Bool {
        work?.exchange.wantsPartial(block, run: run) ?? false
    }

    /// Whether a finished block that arrived is to be kept; report it kept with
    /// ``resultReceived(_:digest:)``.
    public func wantsResult(_ block: Int) -> Bool {
        work?.exchange.wantsResult(block) ?? false
    }

    /// A partial was kept.
    public mutating func partialReceived(_ block: Int, run: SlotRun) -> [TrainerAction] {
        guard work != nil else { return [] }
        moves += 1
        let actions = work!.exchange.partialReceived(block, run: run)
        return actions.map { .exchange($0) } + digestIfComplete()
    }

    /// A finished block was kept.
    ///
    /// - Parameter digest: XXH64 of the block.
    public mutating func resultReceived(_ block: Int, digest: UInt64) -> [TrainerAction] {
        guard work != nil else { return [] }
        moves += 1
        let actions = work!.exchange.resultReceived(block, digest: digest)
        return actions.map { .exchange($0) } + digestIfComplete()
    }

    /// A block was folded a second time.
    public mutating func blockAudited(_ block: Int, digest: UInt64) -> [TrainerAction] {
        guard work != nil else { return [] }
        let actions = work!.exchange.blockAudited(block, digest: digest)
        return actions.map { .exchange($0) } + digestIfComplete()
    }

    /// A peer lacks blocks of the step in hand.
    public func wanted(_ blocks: [Int], partials: Bool, by peer: String) -> [TrainerAction] {
        guard let work, blocks.count <= blockCount else { return [] }
        let actions =
            partials
            ? work.exchange.partialsWanted(blocks, by: peer)
            : work.exchange.resultsWanted(blocks, by: peer)
        return actions.map { .exchange($0) }
    }

    /// The data connection to a peer broke and is there again.
    public func peerReconnected(_ peer: String) -> [TrainerAction] {
        guard let work else { return [] }
        return (work.gather?.reconnected(peer) ?? []).map { .gather($0) }
            + work.exchange.reconnected(peer).map { .exchange($0) }
    }

    private mutating func digestIfComplete() -> [TrainerAction] {
        guard let work, work.exchange.isComplete, !work.isDigesting else { return [] }
        self.work!.isDigesting = true
        return [
            .digestEffect(
                step: work.step, fold: work.fold, scalars: work.plan.scalars, epoch: epoch)
        ]
    }

    /// The effect is digested, and the part of the state that this step checks.
    public mutating func effectDigested(
        step: Int, fold: Int, digest: UInt64, state: UInt64, epoch: Int
    ) -> [TrainerAction] {
        guard epoch == self.epoch, let work, work.step == step, work.fold == fold
        else { return [] }
        moves += 1
        self.work!.digest = digest
        self.work!.stateDigest = state
        return readyIfDone() + advance()
    }

    private mutating func readyIfDone() -> [TrainerAction] {
        guard let work, let digest = work.digest, !isApplying else { return [] }
        let now = Standing(term: work.plan.term, generation: work.plan.generation)
        guard work.readySaid != now else { return [] }
        self.work!.readySaid = now
        var ready = WireReady()
        ready.term = work.plan.term
        ready.generation = work.plan.generation
        ready.step = work.plan.step
        ready.effectDigest = digest
        ready.stateDigest = work.stateDigest
        ready.fold = work.plan.fold
        ready.checks = work.exchange.checks.map { check in
            var message = WireFoldCheck()
            message.block = UInt32(check.block)
            message.owner = check.owner
            message.folded = check.folded
            message.audited = check.audited
            return message
        }
        // The others are told by SLOT_DONE, which is repeated while they are leased here.
        let leased = leased(work.plan)
        ready.held = work.done.keys.sorted()
            .filter { !leased.contains($0) && isAudited(slot: $0, step: work.step) }
            .map { work.done[$0]! }
        #if PLANTED_BUGS
            if Planted.has(.applyOnReady), isListening {
                isApplying = true
                return [
                    .send(.ready(ready)),
                    .apply(step: work.step, scalars: work.plan.scalars, epoch: epoch),
                ]
            }
        #endif
        return [.send(.ready(ready))]
    }

    // MARK: Copies of the state

    private mutating func dutyReceived(_ duty: WireCheckpointDuty) -> [TrainerAction] {
        guard duty.primary == me || duty.backup == me else { return [] }
        let step = Int(clamping: duty.step)
        if step == appliedStep && !isApplying {
            // No coordinator asks for one while it waits for another: those of terms that ended serve
            // nobody any more.
            var old = copies.filter { $0 < step }
            #if PLANTED_BUGS
                if Planted.has(.copiesKeptForever) { old = [] }
            #endif
            copies.subtract(old)
            copies.insert(step)
            let release = old.max().map { [TrainerAction.releaseSnapshot(step: $0)] } ?? []
            return release + [
                .snapshot(step: step, recovery: duty.recovery, send: duty.primary == me)
            ]
        }
        if step <= appliedStep {
            // This worker was the second holder and has the copy.
            return duty.primary == me
                ? [.sendSnapshot(step: step, recovery: duty.recovery)] : []
        }
        pendingDuty = duty
        return []
    }

    private mutating func keepForJoiners(_ plan: WirePlan) -> [TrainerAction] {
        guard plan.donor == me, keptStep != appliedStep, !isApplying,
            Int(clamping: plan.step) == appliedStep + 1
        else { return [] }
        // A donation whose end was not heard of is over.
        let old = keptStep.map { [TrainerAction.releaseForJoiners(step: $0)] } ?? []
        keptStep = appliedStep
        return old + [.keepForJoiners(step: appliedStep)]
    }

    /// Whoever relies on a copy of the state before a step asks all members what it is.
    private mutating func digestIfAsked(_ plan: WirePlan) -> [TrainerAction] {
        guard plan.hasCheckpoint || !plan.donor.isEmpty else { return [] }
        return digestDue(Int(clamping: plan.step) - 1)
    }

    /// The whole state of a step is to be digested: now, or once it is there.
    private mutating func digestDue(_ step: Int) -> [TrainerAction] {
        guard heldStates[step] == nil else {
            // Whoever asks has not heard.
            progressAt = nil
            return []
        }
        guard step == appliedStep, !isApplying else {
            if step > appliedStep { dueDigest = step }
            return []
        }
        heldStates[step] = 0
        for old in heldStates.keys.sorted().dropLast(Self.heldStatesMax)
        where !copies.contains(old) { heldStates[old] = nil }
        return [.digestState(step: step, epoch: epoch)]
    }

    /// The whole state after a step is digested; the coordinator hears of it at once.
    public mutating func stateDigested(step: Int, digest: UInt64, epoch: Int) {
        guard epoch == self.epoch, heldStates[step] != nil else { return }
        heldStates[step] = digest
        progressAt = nil
    }

    private func leased(_ plan: WirePlan) -> Set<Int> {
        Set(plan.leases.filter { $0.worker == me }.map { Int($0.slot) })
    }
}

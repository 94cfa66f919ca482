internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// A whole cluster on one thread in simulated time: the state machines of production, models of
/// everything around them, and faults drawn from a seed.
///
/// After every event the invariants are checked (docs/simulation.md names them). Faults strike until
/// most of the run is done; then everything is healed, and the run must come to its end.
public final class Simulation {
    enum Event {
        case connect(worker: Int)
        case opened(ControlLink)
        case closedAtWorker(ControlLink)
        case closedAtCoordinator(ControlLink)
        case up(WireBody, ControlLink)
        case garbage(WireBody, ControlLink)
        case down(WireBody, ControlLink)
        case stranger(WireBody, name: String)
        case data(Packet, from: Int, to: Int)
        case tickCoordinator(Int)
        case tickWorker(Int)
        case prepared(Int, epoch: Int)
        case loaded(Int, step: Int, state: UInt64, epoch: Int)
        case loadFailed(Int, epoch: Int)
        case slotDone(Int, step: Int, slot: Int, sample: UInt64, state: UInt64, epoch: Int)
        case embedded(Int, step: Int, slot: Int, sample: UInt64, state: UInt64, epoch: Int)
        case minedSlot(Int, step: Int, slot: Int, loss: UInt64, state: UInt64, epoch: Int)
        case digested(Int, step: Int, fold: Int, epoch: Int)
        case applied(Int, step: Int, epoch: Int)
        case stateDigested(Int, step: Int, state: UInt64, epoch: Int)
        case ledgerWrite(Int, StepRecord)
        case ledgerWritten(Int, StepRecord)
        case compared(Int, StepRecord)
        case bulk(Int, from: Int, SimulatedDisk.File, piece: Int)
        case checkpointAppears(Int, SimulatedDisk.File)
        case checkpointListed(Int, SimulatedDisk.File)
        case checkpointVanishes(Int, file: String)
        case scored(Int, WireEvaluationGrant, set: String)
        case scoringEnded(Int)
        case startCoordinator
        case spawn
        case spawnEvaluator
        case strike
        case heal(ControlLink)
        case laneOpened(from: Int, to: Int)
        case diskFreed
        case healAll

        /// What it would be for the coordinator to die just before it.
        var crash: Occurrence? {
            switch self {
            case .ledgerWritten: .crashBeforeCommit
            case .compared: .crashBeforeComparison
            case .checkpointAppears: .crashBeforeRename
            case .checkpointListed: .crashBeforeRow
            case .checkpointVanishes: .crashBeforeRemoval
            default: nil
            }
        }
    }

    static let pieceCount = 3
    static let evaluationSets = ["train_eval", "val_eval"]
    static let millisecond: Int64 = 1000
    static let second: Int64 = 1_000_000

    let configuration: SimulationConfiguration
    let reference: ReferenceRun
    var random: CounterRandom
    var now: Int64 = 0
    var queue = EventQueue<Event>()
    var workers: [WorkerProcess] = []
    var names: [String: Int] = [:]
    var coordinators: [CoordinatorProcess] = []
    var ledger = SimulatedLedger()
    var disk = SimulatedDisk()
    var violation: Violation?
    var isOver = false
    var linkCount = 0
    var lanes: [UInt64: Lane] = [:]
    /// Until when a lane is broken at most.
    var lanesBrokenUntil: Int64 = 0
    var weather = Weather()
    var isHealed = false
    var healedAt: Int64 = 0
    var progressAt: Int64 = 0
    var strikes: [Fault: Int] = [:]
    var occurrences: [Occurrence: Int] = [:]
    /// Those at which a coordinator dies when the next of them comes.
    var armed: Set<Occurrence> = []
    var events = 0
    var slotsComputed = 0
    var stepsRedone = 0
    var killsAtCommit = false
    var tearsNext = false
    /// Steps in which a bit flipped at a member.
    var flippedSteps: Set<Int> = []
    /// Flips in slots and folds that two trainers computed, and those that were laid to somebody.
    var auditedFlips: Set<Flip> = []
    var namedFlips: Set<Flip> = []
    /// Copies of the state in which a bit flipped, and checkpoints that were refused for it.
    var copiesFlipped = 0
    var copiesRefused = 0
    /// Trainers at which a bit has flipped anywhere.
    var flippedTrainers: Set<String> = []
    var isRestarting = false
    var trace: [String] = []
    var quarantined: Set<String> = []
    /// What was planned last, and who holds which lease in it.
    var lastPlan: (UInt64, UInt64, UInt64) = (0, 0, 0)
    var leasesOf: (coordinator: Int, flight: Int, holders: [UInt64: String]) = (-1, 0, [:])

    /// In which membership every lease was last looked at.
    var membershipSeen: (Int, Int, Int, UInt64) = (-1, 0, 0, 0)

    /// Sets a cluster up; nothing has happened yet.
    public init(_ configuration: SimulationConfiguration) {
        self.configuration = configuration
        reference = ReferenceRun(
            slots: configuration.slots, blocks: configuration.blocks, steps: configuration.steps,
            minesStep: configuration.minesStep)
        random = CounterRandom(seed: configuration.seed, purpose: .audit)
        startCoordinator()
        for _ in 0..<configuration.trainers { spawnTrainer() }
        for _ in 0..<configuration.evaluators { spawnEvaluator() }
        if !configuration.faults.isEmpty {
            push(.strike, after: draw(50, 300) * Self.millisecond)
            push(.healAll, after: Int64(20 + configuration.steps) * Self.second)
        } else {
            isHealed = true
        }
    }

    /// Lets everything happen, up to the end of the run or the first broken promise.
    public func run() -> SimulationResult {
        while violation == nil, !isOver, let (time, event) = queue.pop() {
            now = time
            events += 1
            handle(event)
        }
        if violation == nil && !isOver { fail("L1", "nothing is left to happen") }
        return SimulationResult(
            violation: violation, steps: ledger.steps.count, events: events,
            seconds: Double(now) / 1e6, strikes: strikes, occurrences: occurrences,
            auditedFlips: auditedFlips.count,
            auditedFlipsNamed: auditedFlips.intersection(namedFlips).count,
            copiesRefused: copiesRefused,
            terms: Int(ledger.term),
            slotsComputed: slotsComputed, stepsRedone: stepsRedone, trace: trace)
    }

    // MARK: Helpers

    func fail(_ invariant: String, _ text: String) {
        guard violation == nil else { return }
        violation = Violation(invariant: invariant, text: text, seconds: Double(now) / 1e6)
    }

    func note(_ text: @autoclosure () -> String) {
        guard configuration.isTraced else { return }
        trace.append("\(Double(now) / 1000) ms  \(text())")
        if trace.count > 4000 { trace.removeFirst(2000) }
    }

    /// A control message as it arrives.
    func note(_ body: WireBody, _ way: @autoclosure () -> String) {
        guard configuration.isTraced else { return }
        switch body {
        case .progress, .evaluationPoll, .evaluationGrant: return
        case .plan(let plan):
            note(
                "\(way()): PLAN \(plan.step) generation \(plan.generation) fold \(plan.fold), "
                    + "\(plan.members.map(\.worker)) and \(plan.listeners.map(\.worker))")
        case .ready(let ready):
            note(
                "\(way()): READY \(ready.step) generation \(ready.generation) effect "
                    + "\(ready.effectDigest.hex)")
        case .hello(let hello):
            note(
                "\(way()): HELLO state \(hello.stateStep) staged \(hello.stagedStep) "
                    + "\(hello.stagedDigest.hex) slots \(hello.heldSlots) copies \(hello.copies)")
        case .commit(let commit): note("\(way()): COMMIT \(commit.step)")
        case .loadState(let load):
            note("\(way()): LOAD \(load.step) number \(load.number) from \(load.source)")
        case .stateLoaded(let loaded): note("\(way()): LOADED \(loaded.number)")
        case .slotDone(let done):
            let phase = done.forward ? ", forward" : ""
            note("\(way()): SLOT_DONE \(done.step) slot \(done.slot)\(phase)")
        case .stop(let stop): note("\(way()): STOP \(stop.message)")
        default: note("\(way()): \(String(describing: body).prefix(24))")
        }
    }

    func draw(_ low: Int, _ high: Int) -> Int64 {
        Int64(low + random.index(below: max(1, high - low)))
    }

    func chance(_ percent: Int) -> Bool { random.index(below: 100) < percent }

    func push(_ event: Event, after delay: Int64) { queue.push(event, at: now + delay) }

    static func duration(_ microseconds: Int64) -> Duration { .microseconds(microseconds) }

    func time(of worker: WorkerProcess) -> Duration { Self.duration(now + worker.skew) }

    func time(of coordinator: CoordinatorProcess) -> Duration {
        coordinator.awake.now(at: Self.duration(now + coordinator.skew))
    }

    var coordinator: CoordinatorProcess? { coordinators.last { $0.isAlive } }

    var trainersAlive: [WorkerProcess] { workers.filter { $0.isAlive && $0.trainer != nil } }

    // MARK: Processes

    func spawnTrainer(numerics: String = "class", version: String = "test") {
        let worker = newWorker("t")
        var model = TrainerModel(machine: TrainerStateMachine(worker: worker.name))
        model.numerics = numerics
        model.version = version
        worker.trainer = model
    }

    func spawnEvaluator() {
        let worker = newWorker("e")
        worker.evaluator = EvaluatorModel(
            machine: EvaluatorStateMachine(worker: worker.name, once: false))
    }

    private func newWorker(_ kind: String) -> WorkerProcess {
        let range = configuration.slotMilliseconds
        let worker = WorkerProcess(
            index: workers.count, name: "\(kind)\(workers.count)",
            slotTime: draw(range.lowerBound, range.upperBound + 1) * Self.millisecond,
            bornAt: now)
        workers.append(worker)
        names[worker.name] = worker.index
        push(.connect(worker: worker.index), after: draw(100, 5000))
        push(.tickWorker(worker.index), after: draw(0, 100_000))
        return worker
    }

    func kill(_ worker: WorkerProcess) {
        guard worker.isAlive else { return }
        note("\(worker.name) dies")
        worker.isAlive = false
        worker.diedAt = now
        worker.trainer = nil
        worker.evaluator = nil
        names[worker.name] = nil
        if let link = worker.link { drop(link, toldWorker: false) }
        worker.link = nil
    }

    /// A process that ends by itself.
    func exit(_ worker: WorkerProcess, _ why: String) {
        note("\(worker.name) ends: \(why)")
        kill(worker)
    }

    /// The same with a last word, which still arrives.
    func exit(_ worker: WorkerProcess, saying goodbye: WireGoodbye) {
        sendUp(.goodbye(goodbye), from: worker)
        if let link = worker.link, !link.isDead {
            worker.link = nil
            queue.push(.closedAtCoordinator(link), at: max(now, link.lastUp) + 3000)
        }
        exit(worker, goodbye.reason)
    }

    func startCoordinator() {
        isRestarting = false
        let term = ledger.beginTerm()
        for file in disk.files.values
        where !file.isRecovery && file.isWhole && file.step <= ledger.steps.count {
            ledger.insertCheckpoint(step: file.step, digest: file.state)
        }
        let durable = disk.durable.filter { checkpoint in
            checkpoint.step <= ledger.steps.count
                && checkpoint.history == history(after: checkpoint.step)
        }
        var scored: [Int: Set<String>] = [:]
        for key in ledger.evaluations.keys {
            let parts = key.split(separator: " ")
            scored[Int(parts[0])!, default: []].insert(String(parts[1]))
        }
        let ranked = ledger.checkpoints.keys.compactMap { step in
            ledger.evaluations["\(step) \(configuration.retention.ranking.set)"].map {
                (step, Double(bitPattern: $0))
            }
        }
        let deleted = ledger.checkpoints.filter { step, _ in
            !durable.contains { $0.step == step && !$0.isRecovery }
        }
        let count = ledger.steps.count
        let recovery = CoordinatorRecovery(
            term: term, committedStep: count, committedHistory: history(after: count),
            checkpoints: durable, scored: scored, numericsClass: ledger.numericsClass,
            evaluationClass: ledger.evaluationClass,
            committedDigest: ledger.steps.last?.digest ?? 0,
            previousHistory: history(after: max(0, count - 1)),
            liveTrainers: ledger.liveTrainers.sorted(),
            quarantined: ledger.quarantined.sorted(),
            rankingValues: Dictionary(uniqueKeysWithValues: ranked), deletedDigests: deleted)
        let process = CoordinatorProcess(
            index: coordinators.count, term: term,
            machine: CoordinatorStateMachine(
                configuration: CoordinatorConfiguration(
                    run: 1, datasetDigest: 5, slotCount: configuration.slots,
                    totalSteps: configuration.steps,
                    checkpointEverySteps: configuration.checkpointEvery,
                    checkpointMaxLagSteps: 2, evaluationSets: Self.evaluationSets,
                    evaluationTimeout: .seconds(30),
                    expectedTrainers: ledger.term == 1 ? configuration.trainers : 1,
                    startPatience: .seconds(2), recoveryInterval: .seconds(3),
                    retention: configuration.retention, audit: configuration.audit,
                    minesStep: configuration.minesStep, lineupVersion: "test"),
                source: SimulatedSource(slots: configuration.slots), recovery: recovery))
        note("coordinator \(process.index) begins term \(term) after step \(count)")
        coordinators.append(process)
        push(.tickCoordinator(process.index), after: draw(0, 100_000))
    }

    private func history(after step: Int) -> UInt64 {
        step == 0 ? HistoryDigest.start : ledger.steps[step - 1].history
    }

    func killCoordinator(_ process: CoordinatorProcess) {
        guard process.isAlive else { return }
        note("coordinator \(process.index) dies")
        process.isAlive = false
        for worker in process.links.keys.sorted() {
            if let link = process.links[worker] { drop(link, toldWorker: true) }
        }
        process.links = [:]
        process.incoming = [:]
        if coordinator == nil { restartCoordinator() }
    }

    /// A coordinator that ends by itself: its last messages still arrive, then its links close.
    func retire(_ process: CoordinatorProcess) {
        process.isAlive = false
        for worker in process.links.keys.sorted() {
            let link = process.links[worker]!
            queue.push(.closedAtWorker(link), at: max(now, link.lastDown) + 3000)
        }
    }

    func freeDisk() {
        disk.isFull = false
        disk.isFullForLedger = false
    }

    func restartCoordinator() {
        guard !isRestarting, !isOver else { return }
        isRestarting = true
        push(.startCoordinator, after: draw(50, 3000) * Self.millisecond)
    }

    // MARK: Links

    /// A connection ends; whoever is told hears it a moment later.
    func drop(_ link: ControlLink, toldWorker: Bool) {
        let isDead = link.isDead
        link.isDead = true
        if link.isOpenAtCoordinator, !isDead {
            push(.closedAtCoordinator(link), after: draw(100, 3000))
        }
        if toldWorker { push(.closedAtWorker(link), after: draw(100, 3000)) }
    }

    func connect(_ worker: WorkerProcess) {
        guard worker.isAlive, worker.link == nil else { return }
        guard let coordinator, coordinator.haltedUntil <= now,
            !weather.isCut(worker.index, -1, at: now), !weather.isCut(-1, worker.index, at: now)
        else {
            push(.connect(worker: worker.index), after: draw(80, 250) * Self.millisecond)
            return
        }
        linkCount += 1
        let link = ControlLink(
            id: linkCount, worker: worker.index, coordinator: coordinator.index)
        worker.link = link
        link.isOpenAtCoordinator = true
        link.isOpenAtWorker = true
        coordinator.links[worker.index] = link
        push(.opened(link), after: latency())
    }

    func latency() -> Int64 { draw(100, 600) }

    /// When a message that leaves now arrives; nil when it is lost.
    func arrival(from: Int, to: Int, last: inout Int64) -> Int64? {
        var time = now + latency()
        if weather.lossUntil > now, chance(weather.lossPercent) { return nil }
        if weather.delayUntil > now { time += draw(0, weather.delayMilliseconds) * 1000 }
        if from >= 0, workers[from].dripUntil > now { time += draw(50, 200) * 1000 }
        if let until = weather.cutUntil(from, to, at: now) { time = max(time, until + latency()) }
        let overtakes = weather.reorderUntil > now && chance(30)
        if overtakes {
            time += draw(0, 50) * 1000
        } else {
            time = max(time, last + 1)
            last = time
        }
        return time
    }

    func sendUp(_ body: WireBody, from worker: WorkerProcess) {
        guard let link = worker.link, link.isOpenAtWorker, !link.isDead else { return }
        guard let time = arrival(from: worker.index, to: -1, last: &link.lastUp) else { return }
        queue.push(.up(body, link), at: time)
        if weather.duplicateUntil > now, chance(25) {
            queue.push(.up(body, link), at: time + draw(0, 20_000))
        }
    }

    func sendDown(_ body: WireBody, to worker: Int, from process: CoordinatorProcess) {
        guard let link = process.links[worker], link.isOpenAtCoordinator, !link.isDead
        else { return }
        guard let time = arrival(from: -1, to: worker, last: &link.lastDown) else { return }
        queue.push(.down(body, link), at: time)
        if weather.duplicateUntil > now, chance(25) {
            queue.push(.down(body, link), at: time + draw(0, 20_000))
        }
    }

    func sendData(_ packet: Packet, from: Int, to: Int) {
        guard workers[to].isAlive else { return }
        let key = Lane.key(from, to)
        var lane = lanes[key] ?? Lane()
        guard lane.brokenUntil <= now,
            let time = arrival(from: from, to: to, last: &lane.last)
        else { return }
        lanes[key] = lane
        queue.push(.data(packet, from: from, to: to), at: time)
        if weather.duplicateUntil > now, chance(25) {
            queue.push(.data(packet, from: from, to: to), at: time + draw(0, 20_000))
        }
    }

    /// What is on the way is lost, and what is sent before the lane is open again.
    func breakLane(from: Int, to: Int, for duration: Int64) {
        note("the lane from \(workers[from].name) to \(workers[to].name) breaks")
        var lane = lanes[Lane.key(from, to)] ?? Lane()
        lane.brokenUntil = max(now + duration, lane.last, lane.brokenUntil)
        lanes[Lane.key(from, to)] = lane
        lanesBrokenUntil = max(lanesBrokenUntil, lane.brokenUntil)
        queue.push(.laneOpened(from: from, to: to), at: lane.brokenUntil)
    }

    /// The sender has a new connection, and says again what may be lost.
    private func laneOpened(from: WorkerProcess, to: Int) {
        guard from.trainer != nil, workers[to].isAlive else { return }
        let actions = from.trainer!.machine.peerReconnected(workers[to].name)
        if !actions.isEmpty { occurrences[.laneOpened, default: 0] += 1 }
        perform(actions, at: from)
    }

    /// Every lane is open again within a second.
    func openLanes() {
        for key in lanes.keys.sorted() where lanes[key]!.brokenUntil > now + Self.second {
            lanes[key]!.brokenUntil = now + Self.second
            queue.push(
                .laneOpened(from: Int(key >> 32), to: Int(UInt32(truncatingIfNeeded: key))),
                at: now + Self.second)
        }
    }

    private func isLaneBroken(_ from: Int, _ to: Int) -> Bool {
        lanesBrokenUntil > now && (lanes[Lane.key(from, to)]?.brokenUntil ?? 0) > now
    }

    // MARK: Events

    private func handle(_ event: Event) {
        switch event {
        case .strike: strike()
        case .healAll: healAll()
        case .startCoordinator:
            // It begins a term in the ledger.
            guard !disk.isFullForLedger else { return push(event, after: Self.second) }
            isRestarting = false
            if coordinator == nil { startCoordinator() }
        case .spawn: if trainersAlive.count < 2 * configuration.trainers { spawnTrainer() }
        case .spawnEvaluator: spawnEvaluator()
        case .diskFreed: freeDisk()
        case .laneOpened(let from, let to):
            guard let worker = running(worker: from, event) else { return }
            laneOpened(from: worker, to: to)
        case .heal(let link): if link.isDead { reset(link) }
        case .connect(let worker): connect(workers[worker])
        case .tickCoordinator(let index):
            guard let process = running(index, event) else { return }
            push(event, after: 100 * Self.millisecond)
            let time = time(of: process)
            perform(process.machine.tick(now: time), by: process)
            checkMemory(of: process)
            checkLiveness()
        case .tickWorker(let index):
            guard let worker = running(worker: index, event) else { return }
            push(event, after: 100 * Self.millisecond)
            tick(worker)
        case .opened(let link):
            guard let worker = running(worker: link.worker, event), worker.link === link
            else { return }
            opened(worker)
        case .closedAtWorker(let link):
            guard let worker = running(worker: link.worker, event), worker.link === link
            else { return }
            closed(worker)
        case .closedAtCoordinator(let link):
            guard let process = running(link.coordinator, event),
                process.links[link.worker] === link
            else { return }
            process.links[link.worker] = nil
            let name = workers[link.worker].name
            perform(process.machine.disconnected(name, now: time(of: process)), by: process)
        case .up(let body, let link):
            guard let process = running(link.coordinator, event), !link.isDead,
                process.links[link.worker] === link
            else { return }
            let name = workers[link.worker].name
            note(body, "\(name) to coordinator \(process.index)")
            perform(
                process.machine.received(body, from: name, now: time(of: process)), by: process)
        case .garbage(let body, let link):
            guard let process = running(link.coordinator, event), !link.isDead,
                process.links[link.worker] === link
            else { return }
            garbageArrives(body, from: workers[link.worker].name, at: process)
        case .stranger(let body, let name):
            guard let process = coordinator, process.haltedUntil <= now else { return }
            strangerSpeaks(body, name, to: process)
        case .down(let body, let link):
            guard let worker = running(worker: link.worker, event), worker.link === link,
                !link.isDead
            else { return }
            note(body, "coordinator \(link.coordinator) to \(worker.name)")
            received(body, at: worker)
        case .data(let packet, let from, let to):
            guard let worker = running(worker: to, event), worker.trainer != nil,
                !isLaneBroken(from, to)
            else { return }
            take(packet, from: from, at: worker)
        case .ledgerWrite(let index, _), .ledgerWritten(let index, _), .compared(let index, _),
            .bulk(let index, _, _, _), .checkpointAppears(let index, _),
            .checkpointListed(let index, _), .checkpointVanishes(let index, _):
            guard let process = running(index, event) else { return }
            if let occurrence = event.crash, armed.remove(occurrence) != nil {
                occurrences[occurrence, default: 0] += 1
                return killCoordinator(process)
            }
            handleStorage(event, at: process)
        case .prepared(let index, _), .loaded(let index, _, _, _), .loadFailed(let index, _),
            .slotDone(let index, _, _, _, _, _), .embedded(let index, _, _, _, _, _),
            .minedSlot(let index, _, _, _, _, _), .digested(let index, _, _, _),
            .applied(let index, _, _), .stateDigested(let index, _, _, _):
            guard let worker = running(worker: index, event), worker.trainer != nil
            else { return }
            handleTrainer(event, at: worker)
        case .scored(let index, _, _), .scoringEnded(let index):
            guard let worker = running(worker: index, event), worker.evaluator != nil
            else { return }
            handleEvaluator(event, at: worker)
        }
    }

    /// The process of an event, or nil where it is dead, or halted: then the event waits.
    private func running(_ index: Int, _ event: Event) -> CoordinatorProcess? {
        let process = coordinators[index]
        guard process.isAlive else { return nil }
        guard process.haltedUntil <= now else {
            queue.push(event, at: process.haltedUntil)
            return nil
        }
        return process
    }

    private func running(worker index: Int, _ event: Event) -> WorkerProcess? {
        let worker = workers[index]
        guard worker.isAlive else { return nil }
        guard worker.haltedUntil <= now else {
            queue.push(event, at: worker.haltedUntil)
            return nil
        }
        return worker
    }

    private func opened(_ worker: WorkerProcess) {
        let time = time(of: worker)
        if worker.trainer != nil {
            perform(worker.trainer!.machine.connectionOpened(now: time), at: worker)
        } else if worker.evaluator != nil {
            perform(worker.evaluator!.machine.connectionOpened(now: time), at: worker)
        }
    }

    private func closed(_ worker: WorkerProcess) {
        worker.link?.isOpenAtWorker = false
        worker.link = nil
        worker.trainer?.machine.connectionClosed()
        worker.evaluator?.machine.connectionClosed()
        push(.connect(worker: worker.index), after: draw(20, 150) * Self.millisecond)
    }

    private func tick(_ worker: WorkerProcess) {
        let time = time(of: worker)
        if worker.trainer != nil {
            perform(worker.trainer!.machine.tick(now: time), at: worker)
            checkMemory(of: worker)
        } else if worker.evaluator != nil {
            perform(worker.evaluator!.machine.tick(now: time), at: worker)
        }
    }

    private func received(_ body: WireBody, at worker: WorkerProcess) {
        let time = time(of: worker)
        if worker.trainer != nil {
            perform(worker.trainer!.machine.received(body, now: time), at: worker)
        } else if worker.evaluator != nil {
            perform(worker.evaluator!.machine.received(body, now: time), at: worker)
        }
    }
}

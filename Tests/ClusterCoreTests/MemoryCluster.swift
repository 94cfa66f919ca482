import Basics
import ClusterCore
import Protocol

/// A whole cluster on one thread: the machines of production, models of everything around them.
///
/// Numbers are digests: a slot's gradient is a digest of (state, step, slot) and a sum is a digest of
/// (left, right), so that a wrong order, a wrong state or a slot counted twice changes the result.
struct MemoryCluster {
    struct Plan: StepSource {
        let slotCount: Int

        func samples(step: Int) -> WireStepSamples {
            var message = WireStepSamples()
            message.step = UInt64(step)
            message.slots = (0..<slotCount).map { slot in
                var samples = WireSlotSamples()
                samples.indices = [UInt32(step * 100 + slot)]
                samples.labels = [0]
                return samples
            }
            return message
        }

        func scalars(step: Int) -> WireStepScalars {
            var scalars = WireStepScalars()
            scalars.learningRate = (1 / Double(step)).bitPattern
            return scalars
        }
    }

    struct Trainer {
        var machine: TrainerStateMachine
        var state: UInt64?
        var slots: [Int: UInt64] = [:]
        var partials: [Int: [SlotRun: UInt64]] = [:]
        var effect: [Int: UInt64] = [:]
        var copies: [Int: (state: UInt64, history: UInt64)] = [:]
        var history: UInt64 = 0
        var parked: [Packet] = []
        /// Grows with every LOAD; what an earlier one brings is dropped, as in the shell.
        var loads = 0
    }

    enum Packet {
        case partial(step: Int, history: UInt64, block: Int, SlotRun, UInt64)
        case result(step: Int, history: UInt64, block: Int, UInt64)
        case state(step: Int, UInt64)
    }

    enum Event {
        case toCoordinator(WireBody, from: String)
        case toWorker(WireBody, String)
        case data(Packet, to: String)
        case trainer(String, (inout TrainerStateMachine) -> [TrainerAction])
        case coordinator((inout CoordinatorStateMachine, Duration) -> [CoordinatorAction])
        case loaded(String, step: Int, state: UInt64, load: Int)
        case slotComputed(String, WireSlotDone, UInt64)
        case checkpoint(step: Int, state: UInt64, history: UInt64, recovery: Bool)
    }

    static let blockCount = 3

    let slotCount: Int
    let configuration: CoordinatorConfiguration
    var coordinator: CoordinatorStateMachine
    var trainers: [String: Trainer] = [:]
    var names: [String] = []
    var queues: [(lane: String, events: [Event])] = []
    var random: CounterRandom
    var now = Duration.zero
    var ledger: [StepRecord] = []
    var durable: [DurableCheckpoint] = []
    var states: [Int: UInt64] = [:]
    var outcome: CoordinatorOutcome?
    var computed: [Int: Int] = [:]
    var log: [String] = []
    private var born = 0
    private var term: UInt64 = 1

    init(
        slotCount: Int, steps: Int, checkpointEvery: Int, trainers count: Int, seed: UInt64,
        recoveryInterval: Duration? = .milliseconds(150)
    ) {
        self.slotCount = slotCount
        configuration = CoordinatorConfiguration(
            run: 1, datasetDigest: 5, slotCount: slotCount, totalSteps: steps,
            checkpointEverySteps: checkpointEvery, checkpointMaxLagSteps: 2,
            evaluationSets: ["val_eval"], evaluationTimeout: .seconds(10),
            expectedTrainers: count, silenceMax: .seconds(100_000),
            recoveryInterval: recoveryInterval, lineupVersion: "test")
        random = CounterRandom(seed: seed, purpose: .audit)
        coordinator = CoordinatorStateMachine(
            configuration: configuration, source: Plan(slotCount: slotCount),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        for _ in 0..<count { join() }
    }

    // MARK: The reference

    static func mix(_ values: UInt64...) -> UInt64 {
        var hash = XXH64()
        for value in values { hash.update(value) }
        return hash.finish()
    }

    static let initialState = mix(7)

    /// State after each step of an undisturbed run, computed without any machine.
    static func reference(slotCount: Int, steps: Int) -> [(state: UInt64, effect: UInt64)] {
        var state = initialState
        return (1...steps).map { step in
            let effect = reducedEffect(state: state, step: step, slotCount: slotCount)
            state = mix(state, effect)
            return (state, effect)
        }
    }

    static func reducedEffect(state: UInt64, step: Int, slotCount: Int) -> UInt64 {
        let blocks = (0..<blockCount).map { block in
            FoldTree.fold((0..<slotCount).map { gradient(state, step, $0, block) }) { mix($0, $1) }
        }
        return blocks.reduce(UInt64(step)) { mix($0, $1) }
    }

    static func gradient(_ state: UInt64, _ step: Int, _ slot: Int, _ block: Int) -> UInt64 {
        mix(state, UInt64(step), UInt64(slot), UInt64(block))
    }

    // MARK: What happens

    mutating func join() {
        let name = "t\(born)"
        born += 1
        names.append(name)
        trainers[name] = Trainer(machine: TrainerStateMachine(worker: name, slotCount: slotCount))
        var hello = WireHello()
        hello.worker = name
        hello.role = .trainer
        hello.lineupVersion = "test"
        hello.dataAddress = name
        push(name + ">", .toCoordinator(.hello(hello), from: name))
    }

    mutating func kill(_ name: String) {
        trainers[name] = nil
        names.removeAll { $0 == name }
        queues.removeAll { $0.lane.hasPrefix(name + ">") || $0.lane == ">" + name }
        let actions = coordinator.disconnected(name, now: now)
        perform(actions)
    }

    /// kill -9 of the coordinator alone or of everything, and a new term.
    mutating func restartCoordinator() {
        queues = []
        for name in names { trainers[name] = nil }
        let count = names.count
        names = []
        term += 1
        coordinator = CoordinatorStateMachine(
            configuration: configuration, source: Plan(slotCount: slotCount),
            recovery: CoordinatorRecovery(
                term: term, committedStep: ledger.count,
                committedHistory: ledger.last?.history ?? 0, checkpoints: durable, scored: [:]))
        for _ in 0..<max(1, count) { join() }
    }

    /// Lets one waiting event happen; lanes keep their order, among lanes any order is possible.
    mutating func step() -> Bool {
        now += .milliseconds(1)
        guard !queues.isEmpty else {
            let actions = coordinator.tick(now: now)
            perform(actions)
            return !queues.isEmpty
        }
        let lane = random.index(below: queues.count)
        let event = queues[lane].events.removeFirst()
        if queues[lane].events.isEmpty { queues.remove(at: lane) }
        handle(event)
        return true
    }

    private mutating func push(_ lane: String, _ event: Event) {
        if let place = queues.firstIndex(where: { $0.lane == lane }) {
            queues[place].events.append(event)
        } else {
            queues.append((lane, [event]))
        }
    }

    private mutating func handle(_ event: Event) {
        switch event {
        case .toCoordinator(let body, let name):
            let actions = coordinator.received(body, from: name, now: now)
            perform(actions)
        case .toWorker(let body, let name):
            guard trainers[name] != nil else { return }
            let actions = trainers[name]!.machine.received(body)
            perform(actions, at: name)
        case .data(let packet, let name): take(packet, at: name)
        case .trainer(let name, let body):
            guard trainers[name] != nil else { return }
            let actions = body(&trainers[name]!.machine)
            perform(actions, at: name)
        case .coordinator(let body):
            let actions = body(&coordinator, now)
            perform(actions)
        case .loaded(let name, let step, let state, let load):
            guard trainers[name]?.loads == load else { return }
            trainers[name]!.state = state
            let actions = trainers[name]!.machine.stateLoaded(step: step, digest: state)
            perform(actions, at: name)
        case .slotComputed(let name, let done, let state):
            guard trainers[name] != nil, trainers[name]!.state == state else { return }
            trainers[name]!.slots[Int(done.slot)] = state
            let actions = trainers[name]!.machine.slotComputed(done)
            perform(actions, at: name)
        case .checkpoint(let step, let state, let history, let recovery):
            guard !durable.contains(where: { $0.step == step && $0.isRecovery == recovery })
            else { return }
            let checkpoint = DurableCheckpoint(
                step: step, history: history, file: "\(step)", byteCount: 1, digest: state,
                isRecovery: recovery)
            durable.append(checkpoint)
            durable.sort { $0.step < $1.step }
            states[step] = state
            let actions = coordinator.checkpointStored(checkpoint, now: now)
            perform(actions)
        }
    }

    mutating func perform(_ actions: [CoordinatorAction]) {
        for action in actions {
            switch action {
            case .send(let body, let name): push(">" + name, .toWorker(body, name))
            case .commit(let record):
                precondition(record.step == ledger.count + 1, "step \(record.step) out of order")
                ledger.append(record)
                push("ledger", .coordinator { $0.stepCommitted(record, now: $1) })
            case .compareRedone(let record):
                let matches = ledger[record.step - 1].digest == record.digest
                push("ledger", .coordinator { $0.stepCompared(record, matches: matches, now: $1) })
            case .finish(let outcome): self.outcome = outcome
            case .dropRecoverySnapshots(let step):
                durable.removeAll { $0.isRecovery && $0.step < step }
            case .event(_, let severity, let text):
                if severity != .info { log.append(text) }
            default: break
            }
        }
    }

    private mutating func perform(_ actions: [TrainerAction], at name: String) {
        for action in actions { perform(action, at: name) }
    }

    private mutating func perform(_ action: TrainerAction, at name: String) {
        switch action {
        case .send(let body): push(name + ">", .toCoordinator(body, from: name))
        case .prepare:
            var prepared = WirePrepared()
            prepared.datasetDigest = 5
            prepared.blockCount = UInt64(Self.blockCount)
            push(name + ">self", .trainer(name) { $0.prepared(prepared) })
        case .load(let load): self.load(load, at: name)
        case .donate(let donation):
            push(
                name + ">" + donation.worker,
                .data(
                    .state(step: Int(donation.step), trainers[name]!.state!),
                    to: donation.worker))
        case .compute(let step, let slots, _):
            for slot in slots {
                computed[step, default: 0] += 1
                var done = WireSlotDone()
                done.step = UInt64(step)
                done.slot = UInt32(slot)
                done.loss = Float(slot).bitPattern
                push(
                    name + ">pool\(slot % 2)",
                    .slotComputed(name, done, trainers[name]!.state!))
            }
        case .openExchange(let step, let history, _):
            trainers[name]!.slots = [:]
            trainers[name]!.partials = [:]
            trainers[name]!.effect = [:]
            let parked = trainers[name]!.parked
            trainers[name]!.parked = []
            for packet in parked { push(name + ">parked", .data(packet, to: name)) }
            _ = (step, history)
        case .exchange(let exchange): perform(exchange, at: name)
        case .digestEffect(let step, _):
            let digest = (0..<Self.blockCount).map { trainers[name]!.effect[$0]! }
                .reduce(UInt64(step)) { Self.mix($0, $1) }
            let state = trainers[name]!.state!
            push(
                name + ">self",
                .trainer(name) { $0.effectDigested(step: step, digest: digest, state: state) })
        case .apply(let step, _):
            let effect = (0..<Self.blockCount).map { trainers[name]!.effect[$0]! }
                .reduce(UInt64(step)) { Self.mix($0, $1) }
            trainers[name]!.state = Self.mix(trainers[name]!.state!, effect)
            push(name + ">self", .trainer(name) { $0.applied(step: step) })
        case .snapshot(let step, let recovery, let send):
            trainers[name]!.copies[step] = (
                trainers[name]!.state!, trainers[name]!.machine.history
            )
            if send { sendCopy(step, recovery, from: name) }
        case .sendSnapshot(let step, let recovery): sendCopy(step, recovery, from: name)
        case .releaseSnapshot(let step): trainers[name]!.copies[step] = nil
        case .fail(let why): preconditionFailure("\(name): \(why)")
        case .leave, .refused: trainers[name] = nil
        case .prefetch, .membersChanged: break
        }
    }

    private mutating func sendCopy(_ step: Int, _ recovery: Bool, from name: String) {
        guard let copy = trainers[name]!.copies[step] else { return }
        push(
            name + ">store",
            .checkpoint(
                step: step, state: copy.state, history: copy.history, recovery: recovery))
    }

    private mutating func load(_ load: WireLoadState, at name: String) {
        trainers[name]!.state = nil
        trainers[name]!.parked = []
        trainers[name]!.loads += 1
        let step = Int(load.step)
        switch load.source {
        case .initial: loaded(name, step, Self.initialState)
        case .checkpoint: loaded(name, step, states[step]!)
        default: break
        }
    }

    private mutating func loaded(_ name: String, _ step: Int, _ state: UInt64) {
        push(
            name + ">self",
            .loaded(name, step: step, state: state, load: trainers[name]!.loads))
    }

    private mutating func perform(_ action: ExchangeStateMachine.Action, at name: String) {
        let machine = trainers[name]!.machine
        switch action {
        case .sendPartial(let run, let blocks, let peer):
            for block in blocks {
                push(
                    name + ">" + peer,
                    .data(
                        .partial(
                            step: machine.step + 1, history: machine.history, block: block, run,
                            sum(run, block, at: name)!), to: peer))
            }
        case .finish(let blocks):
            for block in blocks {
                trainers[name]!.effect[block] = sum(SlotRun(0, slotCount), block, at: name)!
            }
        case .broadcast(let blocks, let peers):
            for block in blocks {
                for peer in peers {
                    push(
                        name + ">" + peer,
                        .data(
                            .result(
                                step: machine.step + 1, history: machine.history, block: block,
                                trainers[name]!.effect[block]!), to: peer))
                }
            }
        case .keepPartial, .combine, .complete: break
        }
    }

    private func sum(_ run: SlotRun, _ block: Int, at name: String) -> UInt64? {
        let trainer = trainers[name]!
        if let known = trainer.partials[block]?[run] { return known }
        if run.count == 1 {
            return trainer.slots[run.low].map {
                Self.gradient($0, trainer.machine.step + 1, run.low, block)
            }
        }
        let (left, right) = FoldTree.split(run)
        guard let low = sum(left, block, at: name), let high = sum(right, block, at: name)
        else { return nil }
        return Self.mix(low, high)
    }

    private mutating func take(_ packet: Packet, at name: String) {
        guard let trainer = trainers[name] else { return }
        switch packet {
        case .state(let step, let state):
            if trainer.state == nil { loaded(name, step, state) }
        case .partial(let step, let history, let block, let run, let value):
            guard trainer.machine.isExchanging(step: step, history: history) else {
                return park(packet, step, at: name)
            }
            guard trainer.machine.wantsPartial(block, run: run) else { return }
            trainers[name]!.partials[block, default: [:]][run] = value
            let actions = trainers[name]!.machine.partialReceived(block, run: run)
            perform(actions, at: name)
        case .result(let step, let history, let block, let value):
            guard trainer.machine.isExchanging(step: step, history: history) else {
                return park(packet, step, at: name)
            }
            guard trainer.machine.wantsResult(block) else { return }
            trainers[name]!.effect[block] = value
            let actions = trainers[name]!.machine.resultReceived(block)
            perform(actions, at: name)
        }
    }

    private mutating func park(_ packet: Packet, _ step: Int, at name: String) {
        guard step > trainers[name]!.machine.step else { return }
        trainers[name]!.parked.append(packet)
    }
}

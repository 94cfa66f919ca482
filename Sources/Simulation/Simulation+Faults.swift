internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// What the network does to messages for a while.
struct Weather {
    var lossUntil: Int64 = 0
    var lossPercent = 0
    var delayUntil: Int64 = 0
    var delayMilliseconds = 0
    var duplicateUntil: Int64 = 0
    var reorderUntil: Int64 = 0
    /// Directions that carry nothing, from and to (-1 is the coordinator), until a time.
    private(set) var cuts: [(from: Int, to: Int, until: Int64)] = []

    mutating func cut(_ from: Int, _ to: Int, until: Int64, now: Int64) {
        cuts.removeAll { $0.until <= now }
        cuts.append((from, to, until))
    }

    func cutUntil(_ from: Int, _ to: Int, at now: Int64) -> Int64? {
        guard !cuts.isEmpty else { return nil }
        return cuts.filter { $0.from == from && $0.to == to && $0.until > now }.map(\.until).max()
    }

    func isCut(_ from: Int, _ to: Int, at now: Int64) -> Bool {
        cutUntil(from, to, at: now) != nil
    }
}

extension Simulation {
    /// One fault, and the time of the next.
    func strike() {
        guard !isHealed, !isOver else { return }
        // As often for each trainer in a large cluster as in one of forty.
        let crowd = Int64(max(40, configuration.trainers))
        push(.strike, after: draw(50, 1500) * Self.millisecond * 40 / crowd)
        let enabled = Fault.allCases.filter { configuration.faults.contains($0) }
        guard let fault = enabled.randomElement(using: &random) else { return }
        guard strike(fault) else { return }
        strikes[fault, default: 0] += 1
        note("fault: \(fault.rawValue)")
    }

    private func anyTrainer() -> WorkerProcess? {
        let alive = trainersAlive
        return alive.isEmpty ? nil : alive[random.index(below: alive.count)]
    }

    private func anyMember() -> WorkerProcess? {
        let name = coordinator?.machine.members.randomElement(using: &random)
        return name.flatMap { names[$0] }.map { workers[$0] }
    }

    private func anyWorker() -> WorkerProcess? {
        let alive = workers.filter(\.isAlive)
        return alive.isEmpty ? nil : alive[random.index(below: alive.count)]
    }

    private func until(_ low: Int, _ high: Int) -> Int64 {
        now + draw(low, high) * Self.millisecond
    }

    private func strike(_ fault: Fault) -> Bool {
        switch fault {
        case .loss:
            weather.lossUntil = until(200, 3000)
            weather.lossPercent = 2 + random.index(below: 30)
        case .delay:
            weather.delayUntil = until(200, 3000)
            weather.delayMilliseconds = 1 + random.index(below: 1500)
        case .duplication: weather.duplicateUntil = until(500, 4000)
        case .reordering: weather.reorderUntil = until(500, 4000)
        case .partition:
            guard let worker = anyTrainer() else { return false }
            let other = chance(50) ? -1 : anyTrainer()!.index
            let (from, to) = chance(50) ? (worker.index, other) : (other, worker.index)
            let end = until(300, 12_000)
            weather.cut(from, to, until: end, now: now)
            if chance(40) { weather.cut(to, from, until: end, now: now) }
        case .reset:
            if chance(50) { return breakLanes(for: draw(1, 150) * Self.millisecond) }
            guard let link = anyWorker()?.link, !link.isDead else { return false }
            reset(link)
        case .halfOpen:
            if chance(50) { return breakLanes(for: draw(500, 15_000) * Self.millisecond) }
            guard let link = anyWorker()?.link, !link.isDead else { return false }
            link.isDead = true
            push(.heal(link), after: draw(500, 15_000) * Self.millisecond)
        case .drip:
            guard let worker = anyWorker() else { return false }
            worker.dripUntil = until(500, 8000)
        case .crash:
            guard let worker = anyWorker() else { return false }
            crash(worker)
        case .coordinatorCrash:
            guard let process = coordinator else { return false }
            let occurrence = Occurrence.crashes.randomElement(using: &random)!
            let isArmed = chance(50) && armed.insert(occurrence).inserted
            if !isArmed { killCoordinator(process) }
        case .pause:
            let length = draw(200, 20_000) * Self.millisecond
            if chance(20), let process = coordinator {
                process.haltedUntil = now + length
            } else if let worker = anyWorker() {
                worker.haltedUntil = now + length
            } else {
                return false
            }
        case .clockJump:
            let jump = draw(1, 600) * Self.second
            if chance(50), let process = coordinator {
                process.skew += jump
            } else if let worker = anyWorker() {
                worker.skew += jump
            }
        case .diskFull:
            guard !disk.isFull else { return false }
            disk.isFull = true
            disk.isFullForLedger = chance(50)
            push(.diskFreed, after: draw(500, 5000) * Self.millisecond)
        case .tornWrite: tearsNext = true
        case .badData:
            // The others can read theirs.
            let isLone = !workers.contains { ($0.trainer?.unreadableUntil ?? 0) > now }
            guard isLone, let worker = anyMember() else { return false }
            worker.trainer?.unreadableUntil = until(100, 4000)
        case .bitFlip:
            guard let process = coordinator, process.machine.members.count >= 2,
                let name = process.machine.members.randomElement(using: &random),
                let index = names[name]
            else { return false }
            let flip: UInt64 = 1 << UInt64(random.index(below: 64))
            switch random.index(below: configuration.auditFraction > 0 ? 5 : 2) {
            case 1: workers[index].trainer?.copyFlip = flip
            case 2: workers[index].trainer?.slotFlip = flip
            case 3: workers[index].trainer?.foldFlip = flip
            case 4: workers[index].trainer?.flipsSealed = true
            default: workers[index].trainer?.flip = flip
            }
            // One of many may do so at every step; the others are the majority.
            let isLone = !workers.contains { $0.trainer?.isFaulty ?? false }
            if chance(30), isLone, process.machine.members.count >= 4 {
                workers[index].trainer?.isFaulty = true
            }
        case .allHoldersDie: killsAtCommit = true
        case .wrongNumerics: spawnTrainer(numerics: "other")
        case .massJoin:
            let room = 2 * configuration.trainers - trainersAlive.count
            for _ in 0..<max(0, min(room, max(1, configuration.trainers / 2))) { spawnTrainer() }
        case .massLeave: leave()
        case .twoCoordinators: return secondCoordinator()
        case .oldVersion: spawnTrainer(version: "0.9")
        case .hostile: attack()
        }
        return true
    }

    /// Breaks the connection from one trainer to another, or those in both directions.
    private func breakLanes(for duration: Int64) -> Bool {
        guard let one = anyMember(), let other = chance(70) ? anyMember() : anyTrainer(),
            one !== other
        else { return false }
        breakLane(from: one.index, to: other.index, for: duration)
        if chance(50) { breakLane(from: other.index, to: one.index, for: duration) }
        return true
    }

    private func crash(_ worker: WorkerProcess) {
        let isTrainer = worker.trainer != nil
        kill(worker)
        push(isTrainer ? .spawn : .spawnEvaluator, after: draw(100, 5000) * Self.millisecond)
    }

    func reset(_ link: ControlLink) {
        link.isDead = false
        drop(link, toldWorker: true)
    }

    /// The coordinator dies while it writes, and the newest snapshot or listed file is damaged.
    func tear(_ process: CoordinatorProcess) {
        tearsNext = false
        killCoordinator(process)
        let isRecovery = chance(50)
        let files = disk.files.values.filter { $0.isRecovery == isRecovery }
        if let newest = files.map(\.step).max() {
            let name = SimulatedDisk.name(newest, recovery: isRecovery)
            note("\(name) is damaged")
            disk.damage(name)
        }
    }

    private func leave() {
        for trainer in trainersAlive.prefix(configuration.trainers / 2) {
            if chance(50) {
                trainer.drainedAt = now
                perform(trainer.trainer!.machine.drain(), at: trainer)
            } else {
                kill(trainer)
            }
            push(.spawn, after: draw(500, 8000) * Self.millisecond)
        }
    }

    /// The first is halted; some of its workers go over to the second, and then both act.
    private func secondCoordinator() -> Bool {
        guard let old = coordinator, coordinators.filter(\.isAlive).count == 1,
            !disk.isFullForLedger
        else { return false }
        old.haltedUntil = until(100, 6000)
        startCoordinator()
        for worker in old.links.keys.sorted() where chance(70) {
            if let link = old.links[worker], !link.isDead { reset(link) }
        }
        return true
    }

    private func attack() {
        let name = "stranger-\(random.index(below: 1000))"
        push(.stranger(hostileBody(name), name: name), after: latency())
        if let link = anyWorker()?.link, link.isOpenAtWorker {
            push(.garbage(garbage(), link), after: latency())
        }
        if let one = anyMember(), let other = anyMember(), one !== other {
            sendData(garbage(for: other), from: one.index, to: other.index)
        }
    }

    /// Data with the name of the step in hand, of blocks and slots that no step has.
    private func garbage(for worker: WorkerProcess) -> Packet {
        let machine = worker.trainer!.machine
        let (step, history, fold) = (machine.step + 1, machine.history, machine.fold)
        switch random.index(below: 4) {
        case 0:
            return .partial(
                step: step, history: history, fold: fold, block: Int(UInt32.max), SlotRun(0, 1), 1)
        case 1:
            return .partial(
                step: step, history: history, fold: fold, block: 0,
                SlotRun(0, configuration.slots + 1), 1)
        case 2:
            return .result(
                step: step, history: history, fold: fold, block: Int(UInt32.max), 1)
        default:
            return .want(
                step: step, history: history, fold: fold, blocks: [Int(UInt32.max)],
                partials: chance(50))
        }
    }

    private func hostileBody(_ name: String) -> WireBody {
        switch random.index(below: 4) {
        case 0:
            var hello = WireHello()
            hello.worker = "t0"
            hello.role = .trainer
            hello.lineupVersion = "test"
            return .hello(hello)
        case 1:
            var hello = WireHello()
            hello.worker = name
            hello.role = .UNRECOGNIZED(77)
            hello.lineupVersion = "test"
            return .hello(hello)
        case 2: return .goodbye(WireGoodbye())
        default: return garbage()
        }
    }

    /// Messages that no machine of ours would send; none of them may have an effect.
    private func garbage() -> WireBody {
        switch random.index(below: 8) {
        case 0:
            var message = WireSlotDone()
            message.step = chance(50) ? .max : UInt64(ledger.steps.count + 1)
            message.slot = .max
            return .slotDone(message)
        case 1:
            var message = WireReady()
            message.step = .max
            message.term = .max
            return .ready(message)
        case 2:
            var message = WireStateLoaded()
            message.number = .max
            return .stateLoaded(message)
        case 3:
            var message = WireCheckpointFailed()
            message.step = .max
            return .checkpointFailed(message)
        case 4: return .plan(WirePlan())
        case 5:
            var message = WireSlotReturned()
            message.step = UInt64(ledger.steps.count + 1)
            message.slot = .max
            return .slotReturned(message)
        case 6:
            var score = WireMetricValue()
            score.metric = "general_accuracy"
            var message = WireEvaluationRows()
            let scored = ledger.checkpoints.keys.sorted().randomElement(using: &random)
            message.step = chance(20) ? .max : UInt64(scored ?? 0)
            message.set = chance(20) ? "no_set" : "val_eval"
            message.metrics = [score]
            message.checkpointDigest = 1
            return .evaluationRows(message)
        default:
            var message = WireStateAwaited()
            message.number = .max
            return .stateAwaited(message)
        }
    }

    /// No more faults: whatever is broken is mended, and the run must come to its end.
    func healAll() {
        guard !isHealed else { return }
        isHealed = true
        healedAt = now
        note("everything is healed at step \(ledger.steps.count)")
        weather = Weather()
        freeDisk()
        killsAtCommit = false
        tearsNext = false
        armed = []
        openLanes()
        for process in coordinators where process.isAlive {
            process.haltedUntil = min(process.haltedUntil, now + Self.second)
        }
        for worker in workers where worker.isAlive {
            worker.haltedUntil = min(worker.haltedUntil, now + Self.second)
            worker.dripUntil = 0
            worker.trainer?.unreadableUntil = 0
            worker.trainer?.flip = 0
            worker.trainer?.slotFlip = 0
            worker.trainer?.flipsSealed = false
            worker.trainer?.foldFlip = 0
            worker.trainer?.copyFlip = 0
            if worker.trainer?.isFaulty ?? false { kill(worker) }
            if let link = worker.link, link.isDead { reset(link) }
        }
        if coordinator == nil { restartCoordinator() }
        let staying = trainersAlive.filter {
            $0.drainedAt == nil && $0.trainer!.numerics == "class" && $0.trainer!.version == "test"
        }
        if staying.count < 2 {
            spawnTrainer()
            spawnTrainer()
        }
        if !workers.contains(where: { $0.isAlive && $0.evaluator != nil }) { spawnEvaluator() }
    }
}

import Basics
import ClusterCore
import Protocol
import SwiftProtobuf

/// A trainer's machine under a coordinator that mostly says what fits, and peers that send anything.
struct TrainerTarget: FuzzTarget {
    static let name = "trainer"
    static let share = 1500
    static let episodeFrames = 400

    let reached = Tally()

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let minesStep = random.chance(500)
        var cluster = Cluster(reached: reached, minesStep: minesStep)
        for _ in 0..<frames {
            try cluster.step(&random, log)
            if cluster.isOver { cluster = Cluster(reached: reached, minesStep: minesStep) }
        }
    }

    private struct Cluster {
        static let slots = 3
        static let blocks = 4
        static let me = "t0"
        private static let members = ["t0", "t1", "t2"]

        let reached: Tally
        private let minesStep: Bool
        private var machine = TrainerStateMachine(worker: me)
        private var isConnected = false
        private var now = Duration.seconds(1)
        private var term: UInt64 = 1
        private var generation: UInt64 = 1
        private var load: UInt64 = 0
        private var staged: UInt64 = 9
        private var due: [TrainerAction] = []
        var isOver = false

        init(reached: Tally, minesStep: Bool) {
            self.reached = reached
            self.minesStep = minesStep
        }

        mutating func step(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            now += .milliseconds(random.below(60))
            switch random.below(100) {
            case 0..<34: try hear(plausible(&random), &random, log)
            case 34..<38:
                guard let body = Messages.mutated(plausible(&random), &random) else { return }
                try hear(body, &random, log)
            case 38..<39: try hear(Messages.anything(&random), &random, log)
            case 39..<70: try report(&random, log)
            case 70..<86: try peer(&random, log)
            case 86..<92:
                now += .milliseconds(random.pick([0, 300, 1100, 9000]))
                log.feed("tick \(now)")
                try perform(machine.tick(now: now), &random)
            case 92..<96:
                guard !isConnected || random.chance(30) else { return }
                log.feed("connected")
                isConnected = true
                try perform(machine.connectionOpened(now: now), &random)
            case 96:
                guard random.chance(300) else { return }
                log.feed("disconnected")
                isConnected = false
                machine.connectionClosed()
            case 97:
                log.feed("busy")
                machine.stillBusy()
                machine.statePieceReceived()
            default:
                guard random.chance(20) else { return }
                log.feed("drain")
                try perform(machine.drain(), &random)
            }
        }

        private mutating func hear(
            _ body: WireBody, _ random: inout FuzzRandom, _ log: FuzzLog
        ) throws {
            log.feed(WireCodec.encode(body, run: 1))
            try perform(machine.received(body, now: now), &random)
        }

        private mutating func plausible(_ random: inout FuzzRandom) -> WireBody {
            if random.chance(10) { term += 1 }
            if random.chance(50) { generation += 1 }
            let step = UInt64(machine.step)
            switch random.below(12) {
            case 0, 1:
                return .welcome(
                    .with {
                        $0.term = term
                        $0.settingsDigest = 3
                        $0.datasetDigest = random.chance(20) ? 6 : 5
                    })
            case 2:
                load += 1
                return .loadState(
                    .with {
                        $0.source = random.pick([.initial, .checkpoint, .peer])
                        $0.number = load
                        $0.step = UInt64(random.below(20))
                        $0.history = 7
                    })
            case 3..<8: return .plan(plan(step + 1 + UInt64(random.chance(100) ? 1 : 0), &random))
            case 8, 9:
                return .commit(
                    .with {
                        $0.term = term
                        $0.step = step + 1
                        $0.digest = random.chance(20) ? 1 : staged
                    })
            case 10:
                let other = step + 1 - UInt64(random.below(2))
                return random.chance(500)
                    ? .sendCheckpoint(.with { $0.step = other })
                    : .releaseCheckpoint(
                        .with {
                            $0.step = step
                            $0.donation = random.chance(500)
                        })
            default:
                if random.chance(30) {
                    return .stop(.with { $0.reason = random.pick([.expelled, .drained]) })
                }
                return .donateState(.with { $0.step = step })
            }
        }

        private func plan(_ step: UInt64, _ random: inout FuzzRandom) -> WirePlan {
            let members = Array(Self.members.prefix(1 + random.below(3)))
            return .with { plan in
                plan.term = term
                plan.generation = generation
                plan.step = step
                plan.history = machine.history
                plan.fold = random.chance(50) ? 1 : 0
                plan.members = members.map { name in .with { $0.worker = name } }
                if random.chance(100) { plan.members.removeFirst() }
                if plan.members.isEmpty { plan.members = [.with { $0.worker = "t1" }] }
                plan.listeners = random.chance(200) ? [.with { $0.worker = Self.me }] : []
                plan.leases = (0..<Self.slots).map { slot in
                    .with {
                        $0.slot = UInt32(slot)
                        $0.worker = random.pick(members)
                        $0.attempt = 1
                        $0.optional = random.chance(100)
                    }
                }
                plan.samples = [step, step + 1].map { number in
                    .with {
                        $0.step = number
                        $0.slots = (0..<Self.slots).map { _ in .with { $0.indices = [1] } }
                    }
                }
                if random.chance(200) {
                    plan.checkpoint.step = step - 1 + UInt64(random.below(2))
                    plan.checkpoint.primary = random.pick(Self.members)
                }
                if random.chance(50) {
                    plan.outdated = [.with { $0.slot = UInt32(random.below(Self.slots + 1)) }]
                }
                plan.donor = random.chance(200) ? Self.me : ""
                plan.quarantined = random.chance(50) ? [random.pick(Self.members)] : []
            }
        }

        /// A peer's data, as the shell hands it over.
        private mutating func peer(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            let block = random.chance(950) ? random.below(Self.blocks) : Int(UInt32.max)
            let low = random.below(Self.slots)
            let run = SlotRun(low, low + 1 + random.below(Self.slots - low))
            let step = random.chance(800) ? machine.step + 1 : Int(clamping: random.number())
            let place = machine.place(
                step: step, history: random.chance(900) ? machine.history : random.number(),
                fold: Int(UInt32(truncatingIfNeeded: random.chance(900) ? 0 : random.number())),
                from: random.pick(Self.members))
            let kind = random.below(6)
            log.feed("peer \(kind) block \(block) \(run) at \(step) \(place)")
            guard place == .here else { return }
            switch kind {
            case 0:
                guard machine.wantsPartial(block, run: run) else { return }
                try perform(machine.partialReceived(block, run: run), &random)
            case 1, 2:
                guard machine.wantsResult(block) else { return }
                try perform(machine.resultReceived(block, digest: 7), &random)
            case 3:
                let slot = random.chance(950) ? low : block
                guard machine.wantsEmbeddings(ofSlot: slot) else { return }
                try perform(
                    machine.embeddingsReceived(slot, from: random.pick(Self.members)), &random)
            case 4:
                try perform(
                    machine.embeddingsWanted([low, block], by: random.pick(Self.members)), &random)
            default:
                let blocks = (0..<random.below(6)).map { _ in
                    Int(UInt32(truncatingIfNeeded: Messages.word(&random)))
                }
                try perform(
                    machine.wanted(
                        blocks, partials: random.chance(500), by: random.pick(Self.members)),
                    &random)
            }
        }

        /// What the shell has done.
        private mutating func report(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            guard !due.isEmpty else { return }
            let action = due.remove(at: random.below(min(3, due.count)))
            log.feed("report \(String(describing: action).prefix(200))")
            switch action {
            case .prepare(_, let epoch):
                let message = WirePrepared.with { $0.blockCount = UInt64(Self.blocks) }
                try perform(
                    machine.prepared(
                        message, slotCount: Self.slots, minesStep: minesStep, epoch: epoch),
                    &random)
            case .load(let load, let epoch):
                let actions =
                    random.chance(100)
                    ? machine.loadFailed("gone", epoch: epoch)
                    : machine.stateLoaded(
                        step: Int(clamping: load.step), digest: 4, epoch: epoch)
                try perform(actions, &random)
            case .compute(let step, let slots, _, let epoch) where minesStep:
                for slot in slots {
                    try perform(
                        machine.slotEmbedded(
                            .with {
                                $0.step = UInt64(step)
                                $0.slot = UInt32(slot)
                            }, epoch: epoch), &random)
                }
            case .compute(let step, let slots, _, let epoch),
                .backward(let step, let slots, let epoch):
                for slot in slots {
                    let actions =
                        random.chance(30)
                        ? machine.slotFailed(
                            step: step, slot: slot, reason: "x", diverged: slot.isMultiple(of: 2),
                            epoch: epoch)
                        : machine.slotComputed(
                            .with {
                                $0.step = UInt64(step)
                                $0.slot = UInt32(slot)
                            }, epoch: epoch)
                    try perform(actions, &random)
                }
            case .digestEffect(let step, let fold, _, let epoch):
                staged = random.chance(50) ? 1 : 9
                try perform(
                    machine.effectDigested(
                        step: step, fold: fold, digest: staged, state: 4, epoch: epoch), &random)
            case .digestState(let step, let epoch):
                machine.stateDigested(step: step, digest: 4, epoch: epoch)
            case .apply(let step, _, let epoch):
                reached.count("applied")
                try perform(machine.applied(step: step, epoch: epoch), &random)
            default: break
            }
        }

        private mutating func perform(
            _ actions: [TrainerAction], _ random: inout FuzzRandom
        ) throws {
            for action in actions {
                switch action {
                case .prepare, .load, .compute, .backward, .digestEffect, .apply, .digestState:
                    due.append(action)
                case .leave, .refused, .fail:
                    reached.count("ends")
                    isOver = true
                case .refold: reached.count("folded again")
                case .send(.ready): reached.count("READY")
                default: break
                }
            }
            // The shell drops reports of earlier epochs in the end.
            if due.count > 32 { due.removeFirst(due.count - 32) }
            guard machine.waitingCount <= 2 * (TrainerStateMachine.backlogMax + 1) else {
                throw FuzzFailure("\(machine.waitingCount) messages wait")
            }
            guard actions.count <= 200 else {
                throw FuzzFailure("\(actions.count) actions follow from one input")
            }
        }
    }
}

/// The exchange of one step under members that come, go and send in any order.
struct ExchangeTarget: FuzzTarget {
    static let name = "exchange"
    static let share = 700
    static let episodeFrames = 60

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let names = ["a", "b", "c", "d", "e"]
        let slots = 1 + random.below(9)
        func members() -> [String] {
            Array(names.shuffled(using: &random).prefix(1 + random.below(5)))
        }
        var machine = ExchangeStateMachine(
            me: "a", members: members(), listeners: random.chance(300) ? ["e"] : [],
            slotCount: slots, blockCount: 1 + random.below(7), fold: random.below(3))
        var held: Set<Int> = []
        for _ in 0..<frames {
            let block = random.chance(900) ? random.below(8) : Int(UInt32.max)
            let low = random.below(slots)
            let run = SlotRun(low, low + 1 + random.below(random.chance(900) ? slots - low : 99))
            let kind = random.below(8)
            log.feed("\(kind) block \(block) \(run)")
            let finished = machine.isComplete
            var actions: [ExchangeStateMachine.Action] = []
            switch kind {
            case 0, 1: actions = machine.partialReceived(block, run: run)
            case 2, 3: actions = machine.resultReceived(block, digest: 7)
            case 4:
                held.insert(low)
                actions = machine.slotsComputed(held)
            case 5: actions = machine.membersChanged(members(), listeners: ["e"])
            case 6: actions = machine.missing()
            default:
                actions = machine.partialsWanted([block, 0], by: random.pick(names))
                actions += machine.resultsWanted([block, 1], by: random.pick(names))
            }
            let completions = actions.count { $0 == .complete }
            guard completions <= 1, !(finished && completions > 0) else {
                throw FuzzFailure("the effect was complete twice")
            }
            guard !finished || machine.isComplete else {
                throw FuzzFailure("an effect that was complete is not any more")
            }
        }
    }
}

/// An evaluator's machine under any coordinator.
struct EvaluatorTarget: FuzzTarget {
    static let name = "evaluator"
    static let share = 500
    static let episodeFrames = 200

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        var machine = EvaluatorStateMachine(worker: "e0", once: random.chance(300))
        var now = Duration.seconds(1)
        var due: [EvaluatorAction] = []
        var granted = 0
        for _ in 0..<frames {
            now += .milliseconds(random.below(300))
            var actions: [EvaluatorAction] = []
            switch random.below(10) {
            case 0...4:
                var body = plausible(&random)
                if random.chance(300) { body = Messages.mutated(body, &random) ?? body }
                log.feed(WireCodec.encode(body, run: 1))
                actions = machine.received(body, now: now)
            case 5, 6:
                log.feed("tick \(now)")
                actions = machine.tick(now: now)
            case 7:
                log.feed("connection")
                if random.chance(700) {
                    actions = machine.connectionOpened(now: now)
                } else {
                    machine.connectionClosed()
                }
            default:
                guard !due.isEmpty else { continue }
                let action = due.removeFirst()
                log.feed("report \(String(describing: action).prefix(200))")
                if case .prepare = action {
                    actions = machine.prepared(
                        WirePrepared(), pollSeconds: 0.5, timeoutSeconds: 60, now: now)
                } else if case .score(let grant) = action {
                    for set in grant.sets.prefix(3) {
                        actions += machine.scored(
                            .with {
                                $0.step = grant.step
                                $0.set = set
                            }, now: now)
                    }
                    actions += machine.scoringEnded(now: now)
                }
            }
            for action in actions {
                switch action {
                case .prepare: due.append(action)
                case .score:
                    granted += 3
                    due.append(action)
                case .leave, .refused:
                    machine = EvaluatorStateMachine(worker: "e0", once: random.chance(300))
                    due = []
                default: break
                }
            }
            guard machine.unacknowledgedCount <= granted, due.count <= 2 else {
                throw FuzzFailure(
                    "\(machine.unacknowledgedCount) rows, \(due.count) tasks are kept")
            }
        }
    }

    private func plausible(_ random: inout FuzzRandom) -> WireBody {
        switch random.below(8) {
        case 0, 1: return .welcome(.with { $0.term = 1 })
        case 2, 3:
            return .evaluationGrant(
                .with {
                    $0.granted = random.chance(900)
                    $0.step = UInt64(random.below(9))
                    $0.sets = ["val_eval", "train_eval"]
                })
        case 4, 5:
            return .evaluationAck(
                .with {
                    $0.step = UInt64(random.below(9))
                    $0.set = random.pick(["val_eval", "train_eval"])
                })
        case 6: return .stop(.with { $0.reason = random.chance(900) ? .expelled : .finished })
        default: return Messages.anything(&random)
        }
    }
}

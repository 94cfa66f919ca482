import ClusterCore
import Protocol
import SwiftProtobuf

/// The coordinator's machine among workers of which some say anything at all.
///
/// Most messages are what a worker would say next, so that every phase is reached; the others are such
/// messages with bytes changed, or arbitrary ones. Nothing may trap, grow without limit or make more
/// of a message than a few short texts; a stranger's message changes nothing.
struct CoordinatorTarget: FuzzTarget {
    static let name = "coordinator"
    static let share = 2000
    static let episodeFrames = 400

    /// Longest text of an event, in bytes.
    static let textBytesMax = 4096
    /// Longest message that the coordinator may send in this small cluster, in bytes.
    static let messageBytesMax = 32 << 10

    let reached = Tally()

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        var cluster = Cluster(&random, reached)
        for _ in 0..<frames {
            try cluster.step(&random, log)
            if cluster.isOver { cluster = Cluster(&random, reached) }
        }
    }

    private struct Source: StepSource {
        func samples(step: Int) -> WireStepSamples {
            .with {
                $0.step = UInt64(step)
                $0.slots = (0..<Cluster.slots).map { _ in .with { $0.indices = [1, 2] } }
            }
        }
        func scalars(step: Int) -> WireStepScalars { .with { $0.learningRate = 1 } }
    }

    /// A coordinator with what its workers know.
    private struct Cluster {
        static let slots = 3
        static let steps = 30
        static let names = ["t0", "t1", "t2", "t3", "e0", "e1", "o0"]

        private var machine: CoordinatorStateMachine
        private var now = Duration.seconds(1)
        private var plans: [String: WirePlan] = [:]
        private var loads: [String: WireLoadState] = [:]
        private var grants: [String: WireEvaluationGrant] = [:]
        private var reports: [CoordinatorAction] = []
        private var duties: [DurableCheckpoint] = []
        private var disagreement: UInt64 = 0
        /// Workers that were welcomed and not let go since.
        private var known: Set<String> = []
        private let reached: Tally
        var isOver = false

        init(_ random: inout FuzzRandom, _ reached: Tally) {
            self.reached = reached
            let committed = random.chance(500) ? 0 : random.below(Self.steps)
            let stored = committed / 5 * 5
            let retention = CheckpointRetention(
                last: 1 + random.below(3), everySteps: random.pick([0, 10]), best: random.below(3),
                ranking: .init(set: "val_eval", metric: "mean_loss", isLargerBetter: false),
                unscored: random.below(5))
            machine = CoordinatorStateMachine(
                configuration: CoordinatorConfiguration(
                    run: 1, datasetDigest: 5, slotCount: Self.slots, totalSteps: Self.steps,
                    checkpointEverySteps: 5, checkpointMaxLagSteps: 2,
                    evaluationSets: ["train_eval", "val_eval"], evaluationTimeout: .seconds(3),
                    expectedTrainers: 2, startPatience: .seconds(2),
                    recoveryInterval: .seconds(5),
                    retention: random.chance(500) ? retention : nil, isBitwise: random.chance(700),
                    lineupVersion: "test"),
                source: Source(),
                recovery: CoordinatorRecovery(
                    term: 2, committedStep: committed, committedHistory: 7,
                    checkpoints: committed == 0 ? [] : [Self.checkpoint(stored, recovery: false)],
                    scored: [0: ["val_eval"]], committedDigest: 9, previousHistory: 6,
                    liveTrainers: random.chance(500) ? ["t0", "t1"] : []))
        }

        private static func checkpoint(_ step: Int, recovery: Bool) -> DurableCheckpoint {
            DurableCheckpoint(
                step: step, history: 7, file: recovery ? "recovery/\(step)" : "listed/\(step)",
                byteCount: 1, digest: 100 + UInt64(step), isRecovery: recovery)
        }

        mutating func step(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            now += .milliseconds(random.below(40))
            switch random.below(100) {
            case 0..<78: try hear(plausible(&random), &random, log)
            case 78..<84:
                let (body, name) = plausible(&random)
                guard let body = Messages.mutated(body, &random) else { return }
                try hear((body, name), &random, log)
            case 84..<87:
                try hear((Messages.anything(&random), random.pick(Self.names)), &random, log)
            case 87..<90: try stranger(&random, log)
            case 90..<96:
                now += .milliseconds(
                    random.chance(30)
                        ? random.pick([6000, 200_000]) : random.pick([0, 100, 200, 600]))
                log.feed("tick \(now)")
                try perform(machine.tick(now: now), &random)
            case 96:
                guard random.chance(300) else { return }
                try lose(random.pick(Self.names), &random, log)
            case 97: try store(&random, log)
            case 98:
                guard random.chance(30) else { return }
                log.feed("drain")
                try perform(machine.drain(now: now), &random)
            default:
                guard random.chance(10) else { return }
                log.feed("ledger refused")
                try perform(machine.ledgerRefused(), &random)
            }
            try report(&random, log)
        }

        private mutating func hear(
            _ message: (body: WireBody, name: String), _ random: inout FuzzRandom, _ log: FuzzLog
        ) throws {
            log.feed(WireCodec.encode(message.body, run: 1))
            try perform(machine.received(message.body, from: message.name, now: now), &random)
        }

        private mutating func lose(
            _ name: String, _ random: inout FuzzRandom, _ log: FuzzLog
        ) throws {
            log.feed("\(name) disconnected")
            plans[name] = nil
            try perform(machine.disconnected(name, now: now), &random)
        }

        /// A worker that the coordinator does not know says what it likes.
        private mutating func stranger(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            let body = Messages.anything(&random)
            if case .hello = body { return }
            log.feed(WireCodec.encode(body, run: 1))
            let before = try facts()
            let actions = machine.received(body, from: "stranger", now: now)
            guard try facts() == before else { throw FuzzFailure("a stranger changed the cluster") }
            for action in actions {
                guard case .send(.stop, to: "stranger") = action else {
                    throw FuzzFailure("a stranger caused \(action)")
                }
            }
        }

        private func facts() throws -> [String] {
            let status = machine.status(now: now)
            return [
                "\(machine.members) \(machine.currentGeneration) \(machine.flightCount)",
                "\(machine.workerCount) \(machine.ledgerStep)", "\(status)",
            ]
        }

        // MARK: What workers say

        private mutating func plausible(_ random: inout FuzzRandom) -> (WireBody, String) {
            let name = random.pick(Self.names)
            if random.chance(known.contains(name) ? 5 : 800) {
                return (.hello(hello(name, &random)), name)
            }
            if name.hasPrefix("e") { return (evaluator(name, &random), name) }
            if name.hasPrefix("o") { return (.progress(WireProgress()), name) }
            return (trainer(name, &random), name)
        }

        private func hello(_ name: String, _ random: inout FuzzRandom) -> WireHello {
            .with {
                $0.lineupVersion = "test"
                $0.worker = name
                $0.role =
                    name.hasPrefix("t") ? .trainer : name.hasPrefix("e") ? .evaluator : .observer
                // Whoever comes back may say that it is something else.
                if random.chance(20) { $0.role = random.pick([.trainer, .evaluator, .observer]) }
                $0.dataAddress = "tcp://10.0.0.1:4000"
                guard name.hasPrefix("t"), random.chance(400) else { return }
                $0.hasState_p = true
                $0.stateStep = UInt64(max(0, machine.ledgerStep - random.below(2)))
                $0.history = random.pick([6, 7, plans[name]?.history ?? 7])
                $0.hasStaged_p = random.chance(500)
                $0.stagedStep = $0.stateStep + 1
                $0.stagedDigest = 9
                $0.heldSlots = [UInt32(random.below(4))]
                $0.copies = [UInt64(machine.ledgerStep / 5 * 5)]
            }
        }

        private mutating func evaluator(_ name: String, _ random: inout FuzzRandom) -> WireBody {
            if random.chance(50) {
                return .prepared(
                    .with {
                        $0.datasetDigest = random.chance(20) ? 6 : 5
                        $0.numerics.description_p = random.chance(20) ? "other" : "class"
                    })
            }
            guard let grant = grants[name], grant.granted, random.chance(600) else {
                return .evaluationPoll(.with { $0.idle = random.chance(800) })
            }
            return .evaluationRows(
                .with {
                    $0.step = grant.step
                    $0.set = random.pick(grant.sets)
                    $0.checkpointDigest = grant.digest
                    $0.started = 1
                    $0.finished = 2
                    $0.failure = random.chance(200) ? "cannot be read" : ""
                    $0.metrics = [
                        .with {
                            $0.metric = "mean_loss"
                            $0.value = Double(random.below(9))
                        }
                    ]
                })
        }

        private mutating func trainer(_ name: String, _ random: inout FuzzRandom) -> WireBody {
            let plan = plans[name]
            switch random.below(20) {
            case 0..<3:
                return .prepared(
                    .with {
                        $0.datasetDigest = random.chance(20) ? 6 : 5
                        $0.blockCount = 2
                        $0.numerics.description_p = random.chance(20) ? "other" : "class"
                    })
            case 3..<6:
                let load = loads[name] ?? WireLoadState()
                return .stateLoaded(
                    .with {
                        $0.step = load.step
                        $0.number = load.number
                        $0.digest = load.digest
                    })
            case 6:
                return .stateAwaited(
                    .with {
                        $0.number = loads[name]?.number ?? 0
                        $0.failure = random.chance(300) ? "cannot be read" : ""
                    })
            case 7..<12:
                let mine = plan?.leases.filter { $0.worker == name } ?? []
                guard let lease = mine.randomElement(using: &random) else { break }
                if random.chance(30) {
                    return .slotReturned(
                        .with {
                            $0.step = plan!.step
                            $0.slot = lease.slot
                            $0.attempt = lease.attempt
                            $0.reason = "bad data"
                            $0.diverged = random.chance(10)
                        })
                }
                return .slotDone(
                    .with {
                        $0.step = plan!.step
                        $0.slot = lease.slot
                        $0.attempt = lease.attempt
                        $0.loss = Float(random.chance(20) ? 2 : 1).bitPattern
                        $0.computeSeconds = 0.1
                    })
            case 12..<18:
                guard let plan else { break }
                if random.chance(30) { disagreement = random.next() }
                return .ready(
                    .with {
                        $0.term = plan.term
                        $0.generation = plan.generation
                        $0.step = plan.step
                        $0.effectDigest = random.chance(30) ? disagreement : 9
                        $0.stateDigest = random.chance(10) ? 3 : 4
                    })
            case 18:
                if random.chance(100) { return .goodbye(.with { $0.drain = random.chance(700) }) }
                if random.chance(100) {
                    return .checkpointFailed(
                        .with { $0.step = UInt64(duties.last?.step ?? 0) })
                }
            default: break
            }
            return .progress(
                .with {
                    $0.step = UInt64(machine.ledgerStep)
                    $0.active = true
                    $0.prepared = true
                    $0.counter = random.next()
                    $0.term = plan?.term ?? 0
                    $0.generation = plan?.generation ?? 0
                    $0.planStep = plan?.step ?? 0
                    $0.load = loads[name]?.number ?? 0
                    guard random.chance(200) else { return }
                    $0.states = [
                        .with {
                            $0.step = UInt64(duties.last?.step ?? machine.ledgerStep)
                            $0.digest = random.chance(990) ? 7 : random.next()
                        }
                    ]
                })
        }

        // MARK: What the shell does

        private mutating func store(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            guard let duty = duties.last else { return }
            if random.chance(800) { duties.removeLast() }
            var checkpoint = duty
            if random.chance(10) { checkpoint.digest ^= 1 }
            log.feed("stored \(checkpoint)")
            machine.checkpointPieceReceived(step: duty.step, now: now)
            let actions =
                random.chance(5)
                ? machine.checkpointWriteFailed(step: duty.step, reason: "disk", now: now)
                : random.chance(50)
                    ? machine.checkpointRefused(step: duty.step, reason: "differs", now: now)
                    : machine.checkpointStored(checkpoint, now: now)
            try perform(actions, &random)
        }

        /// Answers that the shell owes.
        private mutating func report(_ random: inout FuzzRandom, _ log: FuzzLog) throws {
            guard !reports.isEmpty, random.chance(800) else { return }
            let action = reports.removeFirst()
            log.feed("report \(String(describing: action).prefix(200))")
            switch action {
            case .commit(let record):
                try perform(machine.stepCommitted(record, now: now), &random)
            case .compareRedone(let record):
                try perform(
                    machine.stepCompared(record, matches: !random.chance(5), now: now), &random)
            case .verifyCheckpoint(let checkpoint):
                try perform(
                    machine.checkpointVerified(
                        checkpoint, isWhole: random.chance(800), now: now), &random)
            case .readTerm(let name):
                try perform(
                    machine.termRead(random.chance(950) ? 2 : 3, for: name, now: now), &random)
            case .recordEvaluation(let rows, let name):
                try perform(machine.evaluationRecorded(rows, from: name, now: now), &random)
            default: break
            }
        }

        private mutating func perform(
            _ actions: [CoordinatorAction], _ random: inout FuzzRandom
        ) throws {
            for action in actions {
                switch action {
                case .send(let body, let name):
                    let size = WireCodec.encode(body, run: 1).count
                    guard size <= CoordinatorTarget.messageBytesMax else {
                        throw FuzzFailure("\(size) bytes are sent to \(name)")
                    }
                    note(body, to: name)
                case .event(let kind, _, let text):
                    reached.count(kind)
                    guard text.utf8.count <= CoordinatorTarget.textBytesMax else {
                        throw FuzzFailure("an event of \(text.utf8.count) bytes")
                    }
                    machine.noteEvent(text)
                case .workerLeft(let name, let why):
                    known.remove(name)
                    guard why.utf8.count <= CoordinatorTarget.textBytesMax else {
                        throw FuzzFailure("a reason of \(why.utf8.count) bytes")
                    }
                case .recordEvaluation(let rows, _):
                    let told = rows.metrics.map(\.metric).joined()
                    guard rows.started.isFinite, rows.finished.isFinite, rows.metrics.count <= 64,
                        !rows.metrics.isEmpty, told.utf8.count <= CoordinatorTarget.textBytesMax
                    else { throw FuzzFailure("rows that no ledger can hold") }
                    reports.append(action)
                case .commit, .compareRedone, .verifyCheckpoint, .readTerm:
                    if case .commit = action { reached.count("commits") }
                    if case .compareRedone = action { reached.count("comparisons") }
                    reports.append(action)
                case .finish: isOver = true
                default: break
                }
            }
            guard machine.workerCount <= Self.names.count else {
                throw FuzzFailure("\(machine.workerCount) workers are kept")
            }
            guard actions.count <= 400 else {
                throw FuzzFailure("\(actions.count) actions follow from one message")
            }
        }

        private mutating func note(_ body: WireBody, to name: String) {
            switch body {
            case .plan(let plan):
                plans[name] = plan
                if plan.hasCheckpoint, plan.checkpoint.primary == name {
                    duties.append(
                        Self.checkpoint(
                            Int(plan.checkpoint.step), recovery: plan.checkpoint.recovery))
                }
            case .sendCheckpoint(let duty) where !duty.digestOnly:
                duties.append(Self.checkpoint(Int(duty.step), recovery: duty.recovery))
            case .welcome: known.insert(name)
            case .stop, .refusal: known.remove(name)
            case .loadState(let load): loads[name] = load
            case .evaluationGrant(let grant): grants[name] = grant
            default: break
            }
            if duties.count > 8 { duties.removeFirst() }
        }
    }
}

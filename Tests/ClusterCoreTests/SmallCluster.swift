import ClusterCore
import Protocol

/// A coordinator's machine with a few members at their first step, which has three slots unless told otherwise;
/// it keeps what the machine says.
struct SmallCluster {
    private struct Source: StepSource {
        let slots: Int
        func samples(step: Int) -> WireStepSamples {
            var samples = WireStepSamples()
            samples.step = UInt64(step)
            samples.slots = (0..<slots).map { _ in WireSlotSamples() }
            return samples
        }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
        func scalars(step: Int, reductions: Int) -> WireStepScalars {
            var scalars = WireStepScalars()
            scalars.learningRate = (1 / Double(1 << reductions)).bitPattern
            return scalars
        }
        func names(of samples: WireSlotSamples) -> [String] { ["left.jpg", "right.jpg"] }
    }

    var machine: CoordinatorStateMachine
    /// What was last planned, by worker.
    private(set) var plans: [String: WirePlan] = [:]
    private(set) var commits: [StepRecord] = []
    /// Steps that were to be compared with the ledger.
    private(set) var comparisons: [StepRecord] = []
    /// How the run ended.
    private(set) var outcome: CoordinatorOutcome?
    /// Text of the events, by kind.
    private(set) var events: [String: [String]] = [:]

    private let term: UInt64

    /// The step that is under way.
    private(set) var step = 1

    /// - Parameters:
    ///   - classes: numerics classes of those that do not compute in "class".
    ///   - recovery: what the ledger and the folder hold; nothing unless told otherwise. Those who trained
    ///     in an earlier term come with the last commit's state.
    init(
        _ workers: [String], slots: Int = 3, audit: Audit = .none, minesStep: Bool = false,
        collapse: CollapseDetector? = nil, decisions: DecisionRule? = nil,
        classes: [String: String] = [:], isBitwise: Bool = true,
        recovery: CoordinatorRecovery = CoordinatorRecovery(
            term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:])
    ) {
        term = recovery.term
        if !recovery.liveTrainers.isEmpty { step = recovery.committedStep + 1 }
        machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: slots, totalSteps: 99, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 500,
                evaluationSets: decisions.map { [$0.ranking.set] } ?? [],
                evaluationTimeout: .seconds(1), expectedTrainers: workers.count,
                recoveryInterval: nil, decisions: decisions, audit: audit, collapse: collapse,
                minesStep: minesStep, isBitwise: isBitwise, lineupVersion: "test"),
            source: Source(slots: slots), recovery: recovery)
        for worker in workers {
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = .trainer
            hello.worker = worker
            if recovery.liveTrainers.contains(worker) {
                hello.hasState_p = true
                hello.stateStep = UInt64(recovery.committedStep)
                hello.history = recovery.committedHistory
            }
            hear(.hello(hello), from: worker)
        }
        var loads: [String: UInt64] = [:]
        for worker in workers {
            var prepared = WirePrepared()
            prepared.datasetDigest = 5
            prepared.numerics.description_p = classes[worker] ?? "class"
            for action in hear(.prepared(prepared), from: worker) {
                if case .send(.loadState(let load), let to) = action { loads[to] = load.number }
            }
        }
        for worker in workers {
            var loaded = WireStateLoaded()
            loaded.number = loads[worker] ?? 0
            hear(.stateLoaded(loaded), from: worker)
        }
    }

    @discardableResult
    mutating func take(_ actions: [CoordinatorAction]) -> [CoordinatorAction] {
        for action in actions {
            switch action {
            case .send(.plan(let plan), let worker): plans[worker] = plan
            case .commit(let record): commits.append(record)
            case .compareRedone(let record): comparisons.append(record)
            case .finish(let outcome): self.outcome = outcome
            case .event(let kind, _, let text): events[kind, default: []].append(text)
            default: break
            }
        }
        return actions
    }

    @discardableResult
    mutating func hear(
        _ body: WireBody, from worker: String, at now: Duration = .zero
    ) -> [CoordinatorAction] {
        take(machine.received(body, from: worker, now: now))
    }

    mutating func tick(at now: Duration) { take(machine.tick(now: now)) }

    /// Who has to compute a slot, as the first member was told last.
    func holders(of slot: Int) -> [String] {
        plans[machine.members[0]]!.leases.filter { $0.slot == slot && !$0.optional }.map(\.worker)
    }

    /// Which lease of a slot a worker was told last.
    func attempt(of slot: Int, by worker: String) -> UInt32 {
        plans[worker]?.leases.last { $0.slot == slot && $0.worker == worker }?.attempt ?? 1
    }

    mutating func done(
        _ slot: Int, by worker: String, loss: Float = 0, digest: UInt64 = 0,
        at now: Duration = .zero, saying change: (inout WireSlotDone) -> Void = { _ in }
    ) {
        var done = WireSlotDone()
        done.step = UInt64(step)
        done.slot = UInt32(slot)
        done.loss = loss.bitPattern
        done.attempt = attempt(of: slot, by: worker)
        done.digest = digest
        change(&done)
        hear(.slotDone(done), from: worker, at: now)
    }

    /// A slot's forward pass is done.
    mutating func embedded(
        _ slot: Int, by worker: String, digest: UInt64 = 1, at now: Duration = .zero
    ) {
        var done = WireSlotDone()
        done.step = UInt64(step)
        done.slot = UInt32(slot)
        done.embeddings = digest
        done.attempt = attempt(of: slot, by: worker)
        done.forward = true
        hear(.slotDone(done), from: worker, at: now)
    }

    mutating func ready(
        _ worker: String, state: UInt64 = 0, checks: [WireFoldCheck] = [],
        at now: Duration = .zero
    ) {
        var ready = WireReady()
        ready.term = term
        ready.generation = machine.currentGeneration
        ready.fold = plans[worker]?.fold ?? 0
        ready.step = UInt64(step)
        ready.effectDigest = 77
        ready.stateDigest = state
        ready.checks = checks
        hear(.ready(ready), from: worker, at: now)
    }

    /// Everybody is ready, and the ledger has the step.
    mutating func commit(at now: Duration) {
        for worker in machine.members { ready(worker, at: now) }
        guard let record = commits.last, record.step == step else { return }
        step += 1
        take(machine.stepCommitted(record, now: now))
    }

    /// A member says that it lives.
    mutating func progress(_ worker: String, lacking: [UInt32] = [], at now: Duration) {
        var progress = WireProgress()
        progress.active = true
        progress.step = UInt64(step - 1)
        progress.planStep = UInt64(step)
        progress.term = term
        progress.lacking = lacking
        progress.generation = machine.currentGeneration
        hear(.progress(progress), from: worker, at: now)
    }
}

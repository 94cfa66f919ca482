import ClusterCore
import Protocol
import Testing

/// What fuzzing has found: each of these messages ended a process, or made it keep or say too much.
@Suite struct HostileTests {
    private struct Nothing: StepSource {
        func samples(step: Int) -> WireStepSamples { WireStepSamples() }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    private static func coordinator() -> CoordinatorStateMachine {
        CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 1,
                checkpointMaxLagSteps: 2, evaluationSets: ["val_eval"],
                evaluationTimeout: .seconds(1), lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0,
                checkpoints: [
                    DurableCheckpoint(
                        step: 0, history: 0, file: "f", byteCount: 1, digest: 7,
                        isRecovery: false)
                ], scored: [:]))
    }

    private static func hello(
        _ role: WireRole = .evaluator, _ change: (inout WireHello) -> Void = { _ in }
    ) -> WireHello {
        var hello = WireHello()
        hello.worker = "w"
        hello.role = role
        hello.lineupVersion = "test"
        change(&hello)
        return hello
    }

    private static let prepared: WireBody = {
        var message = WirePrepared()
        message.datasetDigest = 5
        return .prepared(message)
    }()

    private static func textBytes(_ actions: [CoordinatorAction]) -> Int {
        actions.map {
            switch $0 {
            case .event(_, _, let text): text.utf8.count
            case .workerLeft(_, let why): why.utf8.count
            case .send(let body, _): WireCodec.encode(body, run: 1).count
            default: 0
            }
        }.max() ?? 0
    }

    @Test func aHelloLargerThanAnyOfOursIsRefused() {
        let long = String(repeating: "x", count: 1 << 20)
        let hellos = [
            Self.hello { $0.host = long }, Self.hello { $0.worker = long },
            Self.hello { $0.dataAddress = long }, Self.hello { $0.numerics.description_p = long },
            Self.hello { $0.lineupVersion = long },
            Self.hello(.trainer) { $0.heldSlots = Array(repeating: 1, count: 3) },
            Self.hello(.trainer) { $0.copies = Array(0..<65) },
        ]
        for hello in hellos {
            var machine = Self.coordinator()
            let actions = machine.received(.hello(hello), from: "w", now: .zero)
            guard case .send(.refusal, to: "w") = actions.first else {
                Issue.record("taken: \(actions)")
                continue
            }
            #expect(machine.workerCount == 0 && Self.textBytes(actions) < 1024)
        }
        var machine = Self.coordinator()
        _ = machine.received(.hello(Self.hello()), from: "w", now: .zero)
        #expect(machine.workerCount == 1)
    }

    @Test func longReasonsAreCut() {
        let long = String(repeating: "é", count: 1 << 20)
        var goodbye = WireGoodbye()
        goodbye.reason = long
        var rows = WireEvaluationRows()
        rows.set = "val_eval"
        rows.failure = long
        for body in [WireBody.goodbye(goodbye), .evaluationRows(rows)] {
            var machine = Self.coordinator()
            _ = machine.received(.hello(Self.hello()), from: "w", now: .zero)
            _ = machine.received(Self.prepared, from: "w", now: .zero)
            let actions = machine.received(body, from: "w", now: .zero)
            #expect(!actions.isEmpty && Self.textBytes(actions) < 1024)
        }
    }

    /// SQLite takes NaN for NULL, which the ledger's times must not be: the coordinator would stop.
    @Test func scoresThatNoLedgerCanHoldAreRefused() {
        func isTaken(_ change: (inout WireEvaluationRows) -> Void) -> Bool {
            var machine = Self.coordinator()
            _ = machine.received(.hello(Self.hello()), from: "w", now: .zero)
            _ = machine.received(Self.prepared, from: "w", now: .zero)
            var metric = WireMetricValue()
            metric.metric = "mean_loss"
            metric.value = .nan
            var rows = WireEvaluationRows()
            rows.set = "val_eval"
            rows.checkpointDigest = 7
            rows.metrics = [metric]
            change(&rows)
            let actions = machine.received(.evaluationRows(rows), from: "w", now: .zero)
            return actions.contains { if case .recordEvaluation = $0 { true } else { false } }
        }
        #expect(isTaken { _ in })
        #expect(!isTaken { $0.started = .nan })
        #expect(!isTaken { $0.finished = .infinity })
        #expect(!isTaken { $0.metrics = [] })
        #expect(!isTaken { $0.metrics = Array(repeating: $0.metrics[0], count: 65) })
        #expect(!isTaken { $0.metrics[0].metric = String(repeating: "m", count: 65) })
        #expect(!isTaken { $0.set = String(repeating: "s", count: 1 << 20) })
    }

    private static func trainer() -> TrainerStateMachine {
        var machine = TrainerStateMachine(worker: "w")
        _ = machine.connectionOpened(now: .zero)
        var welcome = WireWelcome()
        welcome.term = 1
        _ = machine.received(.welcome(welcome), now: .zero)
        var prepared = WirePrepared()
        prepared.blockCount = 1
        _ = machine.prepared(prepared, slotCount: 1, epoch: machine.epoch)
        return machine
    }

    @Test func aLoadOfAnImpossibleStepIsIgnored() {
        var machine = Self.trainer()
        var load = WireLoadState()
        load.number = 1
        load.step = .max
        #expect(machine.received(.loadState(load), now: .zero).isEmpty)
        var plan = WirePlan()
        plan.step = .max
        #expect(machine.received(.plan(plan), now: .zero).isEmpty)
    }

    @Test func aCheckpointDutyOfAnImpossibleStepEndsNothing() {
        var machine = Self.trainer()
        var load = WireLoadState()
        load.number = 1
        load.source = .initial
        _ = machine.received(.loadState(load), now: .zero)
        _ = machine.stateLoaded(step: 0, digest: 1, epoch: machine.epoch)
        var duty = WireSendCheckpoint()
        duty.step = .max
        _ = machine.received(.sendCheckpoint(duty), now: .zero)
        // A whole step, after which the duty is looked at.
        var plan = WirePlan()
        plan.term = 1
        plan.step = 1
        var member = WireMember()
        member.worker = "w"
        plan.members = [member]
        var lease = WireLease()
        lease.worker = "w"
        plan.leases = [lease]
        var samples = WireStepSamples()
        samples.step = 1
        samples.slots = [WireSlotSamples()]
        plan.samples = [samples]
        _ = machine.received(.plan(plan), now: .zero)
        var done = WireSlotDone()
        done.step = 1
        _ = machine.slotComputed(done, epoch: machine.epoch)
        _ = machine.effectDigested(
            step: 1, fold: 0, digest: 3, state: 4, epoch: machine.epoch)
        var commit = WireCommit()
        commit.term = 1
        commit.step = 1
        commit.digest = 3
        let actions = machine.received(.commit(commit), now: .zero)
        guard case .apply(step: 1, _, _) = actions.first else {
            Issue.record("not applied: \(actions)")
            return
        }
        _ = machine.applied(step: 1, epoch: machine.epoch)
        #expect(machine.step == 1)
    }
}

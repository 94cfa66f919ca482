import ClusterCore
import Protocol
import Testing

/// Who gets a checkpoint when it becomes durable.
@Suite struct EvaluationOfferTests {
    private struct Nothing: StepSource {
        func samples(step: Int) -> WireStepSamples { WireStepSamples() }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    /// A run of three sets with evaluators that have said HELLO.
    private static func coordinator(
        _ evaluators: [String], isBitwise: Bool = true
    ) -> CoordinatorStateMachine {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 3,
                checkpointMaxLagSteps: 2, evaluationSets: ["a", "b", "c"],
                evaluationTimeout: .seconds(1), isBitwise: isBitwise,
                lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        for name in evaluators {
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = .evaluator
            hello.worker = name
            _ = machine.received(.hello(hello), from: name, now: .zero)
            _ = machine.received(prepared("class"), from: name, now: .zero)
        }
        return machine
    }

    private static func prepared(_ numericsClass: String) -> WireBody {
        var prepared = WirePrepared()
        prepared.datasetDigest = 5
        prepared.numerics.description_p = numericsClass
        return .prepared(prepared)
    }

    private static let checkpoint = DurableCheckpoint(
        step: 3, history: 7, file: "checkpoints/step-000000003.safetensors", byteCount: 10,
        digest: 9, isRecovery: false)

    private static func poll(idle: Bool) -> WireBody {
        var poll = WireEvaluationPoll()
        poll.idle = idle
        return .evaluationPoll(poll)
    }

    /// Sets granted, by evaluator.
    private static func grants(_ actions: [CoordinatorAction]) -> [String: [String]] {
        actions.reduce(into: [:]) { grants, action in
            if case .send(.evaluationGrant(let grant), let worker) = action, grant.granted {
                grants[worker] = grant.sets
            }
        }
    }

    private static func hello(_ name: String) -> WireBody {
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .evaluator
        hello.worker = name
        return .hello(hello)
    }

    @Test func anEvaluatorOfAnotherClassIsRefusedOrRecorded() {
        for isBitwise in [true, false] {
            var machine = Self.coordinator(["e"], isBitwise: isBitwise)
            _ = machine.received(Self.hello("f"), from: "f", now: .zero)
            let actions = machine.received(Self.prepared("other"), from: "f", now: .zero)
            #expect(actions.first == .workerPrepared("f", numericsClass: "other"))
            let refused = actions.contains {
                if case .send(.refusal(let refusal), to: "f") = $0 {
                    refusal.code == .numerics && refusal.message.contains("computes with other")
                } else {
                    false
                }
            }
            #expect(refused == isBitwise)
            _ = machine.checkpointStored(Self.checkpoint, now: .seconds(2))
            let answer = machine.received(Self.poll(idle: true), from: "f", now: .seconds(2))
            #expect(Self.grants(answer).isEmpty == isBitwise)
            #expect(machine.numericsClass(of: "f") == (isBitwise ? nil : "other"))
        }
    }

    /// Trainers' classes are another matter, and a class that says more of the same stays the class.
    @Test func theFirstEvaluatorsClassIsTheRunsAndMayBeToldMoreFully() {
        var machine = Self.coordinator([])
        for (name, told) in [("e", "a b"), ("f", "a b"), ("g", "a b c")] {
            _ = machine.received(Self.hello(name), from: name, now: .zero)
            let actions = machine.received(Self.prepared(told), from: name, now: .zero)
            #expect(
                actions.contains(.recordNumerics(told, of: .evaluator)) == (name != "f"), "\(name)")
            #expect(machine.numericsClass(of: name) == told)
        }
        _ = machine.received(Self.hello("h"), from: "h", now: .zero)
        _ = machine.received(Self.prepared("a b"), from: "h", now: .zero)
        #expect(machine.numericsClass(of: "h") == nil)
    }

    @Test func nothingIsGrantedOrTakenBeforePREPAREDWhichIsAskedForAgain() {
        var machine = Self.coordinator([])
        _ = machine.received(Self.hello("e"), from: "e", now: .zero)
        _ = machine.checkpointStored(Self.checkpoint, now: .seconds(1))
        #expect(machine.received(Self.poll(idle: false), from: "e", now: .seconds(2)).isEmpty)
        var rows = WireEvaluationRows()
        rows.step = 3
        rows.set = "a"
        rows.checkpointDigest = Self.checkpoint.digest
        var metric = WireMetricValue()
        metric.metric = "mean_loss"
        rows.metrics = [metric]
        for (body, at) in [(Self.poll(idle: true), 3), (.evaluationRows(rows), 4)] {
            let actions = machine.received(body, from: "e", now: .seconds(at))
            guard actions.count == 1, case .send(.welcome, to: "e") = actions[0] else {
                Issue.record("\(actions)")
                continue
            }
        }
        _ = machine.received(Self.prepared("class"), from: "e", now: .seconds(5))
        let taken = machine.received(.evaluationRows(rows), from: "e", now: .seconds(5))
        #expect(taken.contains { if case .recordEvaluation = $0 { true } else { false } })
    }

    @Test func thoseThatWaitNeedNotAsk() {
        var machine = Self.coordinator(["e", "f", "busy"])
        for name in ["e", "f"] {
            _ = machine.received(Self.poll(idle: true), from: name, now: .seconds(1))
        }
        let actions = machine.checkpointStored(Self.checkpoint, now: .seconds(2))
        #expect(Self.grants(actions) == ["e": ["a", "b"], "f": ["c"]])
    }

    @Test func aRecoverySnapshotIsOfferedToNobody() {
        var machine = Self.coordinator(["e"])
        _ = machine.received(Self.poll(idle: true), from: "e", now: .seconds(1))
        var snapshot = Self.checkpoint
        snapshot.isRecovery = true
        #expect(Self.grants(machine.checkpointStored(snapshot, now: .seconds(2))).isEmpty)
    }

    /// The offer and a question may cross on the way.
    @Test func aQuestionThatCrossesTheOfferGetsTheSameSets() {
        var machine = Self.coordinator(["e"])
        _ = machine.received(Self.poll(idle: true), from: "e", now: .seconds(1))
        let offer = machine.checkpointStored(Self.checkpoint, now: .seconds(2))
        let answer = machine.received(Self.poll(idle: true), from: "e", now: .seconds(2))
        #expect(Self.grants(offer) == ["e": ["a", "b", "c"]])
        #expect(Self.grants(answer) == Self.grants(offer))
    }
}

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
    private static func coordinator(_ evaluators: [String]) -> CoordinatorStateMachine {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 3,
                checkpointMaxLagSteps: 2, evaluationSets: ["a", "b", "c"],
                evaluationTimeout: .seconds(1), lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        for name in evaluators {
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = .evaluator
            hello.worker = name
            _ = machine.received(.hello(hello), from: name, now: .zero)
        }
        return machine
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

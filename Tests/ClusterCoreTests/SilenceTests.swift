import ClusterCore
import Protocol
import Testing

/// Who is given up for saying nothing, and who is not.
@Suite struct SilenceTests {
    private struct Nothing: StepSource {
        func samples(step: Int) -> WireStepSamples { WireStepSamples() }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    private static func coordinator() -> CoordinatorStateMachine {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: [], evaluationTimeout: .seconds(1),
                silenceMax: .seconds(10), lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .evaluator
        hello.worker = "e"
        _ = machine.received(.hello(hello), from: "e", now: .zero)
        return machine
    }

    private static func isGone(_ actions: [CoordinatorAction]) -> Bool {
        actions.contains { if case .workerLeft("e", _) = $0 { true } else { false } }
    }

    @Test func whoLeavesAfterTheEndIsNotLost() {
        var machine = Self.coordinator()
        let end = machine.drain(now: .seconds(1))
        #expect(end.contains(.finish(.drained)) && Self.isGone(end))
        #expect(machine.disconnected("e", now: .seconds(2)).isEmpty)
    }

    @Test func aSilentWorkerIsGivenUp() {
        var machine = Self.coordinator()
        var goneAt: Int?
        for tenth in 1...200 where goneAt == nil {
            if Self.isGone(machine.tick(now: .milliseconds(100 * tenth))) { goneAt = tenth }
        }
        #expect(goneAt == 101)
    }

    @Test func aPauseOfTheCoordinatorItselfIsNobodysSilence() {
        var machine = Self.coordinator()
        for tenth in 1...50 { _ = machine.tick(now: .milliseconds(100 * tenth)) }
        // Five seconds of silence, then ten minutes in which the coordinator was halted.
        #expect(!Self.isGone(machine.tick(now: .seconds(605))))
        var goneAt: Int?
        for tenth in 1...200 where goneAt == nil {
            let now = Duration.seconds(605) + .milliseconds(100 * tenth)
            if Self.isGone(machine.tick(now: now)) { goneAt = tenth }
        }
        #expect(goneAt == 51)
    }

    @Test func aPauseAtTheEndOfARunIsNoMissingEvaluator() {
        // Every step is committed, the last checkpoint durable, its set not scored.
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: ["val_eval"],
                evaluationTimeout: .seconds(30), expectedEvaluators: 1,
                startPatience: .seconds(60), lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 2, committedStep: 9, committedHistory: 3,
                checkpoints: [
                    DurableCheckpoint(
                        step: 9, history: 3, file: "f", byteCount: 1, digest: 1, isRecovery: false)
                ], scored: [:]))
        func isFinished(_ seconds: Int) -> Bool {
            machine.tick(now: .seconds(seconds)).contains(.finish(.finished))
        }
        #expect(!isFinished(1) && !isFinished(2))
        // Its machine slept for a day; then the evaluator has all its time to come.
        let morning = 86_400
        #expect(!isFinished(morning))
        var endedAfter: Int?
        for second in 1...120 where endedAfter == nil {
            if isFinished(morning + second) { endedAfter = second }
        }
        #expect(endedAfter.map { (58...61).contains($0) } == true, "\(endedAfter ?? -1)")
    }
}

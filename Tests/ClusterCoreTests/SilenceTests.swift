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

    @Test func whoComesOrSpeaksLaterIsGivenUpLater() {
        var machine = Self.coordinator()
        func hello(_ role: WireRole, _ name: String) -> WireBody {
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = role
            hello.worker = name
            return .hello(hello)
        }
        var prepared = WirePrepared()
        prepared.datasetDigest = 5
        var goneAt: [String: Int] = [:]
        for tenth in 1...300 {
            let now = Duration.milliseconds(100 * tenth)
            // A trainer that prepares has longer; from PREPARED on it has as long as others.
            switch tenth {
            case 3: _ = machine.received(hello(.trainer, "t"), from: "t", now: now)
            case 72: _ = machine.received(hello(.evaluator, "f"), from: "f", now: now)
            case 90: _ = machine.received(.evaluationPoll(.init()), from: "e", now: now)
            case 120: _ = machine.received(.prepared(prepared), from: "t", now: now)
            default: break
            }
            for case .workerLeft(let name, _) in machine.tick(now: now) { goneAt[name] = tenth }
        }
        #expect(goneAt == ["f": 173, "e": 191, "t": 221])
    }

    @Test func aPauseOfTheCoordinatorItselfIsNobodysSilence() {
        var clock = AwakeClock()
        var machine = Self.coordinator()
        for tenth in 1...50 { _ = machine.tick(now: clock.now(at: .milliseconds(100 * tenth))) }
        // Five seconds of silence, then ten minutes in which the coordinator was halted.
        var goneAt: Int?
        for tenth in 0...200 where goneAt == nil {
            let moment = Duration.seconds(605) + .milliseconds(100 * tenth)
            if Self.isGone(machine.tick(now: clock.now(at: moment))) { goneAt = tenth }
        }
        #expect(goneAt == 51)
    }

    @Test func onlyPausesAreLeftOutOfTheAwakeTime() {
        var clock = AwakeClock()
        #expect(clock.now(at: .milliseconds(100)) == .milliseconds(100))
        #expect(clock.now(at: .milliseconds(350)) == .milliseconds(350))
        // A day, of which nothing counts; a quarter of a second that is just not too long.
        #expect(clock.now(at: .milliseconds(86_400_350)) == .milliseconds(350))
        #expect(clock.now(at: .milliseconds(86_400_600)) == .milliseconds(600))
        #expect(clock.now(at: .milliseconds(86_400_600)) == .milliseconds(600))
    }
}

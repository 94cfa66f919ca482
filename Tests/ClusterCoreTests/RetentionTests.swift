import ClusterCore
import Protocol
import Testing

/// Which checkpoints go, as a pure function and as the coordinator decides it.
@Suite struct RetentionTests {
    private static func rules(
        last: Int = 1, everySteps: Int = 0, best: Int = 0, larger: Bool = true, unscored: Int = 0
    ) -> CheckpointRetention {
        CheckpointRetention(
            last: last, everySteps: everySteps, best: best,
            ranking: .init(set: "val_eval", metric: "m", isLargerBetter: larger),
            unscored: unscored)
    }

    private static func scored(_ values: [Double]) -> [CheckpointRetention.Candidate] {
        values.enumerated().map { .init(step: 10 * $0, isScored: true, value: $1) }
    }

    @Test func theNewestStay() {
        let all = Self.scored([1, 1, 1, 1])
        #expect(Self.rules(last: 1).superfluous(all) == [0, 10, 20])
        #expect(Self.rules(last: 3).superfluous(all) == [0])
        #expect(Self.rules(last: 9).superfluous(all) == [])
        #expect(Self.rules().superfluous([]) == [])
    }

    @Test func multiplesStay() {
        let all = Self.scored([1, 1, 1, 1, 1, 1])
        #expect(Self.rules(everySteps: 20).superfluous(all) == [10, 30])
        #expect(Self.rules(everySteps: 1).superfluous(all) == [])
    }

    @Test func theBestStay() {
        let all = Self.scored([5, .nan, 7, 7, 2, .infinity, 3])
        #expect(Self.rules(best: 1).superfluous(all) == [0, 10, 20, 30, 40])
        // Of equal ones the newer.
        #expect(Self.rules(best: 2).superfluous(all) == [0, 10, 20, 40])
        #expect(Self.rules(best: 2, larger: false).superfluous(all) == [0, 10, 20, 30, 50])
        #expect(Self.rules(best: 99).superfluous(all) == [10])
    }

    @Test func whatWaitsToBeScoredStaysUpToALimit() {
        var all = Self.scored([1, 1, 1, 1, 1, 1])
        for index in [1, 2, 4] { all[index].isScored = false }
        #expect(Self.rules(unscored: 3).superfluous(all) == [0, 30])
        // The oldest goes first, and what other rules keep does not count.
        #expect(Self.rules(unscored: 2).superfluous(all) == [0, 10, 30])
        #expect(Self.rules(last: 2, unscored: 2).superfluous(all) == [0, 30])
        all[0].isInUse = true
        #expect(Self.rules(unscored: 0).superfluous(all) == [10, 20, 30, 40])
    }

    @Test func whatGoesDoesNotDependOnTheOrderOfScores() {
        let values: [Double] = [3, 9, 4, 1, 8, 2, 7]
        let rules = Self.rules(best: 2, unscored: 99)
        let whole = Self.scored(values)
        let end = whole.map(\.step).filter { !rules.superfluous(whole).contains($0) }
        for rotation in values.indices {
            var left = whole.map {
                CheckpointRetention.Candidate(step: $0.step, isScored: false)
            }
            for offset in values.indices {
                let step = 10 * ((offset + rotation) % values.count)
                guard let place = left.firstIndex(where: { $0.step == step }) else { continue }
                left[place].isScored = true
                left[place].value = values[step / 10]
                let gone = rules.superfluous(left)
                left.removeAll { gone.contains($0.step) }
            }
            #expect(left.map(\.step) == end)
        }
    }

    // MARK: In the coordinator

    private struct Nothing: StepSource {
        func samples(step: Int) -> WireStepSamples { WireStepSamples() }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    private static func checkpoint(_ step: Int) -> DurableCheckpoint {
        DurableCheckpoint(
            step: step, history: 7, file: "checkpoints/\(step)", byteCount: 1,
            digest: 100 + UInt64(step), isRecovery: false)
    }

    private static func coordinator(
        _ retention: CheckpointRetention?, steps: [Int], scored: [Int: Set<String>] = [:],
        values: [Int: Double] = [:], deleted: [Int: UInt64] = [:]
    ) -> CoordinatorStateMachine {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 1, totalSteps: 90, checkpointEverySteps: 10,
                checkpointMaxLagSteps: 2, evaluationSets: ["val_eval"],
                evaluationTimeout: .seconds(1), retention: retention, lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 80, committedHistory: 7,
                checkpoints: steps.map(checkpoint), scored: scored, rankingValues: values,
                deletedDigests: deleted))
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .evaluator
        hello.worker = "e"
        _ = machine.received(.hello(hello), from: "e", now: .zero)
        var prepared = WirePrepared()
        prepared.datasetDigest = 5
        prepared.numerics.description_p = "class"
        _ = machine.received(.prepared(prepared), from: "e", now: .zero)
        return machine
    }

    private static func deleted(_ actions: [CoordinatorAction]) -> [Int] {
        actions.compactMap {
            if case .deleteCheckpoint(let checkpoint) = $0 { checkpoint.step } else { nil }
        }
    }

    private static func rows(_ step: Int, _ value: Double) -> WireEvaluationRows {
        var rows = WireEvaluationRows()
        rows.step = UInt64(step)
        rows.set = "val_eval"
        rows.checkpointDigest = 100 + UInt64(step)
        var metric = WireMetricValue()
        metric.metric = "m"
        metric.value = value
        rows.metrics = [metric]
        return rows
    }

    @Test func nothingIsDeletedUnlessAsked() {
        var machine = Self.coordinator(nil, steps: Array(stride(from: 0, through: 80, by: 10)))
        #expect(Self.deleted(machine.tick(now: .zero)).isEmpty)
    }

    @Test func aStartFinishesWhatACrashLeft() {
        var machine = Self.coordinator(
            Self.rules(last: 2, best: 1, unscored: 1), steps: [0, 10, 20, 30, 40, 50],
            scored: [0: ["val_eval"], 10: ["val_eval"], 20: ["val_eval"]],
            values: [0: 3, 10: 4, 20: 2])
        let actions = machine.tick(now: .zero)
        #expect(Self.deleted(actions) == [0, 20])
        #expect(Self.deleted(machine.tick(now: .zero)).isEmpty)
    }

    @Test func aScoreLetsACheckpointGo() {
        var machine = Self.coordinator(
            Self.rules(best: 1, unscored: 9), steps: [0, 10, 20],
            scored: [0: ["val_eval"]], values: [0: 3])
        #expect(Self.deleted(machine.tick(now: .zero)).isEmpty)
        let taken = machine.received(.evaluationRows(Self.rows(10, 5)), from: "e", now: .zero)
        #expect(taken == [.recordEvaluation(Self.rows(10, 5), from: "e")])
        _ = machine.evaluationRecorded(Self.rows(10, 5), from: "e", now: .zero)
        #expect(Self.deleted(machine.tick(now: .zero)) == [0])
    }

    @Test func whatAnEvaluatorReadsStays() {
        var machine = Self.coordinator(Self.rules(), steps: [0, 10])
        var poll = WireEvaluationPoll()
        poll.idle = true
        _ = machine.received(.evaluationPoll(poll), from: "e", now: .zero)
        #expect(Self.deleted(machine.tick(now: .zero)).isEmpty)
        _ = machine.evaluationRecorded(Self.rows(0, 1), from: "e", now: .zero)
        #expect(Self.deleted(machine.tick(now: .zero)) == [0])
    }

    @Test func unscoredOnesThatGoAreSaidAndNotOfferedAgain() {
        var machine = Self.coordinator(Self.rules(), steps: [0, 10])
        let actions = machine.tick(now: .zero)
        #expect(Self.deleted(actions) == [0])
        #expect(
            actions.contains(
                .event(
                    kind: "checkpoint_deleted", severity: .warning,
                    text: "checkpoint of step 0 is deleted before it was scored on val_eval")))
        var poll = WireEvaluationPoll()
        poll.idle = true
        let granted = machine.received(.evaluationPoll(poll), from: "e", now: .zero)
        guard case .send(.evaluationGrant(let grant), to: "e") = granted.first else {
            Issue.record("no grant: \(granted)")
            return
        }
        #expect(grant.step == 10)
    }

    @Test func aScoreOfADeletedCheckpointCounts() {
        var machine = Self.coordinator(Self.rules(), steps: [10], deleted: [0: 100])
        let actions = machine.received(.evaluationRows(Self.rows(0, 5)), from: "e", now: .zero)
        #expect(actions == [.recordEvaluation(Self.rows(0, 5), from: "e")])
        var other = Self.rows(0, 5)
        other.checkpointDigest ^= 1
        let refused = machine.received(.evaluationRows(other), from: "e", now: .zero)
        guard case .event("evaluation_refused", .error, _) = refused.first else {
            Issue.record("taken: \(refused)")
            return
        }
    }

    @Test func theStateThatIsGoneBackToStays() {
        // A snapshot is newer than every checkpoint: the newest of these stays all the same.
        var machine = Self.coordinator(
            Self.rules(), steps: [10, 20], scored: [10: ["val_eval"], 20: ["val_eval"]])
        let snapshot = DurableCheckpoint(
            step: 25, history: 8, file: "recovery/25", byteCount: 1, digest: 9, isRecovery: true)
        _ = machine.checkpointStored(snapshot, now: .zero)
        #expect(Self.deleted(machine.tick(now: .zero)) == [10])
        // The newest is found damaged; with what is left nothing more may go.
        _ = machine.checkpointVerified(snapshot, isWhole: false, now: .zero)
        #expect(Self.deleted(machine.tick(now: .zero)).isEmpty)
    }
}

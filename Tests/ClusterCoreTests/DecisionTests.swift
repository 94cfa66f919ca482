import ClusterCore
import Protocol
import Testing

/// What scores decide does not depend on when they come.
@Suite struct DecisionTests {
    private static func rule(
        plateau: Int = 2, stop: Int = 0, larger: Bool = true, delta: Double = 0.01
    ) -> DecisionRule {
        DecisionRule(
            ranking: .init(set: "val_eval", metric: "m", isLargerBetter: larger),
            checkpointEverySteps: 2, lagSteps: 3, plateauPatience: plateau, stopPatience: stop,
            minDelta: delta)
    }

    /// A cluster of one trainer whose rate is 1 / 2^reductions, with checkpoints every two steps.
    private struct Run {
        var cluster: SmallCluster
        var rates: [Double] = []

        init(_ rule: DecisionRule, recovery: [Int: Double] = [:]) {
            cluster = SmallCluster(
                ["a"], slots: 1, decisions: rule,
                recovery: CoordinatorRecovery(
                    term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:],
                    decisionScores: recovery))
        }

        mutating func score(_ step: Int, _ value: Double) {
            var rows = WireEvaluationRows()
            rows.step = UInt64(step)
            rows.set = "val_eval"
            var metric = WireMetricValue()
            metric.metric = "m"
            metric.value = value
            rows.metrics = [metric]
            cluster.take(cluster.machine.evaluationRecorded(rows, from: "e", now: .seconds(1)))
        }

        /// Trains as far as it goes.
        mutating func go() {
            while let plan = cluster.plans["a"], Int(plan.step) == cluster.step {
                rates.append(Double(bitPattern: plan.scalars.learningRate))
                cluster.done(0, by: "a")
                cluster.commit(at: .seconds(1))
            }
        }
    }

    @Test func aStepWaitsForTheScoreThatDecidesIt() {
        var run = Run(Self.rule())
        run.go()
        // Step 3 goes by the checkpoint of step 0.
        #expect(run.cluster.commits.map(\.step) == [1, 2])
        #expect(
            run.cluster.machine.status(now: .zero).state == "waiting for the score of step 0")
        run.score(2, 0.5)
        run.go()
        #expect(run.cluster.commits.map(\.step) == [1, 2])
        run.score(0, 0.4)
        run.go()
        #expect(run.cluster.commits.map(\.step) == [1, 2, 3, 4, 5, 6])
    }

    @Test func theRateFallsAtTheSameStepHoweverFastTheEvaluatorIs() {
        let scores = [0: 0.5, 2: 0.6, 4: 0.605, 6: 0.55, 8: 0.9, 10: 0.1, 12: .nan, 14: 0.9]
        var (early, late) = (Run(Self.rule()), Run(Self.rule()))
        for step in scores.keys.sorted() { early.score(step, scores[step]!) }
        early.go()
        for step in scores.keys.sorted() {
            late.go()
            late.score(step, scores[step]!)
        }
        late.go()
        #expect(early.rates == late.rates)
        // The scores of 4 and 6 are no better than 0.6 by 0.01: from step 6 + 3 on; 10 and 12 likewise.
        let halved = early.rates.indices.first { early.rates[$0] < 1 }
        #expect(halved == 8)
        #expect(early.rates.firstIndex(of: 0.25) == 14)
        #expect(early.cluster.events["plateau"]?.count == 2)
        #expect(late.cluster.events["plateau"] == early.cluster.events["plateau"])
    }

    @Test func trainingEndsWithTheStepThatTheScoreDecides() throws {
        var run = Run(Self.rule(plateau: 0, stop: 2, larger: false))
        for (step, value) in [(0, 3.0), (2, 2), (4, 2.5), (6, 2), (8, 1)] {
            run.score(step, value)
        }
        run.go()
        // Nothing was better than 2 of step 2 at 4 and 6.
        #expect(run.cluster.commits.last?.step == 9)
        let text = try #require(run.cluster.events["early_stop"]?.first)
        #expect(text.contains("m of val_eval has not been better than 2.0 of step 2"))
        #expect(run.cluster.machine.status(now: .zero).totalSteps == 9)
    }

    @Test func whoComesBackDecidesTheSame() {
        let scores = [0: 0.5, 2: 0.6, 4: 0.6, 6: 0.6, 8: 0.6, 10: 0.6]
        var run = Run(Self.rule(), recovery: scores)
        run.go()
        var other = Run(Self.rule())
        for step in scores.keys.sorted() { other.score(step, scores[step]!) }
        other.go()
        #expect(run.rates == other.rates)
        #expect(run.rates.contains(0.5))
    }

    @Test func aScoreThatCannotBeHadEndsTheRun() throws {
        var run = Run(Self.rule())
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .evaluator
        hello.worker = "e"
        run.cluster.hear(.hello(hello), from: "e")
        var prepared = WirePrepared()
        prepared.datasetDigest = 5
        prepared.numerics.description_p = "class"
        run.cluster.hear(.prepared(prepared), from: "e")
        run.cluster.take(
            run.cluster.machine.checkpointStored(
                DurableCheckpoint(
                    step: 0, history: 0, file: "start", byteCount: 1, digest: 1,
                    isRecovery: false), now: .zero))
        var ended = false
        for _ in 0..<5 where !ended {
            var poll = WireEvaluationPoll()
            poll.idle = true
            run.cluster.hear(.evaluationPoll(poll), from: "e")
            var rows = WireEvaluationRows()
            rows.set = "val_eval"
            rows.failure = "no image can be read"
            let actions = run.cluster.hear(.evaluationRows(rows), from: "e")
            ended = actions.contains {
                if case .finish(.failed(let why)) = $0 { why.contains("no image") } else { false }
            }
        }
        #expect(ended)
    }
}

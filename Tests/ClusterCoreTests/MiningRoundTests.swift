import ClusterCore
import Protocol
import Testing

/// Triplets of the next steps are mined from the state before them, and training waits for them.
@Suite struct MiningRoundTests {
    /// A cluster of one trainer with checkpoints every two steps and rounds of four.
    private struct Run {
        var cluster: SmallCluster

        init(
            needsCheckpoint: Bool = true, decisions: DecisionRule? = nil,
            recovery: CoordinatorRecovery? = nil
        ) {
            cluster = SmallCluster(
                ["a"], slots: 1, decisions: decisions,
                mining: decisions == nil
                    ? MiningRounds(everySteps: 4, needsCheckpoint: needsCheckpoint) : nil,
                checkpointEverySteps: 2,
                recovery: recovery
                    ?? CoordinatorRecovery(
                        term: 1, committedStep: 0, committedHistory: 0, checkpoints: [],
                        scored: [:]))
        }

        static func checkpoint(_ step: Int) -> DurableCheckpoint {
            DurableCheckpoint(
                step: step, history: 0, file: "step-\(step)", byteCount: 1, digest: 1,
                isRecovery: false)
        }

        mutating func store(_ step: Int) {
            cluster.take(cluster.machine.checkpointStored(Self.checkpoint(step), now: .zero))
        }

        mutating func mined(_ step: Int) {
            cluster.take(cluster.machine.roundMined(step: step, now: .zero))
        }

        /// Trains as far as it goes, and stores the checkpoints that plans ask for.
        mutating func go() {
            while let plan = cluster.plans["a"], Int(plan.step) == cluster.step {
                let due = Int(plan.step) - 1
                if due % 2 == 0 { store(due) }
                cluster.done(0, by: "a")
                cluster.commit(at: .seconds(1))
            }
        }
    }

    @Test func aRoundWaitsForItsCheckpointAndItsTriplets() {
        var run = Run()
        run.go()
        // No plan asks for the state of step 0, on which the first one stands.
        #expect(run.cluster.commits.isEmpty && run.cluster.wanted == [0])
        #expect(run.cluster.mined.isEmpty)
        #expect(run.cluster.machine.status(now: .zero).state == "waiting for a checkpoint")
        run.store(0)
        #expect(run.cluster.mined.map(\.step) == [0])
        #expect(run.cluster.mined[0].file == "step-0")
        #expect(
            run.cluster.machine.status(now: .zero).state == "mining the triplets of step 0")
        run.go()
        #expect(run.cluster.commits.isEmpty)
        run.mined(0)
        run.go()
        #expect(run.cluster.commits.map(\.step) == [1, 2, 3, 4])
        // Nothing is said of step 5 before it is known what it trains on.
        #expect(run.cluster.plans["a"]!.samples.map { Int($0.step) }.max() == 4)
        #expect(run.cluster.wanted == [0, 4] && run.cluster.mined.count == 1)
        run.store(4)
        #expect(run.cluster.mined.map(\.step) == [0, 4])
        run.mined(4)
        run.go()
        #expect(run.cluster.commits.map(\.step) == Array(1...8))
    }

    @Test func ticksAndRepeatedNewsAskForNothingTwice() {
        var run = Run()
        run.store(0)
        for second in 1...3 { run.cluster.tick(at: .seconds(second)) }
        run.store(0)
        #expect(run.cluster.mined.count == 1)
        run.mined(0)
        run.mined(0)
        run.go()
        #expect(run.cluster.commits.map(\.step) == [1, 2, 3, 4])
    }

    @Test func randomTripletsNeedNoCheckpoint() {
        var run = Run(needsCheckpoint: false)
        #expect(run.cluster.wanted.isEmpty)
        #expect(run.cluster.mined.map(\.step) == [0])
        run.mined(0)
        run.go()
        #expect(run.cluster.commits.map(\.step) == [1, 2, 3, 4])
        #expect(run.cluster.mined.map(\.step) == [0, 4] && run.cluster.wanted.isEmpty)
    }

    /// After a crash in the middle of a round its triplets are asked for, with the checkpoint where it is
    /// still there.
    @Test(arguments: [true, false]) func whoComesBackAsksForTheRoundThatItIsIn(isThere: Bool) {
        let run = Run(
            recovery: CoordinatorRecovery(
                term: 2, committedStep: 6, committedHistory: 0,
                checkpoints: (isThere ? [Run.checkpoint(4)] : []) + [Run.checkpoint(6)],
                scored: [:]))
        #expect(run.cluster.mined.map(\.step) == [4])
        #expect(run.cluster.mined[0].file == (isThere ? "step-4" : nil))
        #expect(run.cluster.wanted.isEmpty)
    }

    @Test func whatCannotBeMinedEndsTheRun() {
        var run = Run()
        run.store(0)
        run.cluster.take(
            run.cluster.machine.roundFailed(step: 0, reason: "an image is missing"))
        guard case .failed(let why) = run.cluster.outcome else {
            Issue.record("the run goes on")
            return
        }
        #expect(why == "the triplets of step 0 cannot be had: an image is missing")
    }

    /// A score of the very state that the next step stands on: its checkpoint is asked for too.
    @Test func aLagOfOneStepIsNoDeadlock() {
        let run = Run(
            decisions: DecisionRule(
                ranking: .init(set: "val_eval", metric: "m", isLargerBetter: true),
                checkpointEverySteps: 2, lagSteps: 1, plateauPatience: 2, stopPatience: 0,
                minDelta: 0))
        #expect(run.cluster.wanted == [0])
    }
}

import ClusterCore
import Protocol
import Testing

/// A connection that breaks is not a death: the member goes on where it was.
@Suite struct ReconnectTests {
    /// Three members at step 1; "c" is away since half a second.
    private static func away() -> SmallCluster {
        var cluster = SmallCluster(["a", "b", "c"])
        cluster.take(cluster.machine.disconnected("c", now: .milliseconds(500)))
        return cluster
    }

    private static func hello(_ change: (inout WireHello) -> Void = { _ in }) -> WireBody {
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .trainer
        hello.worker = "c"
        hello.hasState_p = true
        change(&hello)
        return .hello(hello)
    }

    @Test func whoComesBackAtOnceIsStillAMember() throws {
        var cluster = Self.away()
        let generation = cluster.machine.currentGeneration
        let actions = cluster.hear(Self.hello(), from: "c", at: .milliseconds(560))
        guard case .send(.welcome, "c") = actions.first,
            case .send(.plan(let plan), "c") = actions.last
        else {
            Issue.record("neither WELCOME nor PLAN: \(actions)")
            return
        }
        #expect(plan.generation == generation && plan.members.map(\.worker) == ["a", "b", "c"])
        for tenth in 6...15 {
            for worker in ["a", "b", "c"] {
                cluster.hear(
                    .progress(WireProgress()), from: worker, at: .milliseconds(100 * tenth))
            }
            cluster.tick(at: .milliseconds(100 * tenth))
        }
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.done(slot, by: worker, at: .milliseconds(1_500))
        }
        for worker in ["a", "b", "c"] { cluster.ready(worker, at: .milliseconds(1_510)) }
        #expect(cluster.commits.count == 1)
        #expect(cluster.events["worker_left"] == nil)
    }

    @Test func aHelloThatIsSaidTwiceChangesNothing() {
        var cluster = Self.away()
        for time in [560, 570] {
            cluster.hear(Self.hello(), from: "c", at: .milliseconds(time))
            #expect(cluster.machine.members == ["a", "b", "c"])
        }
    }

    @Test func whoDoesNotComeBackIsGone() {
        var cluster = Self.away()
        cluster.tick(at: .milliseconds(590))
        #expect(cluster.machine.members == ["a", "b", "c"])
        cluster.tick(at: .milliseconds(610))
        #expect(cluster.machine.members == ["a", "b"])
        #expect(cluster.events["worker_left"]?.count == 1)
    }

    @Test func thoseWhoHaveNothingLeftTakeItsSlotsMeanwhile() {
        var cluster = SmallCluster(["a", "b", "c"])
        cluster.done(0, by: "a", at: .milliseconds(400))
        cluster.take(cluster.machine.disconnected("c", now: .milliseconds(500)))
        #expect(cluster.holders(of: 2) == ["c", "a"])
        #expect(cluster.machine.members == ["a", "b", "c"])
    }

    @Test func whoComesBackWithAnotherStateStartsOver() {
        for change: (inout WireHello) -> Void in [
            { $0.hasState_p = false }, { $0.history = 9 }, { $0.stateStep = 1 },
            { $0.role = .evaluator }, { $0.role = .observer },
        ] {
            var cluster = Self.away()
            cluster.hear(Self.hello(change), from: "c", at: .milliseconds(560))
            cluster.tick(at: .milliseconds(710))
            #expect(!cluster.machine.members.contains("c"))
        }
    }

    @Test func whoHasBegunAStepIsNotToldItsSamplesAgain() throws {
        var cluster = SmallCluster(["a", "b", "c"])
        #expect(cluster.plans.values.allSatisfy { !$0.samples.isEmpty })
        cluster.done(0, by: "a")
        cluster.hear(.goodbye(WireGoodbye()), from: "c")
        #expect(try #require(cluster.plans["a"]).samples.isEmpty)
        #expect(try !#require(cluster.plans["b"]).samples.isEmpty)
    }
}

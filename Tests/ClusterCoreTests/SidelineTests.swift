import ClusterCore
import Protocol
import Testing

/// A step does not wait for a member that has fallen silent, and the member loses nothing.
@Suite struct SidelineTests {
    /// Three members at step 1 whose slots are all done; "c" falls silent at half a second.
    private static func silentMember() -> SmallCluster {
        var cluster = allDone()
        for tenth in 6...16 {
            for worker in ["a", "b"] {
                cluster.hear(
                    .progress(WireProgress()), from: worker, at: .milliseconds(100 * tenth))
            }
            cluster.tick(at: .milliseconds(100 * tenth))
        }
        return cluster
    }

    private static func allDone() -> SmallCluster {
        var cluster = SmallCluster(["a", "b", "c"])
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.done(slot, by: worker, at: .milliseconds(500))
        }
        return cluster
    }

    @Test func theOthersCommitWithoutIt() throws {
        var cluster = Self.silentMember()
        #expect(cluster.events["sidelined"]?.count == 1)
        let plan = try #require(cluster.plans["a"])
        #expect(plan.members.map(\.worker) == ["a", "b"])
        #expect(plan.listeners.map(\.worker) == ["c"])
        // Its slot goes to another, who computes it where the effect needs it.
        #expect(plan.leases.filter { $0.slot == 2 }.map(\.optional) == [true])
        for worker in ["a", "b"] { cluster.ready(worker, at: .milliseconds(1_700)) }
        #expect(cluster.commits.map(\.step) == [1])
    }

    @Test(arguments: [false, true])
    func itIsAMemberAgainOnceItHasStagedTheStep(inAnEarlierGeneration: Bool) throws {
        var cluster = Self.silentMember()
        cluster.ready("c", at: .milliseconds(1_650))
        if inAnEarlierGeneration {
            // A slot given back changes the plan, not the effect.
            var returned = WireSlotReturned()
            returned.step = 1
            returned.slot = 0
            returned.reason = "test"
            let before = cluster.machine.currentGeneration
            cluster.hear(.slotReturned(returned), from: "a", at: .milliseconds(1_660))
            #expect(cluster.machine.currentGeneration == before + 1)
        }
        for worker in ["a", "b"] { cluster.ready(worker, at: .milliseconds(1_700)) }
        let record = try #require(cluster.commits.first)
        cluster.take(cluster.machine.stepCommitted(record, now: .milliseconds(1_710)))
        #expect(Set(cluster.machine.members) == ["a", "b", "c"])
    }

    @Test func whatItSaysAgainEndsNobodysLease() throws {
        var cluster = Self.silentMember()
        cluster.done(2, by: "c", at: .milliseconds(1_650))
        cluster.tick(at: .milliseconds(1_720))
        let plan = try #require(cluster.plans["a"])
        #expect(plan.leases.filter { $0.slot == 2 }.map(\.worker) == ["a"])
    }

    @Test func whereEverybodyIsSilentNobodyIsSidelined() {
        var cluster = Self.allDone()
        for tenth in 6...30 { cluster.tick(at: .milliseconds(100 * tenth)) }
        #expect(cluster.events["sidelined"] == nil)
        #expect(cluster.machine.members == ["a", "b", "c"])
    }
}

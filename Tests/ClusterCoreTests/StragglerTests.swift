import ClusterCore
import Protocol
import Testing

/// Who is not waited for, and who takes over what.
@Suite struct StragglerTests {
    /// Two members that compute a slot in 0.1 s, at the begin of the fourth step, and when that is.
    private static func twoAtWork() -> (SmallCluster, start: Duration) {
        var cluster = SmallCluster(["a", "b"], slots: 8)
        var start = Duration.zero
        for _ in 1...3 {
            for turn in 1...4 {
                let now = start + .milliseconds(100 * turn)
                cluster.done(turn - 1, by: "a", at: now)
                cluster.done(turn + 3, by: "b", at: now)
            }
            start += .milliseconds(450)
            cluster.commit(at: start)
        }
        return (cluster, start)
    }

    @Test func whatASlowMemberWouldBeLateWithGoesToWhoIsDone() {
        var (cluster, start) = Self.twoAtWork()
        cluster.done(4, by: "b", at: start + .milliseconds(390))
        for turn in 1...4 {
            cluster.done(turn - 1, by: "a", at: start + .milliseconds(100 * turn))
        }
        cluster.tick(at: start + .milliseconds(410))
        // The last of three, 1.2 and 0.8 s away, are worth it; the one that it is at is not.
        #expect((5...7).map { cluster.holders(of: $0) } == [["b"], ["b", "a"], ["b", "a"]])
        #expect(cluster.events["leased_again"]?.count == 2)
    }

    @Test func whoIsAlmostDoneIsLeftAlone() {
        var (cluster, start) = Self.twoAtWork()
        for turn in 1...4 {
            cluster.done(turn - 1, by: "a", at: start + .milliseconds(100 * turn))
            if turn < 4 { cluster.done(turn + 3, by: "b", at: start + .milliseconds(110 * turn)) }
        }
        for hundredth in 41...50 { cluster.tick(at: start + .milliseconds(10 * hundredth)) }
        #expect(cluster.events["leased_again"] == nil)
    }

    @Test func resultsOfSeveralSlotsEndLeasesInOnePlan() {
        var (cluster, start) = Self.twoAtWork()
        cluster.done(4, by: "b", at: start + .milliseconds(390))
        for slot in 0...3 { cluster.done(slot, by: "a", at: start + .milliseconds(400)) }
        cluster.tick(at: start + .milliseconds(410))
        let generation = cluster.machine.currentGeneration
        cluster.done(7, by: "a", at: start + .milliseconds(420))
        cluster.done(6, by: "a", at: start + .milliseconds(430))
        #expect(cluster.machine.currentGeneration == generation)
        cluster.tick(at: start + .milliseconds(470))
        #expect(cluster.machine.currentGeneration == generation + 1)
        #expect((6...7).map { cluster.holders(of: $0) } == [["a"], ["a"]])
        // The last result does not wait for a look at the clock.
        cluster.done(5, by: "b", at: start + .milliseconds(480))
        cluster.commit(at: start + .milliseconds(490))
        #expect(cluster.commits.count == 4)
    }

    /// What the absent have is shared out, not left to the first who is done.
    @Test func theAbsentsSlotsGoToEverybody() {
        var cluster = SmallCluster(["a", "b", "c"], slots: 12)
        for slot in 0...3 { cluster.done(slot, by: "a", at: .milliseconds(400)) }
        cluster.take(cluster.machine.disconnected("c", now: .milliseconds(410)))
        #expect((8...11).map { cluster.holders(of: $0).count } == [2, 2, 1, 1])
        for slot in 4...7 { cluster.done(slot, by: "b", at: .milliseconds(420)) }
        cluster.tick(at: .milliseconds(460))
        #expect(
            (8...11).map { cluster.holders(of: $0) } == [
                ["c", "a"], ["c", "a"], ["c", "b"], ["c", "b"],
            ])
    }

    /// A member that was heard every tenth of a second is missed after three of them, unless it was
    /// silent for longer before, or is not known for long.
    @Test(arguments: [(0..<0, 64), (31..<35, 67), (1..<20, 71)])
    func silenceIsJudgedByWhatWasUsual(missed: Range<Int>, leasedAt: Int) {
        var cluster = SmallCluster(["a", "b", "c"])
        for tenth in 1...60 {
            for worker in ["a", "b", "c"] where worker != "c" || !missed.contains(tenth) {
                cluster.progress(worker, at: .milliseconds(100 * tenth))
            }
        }
        for tenth in 61...75 where cluster.events["leased_again"] == nil {
            for (slot, worker) in ["a", "b"].enumerated() {
                cluster.progress(worker, at: .milliseconds(100 * tenth))
                cluster.done(slot, by: worker, at: .milliseconds(100 * tenth))
            }
            cluster.tick(at: .milliseconds(100 * tenth))
            if cluster.events["leased_again"] != nil { #expect(tenth == leasedAt) }
        }
        #expect(cluster.events["leased_again"]?.count == 1)
    }
}

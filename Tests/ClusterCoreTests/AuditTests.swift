import ClusterCore
import Protocol
import Testing

/// Slots that two workers compute, and what becomes of the step when they differ.
@Suite struct AuditTests {
    /// Four members; everything but slot 0 is computed, by two each, and equal.
    private static func audited() -> SmallCluster {
        var cluster = SmallCluster(["a", "b", "c", "d"], audit: Audit(seed: 1, fraction: 1))
        for slot in 1..<3 {
            for worker in cluster.holders(of: slot) { cluster.done(slot, by: worker, digest: 7) }
        }
        return cluster
    }

    @Test func theStepWaitsForTheSecondWorker() {
        var cluster = Self.audited()
        let holders = cluster.holders(of: 0)
        #expect(holders.count == 2)
        cluster.done(0, by: holders[0], digest: 7)
        for worker in cluster.machine.members { cluster.ready(worker) }
        #expect(cluster.commits.isEmpty)
        cluster.done(0, by: holders[1], digest: 7)
        for worker in cluster.machine.members { cluster.ready(worker) }
        #expect(cluster.commits.count == 1)
        #expect(cluster.events["quarantined"] == nil)
    }

    @Test func aThirdSaysWhoIsWrongAlsoWhereTheFirstJudgeIsLost() throws {
        var cluster = Self.audited()
        let holders = cluster.holders(of: 0)
        cluster.done(0, by: holders[0], digest: 7)
        cluster.done(0, by: holders[1], digest: 8)
        let judge = try #require(cluster.holders(of: 0).first { !holders.contains($0) })
        for worker in cluster.machine.members { cluster.ready(worker) }
        #expect(cluster.commits.isEmpty)
        cluster.hear(.goodbye(WireGoodbye()), from: judge)
        cluster.tick(at: .milliseconds(100))
        let next = try #require(
            cluster.holders(of: 0).first { !holders.contains($0) && $0 != judge })
        cluster.done(0, by: next, digest: 7)
        let blamed = try #require(cluster.events["quarantined"])
        #expect(blamed.count == 1 && blamed[0].hasPrefix("\(holders[1]) "))
    }

    @Test func aCheckOfWhatIsNotTheSendersCountsForNothing() {
        var cluster = Self.audited()
        for worker in cluster.holders(of: 0) { cluster.done(0, by: worker, digest: 7) }
        for worker in cluster.machine.members {
            var check = WireFoldCheck()
            check.owner = worker
            check.folded = 1
            check.audited = 2
            cluster.ready(worker, checks: [check])
        }
        #expect(cluster.commits.count == 1)
        #expect(cluster.events["suspected"] == nil && cluster.events["audit"] == nil)
    }
}

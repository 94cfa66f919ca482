import ClusterCore
import Protocol
import SwiftProtobuf
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

    /// Two members that have computed all slots; slot 0 came out differently.
    private static func differing() -> SmallCluster {
        var cluster = SmallCluster(["a", "b"], audit: Audit(seed: 1, fraction: 1))
        for slot in 0..<3 {
            for worker in ["a", "b"] {
                cluster.done(slot, by: worker, digest: slot == 0 && worker == "a" ? 8 : 7)
            }
        }
        return cluster
    }

    @Test func ofTwoTheOneThatChangesItsWordWasWrong() throws {
        var cluster = Self.differing()
        let plan = try #require(cluster.plans["a"])
        #expect(plan.fold & 0xFF == 1)
        #expect(plan.outdated.map(\.slot) == [0] && plan.outdated[0].attempt == 2)
        #expect(cluster.holders(of: 0).sorted() == ["a", "b"])
        #expect(cluster.events["disagreement"]?.count == 1 && cluster.outcome == nil)
        // What is said of the first time counts for nothing.
        var old = WireSlotDone()
        old.step = 1
        old.attempt = 2
        old.digest = 8
        cluster.hear(.slotDone(old), from: "a")
        cluster.done(0, by: "b", digest: 7)
        for worker in ["a", "b"] { cluster.ready(worker) }
        #expect(cluster.commits.isEmpty)
        cluster.done(0, by: "a", digest: 7)
        #expect(cluster.events["suspected"]?.map { String($0.prefix(2)) } == ["a "])
        for worker in ["a", "b"] { cluster.ready(worker) }
        #expect(cluster.commits.count == 1 && cluster.machine.members == ["a", "b"])
    }

    @Test func twoThatRepeatThemselvesEndTheRun() throws {
        var cluster = Self.differing()
        cluster.done(0, by: "a", digest: 8)
        #expect(cluster.outcome == nil)
        cluster.done(0, by: "b", digest: 7)
        guard case .disagreed(let text) = try #require(cluster.outcome) else {
            Issue.record("\(String(describing: cluster.outcome))")
            return
        }
        #expect(text.contains("slot 0 of step 1") && cluster.commits.isEmpty)
        #expect(cluster.events["suspected"] == nil && cluster.events["quarantined"] == nil)
    }

    @Test func whereTheThirdCannotJudgeBothComputeItAgain() throws {
        var cluster = SmallCluster(["a", "b", "c"], audit: Audit(seed: 1, fraction: 1))
        let pair = cluster.holders(of: 0)
        let third = try #require(cluster.machine.members.first { !pair.contains($0) })
        var returned = WireSlotReturned()
        returned.step = 1
        for worker in pair { cluster.done(0, by: worker, digest: worker == pair[0] ? 8 : 7) }
        // The judge cannot read its data.
        cluster.hear(.slotReturned(returned), from: third)
        cluster.tick(at: .milliseconds(100))
        #expect(cluster.holders(of: 0).sorted() == pair.sorted() && cluster.outcome == nil)
        cluster.done(0, by: pair[0], digest: 7)
        cluster.done(0, by: pair[1], digest: 7)
        #expect(cluster.events["suspected"]?.map { String($0.prefix(2)) } == ["\(pair[0]) "])
    }

    @Test func aTrainerComputesAnOutdatedSlotAgain() throws {
        var machine = TrainerStateMachine(worker: "a")
        func hear(_ body: WireBody) -> [TrainerAction] { machine.received(body, now: .zero) }
        _ = machine.connectionOpened(now: .zero)
        _ = hear(.welcome(.with { $0.term = 1 }))
        _ = machine.prepared(
            .with { $0.blockCount = 1 }, slotCount: 2, epoch: machine.epoch)
        _ = hear(.loadState(.with { ($0.source, $0.number) = (.initial, 1) }))
        _ = machine.stateLoaded(step: 0, digest: 4, epoch: machine.epoch)
        func lease(_ slot: UInt32, _ attempt: UInt32) -> WireLease {
            .with { ($0.slot, $0.worker, $0.attempt) = (slot, "a", attempt) }
        }
        func done(_ slot: UInt32, _ attempt: UInt32) -> WireSlotDone {
            .with { ($0.step, $0.slot, $0.attempt) = (1, slot, attempt) }
        }
        var plan = WirePlan()
        (plan.term, plan.generation, plan.step) = (1, 1, 1)
        plan.members = ["a", "b"].map { name in .with { $0.worker = name } }
        plan.leases = [lease(0, 1), lease(1, 1)]
        plan.samples = [
            .with { ($0.step, $0.slots) = (1, [WireSlotSamples(), WireSlotSamples()]) }
        ]
        _ = hear(.plan(plan))
        for slot in UInt32(0)..<2 {
            _ = machine.slotComputed(done(slot, 1), epoch: machine.epoch)
        }
        plan.generation = 2
        plan.fold = 1
        plan.leases[0] = lease(0, 3)
        plan.outdated = [.with { ($0.slot, $0.attempt) = (0, 2) }]
        let actions = hear(.plan(plan))
        let computes = actions.compactMap { action -> [Int]? in
            guard case .compute(_, let slots, _, _) = action else { return nil }
            return slots
        }
        #expect(computes == [[0]])
        #expect(actions.contains(.refold(step: 1, without: [0])))
        #expect(!actions.contains { if case .exchange = $0 { true } else { false } })
        // Said twice it is the same; a result of the first lease is none.
        #expect(!hear(.plan(plan)).contains { if case .compute = $0 { true } else { false } })
        #expect(!machine.awaits(done(0, 1)) && machine.awaits(done(0, 3)))
        #expect(machine.slotComputed(done(0, 1), epoch: machine.epoch).isEmpty)
        #expect(!machine.slotComputed(done(0, 3), epoch: machine.epoch).isEmpty)
        #expect(!hear(.plan(plan)).contains { if case .compute = $0 { true } else { false } })
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

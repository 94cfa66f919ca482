import ClusterCore
import Foundation
import Protocol
import Testing

/// Workers of several numerics classes, in runs that must repeat their bits and in runs that need not.
@Suite struct NumericsTests {
    /// Three members, of which `c` computes otherwise; only slot 0 is not computed.
    private static func mixed(isBitwise: Bool = false, audit: Audit = .none) -> SmallCluster {
        var cluster = SmallCluster(
            ["a", "b", "c"], audit: audit, classes: ["c": "other"], isBitwise: isBitwise)
        for slot in 1..<3 {
            for worker in cluster.holders(of: slot) { cluster.done(slot, by: worker, digest: 7) }
        }
        return cluster
    }

    @Test func anotherClassIsRefusedOrRecorded() {
        for isBitwise in [true, false] {
            var cluster = SmallCluster(["a"], isBitwise: isBitwise)
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = .trainer
            hello.worker = "z"
            cluster.hear(.hello(hello), from: "z")
            var prepared = WirePrepared()
            prepared.datasetDigest = 5
            prepared.numerics.description_p = "other"
            let actions = cluster.hear(.prepared(prepared), from: "z")
            #expect(actions.first == .workerPrepared("z", numericsClass: "other"))
            let refusals = actions.compactMap { action -> WireRefusal? in
                if case .send(.refusal(let refusal), to: "z") = action { refusal } else { nil }
            }
            #expect(refusals.map(\.code) == (isBitwise ? [.numerics] : []))
            #expect(refusals.allSatisfy { $0.message.contains("computes with other") })
            #expect((cluster.events["numerics"] == nil) == isBitwise)
        }
    }

    @Test func theFirstResultOfASlotCountsWhoeverElseComputesIt() throws {
        var cluster = Self.mixed()
        let holder = try #require(cluster.holders(of: 0).first)
        #expect(holder == "a")
        // Everybody else says that it lives; the holder is silent, and its slot goes to others too.
        for tick in 1...20 {
            for worker in ["b", "c"] { cluster.progress(worker, at: .milliseconds(100 * tick)) }
            cluster.tick(at: .milliseconds(100 * tick))
        }
        let second = try #require(cluster.holders(of: 0).last)
        #expect(second != holder)
        let now = Duration.milliseconds(2_100)
        cluster.progress(holder, at: now)
        cluster.done(0, by: "c", loss: 1, at: now)
        cluster.done(0, by: holder, loss: 2, at: now)
        #expect(cluster.events["disagreement"] == nil && cluster.events["failed"] == nil)
        for worker in cluster.machine.members { cluster.ready(worker, at: now) }
        #expect(cluster.commits.count == 1 && cluster.events["quarantined"] == nil)
        let first = second == "c" ? Float(1) : 2
        #expect(cluster.commits.first?.miniBatches[0].loss == first)
    }

    @Test func whatOneClassSaysOfASlotIsComparedAllTheSame() {
        var cluster = SmallCluster(
            ["a", "b", "c", "d"], audit: Audit(seed: 1, fraction: 1), classes: ["d": "other"],
            isBitwise: false)
        for slot in 0..<3 {
            let holders = cluster.holders(of: slot)
            // Who computes otherwise audits nobody, and is audited by nobody.
            #expect(holders == ["d"] || holders.count == 2 && !holders.contains("d"))
        }
        let holders = cluster.holders(of: 0)
        cluster.done(0, by: holders[0], digest: 7)
        cluster.done(0, by: holders[1], digest: 8)
        let judge = ["a", "b", "c"].first { !holders.contains($0) }!
        #expect(cluster.holders(of: 0) == holders + [judge])
        cluster.done(0, by: judge, digest: 8)
        #expect(cluster.events["quarantined"]?.first?.hasPrefix(holders[0]) == true)
    }

    @Test func statesAreComparedWithinOneClass() {
        var cluster = Self.mixed()
        cluster.done(0, by: "a")
        cluster.ready("a", state: 1)
        cluster.ready("b", state: 1)
        cluster.ready("c", state: 2)
        #expect(cluster.commits.count == 1)

        cluster = Self.mixed()
        cluster.done(0, by: "a")
        cluster.ready("a", state: 1)
        cluster.ready("b", state: 3)
        cluster.ready("c", state: 1)
        // Of two nobody knows who is right, and the third has no say.
        #expect(cluster.commits.isEmpty && cluster.events["failed"]?.count == 1)
    }

    /// As a flight record keeps it.
    ///
    /// Nobody knows whether those who came with states of an earlier term hold the same bits.
    @Test(arguments: [false, true])
    func aMachineThatIsReadBackComparesTheSame(isReadBack: Bool) throws {
        let start = DurableCheckpoint(
            step: 0, history: 0, file: "start", byteCount: 1, digest: 1, isRecovery: false)
        var recovery = CoordinatorRecovery(
            term: 2, committedStep: 1, committedHistory: 9, checkpoints: [start], scored: [:])
        recovery.liveTrainers = ["a", "b", "c"]
        var cluster = SmallCluster(
            ["a", "b", "c"], classes: ["c": "other"], isBitwise: false, recovery: recovery)
        #expect(cluster.plans["a"]?.step == 2)
        if isReadBack {
            let kept = try JSONEncoder().encode(cluster.machine)
            cluster.machine = try JSONDecoder().decode(
                CoordinatorStateMachine.self, from: kept)
        }
        #expect(cluster.machine.numericsClass(of: "a") == "class")
        #expect(cluster.machine.numericsClass(of: "c") == "other")
        for slot in 0..<3 { cluster.done(slot, by: cluster.holders(of: slot)[0]) }
        for (state, worker) in ["a", "b", "c"].enumerated() {
            cluster.ready(worker, state: UInt64(state))
        }
        #expect(cluster.commits.map(\.step) == [2] && cluster.outcome == nil)
    }

    @Test func aLostOwnerHasEverythingFoldedAgainWhereSumsMayDiffer() {
        for isBitwise in [true, false] {
            var cluster = SmallCluster(["a", "b", "c"], isBitwise: isBitwise)
            let before = cluster.plans["a"]!.fold
            cluster.hear(.goodbye(WireGoodbye()), from: "c")
            #expect((cluster.plans["a"]!.fold > before) == !isBitwise)
        }
    }

    /// The run goes back to the start, and its two steps are done again.
    private static func redone(isBitwise: Bool) -> SmallCluster {
        var cluster = SmallCluster(
            ["a", "b"], isBitwise: isBitwise,
            recovery: CoordinatorRecovery(
                term: 2, committedStep: 2, committedHistory: 9, checkpoints: [], scored: [:],
                committedDigest: 8, previousHistory: 7))
        for slot in 0..<3 {
            for worker in cluster.holders(of: slot) { cluster.done(slot, by: worker) }
        }
        return cluster
    }

    @Test func whatIsDoneAgainOtherwiseSupersedesOrEndsTheRun() throws {
        for isBitwise in [true, false] {
            var cluster = Self.redone(isBitwise: isBitwise)
            for worker in cluster.machine.members { cluster.ready(worker) }
            let record = try #require(cluster.comparisons.last)
            #expect(cluster.commits.isEmpty)
            let actions = cluster.take(
                cluster.machine.stepCompared(record, matches: false, now: .zero))
            guard !isBitwise else {
                #expect(actions.contains { if case .finish(.failed) = $0 { true } else { false } })
                continue
            }
            #expect(actions.suffix(2) == [.supersede(from: 1), .commit(record)])
            #expect(cluster.machine.ledgerStep == 0)
            cluster.take(cluster.machine.stepCommitted(record, now: .zero))
            #expect(cluster.machine.ledgerStep == 1 && cluster.plans["a"]?.step == 2)
            // Somebody who was away holds what was superseded: that is no lost disk.
            var hello = WireHello()
            hello.lineupVersion = "test"
            hello.role = .trainer
            hello.worker = "late"
            hello.hasState_p = true
            hello.stateStep = 2
            hello.history = 9
            let answer = cluster.hear(.hello(hello), from: "late")
            #expect(
                answer.contains { if case .send(.welcome, to: "late") = $0 { true } else { false } }
            )
        }
    }
}

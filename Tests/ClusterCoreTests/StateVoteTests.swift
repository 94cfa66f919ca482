import ClusterCore
import Protocol
import SwiftProtobuf
import Testing

/// A copy of the state counts when members say that it is what they hold.
@Suite struct StateVoteTests {
    /// A member says what its state after a step is, and what it stands on.
    private func say(
        _ digest: UInt64?, of step: UInt64, by worker: String, at applied: UInt64 = 0,
        in cluster: inout SmallCluster
    ) {
        var progress = WireProgress()
        progress.active = true
        progress.step = applied
        progress.planStep = applied + 1
        progress.term = 1
        progress.generation = cluster.machine.currentGeneration
        progress.states =
            digest.map { digest in
                [
                    .with {
                        $0.step = step
                        $0.digest = digest
                    }
                ]
            } ?? []
        cluster.hear(.progress(progress), from: worker)
    }

    /// What the checkpoint of step 0 has to be.
    private func verdict(_ cluster: SmallCluster) -> StateVerdict? {
        cluster.machine.awaitedCheckpoint?.state
    }

    /// Who is asked to send the state of step 0.
    private func asked(_ actions: [CoordinatorAction]) -> [String] {
        actions.compactMap {
            guard case .send(.sendCheckpoint(let asked), let worker) = $0, asked.step == 0,
                !asked.digestOnly
            else { return nil }
            return worker
        }
    }

    private func refuse(_ cluster: inout SmallCluster) -> [CoordinatorAction] {
        cluster.take(
            cluster.machine.checkpointRefused(step: 0, reason: "it differs", now: .zero))
    }

    @Test func aCheckpointWaitsForEveryMembersWord() {
        var cluster = SmallCluster(["a", "b", "c"])
        #expect(cluster.plans["c"]?.hasCheckpoint == true)
        for worker in ["a", "b", "c"] {
            #expect(verdict(cluster) == .open)
            // While it is taken it is 0.
            say(0, of: 0, by: worker, in: &cluster)
            #expect(verdict(cluster) == .open)
            say(7, of: 0, by: worker, in: &cluster)
        }
        #expect(verdict(cluster) == .agreed(7))
    }

    @Test func otherArithmeticHasOtherStates() {
        var cluster = SmallCluster(["a", "b"], isBitwise: false)
        #expect(verdict(cluster) == .any)
        say(7, of: 0, by: "a", in: &cluster)
        say(8, of: 0, by: "b", in: &cluster)
        cluster.tick(at: .zero)
        #expect(cluster.machine.members == ["a", "b"] && cluster.outcome == nil)
    }

    @Test func nobodyWaitsForWhoHasGoneOnOrLeft() {
        var cluster = SmallCluster(["a", "b", "c"])
        say(7, of: 0, by: "a", in: &cluster)
        say(nil, of: 0, by: "b", at: 1, in: &cluster)
        #expect(verdict(cluster) == .open)
        cluster.hear(.goodbye(.with { $0.failed = true }), from: "c")
        #expect(verdict(cluster) == .agreed(7))
    }

    @Test func whatNobodyCanSayIsNotTrusted() {
        var cluster = SmallCluster(["a", "b"])
        for worker in ["a", "b"] { say(nil, of: 0, by: worker, at: 1, in: &cluster) }
        #expect(verdict(cluster) == .unknown)
    }

    @Test func anotherHolderSendsWhatWasRefusedAsOftenAsItTakes() throws {
        var cluster = SmallCluster(["a", "b", "c"])
        let duty = try #require(cluster.plans["a"]?.checkpoint)
        #expect([duty.primary, duty.backup] == ["a", "b"])
        for worker in ["a", "b", "c"] { say(7, of: 0, by: worker, in: &cluster) }
        // Everybody holds the state itself: whoever was refused least often copies it anew.
        for (sender, heir) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "b"), ("b", "c")] {
            let actions = refuse(&cluster)
            #expect(cluster.events["checkpoint_refused"]?.last?.contains(" \(sender) ") == true)
            #expect(asked(actions) == [heir])
            #expect(
                actions.contains {
                    if case .send(.releaseCheckpoint, to: sender) = $0 { true } else { false }
                })
        }
        // Nobody is let go for a flipped bit in a copy.
        #expect(cluster.machine.members == ["a", "b", "c"] && cluster.outcome == nil)
        #expect(cluster.events["redo"] == nil)
    }

    @Test func withoutAnyCopyTheRunGoesBack() {
        var cluster = SmallCluster(["a", "b", "c"])
        for worker in ["a", "b", "c"] { say(7, of: 0, by: worker, in: &cluster) }
        for slot in 0..<3 { cluster.done(slot, by: cluster.holders(of: slot)[0]) }
        cluster.commit(at: .zero)
        // The members have gone on; the second holder has kept its copy.
        #expect(cluster.plans["c"]?.step == 2 && cluster.plans["c"]?.hasCheckpoint == false)
        #expect(asked(refuse(&cluster)) == ["b"])
        let actions = refuse(&cluster)
        #expect(cluster.events["redo"]?.first?.contains("step 0") == true)
        #expect(cluster.outcome == nil)
        // All of them load what the recovery point has.
        #expect(actions.count { if case .send(.loadState, _) = $0 { true } else { false } } == 3)
    }

    @Test func whoHoldsAnotherStateIsNotUsedAnyMore() {
        var cluster = SmallCluster(["a", "b", "c"])
        for (worker, digest) in [("a", 7), ("b", 8), ("c", 7)] as [(String, UInt64)] {
            say(digest, of: 0, by: worker, in: &cluster)
        }
        cluster.tick(at: .zero)
        #expect(cluster.machine.members == ["a", "c"])
        #expect(cluster.events["quarantined"]?.first?.hasPrefix("b ") == true)
        #expect(verdict(cluster) == .agreed(7))
    }

    @Test func withoutAMajorityNothingIsStored() {
        var cluster = SmallCluster(["a", "b"])
        say(7, of: 0, by: "a", in: &cluster)
        say(8, of: 0, by: "b", in: &cluster)
        #expect(verdict(cluster) == .split)
        cluster.tick(at: .zero)
        guard case .disagreed(let why) = cluster.outcome else {
            Issue.record("the run goes on")
            return
        }
        #expect(why.contains("after step 0"))
    }

    /// A fourth trainer gets the state of step 1 from a member.
    private func joining(_ cluster: inout SmallCluster) throws -> WireLoadState {
        cluster.hear(
            .hello(
                .with {
                    $0.lineupVersion = "test"
                    $0.role = .trainer
                    $0.worker = "d"
                }), from: "d")
        cluster.hear(
            .prepared(
                .with {
                    $0.datasetDigest = 5
                    $0.numerics.description_p = "class"
                }), from: "d")
        for slot in 0..<3 { cluster.done(slot, by: cluster.holders(of: slot)[0]) }
        for worker in ["a", "b", "c"] { cluster.ready(worker) }
        let record = try #require(cluster.commits.last)
        let actions = cluster.take(cluster.machine.stepCommitted(record, now: .zero))
        return try #require(load(in: actions))
    }

    private func load(in actions: [CoordinatorAction]) -> WireLoadState? {
        for case .send(.loadState(let load), to: "d") in actions { return load }
        return nil
    }

    @Test(arguments: [UInt64(7), 8])
    func aJoinerWithAnotherStateIsNotBlamedAndLoadsAgain(digest: UInt64) throws {
        var cluster = SmallCluster(["a", "b", "c"])
        let load = try joining(&cluster)
        #expect(load.source == .peer && cluster.plans["a"]?.donor == load.peer)
        var loaded = WireStateLoaded()
        loaded.step = 1
        loaded.number = load.number
        loaded.digest = digest
        // Members have yet to say; it is asked again then.
        #expect(cluster.hear(.stateLoaded(loaded), from: "d").isEmpty)
        for worker in ["a", "b", "c"] { say(7, of: 1, by: worker, at: 1, in: &cluster) }
        let actions = cluster.hear(.stateLoaded(loaded), from: "d")
        let isWrong = digest == 8
        #expect((cluster.events["load_failed"] != nil) == isWrong)
        #expect(cluster.events["quarantined"] == nil && cluster.events["suspected"] == nil)
        if isWrong {
            #expect(cluster.events["load_failed"]![0].contains(load.peer))
        }
        // Its donor need not keep the copy for it.
        #expect(
            actions.contains {
                if case .send(.releaseCheckpoint(let release), to: load.peer) = $0 {
                    release.donation
                } else {
                    false
                }
            })
    }
}

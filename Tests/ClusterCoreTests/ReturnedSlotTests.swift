import ClusterCore
import Protocol
import SwiftProtobuf
import Testing

/// A slot that is handed back, and what becomes of that when it is not heard.
@Suite struct ReturnedSlotTests {
    /// A plan of step 1 in which "w" has the one slot.
    private static var plan: WirePlan {
        .with {
            $0.term = 1
            $0.step = 1
            $0.members = [.with { $0.worker = "w" }]
            $0.leases = [.with { $0.worker = "w" }]
            $0.samples = [
                .with {
                    $0.step = 1
                    $0.slots = [WireSlotSamples()]
                }
            ]
        }
    }

    @Test func itIsSaidAgainWhereItWasNotHeard() throws {
        var trainer = TrainerStateMachine(worker: "w")
        _ = trainer.connectionOpened(now: .zero)
        _ = trainer.received(.welcome(.with { $0.term = 1 }), now: .zero)
        _ = trainer.prepared(.with { $0.blockCount = 1 }, slotCount: 1, epoch: trainer.epoch)
        _ = trainer.received(
            .loadState(
                .with {
                    $0.number = 1
                    $0.source = .initial
                }), now: .zero)
        _ = trainer.stateLoaded(step: 0, digest: 1, epoch: trainer.epoch)
        _ = trainer.received(.plan(Self.plan), now: .zero)
        let returned = trainer.slotFailed(step: 1, slot: 0, reason: "bad", epoch: trainer.epoch)
        guard case .send(.slotReturned) = returned.first else {
            Issue.record("not handed back: \(returned)")
            return
        }
        // The coordinator sees that nothing is left to compute, and plans the same again.
        let progress = trainer.tick(now: .seconds(1)).compactMap { action in
            if case .send(.progress(let progress)) = action { progress } else { nil }
        }
        #expect(progress.map(\.slotsLeased) == [1] && progress.map(\.slotsDone) == [1])
        let again = trainer.received(.plan(Self.plan), now: .seconds(1))
        #expect(again.contains { if case .send(.slotReturned) = $0 { true } else { false } })
    }

    @Test func aWorkerThatWasNotHeardIsToldThePlanAgain() {
        var cluster = SmallCluster(["a", "b", "c"])
        let progress = WireProgress.with {
            $0.active = true
            $0.planStep = 1
            $0.term = 1
            $0.generation = cluster.machine.currentGeneration
            $0.slotsLeased = 1
            $0.slotsDone = 1
        }
        let actions = cluster.hear(.progress(progress), from: "a", at: .seconds(1))
        #expect(actions.contains { if case .send(.plan, "a") = $0 { true } else { false } })
    }
}

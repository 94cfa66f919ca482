import ClusterCore
import Protocol
import SwiftProtobuf
import Testing

/// What a trainer says of its whole state, and when it speaks of one at all.
@Suite struct HeldStateTests {
    /// A trainer that is asked to load.
    private func loading(_ source: WireLoadState.Source) -> TrainerStateMachine {
        var machine = TrainerStateMachine(worker: "w")
        _ = machine.connectionOpened(now: .zero)
        _ = machine.received(.welcome(.with { $0.term = 1 }), now: .zero)
        _ = machine.prepared(.with { $0.blockCount = 1 }, slotCount: 1, epoch: machine.epoch)
        let load = WireLoadState.with {
            $0.number = 1
            $0.step = 4
            $0.source = source
            $0.peer = "donor"
        }
        _ = machine.received(.loadState(load), now: .zero)
        _ = machine.stateLoaded(step: 4, digest: 9, epoch: machine.epoch)
        return machine
    }

    private func plan(members: [String], asks: Bool) -> WirePlan {
        .with { plan in
            plan.term = 1
            plan.step = 5
            plan.donor = asks ? "a" : ""
            plan.members = members.map { name in .with { $0.worker = name } }
            plan.listeners = [.with { $0.worker = "w" }]
            plan.leases = [.with { $0.worker = members[0] }]
            plan.samples = [
                .with {
                    $0.step = 5
                    $0.slots = [WireSlotSamples()]
                }
            ]
        }
    }

    private func asks(_ actions: [TrainerAction]) -> Bool {
        actions.contains { if case .digestState(step: 4, _) = $0 { true } else { false } }
    }

    private func states(
        _ machine: inout TrainerStateMachine, at now: Duration
    ) -> [UInt64: UInt64]? {
        for case .send(.progress(let progress)) in machine.tick(now: now) {
            return Dictionary(uniqueKeysWithValues: progress.states.map { ($0.step, $0.digest) })
        }
        return nil
    }

    @Test func whatIsAskedForIsDigestedOnceAndSaidAtOnce() {
        var machine = loading(.initial)
        #expect(states(&machine, at: .seconds(1)) == [:])
        let actions = machine.received(.plan(plan(members: ["w"], asks: true)), now: .zero)
        #expect(asks(actions))
        // Under way: 0, so that nobody takes it for somebody who cannot say.
        #expect(states(&machine, at: .seconds(2)) == [4: 0])
        machine.stateDigested(step: 4, digest: 77, epoch: machine.epoch)
        #expect(states(&machine, at: .seconds(2) + .milliseconds(1)) == [4: 77])
        let again = machine.received(
            .sendCheckpoint(
                .with {
                    $0.step = 4
                    $0.digestOnly = true
                }), now: .zero)
        #expect(again.isEmpty)
        #expect(states(&machine, at: .seconds(2) + .milliseconds(2)) == [4: 77])
        // Of another state than the one it was taken of it says nothing.
        machine.stateDigested(step: 4, digest: 5, epoch: machine.epoch - 1)
        #expect(states(&machine, at: .seconds(3)) == [4: 77])
    }

    @Test func atABoundaryAskedTooEarlyItComesWithTheState() {
        var machine = loading(.initial)
        _ = machine.received(.plan(plan(members: ["w"], asks: false)), now: .zero)
        let early = machine.received(
            .sendCheckpoint(
                .with {
                    $0.step = 5
                    $0.digestOnly = true
                }), now: .zero)
        #expect(early.isEmpty)
        _ = machine.slotComputed(.with { $0.step = 5 }, epoch: machine.epoch)
        _ = machine.effectDigested(step: 5, fold: 0, digest: 3, state: 4, epoch: machine.epoch)
        let commit = WireCommit.with {
            $0.term = 1
            $0.step = 5
            $0.digest = 3
        }
        _ = machine.received(.commit(commit), now: .zero)
        let actions = machine.applied(step: 5, epoch: machine.epoch)
        #expect(
            actions.contains { if case .digestState(step: 5, _) = $0 { true } else { false } })
    }

    private func hasState(_ machine: TrainerStateMachine) -> Bool? {
        var machine = machine
        machine.connectionClosed()
        for case .send(.hello(let hello)) in machine.connectionOpened(now: .zero) {
            return hello.hasState_p
        }
        return nil
    }

    @Test func aDonatedStateIsSpokenOfOnceItCounts() {
        #expect(hasState(loading(.initial)) == true)
        #expect(hasState(loading(.checkpoint)) == true)
        var machine = loading(.peer)
        #expect(hasState(machine) == false)
        _ = machine.received(.plan(plan(members: ["a"], asks: true)), now: .zero)
        #expect(hasState(machine) == false)
        // As a member it is one whose state was found equal.
        var member = plan(members: ["a", "w"], asks: false)
        member.generation = 1
        _ = machine.received(.plan(member), now: .zero)
        #expect(hasState(machine) == true)
    }
}

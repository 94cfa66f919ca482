import ClusterCore
import Protocol
import SwiftProtobuf
import Testing

/// A quarantine outlives the process that it was said of.
@Suite struct QuarantineTests {
    private struct Nothing: StepSource {
        func samples(step: Int) -> WireStepSamples { WireStepSamples() }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    private func answers(to worker: String, quarantined: String) -> [WireBody] {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 9, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: [], evaluationTimeout: .seconds(1),
                lineupVersion: "test"),
            source: Nothing(),
            recovery: CoordinatorRecovery(
                term: 2, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:],
                quarantined: [quarantined]))
        var hello = WireHello()
        hello.lineupVersion = "test"
        hello.role = .trainer
        hello.worker = worker
        return machine.received(.hello(hello), from: worker, now: .zero).compactMap { action in
            guard case .send(let body, worker) = action else { return nil }
            return body
        }
    }

    @Test(arguments: [
        ("trainer-a-1-x", "trainer-a-1-x", true), ("trainer-a-2-y", "trainer-a-1-x", false),
        ("trainer-a-2-y@00112233aabbccdd", "trainer-a-1-x@00112233aabbccdd", true),
        ("trainer-a-2-y@00112233aabbccde", "trainer-a-1-x@00112233aabbccdd", false),
        ("trainer-a-2-y", "trainer-a-1-x@00112233aabbccdd", false),
    ])
    func itBindsTheKeyWhereThereIsOne(worker: String, quarantined: String, isRefused: Bool) throws {
        let answer = try #require(answers(to: worker, quarantined: quarantined).first)
        switch answer {
        case .refusal(let refusal): #expect(isRefused && refusal.message.contains(worker))
        case .welcome: #expect(!isRefused)
        default: Issue.record("\(answer)")
        }
    }

    @Test(arguments: [
        ("a-1-x", true), ("a-1-x-send-3", true), ("a-1-xx", false), ("b-send-3", false),
        ("c-9-z@00112233aabbccdd", true), ("c-9-z@00112233aabbccdd-send-12", true),
        ("c-9-z@00112233aabbccde", false), ("d-4-w@00112233aabbccdd", false),
    ])
    func nothingOfAQuarantinedWorkerOrItsKeyIsUsed(peer: String, isBarred: Bool) {
        var machine = TrainerStateMachine(worker: "me")
        _ = machine.connectionOpened(now: .zero)
        _ = machine.received(.welcome(.with { $0.term = 1 }), now: .zero)
        _ = machine.prepared(.with { $0.blockCount = 1 }, slotCount: 1, epoch: machine.epoch)
        _ = machine.received(
            .loadState(.with { ($0.source, $0.number) = (.peer, 1) }), now: .zero)
        var plan = WirePlan()
        (plan.term, plan.generation, plan.step) = (1, 1, 1)
        // One that has the same key and takes part is another machine's.
        plan.members = ["b", "d-4-w@00112233aabbccdd"].map { name in .with { $0.worker = name } }
        plan.listeners = [.with { $0.worker = "me" }]
        plan.quarantined = ["a-1-x", "c-2-y@00112233aabbccdd"]
        plan.samples = [.with { ($0.step, $0.slots) = (1, [WireSlotSamples()]) }]
        // It waits for its state, and listens meanwhile; what it cannot place yet it keeps.
        #expect(machine.place(step: 1, history: 0, fold: 0, from: peer) == .later)
        _ = machine.received(.plan(plan), now: .zero)
        #expect(machine.isQuarantined(peer) == isBarred)
        #expect(
            machine.place(step: 1, history: 0, fold: 0, from: peer)
                == (isBarred ? .nowhere : .later))
    }

    /// A worker whose key is allowed could else put blocks of its own into a step.
    @Test func blocksComeFromMembersAndRequestsFromListenersToo() {
        var machine = TrainerStateMachine(worker: "me")
        _ = machine.connectionOpened(now: .zero)
        _ = machine.received(.welcome(.with { $0.term = 1 }), now: .zero)
        _ = machine.prepared(.with { $0.blockCount = 1 }, slotCount: 1, epoch: machine.epoch)
        _ = machine.received(
            .loadState(.with { ($0.source, $0.number) = (.initial, 1) }), now: .zero)
        _ = machine.stateLoaded(step: 0, digest: 1, epoch: machine.epoch)
        var plan = WirePlan()
        (plan.term, plan.generation, plan.step) = (1, 1, 1)
        plan.members = ["b", "me"].map { name in .with { $0.worker = name } }
        plan.listeners = [.with { $0.worker = "c" }]
        plan.samples = [.with { ($0.step, $0.slots) = (1, [WireSlotSamples()]) }]
        _ = machine.received(.plan(plan), now: .zero)
        func place(_ peer: String, isRequest: Bool) -> TrainerStateMachine.DataPlace {
            machine.place(step: 1, history: 0, fold: 0, from: peer, isRequest: isRequest)
        }
        #expect(place("b", isRequest: false) == .here && place("b", isRequest: true) == .here)
        #expect(place("c", isRequest: false) == .nowhere && place("c", isRequest: true) == .here)
        #expect(place("d", isRequest: false) == .nowhere && place("d", isRequest: true) == .nowhere)
    }
}

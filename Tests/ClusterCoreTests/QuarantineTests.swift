import ClusterCore
import Protocol
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
}

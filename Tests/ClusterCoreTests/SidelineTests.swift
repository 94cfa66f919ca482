import ClusterCore
import Protocol
import Testing

/// A step does not wait for a member that has fallen silent, and the member loses nothing.
@Suite struct SidelineTests {
    private struct Source: StepSource {
        func samples(step: Int) -> WireStepSamples {
            var samples = WireStepSamples()
            samples.step = UInt64(step)
            samples.slots = (0..<3).map { _ in WireSlotSamples() }
            return samples
        }
        func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
    }

    private struct Cluster {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 3, totalSteps: 9, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: [], evaluationTimeout: .seconds(1),
                expectedTrainers: 3, recoveryInterval: nil, lineupVersion: "test"),
            source: Source(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        /// What was last planned, by worker.
        var plans: [String: WirePlan] = [:]
        var commits: [StepRecord] = []
        var sidelined = 0

        mutating func take(_ actions: [CoordinatorAction]) -> [CoordinatorAction] {
            for action in actions {
                switch action {
                case .send(.plan(let plan), let worker): plans[worker] = plan
                case .commit(let record): commits.append(record)
                case .event(kind: "sidelined", severity: _, text: _): sidelined += 1
                default: break
                }
            }
            return actions
        }

        @discardableResult
        mutating func hear(
            _ body: WireBody, from worker: String, at now: Duration
        ) -> [CoordinatorAction] {
            take(machine.received(body, from: worker, now: now))
        }

        mutating func join(_ workers: [String]) {
            var loads: [String: UInt64] = [:]
            for worker in workers {
                var hello = WireHello()
                hello.lineupVersion = "test"
                hello.role = .trainer
                hello.worker = worker
                hear(.hello(hello), from: worker, at: .zero)
            }
            for worker in workers {
                var prepared = WirePrepared()
                prepared.datasetDigest = 5
                prepared.numerics.description_p = "class"
                for action in hear(.prepared(prepared), from: worker, at: .zero) {
                    if case .send(.loadState(let load), let to) = action {
                        loads[to] = load.number
                    }
                }
            }
            for worker in workers {
                var loaded = WireStateLoaded()
                loaded.number = loads[worker] ?? 0
                hear(.stateLoaded(loaded), from: worker, at: .zero)
            }
        }

        mutating func done(_ slot: Int, by worker: String, at now: Duration) {
            var done = WireSlotDone()
            done.step = 1
            done.slot = UInt32(slot)
            hear(.slotDone(done), from: worker, at: now)
        }

        mutating func ready(_ worker: String, at now: Duration) {
            var ready = WireReady()
            ready.term = 1
            ready.generation = machine.currentGeneration
            ready.step = 1
            ready.effectDigest = 77
            hear(.ready(ready), from: worker, at: now)
        }
    }

    /// Three members at step 1 whose slots are all done; "c" falls silent at half a second.
    private static func silentMember() -> Cluster {
        var cluster = Cluster()
        cluster.join(["a", "b", "c"])
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.done(slot, by: worker, at: .milliseconds(500))
        }
        for tenth in 6...16 {
            for worker in ["a", "b"] {
                cluster.hear(
                    .progress(WireProgress()), from: worker, at: .milliseconds(100 * tenth))
            }
            _ = cluster.take(cluster.machine.tick(now: .milliseconds(100 * tenth)))
        }
        return cluster
    }

    @Test func theOthersCommitWithoutIt() throws {
        var cluster = Self.silentMember()
        #expect(cluster.sidelined == 1)
        let plan = try #require(cluster.plans["a"])
        #expect(plan.members.map(\.worker) == ["a", "b"])
        #expect(plan.listeners.map(\.worker) == ["c"])
        // Its slot goes to another, who computes it where the effect needs it.
        #expect(plan.leases.filter { $0.slot == 2 }.map(\.optional) == [true])
        for worker in ["a", "b"] { cluster.ready(worker, at: .milliseconds(1_700)) }
        #expect(cluster.commits.map(\.step) == [1])
    }

    @Test func itIsAMemberAgainOnceItHasStagedTheStep() throws {
        var cluster = Self.silentMember()
        cluster.ready("c", at: .milliseconds(1_650))
        for worker in ["a", "b"] { cluster.ready(worker, at: .milliseconds(1_700)) }
        let record = try #require(cluster.commits.first)
        _ = cluster.take(cluster.machine.stepCommitted(record, now: .milliseconds(1_710)))
        #expect(Set(cluster.machine.members) == ["a", "b", "c"])
    }

    @Test func whereEverybodyIsSilentNobodyIsSidelined() {
        var cluster = Cluster()
        cluster.join(["a", "b", "c"])
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.done(slot, by: worker, at: .milliseconds(500))
        }
        for tenth in 6...30 {
            _ = cluster.take(cluster.machine.tick(now: .milliseconds(100 * tenth)))
        }
        #expect(cluster.sidelined == 0)
        #expect(cluster.machine.members == ["a", "b", "c"])
    }
}

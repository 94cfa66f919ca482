import Basics
import ClusterCore
import Protocol
import Testing

@Suite struct MemoryClusterTests {
    private func check(_ cluster: MemoryCluster, steps: Int, _ seed: Int) {
        let reference = MemoryCluster.reference(slotCount: cluster.slotCount, steps: steps)
        #expect(cluster.outcome == .finished, "seed \(seed): \(cluster.summary)")
        #expect(cluster.ledger.map(\.step) == Array(1...steps), "seed \(seed)")
        for (record, expected) in zip(cluster.ledger, reference) {
            #expect(record.digest == expected.effect, "seed \(seed), step \(record.step)")
        }
        #expect(cluster.durable.last?.digest == reference.last?.state, "seed \(seed)")
    }

    @Test(arguments: 0..<60)
    func anyNumberOfTrainersCommitsTheSameSteps(seed: Int) {
        let slotCount = [1, 2, 4, 5, 8][seed % 5]
        var cluster = MemoryCluster(
            slotCount: slotCount, steps: 12, checkpointEvery: 4, trainers: 1 + seed % 6,
            seed: UInt64(seed))
        var events = 0
        while cluster.outcome == nil && events < 200_000 {
            events += 1
            _ = cluster.step()
        }
        check(cluster, steps: 12, seed)
        // Without losses no slot is computed twice.
        for step in 1...12 { #expect(cluster.computed[step] == slotCount) }
    }

    @Test(arguments: 0..<400)
    func killsAndJoinsAtAnyEventChangeNothing(seed: Int) {
        let slotCount = [1, 2, 4, 5, 8][seed % 5]
        var cluster = MemoryCluster(
            slotCount: slotCount, steps: 14, checkpointEvery: 3, trainers: 1 + seed % 4,
            seed: UInt64(seed))
        var random = CounterRandom(seed: UInt64(seed), step: 1, purpose: .audit)
        var events = 0
        var faults = 0
        while cluster.outcome == nil && events < 200_000 {
            events += 1
            _ = cluster.step()
            // Faults stop after a while; then the run must come to its end.
            guard faults < 12, random.index(below: 60) == 0 else { continue }
            faults += 1
            switch random.index(below: 6) {
            case 0, 1, 2:
                if let victim = cluster.names.randomElement(using: &random) {
                    cluster.kill(victim)
                    if cluster.names.isEmpty || random.index(below: 2) == 0 { cluster.join() }
                }
            case 3: cluster.join()
            default: if random.index(below: 3) == 0 { cluster.restartCoordinator() }
            }
        }
        check(cluster, steps: 14, seed)
    }

    @Test(arguments: [nil, Duration.zero, .milliseconds(150)])
    func recoverySnapshotsAreTakenAtTheirIntervalOrNever(interval: Duration?) {
        var cluster = MemoryCluster(
            slotCount: 4, steps: 20, checkpointEvery: 50, trainers: 2, seed: 5,
            recoveryInterval: interval)
        var snapshots: Set<Int> = []
        var events = 0
        while cluster.outcome == nil && events < 100_000 {
            events += 1
            _ = cluster.step()
            snapshots.formUnion(cluster.durable.filter(\.isRecovery).map(\.step))
        }
        #expect(cluster.outcome == .finished)
        #expect(snapshots.isEmpty == (interval == nil))
    }

    @Test func aDrainedRunGoesOnWhereItWas() {
        var cluster = MemoryCluster(
            slotCount: 4, steps: 20, checkpointEvery: 10, trainers: 2, seed: 3)
        while cluster.ledger.count < 7 { _ = cluster.step() }
        cluster.drain()
        var events = 0
        while cluster.outcome == nil && events < 100_000 {
            events += 1
            _ = cluster.step()
        }
        #expect(cluster.outcome == .drained)
        #expect(cluster.durable.last?.isRecovery == true)
        let redone = cluster.ledger.count
        #expect(cluster.durable.last?.step == redone)
        cluster.outcome = nil
        cluster.restartCoordinator()
        cluster.computed = [:]
        while cluster.outcome == nil && events < 200_000 {
            events += 1
            _ = cluster.step()
        }
        check(cluster, steps: 20, 3)
        // Nothing that was committed before the drain is computed again.
        #expect(cluster.computed.keys.min() == redone + 1)
    }
}

extension MemoryCluster {
    /// What everyone waits for, for a run that does not end.
    var summary: String {
        let status = coordinator.status(now: now)
        let workers = names.map { name in
            let machine = trainers[name]?.machine
            return "\(name) \(machine?.phaseName ?? "-") at \(machine?.step ?? -1) "
                + "slots \(machine?.slots ?? (0, 0))"
        }
        return "\(status.state) at \(status.step), ledger \(ledger.count), members "
            + "\(coordinator.members), \(workers); \(log.suffix(4))"
    }

    mutating func drain() {
        let actions = coordinator.drain(now: now)
        perform(actions)
    }
}

import Foundation
import Storage

extension Part {
    private static let workers = 4_000

    private static func cluster(
        _ bench: Bench, slots: Int, expected: Int
    ) throws -> RunningCluster {
        try Cluster(
            lineup: bench.lineup, folder: bench.folder + "/run",
            dataRoot: try bench.crops(withSets: false),
            overrides: settings([
                "network.backbone=basic", "batch.identities=2", "batch.images_per_identity=2",
                "batch.mini_batches_per_step=\(slots)", "schedule.steps=1000000",
                // The stubs have no state to send.
                "checkpoint.every_steps=0", "checkpoint.max_lag_steps=1000000",
                "checkpoint.recovery_seconds=0",
            ]), trainers: [], coordinatorCores: nil, expectedTrainers: expected
        ).start()
    }

    private static let joinsWhat =
        "4,000 trainers of one process connect without keys, say HELLO and are welcomed; the "
        + "coordinator is a process of its own on the same cores"

    /// How long a mass join without keys takes.
    static let controlJoins = Part(name: "control-joins", what: joinsWhat) { bench in
        let start = ContinuousClock.now
        var times: [Double] = []
        var sizes: [Double] = []
        let rounds = bench.rounds ?? 5
        for round in 0..<rounds {
            let cluster = try cluster(bench, slots: 4, expected: 1)
            defer { cluster.end() }
            let begun = ContinuousClock.now
            let stubs = try StubWorkers(trainers: workers, address: cluster.address)
            times.append((ContinuousClock.now - begun).inSeconds)
            sizes.append(try cluster.coordinatorMegabytes())
            withExtendedLifetime(stubs) {}
            say("control-joins round \(round + 1) of \(rounds): \(times[round]) s")
        }
        let (seconds, megabytes) = (Series(times), Series(sizes))
        return Measurement(
            name: "control-joins", what: joinsWhat, unit: "seconds",
            sides: [Side(name: "until all are welcomed", series: seconds)],
            ratios: [
                Ratio(
                    of: "until all are welcomed", series: seconds, wanted: "at most 2 s",
                    isMet: seconds.median <= 2),
                Ratio(
                    of: "coordinator, MB", series: megabytes, wanted: "at most 200 MB",
                    isMet: megabytes.median <= 200),
            ], notes: ["each join is a row in the ledger"],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static let leasesWhat =
        "4,000 live workers of one process: 16 trainers with 32 slots each and evaluators that "
        + "wait; then 65 trainers that share 64 slots at an even pace, and trainers that stand by. "
        + "Every step is a row in the ledger"

    /// How many leases a coordinator grants beside thousands of workers, and how soon.
    static let controlLeases = Part(name: "control-leases", what: leasesWhat) { bench in
        let start = ContinuousClock.now
        var rates: [Double] = []
        var costs: [Double] = []
        var waits: [Double] = []
        var sizes: [Double] = []
        let rounds = bench.rounds ?? 5
        for round in 0..<rounds {
            let (grants, seconds, busy, size) = try leases(
                bench, slots: 512, members: 16, trainers: 16, perSecond: nil)
            rates.append(Double(grants.leases) / seconds)
            costs.append(busy / Double(grants.leases) * 1e6)
            let (paced, _, _, other) = try leases(
                bench, slots: 64, members: 65, trainers: workers, perSecond: 5_000)
            waits.append(paced.wait(of: 0.99) * 1e3)
            sizes.append(max(size, other))
            say(
                String(
                    format: "control-leases round %d of %d: %.0f leases/s; at 5,000/s (%.0f steps) "
                        + "p50 %.2f, p99 %.2f ms; %.0f MB", round + 1, rounds, rates[round],
                    Double(paced.steps), paced.wait(of: 0.5) * 1e3, waits[round], sizes[round]))
        }
        let (rate, wait, megabytes) = (Series(rates), Series(waits), Series(sizes))
        return Measurement(
            name: "control-leases", what: leasesWhat, unit: "leases a second",
            sides: [
                Side(name: "leases a second", series: rate),
                Side(name: "coordinator's microseconds a lease", series: Series(costs)),
            ],
            ratios: [
                Ratio(
                    of: "leases a second", series: rate, wanted: "at least 30,000",
                    isMet: rate.median >= 30_000),
                Ratio(
                    of: "p99 of a grant at 5,000/s, ms", series: wait, wanted: "at most 5 ms",
                    isMet: wait.median <= 5),
                Ratio(
                    of: "coordinator, MB", series: megabytes, wanted: "at most 200 MB",
                    isMet: megabytes.median <= 200),
            ],
            notes: ["a grant: from the last READY of a step to the next plan at a trainer"],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static func leases(
        _ bench: Bench, slots: Int, members: Int, trainers: Int, perSecond: Double?
    ) throws -> (grants: StubWorkers.Grants, seconds: Double, busy: Double, megabytes: Double) {
        let cluster = try cluster(bench, slots: slots, expected: members)
        defer { cluster.end() }
        let stubs = try StubWorkers(
            trainers: trainers, evaluators: workers - trainers, address: cluster.address)
        try stubs.prepare(members: members)
        _ = try stubs.train(seconds: 2, leasesPerSecond: perSecond)
        let (begun, idle) = (ContinuousClock.now, try cluster.coordinatorSeconds())
        let grants = try stubs.train(seconds: 8, leasesPerSecond: perSecond)
        let seconds = (ContinuousClock.now - begun).inSeconds
        let busy = try cluster.coordinatorSeconds() - idle
        let megabytes = try cluster.coordinatorMegabytes()
        // Throws where a slot was computed twice.
        guard try cluster.checkedSteps().count >= grants.steps else {
            throw BenchFailure("steps are missing from the ledger")
        }
        return (grants, seconds, busy, megabytes)
    }
}

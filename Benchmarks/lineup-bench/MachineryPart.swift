import Foundation
import Storage

/// How a run of steps is cut up for a comparison of cluster and bare loop.
struct MachineryPlan {
    let settings: [String]
    /// First steps, which allocate memory and decode images.
    let skipped: Int
    /// Steps after those that see no checkpoint.
    let plain: Int
    /// Steps after those, of which the first begins with a checkpoint.
    let checkpointed: Int
    let rounds: Int

    var steps: Int { skipped + plain + checkpointed }
    /// One checkpoint where the checkpointed steps begin; the next would come after the end.
    var checkpointEvery: Int { skipped + plain }
}

extension Part {
    static let machineryResNet = machinery(
        "machinery-resnet50", "ResNet-50 at 128x64, P 4, K 4, G 4", wanted: 1.03,
        MachineryPlan(settings: resNet, skipped: 2, plain: 3, checkpointed: 2, rounds: 9))

    static let machineryBasic = machinery(
        "machinery-basic", "basic at 64x64, P 18, K 4, G 4",
        MachineryPlan(
            settings: settings([
                "network.backbone=basic", "batch.identities=18", "batch.images_per_identity=4",
                "batch.mini_batches_per_step=4",
            ]), skipped: 8, plain: 16, checkpointed: 8, rounds: 9))

    static let machinerySmall = machinery(
        "machinery-small", "basic at 64x64, P 4, K 4, G 4: steps of a tenth of a second",
        MachineryPlan(
            settings: settings([
                "network.backbone=basic", "batch.identities=4", "batch.images_per_identity=4",
                "batch.mini_batches_per_step=4",
            ]), skipped: 20, plain: 40, checkpointed: 20, rounds: 9))

    private static func machinery(
        _ name: String, _ network: String, wanted: Double? = nil, _ plan: MachineryPlan
    ) -> Part {
        let what =
            "\(network): coordinator and one trainer as processes beside the bare loop, which makes "
            + "the same slots on the same threads"
        return Part(name: name, what: what) { bench in
            try measureMachinery(bench, name, what, wanted: wanted, plan)
        }
    }

    private static func measureMachinery(
        _ bench: Bench, _ name: String, _ what: String, wanted: Double?, _ plan: MachineryPlan
    ) throws -> Measurement {
        let start = ContinuousClock.now
        let crops = try bench.crops(withSets: false)
        let rounds = bench.rounds ?? plan.rounds
        var bare: [[Double]] = []
        var cluster: [[Double]] = []
        var exchange: [Double] = []
        var phases: [String: [Double]] = [:]
        let slots = bench.parallelSlots(of: 4)
        let overrides =
            plan.settings + [
                "schedule.steps=\(plan.steps)", "checkpoint.every_steps=\(plan.checkpointEvery)",
            ]
        func runBare() throws -> String {
            let loop = try bench.bareLoop(
                overrides, crops: crops, parallelSlots: slots, inputs: plan.steps)
            defer { loop.end() }
            bare.append(Array(try loop.steps(plan.steps)[plan.skipped...]))
            let digest = try loop.digest()
            for (phase, seconds) in try loop.phases() { phases[phase, default: []].append(seconds) }
            return digest
        }
        func runCluster() throws -> String {
            let outcome = try Cluster(
                lineup: bench.lineup, folder: bench.folder + "/run", dataRoot: crops,
                overrides: overrides, trainers: [(nil, slots)], coordinatorCores: nil
            ).run()
            cluster.append(outcome.seconds(after: plan.skipped))
            exchange += outcome.steps.dropFirst(plan.skipped).map(\.seconds.exchange)
            return outcome.weights
        }
        for round in 0..<rounds {
            // Each side goes first in every second round, so that a drift of the machine cancels.
            let isBareFirst = round % 2 == 0
            let first = try isBareFirst ? runBare() : runCluster()
            let second = try isBareFirst ? runCluster() : runBare()
            guard first == second else {
                throw BenchFailure(
                    "after \(plan.steps) steps the two sides' weights are \(first) and \(second): "
                        + "they have not done the same work")
            }
            say(progress(name, round, rounds, bare.last!, cluster.last!))
        }
        return summary(
            name, what, wanted: wanted, plan, bare, cluster, exchange: exchange, phases: phases,
            since: start)
    }

    private static func progress(
        _ name: String, _ round: Int, _ rounds: Int, _ bare: [Double], _ cluster: [Double]
    ) -> String {
        String(
            format: "%@ round %d of %d: bare %.4f, cluster %.4f s/step, ratio %.4f", name,
            round + 1, rounds, mean(bare), mean(cluster), mean(cluster) / mean(bare))
    }

    private static func summary(
        _ name: String, _ what: String, wanted: Double?, _ plan: MachineryPlan,
        _ bare: [[Double]], _ cluster: [[Double]], exchange: [Double],
        phases: [String: [Double]], since start: ContinuousClock.Instant
    ) -> Measurement {
        let plainBare = bare.map { mean(Array($0[..<plan.plain])) }
        let plainCluster = cluster.map { mean(Array($0[..<plan.plain])) }
        let ratio = Series(zip(plainCluster, plainBare).map { $0 / $1 })
        // What the steps after a checkpoint take longer than those before it, against the bare
        // loop's same steps.
        let checkpoint = Series(
            zip(bare, cluster).map { bare, cluster in
                let before = mean(cluster, plan.plain) - mean(bare, plan.plain)
                return zip(bare, cluster).dropFirst(plan.plain).reduce(0) {
                    $0 + $1.1 - $1.0 - before
                }
            })
        let everyMinute = Series(
            zip(ratio.values, checkpoint.values).map { $0 + max(0, $1) / 60 })
        let slotSeconds = phases.mapValues { Series.median($0) }
        return Measurement(
            name: name, what: what, unit: "seconds",
            sides: [
                Side(name: "bare loop, a step", series: Series(plainBare)),
                Side(name: "cluster, a step", series: Series(plainCluster)),
                Side(name: "a checkpoint adds, once", series: checkpoint),
            ],
            ratios: [
                Ratio(of: "cluster / bare loop", series: ratio, wanted: nil, isMet: nil),
                Ratio(
                    of: "with a checkpoint every 60 s", series: everyMinute,
                    wanted: wanted.map { "at most \($0)" },
                    isMet: wanted.map { everyMinute.median <= $0 }),
            ],
            notes: [
                "both sides end with the same weights digest in every round",
                String(
                    format: "bare: slots and fold %.4f s, apply %.4f s; a digest of the effect, "
                        + "which the cluster adds, %.4f s; from a trainer's last slot to its "
                        + "digest %.4f s",
                    slotSeconds["compute_and_fold"] ?? 0, slotSeconds["apply"] ?? 0,
                    slotSeconds["effect_digest"] ?? 0, Series.median(exchange)),
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static func mean(_ values: [Double], _ count: Int) -> Double {
        mean(Array(values[..<count]))
    }

    static func mean(_ values: [Double]) -> Double {
        values.reduce(0, +) / Double(values.count)
    }
}

import Foundation

/// How a run of steps is cut up for a comparison of cluster and bare loop.
struct MachineryPlan {
    let settings: [String]
    /// First steps, which allocate memory and decode images.
    let skipped: Int
    /// Steps of each side in a round.
    let window: Int
    let rounds: Int
    /// Steps from checkpoint to checkpoint where its cost is measured: many enough that it is over
    /// within the first half.
    let checkpointEvery: Int

    /// Steps whose images the bare loop decodes beforehand: more than so many rounds make, unless a
    /// step is over faster than the ledger is looked at.
    func inputs(rounds: Int) -> Int { skipped + (rounds + 1) * (window + 3) }
}

extension Part {
    static let machineryResNet = machinery(
        "machinery-resnet50", "ResNet-50 at 128x64, P 4, K 4, G 4", wanted: 1.03,
        MachineryPlan(
            settings: resNet, skipped: 3, window: 2, rounds: 15, checkpointEvery: 2))

    static let machineryBasic = machinery(
        "machinery-basic", "basic at 64x64, P 18, K 4, G 4",
        MachineryPlan(
            settings: settings([
                "network.backbone=basic", "batch.identities=18", "batch.images_per_identity=4",
                "batch.mini_batches_per_step=4",
            ]), skipped: 5, window: 4, rounds: 15, checkpointEvery: 4))

    static let machinerySmall = machinery(
        "machinery-small", "basic at 64x64, P 4, K 4, G 4: steps of a tenth of a second",
        MachineryPlan(
            settings: settings([
                "network.backbone=basic", "batch.identities=4", "batch.images_per_identity=4",
                "batch.mini_batches_per_step=4",
            ]), skipped: 15, window: 10, rounds: 15, checkpointEvery: 10))

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
        let slots = bench.parallelSlots(of: 4)
        let inputs = plan.inputs(rounds: rounds)
        let overrides =
            plan.settings + [
                "schedule.steps=1000000", "checkpoint.every_steps=0",
                "checkpoint.recovery_seconds=0",
            ]
        let loop = try bench.bareLoop(
            overrides, crops: crops, parallelSlots: slots, inputs: inputs)
        defer { loop.end() }
        let cluster = try Cluster(
            lineup: bench.lineup, folder: bench.folder + "/run", dataRoot: crops,
            overrides: overrides, trainers: [(nil, slots)], coordinatorCores: nil
        ).start()
        defer { cluster.end() }
        try cluster.run(to: plan.skipped)
        _ = try loop.steps(plan.skipped)
        var bare: [Double] = []
        var whole: [Double] = []
        for round in 0..<rounds {
            // By turns of a few seconds, so that a drift of the machine cancels.
            bare.append(Series.median(try loop.steps(plan.window)))
            whole.append(Series.median(try cluster.steps(plan.window)))
            say(
                String(
                    format: "%@ round %d of %d: bare %.4f, cluster %.4f s/step, ratio %.4f", name,
                    round + 1, rounds, bare[round], whole[round], whole[round] / bare[round]))
        }
        let (last, weights) = try cluster.drain()
        guard last <= inputs else {
            throw BenchFailure(
                "the cluster made \(last) steps, the bare loop has images of \(inputs)")
        }
        _ = try loop.steps(last - plan.skipped - rounds * plan.window)
        let own = try loop.digest()
        guard own == weights else {
            throw BenchFailure(
                "after \(last) steps the two sides' weights are \(own) and \(weights): they have "
                    + "not done the same work")
        }
        var phases: [String: [Double]] = [:]
        for _ in 0..<3 {
            for (phase, seconds) in try loop.phases() { phases[phase, default: []].append(seconds) }
        }
        loop.end()
        let checkpoint = try checkpointSeconds(bench, plan, crops: crops, slots: slots)
        let ratio = Series(zip(whole, bare).map { $0 / $1 })
        let everyMinute = Series(ratio.values.map { $0 + max(0, checkpoint.median) / 60 })
        let slotSeconds = phases.mapValues { Series.median($0) }
        return Measurement(
            name: name, what: what, unit: "seconds",
            sides: [
                Side(name: "bare loop, a step", series: Series(bare)),
                Side(name: "cluster, a step", series: Series(whole)),
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
                "both sides have the same weights digest after \(last) steps",
                String(
                    format: "bare: slots and fold %.4f s, apply %.4f s; a digest of the effect, "
                        + "which the cluster adds, %.4f s",
                    slotSeconds["compute_and_fold"] ?? 0, slotSeconds["apply"] ?? 0,
                    slotSeconds["effect_digest"] ?? 0),
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// What steps after a checkpoint take longer than those before the next.
    private static func checkpointSeconds(
        _ bench: Bench, _ plan: MachineryPlan, crops: String, slots: Int
    ) throws -> Series {
        let every = plan.checkpointEvery
        let rounds = min(bench.rounds ?? 9, 9)
        let steps = try Cluster(
            lineup: bench.lineup, folder: bench.folder + "/run", dataRoot: crops,
            overrides: plan.settings + [
                "schedule.steps=\((rounds + 2) * every)", "checkpoint.every_steps=\(every)",
                "checkpoint.recovery_seconds=0",
            ], trainers: [(nil, slots)], coordinatorCores: nil
        ).run().seconds(after: 1)
        // `steps[0]` is step 2, the last before the first checkpoint where there is one every second.
        return Series(
            (1...rounds).map { round in
                let first = steps[(round * every - 1)..<(round * every - 1 + every / 2)]
                let second = steps[(round * every - 1 + every / 2)..<(round * every - 1 + every)]
                return first.reduce(0, +) - second.reduce(0, +)
            })
    }
}

import Foundation

extension Part {
    static let scalingBasic = scaling(
        "scaling-basic", "basic at 64x64, P 18, K 4, G 4",
        settings([
            "network.backbone=basic", "batch.identities=18", "batch.images_per_identity=4",
            "batch.mini_batches_per_step=4",
        ]), skipped: 5, window: 4)

    static let scalingResNet = scaling(
        "scaling-resnet50", "ResNet-50 at 128x64, P 4, K 4, G 4", resNet, skipped: 3, window: 1)

    private static func scaling(
        _ name: String, _ network: String, _ settings: [String], skipped: Int, window: Int
    ) -> Part {
        let what =
            "\(network): two trainers on one core each beside one trainer on one core; the "
            + "coordinator on the same cores"
        return Part(
            name: name, what: what,
            obstacle: { $0.machine.cores.count < 2 ? "needs two cores" : nil }
        ) { bench in
            let start = ContinuousClock.now
            let crops = try bench.crops(withSets: false)
            let cores = Array(bench.machine.cores.prefix(2))
            let rounds = bench.rounds ?? 15
            let overrides =
                settings + [
                    "schedule.steps=1000000", "checkpoint.every_steps=0",
                    "checkpoint.recovery_seconds=0",
                ]
            func launch(_ cores: [Int]) throws -> RunningCluster {
                let cluster = try Cluster(
                    lineup: bench.lineup, folder: bench.folder + "/run-\(cores.count)",
                    dataRoot: crops, overrides: overrides, trainers: cores.map { ([$0], 1) },
                    coordinatorCores: cores
                ).start()
                try cluster.run(to: skipped)
                return cluster
            }
            let single = try launch(Array(cores.prefix(1)))
            defer { single.end() }
            let pair = try launch(cores)
            defer { pair.end() }
            var one: [Double] = []
            var two: [Double] = []
            for round in 0..<rounds {
                one.append(1 / Series.median(try single.steps(window)))
                two.append(1 / Series.median(try pair.steps(2 * window)))
                say(
                    String(
                        format: "%@ round %d of %d: one %.4f, two %.4f steps/s, ratio %.4f", name,
                        round + 1, rounds, one[round], two[round], two[round] / one[round]))
            }
            let common = min(try single.lastStep(), try pair.lastStep())
            guard try single.digest(after: common) == pair.digest(after: common) else {
                throw BenchFailure("one and two trainers differ after \(common) steps")
            }
            let ratio = Series(zip(two, one).map { $0 / $1 })
            return Measurement(
                name: name, what: what, unit: "steps/s",
                sides: [
                    Side(name: "one trainer on one core", series: Series(one)),
                    Side(name: "two trainers on two cores", series: Series(two)),
                ],
                ratios: [
                    Ratio(
                        of: "two / one", series: ratio, wanted: "at least 1.85",
                        isMet: ratio.median >= 1.85)
                ],
                notes: ["equal effects in the first \(common) steps, which both made"],
                seconds: (ContinuousClock.now - start).inSeconds)
        }
    }
}

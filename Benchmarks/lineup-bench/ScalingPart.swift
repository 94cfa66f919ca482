import Foundation

extension Part {
    static let scalingBasic = scaling(
        "scaling-basic", "basic at 64x64, P 18, K 4, G 4",
        settings([
            "network.backbone=basic", "batch.identities=18", "batch.images_per_identity=4",
            "batch.mini_batches_per_step=4",
        ]), skipped: 5, measured: 15, rounds: 7)

    static let scalingResNet = scaling(
        "scaling-resnet50", "ResNet-50 at 128x64, P 4, K 4, G 4", resNet, skipped: 1, measured: 2,
        rounds: 5)

    private static func scaling(
        _ name: String, _ network: String, _ settings: [String], skipped: Int, measured: Int,
        rounds: Int
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
            let count = bench.rounds ?? rounds
            let overrides =
                settings + [
                    "schedule.steps=\(skipped + measured)", "checkpoint.every_steps=0",
                ]
            func stepsPerSecond(_ cores: [Int]) throws -> (Double, String) {
                let outcome = try Cluster(
                    lineup: bench.lineup, folder: bench.folder + "/run", dataRoot: crops,
                    overrides: overrides, trainers: cores.map { ([$0], 1) },
                    coordinatorCores: cores
                ).run()
                return (1 / mean(outcome.seconds(after: skipped)), outcome.weights)
            }
            var one: [Double] = []
            var two: [Double] = []
            for round in 0..<count {
                var weights: [String] = []
                for side in round % 2 == 0 ? [1, 2] : [2, 1] {
                    let (rate, digest) = try stepsPerSecond(Array(cores.prefix(side)))
                    weights.append(digest)
                    if side == 1 { one.append(rate) } else { two.append(rate) }
                }
                guard weights[0] == weights[1] else {
                    throw BenchFailure("one and two trainers end with weights \(weights)")
                }
                say(
                    String(
                        format: "%@ round %d of %d: one %.4f, two %.4f steps/s, ratio %.4f", name,
                        round + 1, count, one[round], two[round], two[round] / one[round]))
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
                notes: ["both end with the same weights digest in every round"],
                seconds: (ContinuousClock.now - start).inSeconds)
        }
    }
}

import Basics
import FaultRig
import Foundation
import Storage

extension Part {
    private static let killWhat =
        "four working trainers and one that stands by, on 0.35 core each; one is killed at a random "
        + "instant of a step"

    /// R2: what SIGKILL of a trainer adds to the step.
    static let faultsKill = Part(
        name: "faults-kill", what: killWhat, obstacle: lacking([.quota])
    ) { bench in
        let start = ContinuousClock.now
        var random = bench.draws(2)
        let rounds = bench.rounds ?? 60
        let crops = try bench.crops(withSets: false)
        let cluster = try bench.cluster(
            "kill", crops: crops, settings: endless(identities: 6, slots: 4), expectedTrainers: 5)
        defer { cluster.end() }
        try cluster.startCoordinator()
        try cluster.startTrainers(6, cores: 0.35)
        try cluster.wait(forStep: 20)
        var extra: [Double] = []
        var beyond: [Double] = []
        var detection: [Double] = []
        var calm: [Double] = []
        var recomputed: [Double] = []
        while extra.count < rounds {
            try cluster.wait(forTrainers: 4)
            try cluster.wait(forSteps: 4)
            let before = cluster.lastStep()
            let usual = try cluster.seconds(ofSteps: before - 2...before)
            random.sleep(0...Series.median(usual))
            let workers = try cluster.contributors(ofStep: before)
            let victims = try cluster.trainers.filter {
                try cluster.name(of: $0).map(workers.contains) ?? false
            }
            let victim = victims[random.index(below: victims.count)]
            let name = try cluster.name(of: victim)!
            let struck = secondsSince1970()
            victim.process.send(SIGKILL)
            let left = try cluster.event("worker_left", since: struck - 0.001, within: 30) {
                $0.text.contains(name)
            }
            cluster.forgetTheDead()
            try cluster.startTrainers(1, cores: 0.35)
            try cluster.wait(forSteps: 2)
            // The step that was under way, or begun by a plan that still counted on the victim.
            let hit = try cluster.ledger().steps(in: before...before + 12)
                .first { $0.committed > struck }!
            let total = try cluster.seconds(ofSteps: hit.step...hit.step)[0]
            let median = Series.median(usual)
            let again = try cluster.ledger().miniBatches(in: hit.step...hit.step)
                .filter { $0.attempt > 0 }
            let perWorker = Dictionary(grouping: again, by: \.worker)
                .mapValues { $0.reduce(0) { $0 + ($1.seconds ?? 0) } }
            extra.append(total - median)
            // A slot whose loss was in already stands in the ledger as the victim's, though another
            // computes its gradient again.
            let slot = Series.median(
                try cluster.ledger().miniBatches(in: before...before).compactMap(\.seconds))
            recomputed.append(max(slot, perWorker.values.max() ?? 0))
            beyond.append(total - median - recomputed.last!)
            detection.append((left?.time ?? .infinity) - struck)
            calm += usual
            say(
                String(
                    format: "kill %d of %d: step %d +%.3f s, again %.3f s, seen after %.3f s",
                    extra.count, rounds, hit.step, extra.last!, recomputed.last!,
                    detection.last!))
        }
        let steps = try cluster.ledger().steps()
        guard steps.map(\.step) == Array(1...steps.count) else {
            throw BenchFailure("a step is missing or was committed twice")
        }
        let figure = Series(beyond)
        let isMet = figure.median <= 0.05 && figure.quantile(0.99) <= 0.25
        return Measurement(
            name: "faults-kill", what: killWhat, unit: "seconds",
            sides: [
                Side(name: "undisturbed step", series: Series(calm)),
                Side(name: "the killed step is longer by", series: Series(extra)),
                Side(name: "one slot, or those seen again", series: Series(recomputed)),
                Side(name: "until the loss is seen", series: Series(detection)),
            ],
            ratios: [
                Ratio(
                    of: "longer, less that", series: figure,
                    wanted: "p50 at most 0.050, p99 0.250", isMet: isMet)
            ],
            notes: [
                "longer, less that: \(figure.spread)", "seed \(bench.seed)",
                "every step of \(steps.count) committed once",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }
}

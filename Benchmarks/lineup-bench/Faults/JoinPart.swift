import FaultRig
import Foundation
import Storage

extension Part {
    private static let joinWhat =
        "two trainers on 0.5 core each, a third joins on 0.5 core and leaves again; every second "
        + "transfer meets a link that flips bits"

    /// R7: what a joiner costs the others while it gets the state.
    static let faultsJoin = Part(
        name: "faults-join", what: joinWhat, obstacle: lacking([.quota])
    ) { bench in
        let start = ContinuousClock.now
        let rounds = bench.rounds ?? 30
        let crops = try bench.crops(withSets: false)
        let proxy = ChaosProxy(seed: bench.seed)
        defer { proxy.stop() }
        let cluster = try bench.cluster(
            "join", crops: crops,
            settings: endless(identities: 6, slots: 4),
            wiring: .proxied(proxy), expectedTrainers: 2)
        defer { cluster.end() }
        try cluster.startCoordinator()
        try cluster.startTrainers(2, cores: 0.5)
        try cluster.wait(forStep: 8, seconds: 180)
        let stateBytes = try transferBytes(cluster, proxy)
        var calm: [Double] = []
        var joining: [Double] = []
        var spans: [Double] = []
        var damaged = 0
        var flips = 0
        for round in 1...rounds {
            let first = cluster.lastStep()
            try cluster.wait(forSteps: 4)
            calm += try cluster.seconds(ofSteps: first + 2...first + 4)
            let joiner = try cluster.startTrainer(
                patience: 60, group: ControlGroup(cores: 0.5))
            let before = proxy.counts.flippedBits
            if round % 2 == 0 {
                proxy.set(.init(bytesPerFlip: stateBytes), on: joiner.dataLink!)
            }
            let begun = cluster.lastStep()
            try cluster.wait(forTrainers: 3)
            let member = cluster.lastStep()
            proxy.set(.init(), on: joiner.dataLink!)
            // Neither the step in which its process began, nor its first as a member.
            if member - begun > 2 {
                joining += try cluster.seconds(ofSteps: begun + 2...member - 1)
            }
            spans.append(Date().timeIntervalSince(joiner.startedAt))
            flips += proxy.counts.flippedBits - before
            damaged += joiner.process.errors.split(separator: "\n")
                .count { $0.contains("damaged") }
            joiner.process.send(SIGTERM)
            try joiner.process.wait(seconds: 60)
            cluster.forgetTheDead()
            say(String(format: "join %d of %d: %.1f s", round, rounds, spans.last!))
        }
        let disagreements = try cluster.ledger().events().count {
            $0.kind == "disagreement" || $0.kind == "quarantined"
        }
        guard !joining.isEmpty else { throw BenchFailure("no step fell into a join") }
        let ratio = Series.median(joining) / Series.median(calm)
        return Measurement(
            name: "faults-join", what: joinWhat, unit: "seconds",
            sides: [
                Side(name: "undisturbed step", series: Series(calm)),
                Side(name: "step while one joins", series: Series(joining)),
                Side(name: "process start to first slot", series: Series(spans)),
            ],
            ratios: [
                Ratio(
                    of: "while one joins / undisturbed", series: Series([ratio]),
                    wanted: "at most 1.10", isMet: ratio <= 1.10),
                Ratio(
                    of: "disagreements after damaged transfers",
                    series: Series([Double(disagreements)]), wanted: "none",
                    isMet: disagreements == 0),
            ],
            notes: [
                "about \(stateBytes / 1000) kB of state a join",
                "\(flips) bits flipped on the joiners' links, \(damaged) damaged pieces refused; "
                    + "flips in ZeroMQ's own frames end the connection",
                "seed \(bench.seed)",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// Bytes that pass the proxy more while a trainer joins than while none does.
    private static func transferBytes(_ cluster: RigCluster, _ proxy: ChaosProxy) throws -> Int {
        let begun = (secondsSince1970(), proxy.counts.bytes)
        try cluster.wait(forSteps: 3)
        let perSecond = Double(proxy.counts.bytes - begun.1) / (secondsSince1970() - begun.0)
        let before = (secondsSince1970(), proxy.counts.bytes)
        let joiner = try cluster.startTrainer(patience: 60, group: ControlGroup(cores: 0.5))
        try cluster.wait(forTrainers: 3)
        let span = secondsSince1970() - before.0
        let extra = Double(proxy.counts.bytes - before.1) - perSecond * span
        joiner.process.send(SIGTERM)
        try joiner.process.wait(seconds: 60)
        cluster.forgetTheDead()
        return max(100_000, Int(extra))
    }
}

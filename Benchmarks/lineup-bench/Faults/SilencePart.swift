import Basics
import FaultRig
import Foundation
import Storage

extension Part {
    private static let silenceWhat =
        "four working trainers and one that stands by, slots of two seconds; one is halted, frozen "
        + "or cut off for 3.5 s at a random instant of its slot"

    /// R3: how long a silent trainer's work lies, and what it costs the step.
    static let faultsSilence = Part(
        name: "faults-silence", what: silenceWhat, obstacle: lacking([.quota])
    ) { bench in
        let start = ContinuousClock.now
        var random = bench.draws(3)
        let rounds = bench.rounds ?? 12
        let crops = try bench.crops(withSets: false)
        let proxy = ChaosProxy(seed: bench.seed)
        defer { proxy.stop() }
        let cluster = try bench.cluster(
            "silence", crops: crops, settings: endless(identities: 12, slots: 4),
            wiring: .proxied(proxy), expectedTrainers: 5)
        defer { cluster.end() }
        let freezes = Ability.freezer.obstacle == nil
        try cluster.startCoordinator()
        // Quick at first, so that loading does not take minutes.
        try cluster.startTrainers(5, cores: 0.5, freezes: freezes)
        try cluster.wait(forStep: 3)
        let unlimited = try slotSeconds(cluster)
        // A slot takes two seconds at this share.
        let cores = 0.5 * unlimited / 2
        for trainer in cluster.trainers { try trainer.group?.limit(cores: cores) }
        try cluster.wait(forSteps: 4)
        let slot = try slotSeconds(cluster)
        let kinds = freezes ? ["halted", "frozen", "cut off"] : ["halted", "cut off"]
        var released: [Double] = []
        var delays: [Double] = []
        var usualSteps: [Double] = []
        var unseen = 0
        while released.count + unseen < rounds {
            try cluster.wait(forTrainers: 4)
            try cluster.wait(forSteps: 2)
            let before = cluster.lastStep()
            let usual = Series.median(try cluster.seconds(ofSteps: before - 1...before))
            random.sleep(0...0.9 * slot)
            let kind = kinds[(released.count + unseen) % kinds.count]
            let workers = try cluster.contributors(ofStep: before)
            let victims = try cluster.trainers.filter {
                try cluster.name(of: $0).map(workers.contains) ?? false
            }
            let victim = victims[random.index(below: victims.count)]
            let name = try cluster.name(of: victim)!
            let struck = secondsSince1970()
            strike(kind, victim, proxy, isOn: true)
            let event = try cluster.event("leased_again", since: struck, within: 3.4) {
                $0.text.contains(name + " ")
            }
            usleep(UInt32(max(0, 3.5 - (secondsSince1970() - struck)) * 1e6))
            strike(kind, victim, proxy, isOn: false)
            try cluster.wait(forStep: before + 1)
            let hit = try cluster.ledger().steps(in: before + 1...before + 3)
                .first { $0.committed > struck }!
            let delay = try cluster.seconds(ofSteps: hit.step...hit.step)[0] - usual
            usualSteps.append(usual)
            guard let event else {
                unseen += 1
                say("\(kind): its slot was done already, or its step over")
                continue
            }
            released.append(event.time - struck)
            delays.append(delay / slot)
            say(
                String(
                    format: "%@: leased again after %.3f s, step later by %.2f slots of %.2f s",
                    kind, released.last!, delays.last!, slot))
        }
        guard !released.isEmpty else { throw BenchFailure("no strike hit a slot under way") }
        let expelled = try cluster.ledger().events().count {
            $0.kind == "worker_left" && $0.text.contains("silent")
        }
        let (lease, delay) = (Series(released), Series(delays))
        return Measurement(
            name: "faults-silence", what: silenceWhat, unit: "seconds, and slots",
            sides: [Side(name: "undisturbed step", series: Series(usualSteps))],
            ratios: [
                Ratio(
                    of: "until the work is leased again, s", series: lease,
                    wanted: "at most 1", isMet: lease.quantile(1) <= 1),
                Ratio(
                    of: "the step is later by, slots", series: delay, wanted: "at most 1.5",
                    isMet: delay.quantile(1) <= 1.5),
            ],
            notes: [
                "leased again: \(lease.spread)", "slots later: \(delay.spread)",
                String(format: "a slot takes %.2f s at %.3f core", slot, cores),
                "\(unseen) strikes hit nobody's slot; \(expelled) trainers were let go",
                "seed \(bench.seed)",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static func slotSeconds(_ cluster: RigCluster) throws -> Double {
        let last = cluster.lastStep()
        return Series.median(
            try cluster.ledger().miniBatches(in: last - 1...last).compactMap(\.seconds))
    }

    private static func strike(
        _ kind: String, _ victim: RigCluster.Worker, _ proxy: ChaosProxy, isOn: Bool
    ) {
        switch kind {
        case "halted": victim.process.send(isOn ? SIGSTOP : SIGCONT)
        case "frozen": victim.group?.freeze(isOn)
        default:
            for link in [victim.controlLink!, victim.dataLink!] {
                proxy.set(.init(isBlackhole: isOn), on: link)
            }
        }
    }

    private static let healthyWhat =
        "four trainers on two cores that two busy loops want as well; --rounds minutes"

    /// R3: nobody healthy is let go.
    static let faultsHealthy = Part(name: "faults-healthy", what: healthyWhat) { bench in
        let start = ContinuousClock.now
        let minutes = bench.rounds ?? 3
        let crops = try bench.crops(withSets: false)
        let cluster = try bench.cluster(
            "healthy", crops: crops, settings: endless(identities: 6, slots: 4),
            expectedTrainers: 4)
        defer { cluster.end() }
        try cluster.startCoordinator()
        for _ in 0..<4 { try cluster.startTrainer(patience: 60) }
        try cluster.wait(forStep: 5)
        let shell = URL(fileURLWithPath: "/bin/sh")
        let loops = try (0..<2).map { _ in
            try LineupProcess(["-c", "while :; do :; done"], executable: shell)
        }
        defer { for loop in loops { loop.killTree() } }
        let begun = secondsSince1970()
        let first = cluster.lastStep()
        while secondsSince1970() - begun < 60 * Double(minutes) {
            guard cluster.coordinator.isRunning else {
                throw BenchFailure(
                    "the coordinator ended: \(cluster.coordinator.errors.suffix(500))")
            }
            usleep(500_000)
        }
        let last = cluster.lastStep()
        let events = try cluster.ledger().events().filter { $0.time >= begun }
        let left = events.count { $0.kind == "worker_left" }
        let again = events.count { $0.kind == "leased_again" }
        return Measurement(
            name: "faults-healthy", what: healthyWhat, unit: "seconds",
            sides: [
                Side(name: "step", series: Series(try cluster.seconds(ofSteps: first + 1...last)))
            ],
            ratios: [
                Ratio(
                    of: "healthy trainers let go", series: Series([Double(left)]), wanted: "none",
                    isMet: left == 0)
            ], notes: ["\(minutes) minutes; \(again) slots went to a second trainer too"],
            seconds: (ContinuousClock.now - start).inSeconds)
    }
}

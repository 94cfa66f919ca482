import Basics
import FaultRig
import Foundation
import Storage

#if canImport(Glibc)
    import Glibc
#endif

extension Part {
    private static let goodputWhat =
        "eight trainers that sleep for most of a slot, through the proxy; --rounds minutes with a fault "
        + "every 5 s, 20 s without before and after each"

    /// R6: work done per second that a trainer lives, with faults beside without.
    static let faultsGoodput = Part(name: "faults-goodput", what: goodputWhat) { bench in
        let start = ContinuousClock.now
        let minutes = bench.rounds ?? 2
        let crops = try bench.crops(withSets: false)
        let slots = 160
        let proxy = ChaosProxy(seed: bench.seed)
        defer { proxy.stop() }
        let cluster = try bench.cluster(
            "goodput", crops: crops,
            settings: tiny(
                slots: slots,
                [
                    "batch.identities=2", "batch.images_per_identity=2",
                    "schedule.steps=1000000", "checkpoint.every_steps=0",
                    "checkpoint.recovery_seconds=60", "augmentation.flip=false",
                    "augmentation.crop=false",
                ]), wiring: .proxied(proxy), expectedTrainers: 8)
        defer { cluster.end() }
        try cluster.startCoordinator()
        let storm = try Storm(cluster, proxy, random: bench.draws(6))
        try cluster.wait(forTrainers: 8, seconds: 120)
        try cluster.wait(forSteps: 5)
        var calm = [try storm.calm(seconds: 30)]
        var struck: [Storm.Span] = []
        for minute in 1...minutes {
            struck.append(try storm.rage(seconds: 60))
            try storm.settle()
            calm.append(try storm.calm(seconds: 20))
            say(
                String(
                    format: "minute %d of %d: %.2f slots a second and trainer, %.2f without faults",
                    minute, minutes, struck.last!.rate(slots), calm.last!.rate(slots)))
        }
        // Each minute beside what was before and after it: the machine is not always equally fast.
        let bases = zip(calm, calm.dropFirst()).map { ($0.rate(slots) + $1.rate(slots)) / 2 }
        let ratios = Series(zip(struck, bases).map { $0.rate(slots) / $1 })
        let live = struck.reduce(0) { $0 + $1.liveSeconds }
        let lost = zip(struck, bases).reduce(0) { $0 + $1.0.liveSeconds - $1.0.work(slots) / $1.1 }
        let again = struck.reduce(0) { $0 + storm.recomputing($1) }
        let unseen = struck.reduce(0) { $0 + storm.detection($1) }
        func share(_ seconds: Double) -> String { String(format: "%.1f %%", 100 * seconds / live) }
        let fromHello = Series(
            zip(struck, bases).map { $0.work(slots) / $0.secondsFromHello / $1 })
        return Measurement(
            name: "faults-goodput", what: goodputWhat, unit: "slots a second and live trainer",
            sides: [
                Side(name: "without faults", series: Series(calm.map { $0.rate(slots) })),
                Side(
                    name: "with a fault every 5 s", series: Series(struck.map { $0.rate(slots) })),
                Side(
                    name: "seconds a step with faults",
                    series: Series(try struck.flatMap { try cluster.seconds(ofSteps: $0.steps) })),
            ],
            ratios: [
                Ratio(
                    of: "with / without", series: ratios, wanted: "at least 0.97",
                    isMet: ratios.median >= 0.97)
            ],
            notes: [
                "struck: \(storm.told)",
                String(format: "%.0f live trainer-seconds, %.0f lost: ", live, lost)
                    + "\(share(again)) recomputing, \(share(unseen)) detection, "
                    + "\(share(max(0, lost - again - unseen))) waiting",
                "\(try struck.reduce(0) { $0 + (try storm.slotsGivenAgain($1)) }) times a slot went to a "
                    + "second trainer too",
                "trainer-seconds lost a fault: "
                    + (try storm.losses(Array(zip(struck, bases)), slots: slots)),
                "a trainer lives from the first step that it computes in until it is struck, and "
                    + "again from the end of that",
                String(format: "counted from HELLO on: %.3f", fromHello.median),
                "seed \(bench.seed)",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }
}

/// Faults on a cluster, one every five seconds, and an account of who lived when.
private final class Storm {
    /// What was done in a span of time.
    struct Span {
        let steps: ClosedRange<Int>
        let begun: Double
        let ended: Double
        /// Seconds that trainers were members and not struck.
        let liveSeconds: Double
        /// The same from HELLO on.
        let secondsFromHello: Double

        func work(_ slots: Int) -> Double { Double(steps.count * slots) }
        func rate(_ slots: Int) -> Double { work(slots) / liveSeconds }
    }

    enum Fault: String, CaseIterable {
        case kill = "killed", halt = "halted", freeze = "frozen", reset = "reset"
        case partition = "cut off", slow = "slowed", join = "joined"
    }

    private struct Blow {
        let fault: Fault
        let at: Double
        var until: Double
        let name: String
    }

    private let cluster: RigCluster
    private let proxy: ChaosProxy
    private var random: CounterRandom
    private let freezes = Ability.freezer.obstacle == nil
    /// Seconds that a slot sleeps.
    private static let slotPause = 0.05
    /// Share of the time in which one that is slowed runs.
    private static let slowShare = 0.35
    private var blows: [Blow] = []
    private var names: [(worker: RigCluster.Worker, ended: Double?)] = []
    private var heals: [(at: Double, heal: () -> Void)] = []

    init(_ cluster: RigCluster, _ proxy: ChaosProxy, random: CounterRandom) throws {
        self.cluster = cluster
        self.proxy = proxy
        self.random = random
        for _ in 0..<8 { try start() }
    }

    private func start() throws {
        let worker = try cluster.startTrainer(
            patience: 60, slotPause: Self.slotPause,
            group: freezes ? ControlGroup(freezes: true) : nil)
        names.append((worker, nil))
    }

    func calm(seconds: Double) throws -> Span {
        try span(seconds: seconds) { _ in }
    }

    func rage(seconds: Double) throws -> Span {
        var next = secondsSince1970() + 5
        return try span(seconds: seconds) { now in
            if now >= next {
                next += 5
                try self.strike(at: now)
            }
        }
    }

    /// Ends every fault and waits until eight trainers work.
    func settle() throws {
        for (_, heal) in heals { heal() }
        heals = []
        try cluster.wait(forTrainers: 8, seconds: 120)
        while cluster.trainers.count > 8 {
            cluster.trainers[0].process.send(SIGTERM)
            try cluster.trainers[0].process.wait(seconds: 30)
            cluster.forgetTheDead()
        }
        try cluster.wait(forSteps: 3)
    }

    private func span(seconds: Double, each: (Double) throws -> Void) throws -> Span {
        let first = cluster.lastStep()
        let begun = try cluster.committed(first)
        while secondsSince1970() - begun < seconds {
            usleep(50_000)
            let now = secondsSince1970()
            for (at, heal) in heals where at <= now { heal() }
            heals.removeAll { $0.at <= now }
            try each(now)
            guard cluster.coordinator.isRunning else {
                throw BenchFailure(cluster.coordinator.errors.suffix(1_000).description)
            }
        }
        let last = cluster.lastStep()
        let ended = try cluster.committed(last)
        return Span(
            steps: first + 1...last, begun: begun, ended: ended,
            liveSeconds: live(try lives(), begun, ended),
            secondsFromHello: live(try lives(), begun, ended, fromHello: true))
    }

    private func strike(at now: Double) throws {
        cluster.forgetTheDead()
        let kinds = Fault.allCases.filter { $0 != .freeze || freezes }
        let fault = kinds[random.index(below: kinds.count)]
        let struck = Set(blows.filter { $0.until > now }.map(\.name))
        let working = try cluster.contributors(ofStep: cluster.lastStep())
        let able = try cluster.trainers.filter {
            guard let name = try cluster.name(of: $0) else { return false }
            return working.contains(name) && !struck.contains(name)
        }
        guard !able.isEmpty else { return }
        let victim = able[random.index(below: able.count)]
        let name = try cluster.name(of: victim)!
        let until = now + random.seconds(1...3)
        var end = until
        switch fault {
        case .kill:
            victim.process.killTree()
            names[names.firstIndex { $0.worker === victim }!].ended = now
            end = .infinity
            cluster.forgetTheDead()
            if cluster.trainers.count < 8 { try start() }
        case .halt:
            victim.process.send(SIGSTOP)
            heals.append((until, { victim.process.send(SIGCONT) }))
        case .freeze:
            victim.group?.freeze(true)
            heals.append((until, { victim.group?.freeze(false) }))
        case .reset:
            for link in [victim.controlLink!, victim.dataLink!] { proxy.strike(.reset, on: link) }
            end = now
        case .partition:
            for link in [victim.controlLink!, victim.dataLink!] {
                proxy.set(.init(isBlackhole: true), on: link)
                heals.append((until, { [proxy] in proxy.set(.init(), on: link) }))
            }
        case .slow:
            slow(victim.process, until: until)
        case .join:
            // A joiner, and later somebody leaves in good order.
            guard cluster.trainers.count < 9 else {
                victim.process.send(SIGTERM)
                names[names.firstIndex { $0.worker === victim }!].ended = now
                blows.append(Blow(fault: .join, at: now, until: now, name: name))
                return
            }
            try start()
            end = now
        }
        blows.append(Blow(fault: fault, at: now, until: end, name: name))
    }

    /// Halts a process most of the time.
    private func slow(_ process: LineupProcess, until: Double) {
        let identifier = process.identifier
        Thread.detachNewThread {
            while secondsSince1970() < until {
                kill(identifier, SIGSTOP)
                usleep(UInt32(40_000 * (1 - Self.slowShare)))
                kill(identifier, SIGCONT)
                usleep(UInt32(40_000 * Self.slowShare))
            }
        }
    }

    /// One trainer's life, seconds since 1970.
    private struct Life {
        let name: String
        let hello: Double
        /// Begin of the first step in which it took part.
        let work: Double
        let end: Double
    }

    private func lives() throws -> [Life] {
        let ledger = try cluster.ledger()
        let records = try ledger.workers().filter { $0.role == "trainer" }
        let commits = Dictionary(
            uniqueKeysWithValues: try ledger.steps().map { ($0.step, $0.committed) })
        var firstWork: [String: Double] = [:]
        for batch in try ledger.miniBatches() where firstWork[batch.worker] == nil {
            firstWork[batch.worker] = commits[batch.step - 1] ?? 0
        }
        return names.compactMap { worker, end in
            // Whoever came back has a row for each time.
            guard
                let record = records.first(where: {
                    $0.process == Int(worker.process.identifier)
                })
            else { return nil }
            return Life(
                name: record.worker, hello: record.joined,
                work: firstWork[record.worker] ?? .infinity, end: end ?? .infinity)
        }
    }

    /// Seconds in a span that trainers lived and were not struck, all together.
    private func live(
        _ lives: [Life], _ begun: Double, _ ended: Double, fromHello: Bool = false
    ) -> Double {
        var total = 0.0
        for life in lives {
            let low = max(begun, fromHello ? life.hello : life.work)
            let high = min(ended, life.end)
            guard high > low else { continue }
            total += high - low
            for blow in blows where blow.name == life.name && blow.fault != .kill {
                let overlap = min(high, blow.until) - max(low, blow.at)
                let share = blow.fault == .slow ? 1 - Self.slowShare : 1
                if overlap > 0 { total -= overlap * share }
            }
        }
        return total
    }

    /// Second leases in a span.
    func slotsGivenAgain(_ span: Span) throws -> Int {
        try cluster.ledger().events().count {
            $0.kind == "leased_again" && $0.time > span.begun && $0.time < span.ended
        }
    }

    /// Trainer-seconds lost to each kind of fault: of every step, what its trainers lived less what
    /// its slots take at the rate beside it, put down to the fault before its commit.
    func losses(_ spans: [(Span, rate: Double)], slots: Int) throws -> String {
        let lives = try lives()
        var lost: [Fault: Double] = [:]
        var counts: [Fault: Int] = [:]
        for (span, rate) in spans {
            var before = span.begun
            for step in try cluster.ledger().steps(in: span.steps) {
                let waste = live(lives, before, step.committed) - Double(slots) / rate
                if let blow = blows.last(where: { $0.at < step.committed }) {
                    lost[blow.fault, default: 0] += waste
                }
                before = step.committed
            }
            for blow in blows where blow.at > span.begun && blow.at < span.ended {
                counts[blow.fault, default: 0] += 1
            }
        }
        return Fault.allCases.compactMap { fault in
            guard let count = counts[fault], let seconds = lost[fault] else { return nil }
            return String(format: "%@ %.1f", fault.rawValue, seconds / Double(count))
        }.joined(separator: ", ")
    }

    /// Trainer-seconds that went into slots which were leased before.
    func recomputing(_ span: Span) -> Double {
        let batches = (try? cluster.ledger().miniBatches(in: span.steps)) ?? []
        return batches.filter { $0.attempt > 0 }.reduce(0) { $0 + ($1.seconds ?? 0) }
    }

    /// Trainer-seconds that the others waited for work to be leased again: from when the step should
    /// have been over to the lease.
    func detection(_ span: Span) -> Double {
        guard let ledger = try? cluster.ledger(), let steps = try? ledger.steps(in: span.steps),
            let seconds = try? cluster.seconds(ofSteps: span.steps),
            let events = try? ledger.events()
        else { return 0 }
        let usual = Series.median(seconds)
        var total = 0.0
        for (place, step) in steps.enumerated() {
            let begun = step.committed - seconds[place]
            let first = events.first {
                ($0.kind == "leased_again" || $0.kind == "worker_left") && $0.time > begun
                    && $0.time < step.committed
            }
            if let first { total += max(0, first.time - begun - usual) * 7 }
        }
        return total
    }

    var told: String {
        Fault.allCases.map { fault in
            "\(blows.count { $0.fault == fault }) \(fault.rawValue)"
        }.joined(separator: ", ")
    }
}

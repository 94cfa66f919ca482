import Basics
import FaultRig
import Foundation
import Storage
import Testing

/// One real run on which faults rain from a seed, until most of its steps are committed.
final class ChaosRun {
    /// What may be done to a running cluster.
    enum Strike: String, CaseIterable {
        case killTrainer = "trainers killed"
        case killEvaluator = "evaluators killed"
        case killCoordinator = "coordinators killed"
        case haltTrainer = "trainers halted"
        case haltCoordinator = "coordinators halted"
        case join = "trainers joined"
        case drain = "trainers asked to leave"
        case killAll = "everything killed"
        case freezeTrainer = "trainers frozen"
        case slowTrainer = "trainers slowed to a fifth of a core"
        case fillDisk = "full disks"
        case cable = "cables pulled"
        case blackhole = "blackholes"
        case reset = "resets"
        case narrow = "narrow links"
        case delay = "delays with jitter"
        case drip = "slow drips"
        case corruption = "links that flip bits"
        case halfOpen = "half-open connections"
        case cut = "cuts in mid-frame"
    }

    /// What was done, and how long it took.
    struct Report {
        var strikes: [Strike: Int] = [:]
        /// Seconds from the start of a coordinator to the next commit.
        var comebacks: [Double] = []
        var slotsComputedTwice = 0
        var timesRedone = 0
        var flippedBits = 0

        static func + (left: Report, right: Report) -> Report {
            Report(
                strikes: left.strikes.merging(right.strikes, uniquingKeysWith: +),
                comebacks: left.comebacks + right.comebacks,
                slotsComputedTwice: left.slotsComputedTwice + right.slotsComputedTwice,
                timesRedone: left.timesRedone + right.timesRedone,
                flippedBits: left.flippedBits + right.flippedBits)
        }
    }

    static let steps = 80
    /// The means that this machine has.
    private static let abilities = Set(Ability.allCases.filter { $0.obstacle == nil })

    let cluster: RigCluster
    /// Whether an evaluator scores every checkpoint.
    let hasEvaluator: Bool
    private let strikes: [Strike]
    private let disk: SmallDisk?
    private let proxy: ChaosProxy?
    private var random: CounterRandom
    private var heals: [(until: Date, heal: () -> Void)] = []
    private var isComingBack = false
    private var report = Report()

    /// Prepares the schedule of a number.
    ///
    /// Every fourth runs as on one machine, every fourth on nodes of their own where that is possible, the
    /// others through a proxy; every fifth on a small disk. Of groups of four that follow one another every
    /// second has an evaluator, every third keys, and every fifth audits.
    init(seed: UInt64) throws {
        random = CounterRandom(seed: seed, step: 7, purpose: .audit)
        var folder = LocalRun.folder("chaos-\(seed)")
        let four = seed / 4
        hasEvaluator = four % 2 == 1
        var strikes = Strike.allCases.prefix { $0 != .freezeTrainer }
        if !hasEvaluator { strikes.removeAll { $0 == .killEvaluator } }
        if Self.abilities.contains(.freezer) { strikes.append(.freezeTrainer) }
        if Self.abilities.contains(.quota) { strikes.append(.slowTrainer) }
        if seed % 5 == 4, Self.abilities.contains(.smallDisk) {
            disk = try SmallDisk(folder, kilobytes: 24_000)
            folder += "/run"
            strikes.append(.fillDisk)
        } else {
            disk = nil
        }
        let wiring: RigCluster.Wiring
        switch seed % 4 {
        case 0:
            wiring = .plain
            proxy = nil
        case 3 where Self.abilities.contains(.network):
            wiring = .nodes(try VirtualNetwork())
            proxy = nil
            strikes += [.cable, .blackhole]
            if Self.abilities.contains(.narrow) { strikes.append(.narrow) }
            if Self.abilities.contains(.reset) { strikes.append(.reset) }
        default:
            let made = ChaosProxy(seed: seed)
            wiring = .proxied(made)
            proxy = made
            strikes += [
                .blackhole, .reset, .narrow, .delay, .drip, .corruption, .halfOpen, .cut,
            ]
        }
        self.strikes = Array(strikes)
        let audits = four % 5 == 2 ? ["audit_fraction=0.3"] : []
        cluster = try RigCluster(
            lineup: LineupProcess.executable(), folder: folder,
            settings: LocalRun.values(steps: Self.steps, every: 25) + audits, wiring: wiring,
            expectedEvaluators: hasEvaluator ? 1 : 0,
            keys: four % 3 == 1 ? LocalRun.folder("chaos-keys-\(seed)") : nil)
    }

    var folder: String { cluster.folder }

    /// Ends what is left of it.
    func remove() {
        cluster.end()
        proxy?.stop()
        disk?.remove()
        try? FileManager.default.removeItem(atPath: disk?.path ?? folder)
    }

    /// Runs to the end.
    ///
    /// - Returns: nil when the run did not come to its end; an issue is recorded.
    func run() throws -> Report? {
        try cluster.startCoordinator()
        for _ in 0..<1 + random.index(below: 3) { try startTrainer() }
        try startEvaluatorIfMissing()
        let deadline = Date().addingTimeInterval(150)
        var nextStrike = Date().addingTimeInterval(1)
        while Date() < deadline {
            usleep(15_000)
            heal(all: false)
            let step = cluster.lastStep()
            try noteComeback(step)
            if !cluster.coordinator.isRunning {
                let coordinator = cluster.coordinator!
                guard try coordinator.wait() == 0 else {
                    Issue.record("the coordinator ended: \(coordinator.errors.suffix(3_000))")
                    return nil
                }
                return try finished()
            }
            if step > Self.steps * 8 / 10 {
                heal(all: true)
                if cluster.trainers.allSatisfy({ !$0.isRunning }) { try startTrainer() }
                try startEvaluatorIfMissing()
            } else if Date() > nextStrike {
                nextStrike = Date().addingTimeInterval(
                    0.05 + 0.01 * Double(random.index(below: 60)))
                try strike()
            }
        }
        Issue.record(
            """
            the run did not end within 150 s, step \(cluster.lastStep()) of \(Self.steps); \
            \(report.strikes); coordinator: \(cluster.coordinator.errors.suffix(2_000))
            trainers: \(cluster.trainers.filter(\.isRunning).map { $0.process.errors.suffix(500) })
            """)
        return nil
    }

    private func startEvaluatorIfMissing() throws {
        cluster.forgetTheDead()
        guard hasEvaluator, cluster.evaluators.isEmpty, cluster.coordinator.isRunning else {
            return
        }
        try unlessOver { try cluster.startEvaluator() }
    }

    private func startTrainer() throws {
        let needsGroup = strikes.contains(.freezeTrainer) || strikes.contains(.slowTrainer)
        let group =
            needsGroup
            ? try ControlGroup(
                cores: strikes.contains(.slowTrainer) ? 8 : nil,
                freezes: strikes.contains(.freezeTrainer)) : nil
        try unlessOver { try cluster.startTrainer(group: group) }
    }

    /// Starts a worker; the run may just have ended, and how is looked at elsewhere.
    private func unlessOver(_ start: () throws -> Void) throws {
        do {
            try start()
        } catch let error as RigError {
            guard !cluster.coordinator.isRunning else { throw error }
        }
    }

    private func strike() throws {
        cluster.forgetTheDead()
        guard let strike = strikes.randomElement(using: &random) else { return }
        let victim = cluster.trainers.randomElement(using: &random)
        let seconds = 0.2 + 0.01 * Double(random.index(below: 300))
        switch strike {
        case .killTrainer:
            victim?.process.killTree()
            cluster.forgetTheDead()
            if cluster.trainers.count < 3 { try startTrainer() }
        case .killEvaluator:
            cluster.evaluators.first?.process.killTree()
            try startEvaluatorIfMissing()
        case .killCoordinator:
            cluster.coordinator.killTree()
            try comeBack()
        case .haltTrainer: if let victim { halt(victim.process, seconds: seconds) }
        case .haltCoordinator: halt(cluster.coordinator, seconds: seconds * 0.7)
        case .join:
            guard cluster.trainers.count < 4 else { return }
            try startTrainer()
        case .drain:
            guard cluster.trainers.count > 1 else { return }
            victim?.process.send(SIGTERM)
        case .killAll:
            cluster.killAll()
            try comeBack()
            for _ in 0..<2 { try startTrainer() }
            try startEvaluatorIfMissing()
        case .freezeTrainer:
            guard let group = victim?.group else { return }
            group.freeze(true)
            later(seconds) { group.freeze(false) }
        case .slowTrainer:
            guard let group = victim?.group else { return }
            try group.limit(cores: 0.2)
            later(3 * seconds) { try? group.limit(cores: 8) }
        case .fillDisk: try fillDisk()
        default:
            guard let victim, strikeNetwork(strike, victim, seconds: seconds) else { return }
        }
        report.strikes[strike, default: 0] += 1
    }

    private func comeBack() throws {
        isComingBack = true
        try cluster.startCoordinator()
    }

    private func halt(_ process: LineupProcess, seconds: Double) {
        process.send(SIGSTOP)
        later(seconds) { process.send(SIGCONT) }
    }

    private func later(_ seconds: Double, _ heal: @escaping () -> Void) {
        heals.append((Date().addingTimeInterval(seconds), heal))
    }

    private func heal(all: Bool) {
        for (until, heal) in heals where all || Date() > until { heal() }
        heals.removeAll { all || Date() > $0.until }
    }

    /// The ledger cannot be written: the run ends, and goes on when there is room.
    private func fillDisk() throws {
        heal(all: true)
        disk!.fill()
        defer { disk!.relieve() }
        let deadline = Date().addingTimeInterval(5)
        while cluster.coordinator.isRunning, Date() < deadline { usleep(20_000) }
        guard !cluster.coordinator.isRunning else { return }
        let code = try cluster.coordinator.wait()
        guard code == 1, cluster.coordinator.errors.contains("make room") else {
            throw RigError("a full disk gave \(code): \(cluster.coordinator.errors.suffix(1_000))")
        }
        disk!.relieve()
        cluster.killAll()
        try comeBack()
        for _ in 0..<2 { try startTrainer() }
        try startEvaluatorIfMissing()
    }

    private func strikeNetwork(
        _ strike: Strike, _ victim: RigCluster.Worker, seconds: Double
    ) -> Bool {
        if let node = victim.node, let head = cluster.coordinatorNode {
            let cluster = cluster
            later(seconds) { cluster.heal(node) }
            return switch strike {
            case .cable: node.setLink(up: false)
            case .blackhole: node.setBlackhole(to: head, true)
            case .reset: node.resetConnections()
            default: node.limit(kilobitsPerSecond: 800)
            }
        }
        if let proxy {
            let links = [victim.controlLink, victim.dataLink, cluster.bulkLink].compactMap(\.self)
            let link = links[random.index(below: links.count)]
            var conditions = ChaosProxy.Conditions()
            switch strike {
            case .blackhole: conditions.isBlackhole = true
            case .narrow: conditions.bytesPerSecond = 100_000
            case .delay:
                conditions.delay = .milliseconds(40)
                conditions.jitter = .milliseconds(120)
            case .drip: conditions.dripBytes = 200
            case .corruption: conditions.bytesPerFlip = 20_000
            case .halfOpen:
                proxy.strike(.halfOpen, on: link)
                return true
            case .cut:
                proxy.strike(.cut(afterBytes: random.index(below: 100_000)), on: link)
                return true
            default:
                proxy.strike(.reset, on: link)
                return true
            }
            proxy.set(conditions, on: link)
            later(seconds) { proxy.set(.init(), on: link) }
        }
        return proxy != nil
    }

    /// The first commit of a coordinator that was started again.
    private func noteComeback(_ last: Int) throws {
        guard isComingBack, heals.isEmpty, last > 0 else { return }
        let start = cluster.coordinatorStartedAt.timeIntervalSince1970
        guard let step = try cluster.ledger().steps(in: last...last).first, step.committed > start
        else { return }
        isComingBack = false
        report.comebacks.append(step.committed - start)
    }

    private func finished() throws -> Report {
        heal(all: true)
        for trainer in cluster.trainers {
            let code = try trainer.process.wait(seconds: 60)
            // One that was away finds the run over; one that was asked to leave says so, unless it was
            // asked before it could hear it.
            let isUnstarted = code == SIGTERM && trainer.process.errors.isEmpty
            #expect(
                [0, 75].contains(code) || isUnstarted
                    || trainer.process.errors.contains("no coordinator"),
                "a trainer ended with \(code): \(trainer.process.errors.suffix(500))")
        }
        let ledger = try cluster.ledger()
        report.slotsComputedTwice = try ledger.miniBatches().count { $0.attempt > 0 }
        report.timesRedone = try ledger.events().count { $0.kind == "redo" }
        report.flippedBits = proxy?.counts.flippedBits ?? 0
        return report
    }
}

import Basics
import FaultRig
import Foundation
import Storage

extension Part {
    /// What the fault parts need of a machine.
    static func lacking(_ abilities: [Ability]) -> @Sendable (Bench) -> String? {
        { _ in
            let lines = abilities.compactMap { ability in
                ability.obstacle.map { "\(ability.rawValue): \($0)" }
            }
            return lines.isEmpty ? nil : "needs " + lines.joined(separator: "; ")
        }
    }

    /// `basic` at 64x64 with K 4, on a schedule without an end.
    static func endless(identities: Int, slots: Int, _ more: [String] = []) -> [String] {
        settings([
            "network.backbone=basic", "batch.identities=\(identities)",
            "batch.images_per_identity=4", "batch.mini_batches_per_step=\(slots)",
            "schedule.steps=1000000", "checkpoint.every_steps=0", "checkpoint.recovery_seconds=0",
        ]) + more
    }

    /// `basic` at 32x32 with eight channels: steps of some hundredths of a second.
    static func tiny(slots: Int = 4, _ more: [String]) -> [String] {
        [
            "network.backbone=basic", "network.channels=8", "network.embedding_dim=16",
            "input.height=32", "input.width=32", "augmentation.crop_from_height=36",
            "augmentation.crop_from_width=36", "batch.identities=4",
            "batch.images_per_identity=4", "batch.mini_batches_per_step=\(slots)",
            "loss.name=batch_all", "loss.margin=0.5",
        ] + more
    }
}

extension Bench {
    /// A cluster to be struck.
    func cluster(
        _ name: String, crops: String, settings: [String], wiring: RigCluster.Wiring = .plain,
        expectedTrainers: Int, coordinatorGroup: ControlGroup? = nil
    ) throws -> RigCluster {
        try RigCluster(
            lineup: URL(fileURLWithPath: lineup), folder: folder + "/" + name,
            settings: settings + ["data.root=\(crops)"], wiring: wiring,
            expectedTrainers: expectedTrainers, coordinatorGroup: coordinatorGroup)
    }

    /// What a part draws from its seed.
    func draws(_ part: UInt64) -> CounterRandom {
        CounterRandom(seed: seed, step: part, purpose: .audit)
    }
}

extension RigCluster {
    /// Seconds from commit to commit, by step, of a range that begins after the first step.
    func seconds(ofSteps range: ClosedRange<Int>) throws -> [Double] {
        let committed = try ledger().steps(in: range.lowerBound - 1...range.upperBound)
            .map(\.committed)
        return zip(committed.dropFirst(), committed).map { $0 - $1 }
    }

    /// When a step was committed, seconds since 1970.
    func committed(_ step: Int) throws -> Double {
        guard let found = try ledger().steps(in: step...step).first else {
            throw BenchFailure("step \(step) is not in the ledger")
        }
        return found.committed
    }

    /// Waits until some more steps are committed.
    func wait(forSteps count: Int, seconds: Double = 120) throws {
        try wait(forStep: lastStep() + count, seconds: seconds)
    }

    /// Starts several trainers, each in a group of its own.
    func startTrainers(_ count: Int, cores: Double, freezes: Bool = false) throws {
        for _ in 0..<count {
            try startTrainer(
                patience: 60, group: ControlGroup(cores: cores, freezes: freezes))
        }
    }

    /// Events of a kind since a time, oldest first.
    func events(_ kind: String, since time: Double) throws -> [EventRecord] {
        try ledger().events(last: 400).filter { $0.kind == kind && $0.time >= time }
    }

    /// Name in the cluster of a process.
    func name(of worker: Worker) throws -> String? {
        try ledger().workers().last { $0.process == Int(worker.process.identifier) }?.worker
    }

    /// Waits for an event, some seconds at most.
    func event(
        _ kind: String, since time: Double, within seconds: Double,
        where matches: (EventRecord) -> Bool = { _ in true }
    ) throws -> EventRecord? {
        let deadline = Date().addingTimeInterval(seconds)
        while true {
            if let found = try events(kind, since: time).first(where: matches) { return found }
            guard Date() < deadline else { return nil }
            usleep(20_000)
        }
    }
}

extension Series {
    /// The value below which a share of the others lies.
    func quantile(_ share: Double) -> Double {
        let sorted = values.sorted()
        return sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
    }

    /// Median, 99 % and the largest.
    var spread: String {
        String(
            format: "p50 %.3f, p90 %.3f, p99 %.3f, largest %.3f of %d", median, quantile(0.9),
            quantile(0.99), quantile(1), values.count)
    }
}

extension CounterRandom {
    /// A number of seconds in a range.
    mutating func seconds(_ range: ClosedRange<Double>) -> Double {
        range.lowerBound + uniform() * (range.upperBound - range.lowerBound)
    }

    mutating func sleep(_ range: ClosedRange<Double>) {
        usleep(UInt32(1e6 * seconds(range)))
    }
}

/// Now, as the ledger counts it.
func secondsSince1970() -> Double { Date().timeIntervalSince1970 }

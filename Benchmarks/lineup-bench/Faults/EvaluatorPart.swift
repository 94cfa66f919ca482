import FaultRig
import Foundation
import Storage

extension Part {
    private static let evaluatorWhat =
        "two trainers on 0.4 core each and a checkpoint every forty steps; evaluators on 0.5 core that "
        + "are killed --rounds times, and one to four of them side by side"

    /// R10: when scores begin, what becomes of them when evaluators die, what they cost training.
    static let faultsEvaluators = Part(
        name: "faults-evaluators", what: evaluatorWhat, obstacle: lacking([.quota])
    ) { bench in
        let start = ContinuousClock.now
        let rounds = bench.rounds ?? 12
        var random = bench.draws(10)
        let crops = try bench.crops(withSets: true)
        // Alone and watched by turns, so that a drift of the machine cancels.
        let cluster = try launch(bench, "scored", crops, steps: 1_000_000)
        defer { cluster.end() }
        var alone: [Double] = []
        var watched: [Double] = []
        for _ in 0..<3 {
            alone += try window(cluster)
            let evaluator = try cluster.startEvaluator(group: ControlGroup(cores: 0.5))
            // Loading is over once a row is there.
            try waitForRows(cluster)
            watched += try window(cluster)
            evaluator.process.killTree()
            cluster.forgetTheDead()
        }
        let slow = Series.median(watched) / Series.median(alone)
        var killed = 0
        var evaluator = try cluster.startEvaluator(group: ControlGroup(cores: 0.5))
        while killed < rounds {
            random.sleep(1...5)
            evaluator.process.killTree()
            killed += 1
            cluster.forgetTheDead()
            evaluator = try cluster.startEvaluator(group: ControlGroup(cores: 0.5))
            say("evaluator \(killed) of \(rounds) killed")
        }
        try waitForRows(cluster)
        // One is left alone until it has caught up and waits for the next few.
        try cluster.wait(forSteps: 240)
        let latencies = try firstScores(cluster)
        guard !latencies.isEmpty else {
            throw BenchFailure("no checkpoint became durable while an evaluator waited")
        }
        let differing = try cluster.ledger().events().count {
            $0.severity == .error || $0.kind == "evaluation_refused"
        }
        let rows = try cluster.ledger().evaluations()
        let sets = Dictionary(grouping: rows) { "\($0.step) \($0.set)" }
        let metrics = Set(rows.map(\.metric)).count
        let isOnce = sets.values.allSatisfy { $0.count == metrics }
        cluster.end()
        let bits = try (1...4).map { try digest(bench, crops, evaluators: $0) }
        let first = Series(latencies.map(\.start))
        let overlap = latencies.count { $0.isTogether }
        return Measurement(
            name: "faults-evaluators", what: evaluatorWhat, unit: "seconds",
            sides: [
                Side(name: "step, nobody scores", series: Series(alone)),
                Side(name: "step, an evaluator scores", series: Series(watched)),
            ],
            ratios: [
                Ratio(
                    of: "scored / alone", series: Series([slow]), wanted: "at most 1.05",
                    isMet: slow <= 1.05),
                Ratio(
                    of: "durable to first image, idle evaluator", series: first,
                    wanted: "at most 0.1", isMet: first.median <= 0.1),
            ],
            notes: [
                "durable to first image: \(first.spread)",
                "three sets at once: \(overlap) of \(latencies.count) checkpoints",
                "\(killed) evaluators killed: \(sets.count) scores of a set, each "
                    + (isOnce ? "once" : "NOT ONCE") + ", \(differing) errors",
                "results with 1, 2, 3 and 4 evaluators: "
                    + (Set(bits).count == 1 ? "equal" : "DIFFER \(bits)"),
                "seed \(bench.seed)",
            ], seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static func launch(
        _ bench: Bench, _ name: String, _ crops: String, steps: Int
    ) throws -> RigCluster {
        let cluster = try bench.cluster(
            name, crops: crops,
            settings: settings([
                "network.backbone=basic", "network.channels=16", "input.height=32",
                "input.width=32", "augmentation.crop_from_height=36",
                "augmentation.crop_from_width=36", "batch.identities=8",
                "batch.images_per_identity=4", "batch.mini_batches_per_step=4",
                "schedule.steps=\(steps)", "checkpoint.every_steps=40",
                "checkpoint.recovery_seconds=0",
            ]), expectedTrainers: 2)
        try cluster.startCoordinator()
        try cluster.startTrainers(2, cores: 0.4)
        return cluster
    }

    private static func window(_ cluster: RigCluster) throws -> [Double] {
        try cluster.wait(forSteps: 2)
        let first = cluster.lastStep()
        try cluster.wait(forSteps: 30)
        return try cluster.seconds(ofSteps: first + 1...first + 30)
    }

    private static func waitForRows(_ cluster: RigCluster) throws {
        let now = secondsSince1970()
        let deadline = now + 60
        while try !cluster.ledger().evaluations().contains(where: { $0.finished > now }) {
            guard secondsSince1970() < deadline else { throw BenchFailure("nobody scores") }
            usleep(50_000)
        }
    }

    /// For checkpoints that became durable while the evaluator had nothing to do: seconds until the
    /// first image, and whether the sets ran side by side.
    private static func firstScores(
        _ cluster: RigCluster
    ) throws -> [(start: Double, isTogether: Bool)] {
        let rows = try cluster.ledger().evaluations()
        let checkpoints = try cluster.ledger().checkpoints()
        let busy = Dictionary(grouping: rows, by: \.step).mapValues {
            ($0.map(\.started).min()!, $0.map(\.finished).max()!)
        }
        let workers = try cluster.ledger().workers().filter { $0.role == "evaluator" }
        return checkpoints.compactMap { checkpoint -> (start: Double, isTogether: Bool)? in
            guard let (started, _) = busy[checkpoint.step] else { return nil }
            let wasIdle = busy.allSatisfy { step, span in
                step >= checkpoint.step || span.1 < checkpoint.written
            }
            // Ready for long enough to have asked.
            let name = rows.first { $0.step == checkpoint.step }!.evaluator
            let worker = workers.last { $0.worker == name }
            let firstRow = rows.filter { $0.evaluator == name }.map(\.finished).min()!
            guard wasIdle, worker != nil, firstRow < checkpoint.written else { return nil }
            let own = rows.filter { $0.step == checkpoint.step }
            return (
                started - checkpoint.written,
                own.map(\.started).max()! < own.map(\.finished).min()!
            )
        }
    }

    /// Digest of every result of a short run, scored by so many evaluators.
    private static func digest(
        _ bench: Bench, _ crops: String, evaluators: Int
    ) throws -> String {
        let cluster = try launch(bench, "with-\(evaluators)", crops, steps: 80)
        defer { cluster.end() }
        for _ in 0..<evaluators { try cluster.startEvaluator() }
        guard try cluster.coordinator.wait(seconds: 180) == 0 else {
            throw BenchFailure(cluster.coordinator.errors.suffix(1_000).description)
        }
        return try cluster.ledgerDigest()
    }
}

import EvalWorker
import Foundation
import Settings
import Storage
import Synchronization

extension Part {
    static let evaluation = Part(
        name: "evaluation", what: evaluationWhat, measure: measureEvaluation)

    private static let evaluationWhat =
        "basic at 64x64: three sets of 1000 images on one checkpoint, side by side and one after "
        + "another, one thread each, images decoded anew"

    @Sendable
    private static func measureEvaluation(_ bench: Bench) throws -> Measurement {
        let start = ContinuousClock.now
        let crops = try bench.crops(withSets: true)
        let overrides = settings(["network.backbone=basic", "data.root=\(crops)"])
        let outcome = try Cluster(
            lineup: bench.lineup, folder: bench.folder + "/scored", dataRoot: crops,
            overrides: overrides + ["schedule.steps=1"], trainers: [(nil, 1)],
            coordinatorCores: nil, keepsFolder: true
        ).run()
        let scorer = try EvaluationSetup(
            settings: try .resolve(paramsJSON: nil, overrides: overrides), cacheBytesMax: 0
        ).checkpointScorer()
        let checkpoint = try CheckpointReader(path: outcome.checkpoint)
        let rounds = bench.rounds ?? 9
        _ = try score(scorer, checkpoint, concurrently: true)
        var together: [Double] = []
        var apart: [Double] = []
        for round in 0..<rounds {
            for isTogether in round % 2 == 0 ? [true, false] : [false, true] {
                let results = try score(scorer, checkpoint, concurrently: isTogether)
                if isTogether {
                    let span = results.map(\.finished).max()! - results.map(\.started).min()!
                    together.append(span)
                } else {
                    apart.append(results.reduce(0) { $0 + $1.finished - $1.started })
                }
            }
            say("evaluation round \(round + 1) of \(rounds)")
        }
        let ratio = Series(zip(together, apart).map { $0 / $1 })
        return Measurement(
            name: "evaluation", what: evaluationWhat, unit: "seconds",
            sides: [
                Side(name: "side by side, first to last image", series: Series(together)),
                Side(name: "sum of the three, one by one", series: Series(apart)),
            ],
            ratios: [
                Ratio(
                    of: "side by side / sum", series: ratio, wanted: "at most 0.75",
                    isMet: ratio.median <= 0.75)
            ], notes: [], seconds: (ContinuousClock.now - start).inSeconds)
    }

    private static func score(
        _ scorer: CheckpointScorer, _ checkpoint: CheckpointReader, concurrently: Bool
    ) throws -> [SetResult] {
        let outcomes = Mutex<[Result<SetResult, any Error>]>([])
        scorer.score(checkpoint, sets: scorer.sets.map(\.name), concurrently: concurrently) {
            _, outcome in outcomes.withLock { $0.append(outcome) }
        }
        return try outcomes.withLock { $0 }.map { try $0.get() }
    }
}

import FaultRig
import Foundation

extension Part {
    private static let stallWhat =
        "ResNet-50 at 128x64 and one trainer: a checkpoint at every second step beside none"

    /// R9: what a checkpoint costs training where there is one every 50 steps.
    static let checkpointStall = Part(name: "faults-checkpoint", what: stallWhat) { bench in
        let start = ContinuousClock.now
        let rounds = bench.rounds ?? 7
        let crops = try bench.crops(withSets: false)
        let cluster = try bench.cluster(
            "checkpoint", crops: crops,
            settings: resNet + [
                "schedule.steps=1000000", "checkpoint.every_steps=4",
                "checkpoint.recovery_seconds=0",
            ], expectedTrainers: 1)
        defer { cluster.end() }
        try cluster.startCoordinator()
        try cluster.startTrainer(slotsAtOnce: bench.parallelSlots(of: 4))
        try cluster.wait(forStep: 4, seconds: 180)
        var stalls: [Double] = []
        var steps: [Double] = []
        for round in 1...rounds {
            try cluster.wait(forStep: 4 * (round + 1), seconds: 180)
            // The checkpoint is copied, sent and stored in the first two steps after it.
            let four = try cluster.seconds(ofSteps: 4 * round + 1...4 * round + 4)
            stalls.append(four[0] + four[1] - four[2] - four[3])
            steps.append((four[2] + four[3]) / 2)
            say(String(format: "round %d of %d: %.2f s more", round, rounds, stalls.last!))
        }
        let shares = Series(zip(stalls, steps).map { $0 / (50 * $1) })
        return Measurement(
            name: "faults-checkpoint", what: stallWhat, unit: "seconds",
            sides: [
                Side(name: "step", series: Series(steps)),
                Side(name: "a checkpoint adds", series: Series(stalls)),
            ],
            ratios: [
                Ratio(
                    of: "share of 50 steps", series: shares, wanted: "at most 0.02",
                    isMet: shares.median <= 0.02)
            ], notes: [], seconds: (ContinuousClock.now - start).inSeconds)
    }
}

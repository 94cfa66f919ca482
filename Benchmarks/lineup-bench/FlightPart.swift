import ClusterCore
import Flight
import Foundation
import Protocol

extension Part {
    static let flight = Part(name: "flight", what: flightWhat, measure: measureFlight)

    private static let flightWhat =
        "what the flight record adds to a message: PROGRESS to a coordinator of 16 trainers, recorded "
        + "and not"
    private static let messages = 200_000

    @Sendable
    private static func measureFlight(_ bench: Bench) throws -> Measurement {
        let start = ContinuousClock.now
        var recorded: [Double] = []
        var bare: [Double] = []
        for round in 0..<(bench.rounds ?? 9) {
            for isRecorded in round % 2 == 0 ? [true, false] : [false, true] {
                let microseconds = tellAll(isRecorded ? bench.folder + "/flight-\(round)/c" : nil)
                if isRecorded { recorded.append(microseconds) } else { bare.append(microseconds) }
            }
        }
        let added = Series(zip(recorded, bare).map { $0 - $1 })
        return Measurement(
            name: "flight", what: flightWhat, unit: "microseconds a message",
            sides: [
                Side(name: "recorded", series: Series(recorded)),
                Side(name: "not recorded", series: Series(bare)),
            ],
            ratios: [Ratio(of: "recorded - not", series: added, wanted: nil, isMet: nil)],
            notes: [], seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// Microseconds a message.
    private static func tellAll(_ path: String?) -> Double {
        var machine = CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 16, totalSteps: 100, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: [], evaluationTimeout: .seconds(1),
                expectedTrainers: 17, lineupVersion: "bench"),
            source: NoSamples(),
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:]))
        let names = (0..<16).map { "trainer-\($0)" }
        for name in names {
            var hello = WireHello()
            hello.worker = name
            hello.role = .trainer
            hello.lineupVersion = "bench"
            _ = machine.handle(.received(.hello(hello), from: name), now: .zero)
        }
        var progress = WireProgress()
        progress.phase = "computing"
        progress.step = 17
        progress.slotsLeased = 4
        let recorder = path.map {
            FlightRecorder<CoordinatorStateMachine>(path: $0, bytes: 4 << 20)
        }
        let begun = ContinuousClock.now
        for number in 0..<messages {
            progress.counter = UInt64(number)
            let input = CoordinatorInput.received(.progress(progress), from: names[number % 16])
            let now = Duration.microseconds(number)
            if let recorder {
                _ = recorder.tell(input, now: now, machine: &machine)
            } else {
                _ = machine.handle(input, now: now)
            }
        }
        let microseconds = (ContinuousClock.now - begun).inSeconds * 1e6 / Double(messages)
        _ = recorder?.close(keep: false)
        return microseconds
    }
}

private struct NoSamples: StepSource {
    func samples(step: Int) -> WireStepSamples { WireStepSamples() }
    func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
}

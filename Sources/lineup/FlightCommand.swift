import ArgumentParser
import Basics
import ClusterCore
import Flight
import Foundation

/// `lineup flight`: what a process was told last, and what it makes of it now.
struct FlightCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flight",
        abstract: "Show a flight record and tell it to the state machine again.",
        discussion: """
            Coordinators keep their records in RUN/flight, workers there or in the folder that \
            --flight names; SIGUSR2 copies one aside. A record is there after kill -9 too. Exits 1 \
            when the machine decides otherwise than it did.

            Example: lineup flight experiments/base/flight/coordinator-3-a.flight --last 20
            """
    )

    @Argument(help: "One of the record's two files.")
    var file: String

    @Option(help: "Events shown from the end; 0 shows all.")
    var last = 40

    @Flag(help: "Also show events that nothing followed from.")
    var all = false

    func validate() throws {
        guard last >= 0 else { throw ValidationError("--last must not be negative") }
    }

    func run() throws {
        let record = try FlightRecord(file: file)
        let isSame =
            switch record.role {
            case .coordinator: try show(FlightReplay<CoordinatorStateMachine>(record), record)
            case .trainer: try show(FlightReplay<TrainerStateMachine>(record), record)
            case .evaluator: try show(FlightReplay<EvaluatorStateMachine>(record), record)
            }
        if !isSame { throw ExitCode(1) }
    }

    /// Prints the last events and what differs.
    private func show<Machine: RecordedMachine>(
        _ replay: FlightReplay<Machine>, _ record: FlightRecord
    ) throws -> Bool {
        var replay = replay
        var shown: [String] = []
        var different = 0
        var isUndecided = false
        print(
            "\(record.role), \(record.events.count) events from \(record.began.ISO8601Format()) on")
        while let step = try replay.step() {
            if step.isSame == false { different += 1 }
            isUndecided = step.isSame == nil
            guard all || !step.actions.isEmpty || step.isSame != true else { continue }
            let time = record.began + (step.time - record.beganAt).seconds
            let mark = step.isSame == false ? "  DIFFERS" : ""
            let clock = time.formatted(.iso8601.time(includingFractionalSeconds: true))
            shown.append("\(clock)  \(step.input)\(mark)")
            shown += step.actions.map { "                -> \($0)" }
            if last > 0, shown.count > 64 * last { shown.removeFirst(32 * last) }
        }
        let starts = shown.indices.filter { !shown[$0].hasPrefix(" ") }
        let first = last == 0 || starts.count <= last ? 0 : starts[starts.count - last]
        for line in shown[first...] { print(line) }
        if isUndecided {
            print("the process ended before it had decided on the last event, or nothing followed")
        }
        print(
            different == 0
                ? "replayed: every decision is the one recorded"
                : "replayed: \(different) decisions differ from those recorded")
        return different == 0
    }
}

import ArgumentParser
import Settings

/// `lineup doctor`: what is on this machine.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what is on this machine and whether it can train.",
        discussion: """
            Exits with 0 when everything that a trainer needs is here, else with 1.

            Example: lineup doctor --runs experiments
            """
    )

    @Option(help: "Folder that runs will be written to.")
    var runs = "."

    @Flag(help: "Print one line of JSON.")
    var json = false

    func run() throws {
        let report = MachineReport(runs: runs)
        if json {
            print(report.json.canonicalText)
        } else {
            for line in report.lines { print(line) }
        }
        if !report.problems.isEmpty { throw ExitCode(1) }
    }
}

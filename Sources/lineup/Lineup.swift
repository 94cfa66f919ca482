import ArgumentParser
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// The command line: `lineup COMMAND ...`.
///
/// Results go to standard output, progress and errors to standard error. An error is one line. Exit
/// codes: 0 finished, 75 drained by a signal (start it again), 2 bad input, 1 anything else.
@main
struct Lineup: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lineup",
        abstract: "Train and evaluate metric-learning networks on a cluster.",
        usage: "lineup COMMAND ... [--help]",
        discussion: """
            Example, one machine, everything: \
            lineup train experiments/base --trainers 2 --set data.root=data/crops

            Exit codes: 0 finished, 75 drained by a signal (start it again), 2 bad input, 1 anything \
            else.
            """,
        version: "lineup \(lineupVersion)",
        groupedSubcommands: [
            CommandGroup(
                name: "Run",
                subcommands: [
                    TrainCommand.self, ResumeCommand.self, CoordinatorCommand.self,
                    TrainerCommand.self, EvaluatorCommand.self,
                ]),
            CommandGroup(
                name: "Look",
                subcommands: [
                    WatchCommand.self, LedgerCommand.self, CheckpointCommand.self,
                    ReportCommand.self, FlightCommand.self,
                ]),
            CommandGroup(
                name: "Data",
                subcommands: [
                    DatasetCommand.self, CropCommand.self, CurateCommand.self, MineCommand.self,
                ]),
            CommandGroup(
                name: "This machine",
                subcommands: [
                    KeysCommand.self, ParamsCommand.self, DoctorCommand.self, SimulateCommand.self,
                ]),
        ]
    )

    /// Runs the command that the arguments name and ends the process with its exit code.
    static func main() async {
        // A reader that went away (`lineup ledger RUN | head`) is a failed write, not a signal that
        // would kill a coordinator whose log is piped.
        signal(SIGPIPE, SIG_IGN)
        let code = await run(arguments: Array(CommandLine.arguments.dropFirst()))
        fflush(nil)
        // Without destructors: threads may still be inside LibTorch, which is still being loaded.
        _exit(code)
    }

    private static func isBrokenPipe(_ error: any Error) -> Bool {
        let error = error as NSError
        if error.domain == NSPOSIXErrorDomain { return error.code == Int(EPIPE) }
        return (error.userInfo[NSUnderlyingErrorKey] as? NSError).map(isBrokenPipe) ?? false
    }

    private static func run(arguments: [String]) async -> Int32 {
        do {
            if let line = CommandLineFailure.unknownCommand(in: arguments, root: Lineup.self) {
                throw ValidationError(line)
            }
            var command = try parseAsRoot(arguments)
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            return 0
        } catch let error where isBrokenPipe(error) {
            // The reader has seen enough: ends as a process does that the signal ends.
            return 128 + SIGPIPE
        } catch {
            let failure = CommandLineFailure(error, arguments: arguments)
            if !failure.output.isEmpty { print(failure.output) }
            if !failure.line.isEmpty {
                writeError(failure.line + "\n")
            }
            return failure.code
        }
    }
}

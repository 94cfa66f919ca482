import ArgumentParser
import Basics
import Foundation
import Storage

#if canImport(Glibc)
    import Glibc
#endif

/// `lineup ledger`: what a run has recorded.
struct LedgerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger",
        abstract: "Show what a run has recorded: metrics, checkpoints, workers, events.",
        discussion: """
            Reads only, also while the run goes on.

            Example: lineup ledger RUN
            Example: lineup ledger RUN --json > run.json
            Example: lineup ledger digest RUN
            """,
        subcommands: [Show.self, Digest.self],
        defaultSubcommand: Show.self
    )

    /// `lineup ledger RUN [--json]`.
    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "show",
            abstract: "Show metrics, checkpoints, workers and the last events (the default)."
        )

        @Argument(help: ArgumentHelp("The run's folder, or a ledger file.", valueName: "run"))
        var folder: String

        @Flag(help: "Print everything as one line of JSON (docs/ledger.md has its shape).")
        var json = false

        func run() throws {
            let reader = try LedgerReader(run: folder)
            let waiting = try waitingEvaluations(of: folder)
            if json {
                let output = FileHandle.standardOutput
                // A failure to write is no failure of the ledger.
                var failure: (any Error)?
                do {
                    try reader.writeJSON(adding: waiting) { text in
                        do { try output.write(contentsOf: text) } catch {
                            failure = error
                            throw error
                        }
                    }
                } catch {
                    throw failure ?? error
                }
                try output.write(contentsOf: Data("\n".utf8))
            } else {
                var snapshot = try reader.snapshot(includesSteps: false)
                snapshot.add(waiting)
                let last = snapshot.run.lastStep
                let text = LedgerReport.text(
                    snapshot, width: terminalWidth(),
                    lastStep: try reader.steps(in: last...last).first)
                print(text, terminator: "")
            }
        }
    }

    /// `lineup ledger digest RUN`.
    struct Digest: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "digest",
            abstract: "Print a digest of a run's results, equal for equal runs.",
            discussion: """
                Covers steps, losses, effects, weights and scores; not times, workers or paths.

                Example: lineup ledger digest RUN
                """
        )

        @Argument(help: ArgumentHelp("The run's folder, or a ledger file.", valueName: "run"))
        var folder: String

        @Flag(help: "Print the digest of each part, too: run, steps, checkpoints, evaluations.")
        var parts = false

        func run() throws {
            let digest = try LedgerReader(run: folder).resultDigest(
                adding: try waitingEvaluations(of: folder))
            guard parts else {
                print(digest.total.hex)
                return
            }
            print("total       \(digest.total.hex)")
            print("run         \(digest.run.hex)")
            print("steps       \(digest.steps.hex)")
            print("checkpoints \(digest.checkpoints.hex)")
            print("evaluations \(digest.evaluations.hex)")
        }
    }
}

/// Values that `lineup evaluator --run` left beside the ledger; damaged files are named and left out.
private func waitingEvaluations(of run: String) throws -> [FolderEvaluation] {
    try FolderEvaluation.all(run: run) { error in
        FileHandle.standardError.write(Data("warning: \(error.message)\n".utf8))
    }
}

/// Columns of the terminal; 100 in a pipe.
private func terminalWidth() -> Int {
    var size = winsize()
    guard isatty(STDOUT_FILENO) == 1, ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0,
        size.ws_col > 0
    else { return 100 }
    return Int(size.ws_col)
}

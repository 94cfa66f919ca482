import ArgumentParser
import Basics
import Foundation
import Settings

/// How a command that threw ends: what it prints and its exit code.
struct CommandLineFailure {
    /// For standard output: help and version, which are thrown too.
    var output = ""
    /// For standard error: one line, empty when there is nothing to say.
    var line = ""
    /// 0, 1, 2 or what the command itself chose.
    var code: Int32 = 1

    /// Takes an error that parsing or running threw.
    init(_ error: any Error, arguments: [String]) {
        if let chosen = error as? ExitCode {
            code = chosen.rawValue
            return
        }
        if let known = error as? any LineupError {
            line = Self.sentence(known.message)
            code = known.isBadInput ? 2 : 1
            return
        }
        switch Lineup.exitCode(for: error) {
        case .success:
            output = Lineup.fullMessage(for: error)
            code = 0
        case .validationFailure:
            let help = (["lineup"] + Self.commandPath(arguments) + ["--help"]).joined(
                separator: " ")
            line = Self.sentence(Lineup.message(for: error)) + " (see '\(help)')"
            code = 2
        default:
            line = Self.sentence(Self.text(of: error))
        }
    }

    /// The refusal of a word that names no command where one has to stand, or nil.
    static func unknownCommand(
        in arguments: [String], root: any ParsableCommand.Type
    ) -> String? {
        var command = root
        for argument in arguments {
            let known = subcommands(of: command)
            guard !known.isEmpty, !argument.hasPrefix("-") else { return nil }
            if let next = known.first(where: { names(of: $0).contains(argument) }) {
                command = next
                continue
            }
            if argument == "help" || command.configuration.defaultSubcommand != nil { return nil }
            let near = NearestName.of(argument, among: known.flatMap(names))
            return "unknown command '\(argument)'" + (near.map { "; did you mean '\($0)'?" } ?? "")
        }
        return nil
    }

    /// The words at the start that name commands.
    private static func commandPath(_ arguments: [String]) -> [String] {
        var command: any ParsableCommand.Type = Lineup.self
        var path: [String] = []
        for argument in arguments {
            guard
                let next = subcommands(of: command).first(where: {
                    names(of: $0).contains(argument)
                })
            else { break }
            path.append(argument)
            command = next
        }
        return path
    }

    private static func subcommands(
        of command: any ParsableCommand.Type
    ) -> [any ParsableCommand.Type] {
        let configuration = command.configuration
        return configuration.subcommands
    }

    private static func names(of command: any ParsableCommand.Type) -> [String] {
        [command.configuration.commandName ?? command._commandName]
            + command.configuration.aliases
    }

    private static func text(of error: any Error) -> String {
        if error is CancellationError { return "cancelled" }
        return Lineup.message(for: error)
    }

    /// One line that starts with the program's name.
    private static func sentence(_ text: String) -> String {
        let lines = text.split(whereSeparator: \.isNewline)
        var line = lines.map { $0.trimmingCharacters(in: .whitespaces) }.joined(separator: " ")
        if line.hasPrefix("Error: ") { line.removeFirst("Error: ".count) }
        return "lineup: " + line
    }
}

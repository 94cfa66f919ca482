import ArgumentParser
import ClusterCore
import Coordinator
import Datasets
import Foundation
import Tensors
import Training

/// `lineup coordinator`: leads a run.
struct CoordinatorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "coordinator",
        abstract: "Lead a run: dispatch mini-batches, commit steps, keep ledger and checkpoints.",
        discussion: """
            Needs neither a GPU nor LibTorch. Starts the run, or goes on with it where it is.

            An address that other machines reach needs keys.

            Example: lineup coordinator experiments/base --bind tcp://127.0.0.1:5555
            Example: lineup coordinator experiments/base --bind tcp://0.0.0.0:5555 --keys keys
            """
    )

    @Argument(help: "The run's folder; params.json in it holds the settings.")
    var run: String

    @Option(help: "Control address; port * takes a free one.")
    var bind = "tcp://127.0.0.1:5555"

    @Option(help: "Address for checkpoints; any port beside the control address where not given.")
    var bulkBind: String?

    @Option(help: "Address for checkpoints that workers are told, behind address translation.")
    var bulkAdvertise: String?

    @OptionGroup var security: KeyOptions

    @Option(help: "Trainers that the first step waits for, 60 s at most.")
    var expectTrainers = 1

    @Option(help: "Evaluators that the end of the run waits for, 60 s at most.")
    var expectEvaluators = 0

    @Option(name: .customLong("set"), help: "Override a setting: KEY=VALUE, repeatable.")
    var overrides: [String] = []

    @Option(help: "Where the data set is on this machine.")
    var dataRoot: String?

    @Flag(help: acceptNumericsHelp)
    var acceptNumerics = false

    @Flag(help: .hidden)
    var supervised = false

    func run() async throws {
        StandardErrorLog.bootstrap()
        // Until there is a record to copy.
        signal(SIGUSR2, SIG_IGN)
        raiseOpenFileLimit()
        let (run, overrides, dataRoot) = (run, overrides, dataRoot)
        let options = CoordinatorOptions(
            bind: bind, bulkBind: bulkBind, bulkAdvertised: bulkAdvertise,
            isInsecure: security.insecure, keys: try security.forCoordinator(bind: bind),
            expectedTrainers: expectTrainers,
            expectedEvaluators: expectEvaluators, acceptsNumerics: acceptNumerics, host: hostName(),
            version: lineupVersion)
        let supervised = supervised
        let outcome = try await onOwnThread {
            let folder = try RunFolder(
                path: run, intent: .startOrResume, overrides: overrides, dataRoot: dataRoot)
            let dataSet = try folder.dataSet()
            _ = try TrainingConfiguration(
                settings: folder.settings, device: .cpu,
                classCount: dataSet.trainingIdentityCount
            ).layout()
            _ = try folder.plan(of: dataSet)
            try folder.prepare()
            let shell = try CoordinatorShell(folder: folder, dataSet: dataSet, options: options)
            let signals = DrainSignals(drain: shell.drain)
            let record = RecordSignal(copy: shell.copyRecord)
            if supervised { watchStandardInput(shell.drain) }
            if !supervised { say("listening on \(shell.address)") }
            defer { withExtendedLifetime((signals, record)) {} }
            return try shell.run()
        }
        switch outcome {
        case .finished: break
        case .drained: throw ExitCode(75)
        case .failed(let why): throw CoordinatorFailure(message: why)
        case .disagreed(let why):
            say("lineup: \(why)")
            throw ExitCode(75)
        case .superseded:
            throw CoordinatorFailure(
                message: "another coordinator has begun a newer term of run \(run); this one has "
                    + "written nothing since")
        }
    }
}

/// Says one line on standard error.
func say(_ line: String) {
    writeError(line + "\n")
}

import ArgumentParser
import ClusterCore
import Basics
import EvalWorker
import Foundation
import Tensors
import Transport

/// `lineup evaluator`: scores each new checkpoint.
struct EvaluatorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evaluator",
        abstract: "Score each new checkpoint on the evaluation sets, all at the same time.",
        discussion: """
            With --coordinator it takes work from a cluster and fetches checkpoints where there is \
            no shared disk. With --run it watches a run's folder on its own and writes \
            RUN/evaluations, which the coordinator takes in later. Ends with the run, or after \
            evaluation.timeout_seconds without a new checkpoint.

            Example: lineup evaluator --coordinator tcp://head:5555 --data-root /data
            Example: lineup evaluator --run experiments/base --once
            """
    )

    @Option(help: "The coordinator's address.")
    var coordinator: String?

    @Option(name: .customLong("run"), help: "Watch this run's folder, without a coordinator.")
    var runFolder: String?

    @OptionGroup var security: KeyOptions

    @Flag(help: "Score what is there and end.")
    var once = false

    @Option(help: "Where images are embedded: cpu, cuda or cuda:N.")
    var device = "cpu"

    @Option(help: "Where the data set is on this machine.")
    var dataRoot: String?

    @Option(help: "Seconds to wait for a coordinator that does not answer.")
    var patience = 60

    @Option(help: "Folder of the flight record. Default: one of this machine's temporary folder.")
    var flight: String?

    @Flag(help: .hidden)
    var supervised = false

    func validate() throws {
        guard (coordinator == nil) != (runFolder == nil) else {
            throw ValidationError(
                "name either --coordinator ADDRESS or --run FOLDER, for example "
                    + "--coordinator tcp://127.0.0.1:5555")
        }
    }

    func run() async throws {
        StandardErrorLog.bootstrap()
        // Until there is a record to copy.
        signal(SIGUSR2, SIG_IGN)
        let device = try parseDevice(device)
        if let runFolder { return try await watch(runFolder, device: device) }
        let options = ClusterEvaluatorOptions(
            coordinator: coordinator ?? "",
            keys: try security.forWorker(coordinator: coordinator ?? ""), device: device,
            dataRoot: dataRoot, once: once,
            patience: .seconds(patience), host: hostName(), version: lineupVersion,
            flightFolder: flight)
        let supervised = supervised
        let end = try await onOwnThread {
            let evaluator = try ClusterEvaluator(options: options)
            let signals = DrainSignals(drain: evaluator.drain)
            let record = RecordSignal(copy: evaluator.copyRecord)
            if supervised { watchStandardInput(evaluator.drain) }
            defer { withExtendedLifetime((signals, record)) {} }
            return try evaluator.run()
        }
        if end == .drained { throw ExitCode(75) }
    }

    private func watch(_ run: String, device: Device) async throws {
        let (dataRoot, once) = (dataRoot, once)
        let code = try await onOwnThread {
            let settings = try RunFolderEvaluator.settings(run: run)
            let setup = try EvaluationSetup(
                settings: settings, dataRoot: dataRoot, device: device)
            let scorer = try setup.checkpointScorer()
            let stop = StopRequest()
            let signals = DrainSignals { stop.stop() }
            defer { withExtendedLifetime(signals) {} }
            return try RunFolderEvaluator(
                .init(run: run, settings: settings, once: once), scorer: scorer, stop: stop
            ) { report in
                switch report {
                case .scoring(let step, let sets):
                    say("scoring step \(step): \(sets.joined(separator: ", "))")
                case .scored(let file):
                    let shown = [
                        ("general", "general_accuracy"), ("easy", "easy_accuracy"),
                        ("loss", "mean_loss"), ("top-1", "top1"),
                    ].compactMap { name, metric in
                        file.metrics[metric].map { "\(name) " + String(format: "%.4f", $0) }
                    }
                    say("step \(file.step) \(file.set) " + shown.joined(separator: " "))
                case .failed(let line): say("lineup: \(line)")
                case .waiting: break
                }
            }.run().exitCode
        }
        if code != 0 { throw ExitCode(code) }
    }
}

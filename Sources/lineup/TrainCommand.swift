import ArgumentParser
import Basics
import Coordinator
import Datasets
import Foundation
import Settings
import Storage
import Tensors
import Training

/// Options that `train` and `resume` share.
struct ClusterOptions: ParsableArguments {
    @Option(help: "Trainer processes; 0 takes one per device.")
    var trainers = 0

    @Option(help: "Evaluator processes.")
    var evaluators = 1

    @Option(help: "Devices of the trainers: auto, cpu, cuda:0,cuda:1 or cuda:0-3.")
    var devices = "auto"

    @Option(help: "Device of the evaluators.")
    var evaluatorDevice = "cpu"

    @Option(help: "Slots computed at once by a trainer; 0 shares the cores out (1 on a GPU).")
    var slotsAtOnce = 0

    @Option(help: "How often a trainer or evaluator that died is started again.")
    var restarts = 3

    @Option(name: .customLong("set"), help: "Override a setting: KEY=VALUE, repeatable.")
    var overrides: [String] = []

    @Option(help: "Where the data set is on this machine.")
    var dataRoot: String?

    @Option(
        help: ArgumentHelp(
            "Folder of keys ('lineup keys create'), where other users of this machine must stay out.",
            valueName: "folder"))
    var keys: String?

    func run(
        _ path: String, intent: RunFolder.Intent, acceptsNumerics: Bool = false
    ) async throws {
        let options = self
        let code = try await onOwnThread {
            let folder = try RunFolder(
                path: path, intent: intent, overrides: options.overrides,
                dataRoot: options.dataRoot
            ) { say("setting \($0)") }
            // What is wrong with the data is said here, before anything is written or started.
            let dataSet = try folder.dataSet()
            _ = try folder.plan(of: dataSet)
            _ = try TrainingConfiguration(
                settings: folder.settings, device: .cpu,
                classCount: dataSet.trainingIdentityCount
            ).layout()
            let devices = try options.deviceList()
            try Engine.load()
            if folder.isExisting {
                // A run that somebody leads already is not touched.
                let probe = try RunLock(path: folder.path + "/" + Ledger.lockName)
                withExtendedLifetime(probe) {}
            }
            if folder.settings.schedule.goesByScores, options.evaluators == 0 {
                throw ValidationError(
                    "--evaluators is 0, but the schedule goes by scores (schedule.name=plateau or "
                        + "schedule.stop_patience): leave --evaluators out, or start an evaluator "
                        + "elsewhere and 'lineup coordinator' with trainers here")
            }
            try folder.prepare()
            var trainers = options.trainers > 0 ? options.trainers : devices.count
            if Self.isTrained(folder) {
                say("all \(folder.settings.schedule.steps) steps of run \(folder.name) are done")
                trainers = 0
            }
            options.sayStandby(folder, trainers: trainers)
            return try LocalCluster(
                LocalClusterPlan(
                    folder: folder, trainers: trainers, evaluators: options.evaluators,
                    devices: devices, evaluatorDevice: options.evaluatorDevice,
                    slotsAtOnce: options.slots(trainers: trainers, device: devices[0]),
                    dataRoot: options.dataRoot, restarts: options.restarts, keys: options.keys,
                    acceptsNumerics: acceptsNumerics)
            ).run()
        }
        if code != 0 { throw ExitCode(code) }
        try printResult(path)
    }

    /// The one line that a script wants of a finished run.
    private func printResult(_ path: String) throws {
        let reader = try LedgerReader(run: path)
        guard let run = try reader.run(),
            let last = try reader.checkpoints().last(where: { $0.state == .durable })
        else { return }
        print(
            "run \(path): \(run.state.rawValue) at step \(run.lastStep), weights "
                + "\(last.digest.hex) in \(path)/\(last.file)")
    }

    func validate() throws {
        guard trainers >= 0, evaluators >= 0, slotsAtOnce >= 0, restarts >= 0 else {
            throw ValidationError(
                "--trainers, --evaluators, --slots-at-once and --restarts must not be negative")
        }
    }

    /// Whether every step is committed and the last checkpoint is whole.
    private static func isTrained(_ folder: RunFolder) -> Bool {
        let steps = folder.settings.schedule.steps
        guard folder.isExisting, let reader = try? LedgerReader(path: folder.ledger),
            let run = try? reader.run(), run.lastStep >= steps
        else { return false }
        return (try? CheckpointStore(directory: folder.checkpoints).open(step: steps)) != nil
    }

    private func sayStandby(_ folder: RunFolder, trainers: Int) {
        let slots = folder.settings.batch.miniBatchesPerStep
        if trainers > slots {
            say(
                "\(trainers) trainers for \(slots) mini-batches a step: "
                    + "\(trainers - slots) of them stand by")
        }
    }

    private func slots(trainers: Int, device: String) -> Int {
        if slotsAtOnce > 0 { return slotsAtOnce }
        guard device == "cpu" else { return 1 }
        return max(1, ProcessInfo.processInfo.activeProcessorCount / max(1, trainers))
    }

    private func deviceList() throws -> [String] {
        if devices == "auto" {
            let found = (try? Engine.devices()) ?? []
            let gpus = found.filter { $0 != .cpu }
            return gpus.isEmpty ? ["cpu"] : gpus.map(\.description)
        }
        var list: [String] = []
        for part in devices.split(separator: ",") {
            let text = part.trimmingCharacters(in: .whitespaces)
            if let dash = text.lastIndex(of: "-"), let colon = text.lastIndex(of: ":"),
                let low = Int(text[text.index(after: colon)..<dash]),
                let high = Int(text[text.index(after: dash)...]), low <= high, high - low < 1_024
            {
                list += (low...high).map { text[...colon] + "\($0)" }
            } else {
                list.append(text)
            }
        }
        guard !list.isEmpty else {
            throw ValidationError(
                "--devices '\(devices)' names no device; expected auto, cpu or cuda:0,cuda:1")
        }
        for device in list { _ = try parseDevice(device) }
        return list
    }
}

/// `lineup train`: one machine, everything.
struct TrainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Start a run with all its roles on this machine, and watch it.",
        discussion: """
            Coordinator, trainers and evaluators are processes of their own; their logs are in \
            RUN/logs. Ctrl+C stops at the next step boundary, a second one kills; either way \
            'lineup resume RUN' goes on to the same result.

            Example: lineup train experiments/base --trainers 2 --set data.root=data/crops
            """
    )

    @Argument(help: "The run's folder; params.json in it holds the settings.")
    var run: String

    @Flag(help: "Start the run, or go on with it, whichever it is.")
    var resume = false

    @OptionGroup var options: ClusterOptions

    func run() async throws {
        try await options.run(run, intent: resume ? .startOrResume : .start)
    }
}

/// `lineup resume`: goes on with a run.
struct ResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "Go on with a run after Ctrl+C, kill -9 or a loss of power.",
        discussion: """
            Any number of trainers gives the same result, bit for bit.

            Example: lineup resume experiments/base --trainers 3
            """
    )

    @Argument(help: "The run's folder.")
    var run: String

    @Flag(help: acceptNumericsHelp)
    var acceptNumerics = false

    @OptionGroup var options: ClusterOptions

    func run() async throws {
        try await options.run(run, intent: .resume, acceptsNumerics: acceptNumerics)
    }
}

import ArgumentParser
import Foundation
import Tensors

#if canImport(Glibc)
    import Glibc
#endif

/// `lineup-bench`: what Lineup costs, beside what it is measured against.
@main
struct LineupBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lineup-bench",
        abstract: "Measure what the cluster costs, how it scales, and PyTorch beside it.",
        subcommands: [
            MeasureCommand.self, BareCommand.self, ExchangeMemberCommand.self,
            LedgerWriterCommand.self, LossCommand.self,
        ],
        defaultSubcommand: MeasureCommand.self
    )
}

/// Runs the benchmarks; results go to standard output, progress to standard error.
struct MeasureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure",
        abstract: "Run benchmarks and print medians, intervals and ratios.",
        discussion: """
            Parts: \(Part.all.map(\.name).joined(separator: ", ")). The beginning of a name stands \
            for every part that begins so. Parts that begin with faults- are run only when they are \
            named.

            Example: lineup-bench measure --parts machinery --rounds 9
            """
    )

    @Option(help: "Parts, separated by commas or spaces; all but faults-... where empty.")
    var parts = ""

    @Option(help: "Rounds of every part; its own number where not given.")
    var rounds: Int?

    @Option(help: "Seed of what faults-... parts draw.")
    var seed: UInt64 = 1

    @Option(help: "Seconds for which readers and a writer of a ledger go on together.")
    var soakSeconds = 20

    @Option(help: "File that receives the results as JSON.")
    var json: String?

    @Option(help: "The lineup binary; the one beside this where not given.")
    var lineup: String?

    @Option(help: "A Python with torch; without one there is nothing beside Lineup's steps.")
    var python: String?

    @Option(help: "Folder of the scripts that run PyTorch.")
    var peers = "Benchmarks/peers"

    @Option(help: "Folder for data and runs; emptied afterwards.")
    var work = ".build/bench"

    func run() throws {
        signal(SIGPIPE, SIG_IGN)
        let chosen = try chosenParts()
        // Stub workers are a connection or two each.
        var files = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
        files.rlim_cur = files.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let beside = URL(fileURLWithPath: own).deletingLastPathComponent().path + "/lineup"
        let folder = URL(fileURLWithPath: work).standardizedFileURL.path
        try? FileManager.default.removeItem(atPath: folder)
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let machine = Machine(libTorch: "\(try Engine.version()) \(try Engine.cpuCapability())")
        tell(machine.text)
        if machine.loadBefore > 0.5 {
            say("other processes want the cores too (load \(machine.loadBefore)); expect noise")
        }
        let bench = Bench(
            lineup: lineup ?? beside, own: own, python: python, peers: peers, folder: folder,
            rounds: rounds, seed: seed, soakSeconds: soakSeconds, machine: machine)
        var report = Report(machine: machine)
        for part in chosen {
            say("\(part.name): \(part.what)")
            if let why = part.obstacle(bench) {
                tell("\n\(part.name): skipped: \(why)")
                report.skipped.append("\(part.name): \(why)")
                continue
            }
            let measurement = try part.measure(bench)
            tell(measurement.text)
            report.measurements.append(measurement)
            // After each part, so that what is measured is kept when a later one fails.
            if let json { try report.write(to: json) }
        }
        if let json { try report.write(to: json) }
        try? FileManager.default.removeItem(atPath: folder)
    }

    private func chosenParts() throws -> [Part] {
        let names = parts.split { $0 == "," || $0 == " " }.map(String.init)
        for name in names where !Part.all.contains(where: { $0.name.hasPrefix(name) }) {
            throw ValidationError(
                "there is no part '\(name)'; there are "
                    + Part.all.map(\.name).joined(separator: ", "))
        }
        guard !names.isEmpty else { return Part.all.filter { !$0.name.hasPrefix("faults-") } }
        return Part.all.filter { part in names.contains { part.name.hasPrefix($0) } }
    }
}

/// What every part is given.
struct Bench {
    let lineup: String
    let own: String
    let python: String?
    let peers: String
    let folder: String
    let rounds: Int?
    let seed: UInt64
    let soakSeconds: Int
    let machine: Machine

    /// Slots at once where the machine is used as a whole.
    func parallelSlots(of slots: Int) -> Int { min(slots, machine.cores.count) }

    /// Photographs cut into crops, made once a call.
    ///
    /// - Parameter withSets: with evaluation sets of some size; otherwise few images, which are all
    ///   decoded within a step or two.
    func crops(withSets: Bool) throws -> String {
        let name = folder + (withSets ? "/sets" : "/small")
        let crops = name + "/crops"
        guard !FileManager.default.fileExists(atPath: crops + "/dataset.json") else { return crops }
        let sizes =
            withSets
            ? ["--train-snippets", "20", "--val-snippets", "20", "--frames", "12"]
            : ["--train-snippets", "8", "--val-snippets", "8", "--frames", "4"]
        let steps = [
            ["dataset", "fashion-vid", name + "/video", "--seed", "1"] + sizes,
            ["crop", name + "/video", "--out", crops],
            ["curate", crops, "--seed", "1", "--images-per-set", withSets ? "1000" : "60"],
        ]
        try FileManager.default.createDirectory(atPath: name, withIntermediateDirectories: true)
        for arguments in steps {
            let child = try Child(
                "lineup \(arguments[0])", executable: lineup, arguments: arguments,
                log: name + "/\(arguments[0]).log", answers: false)
            try child.waitForEnd(within: 300)
        }
        return crops
    }

    /// The bare loop in a process of its own.
    func bareLoop(
        _ overrides: [String], crops: String, parallelSlots: Int, inputs: Int
    ) throws -> StepServer {
        try StepServer(
            "bare loop", executable: own,
            arguments: [
                "bare", "--data-root", crops, "--parallel-slots", "\(parallelSlots)", "--inputs",
                "\(inputs)",
            ] + overrides.flatMap { ["--set", $0] }, log: folder + "/bare.log")
    }
}

/// One benchmark.
struct Part: Sendable {
    let name: String
    /// What is measured and how, in one line.
    let what: String
    /// Why it cannot be measured here, nil where it can.
    var obstacle: @Sendable (Bench) -> String? = { _ in nil }
    let measure: @Sendable (Bench) throws -> Measurement

    /// In the order in which they run.
    static let all: [Part] =
        [
            .machineryResNet, .machineryBasic, .machinerySmall, .scalingBasic, .scalingResNet,
            .step, .stepLarge, .stepBF16, .evaluation, .exchange,
            .faultsKill, .faultsSilence, .faultsHealthy, .faultsCoordinator, .faultsEverything,
            .faultsGoodput, .faultsJoin, .checkpointStall, .faultsEvaluators,
            .securityControl, .securityStrangers, .securityJoins,
            .controlJoins, .controlLeases, .ledger, .flight,
        ] + losses

    /// Settings of a run whose steps are all alike and whose images are decoded once.
    static func settings(_ some: [String]) -> [String] {
        some + [
            "augmentation.flip=false", "augmentation.crop=false", "schedule.decay_start_step=-1",
        ]
    }

    /// ResNet-50 at 128x64 with P 4, K 4, G 4.
    static let resNet = settings([
        "network.backbone=resnet50", "input.height=128", "input.width=64", "batch.identities=4",
        "batch.images_per_identity=4", "batch.mini_batches_per_step=4",
    ])
}

import ArgumentParser
import Foundation
import Tensors
import TrainerWorker
import Transport

/// `lineup trainer`: computes slots for a coordinator.
struct TrainerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trainer",
        abstract: "Compute mini-batches for a coordinator and exchange gradients.",
        discussion: """
            Settings come from the coordinator. Ends with the run, or at SIGTERM. Off loopback it \
            needs keys, and then lets other trainers in at every interface of this machine.

            Example: lineup trainer --coordinator tcp://head:5555 --device cuda:0 --data-root /data
            """
    )

    @Option(help: "The coordinator's address.")
    var coordinator: String

    @Option(help: "Where slots are computed: cpu, cuda or cuda:N.")
    var device = "cpu"

    @Option(help: "Slots computed at once, one thread each; 0 takes one per core (1 on a GPU).")
    var slotsAtOnce = 0

    @Option(help: "Where the data set is on this machine.")
    var dataRoot: String?

    @Option(
        help:
            "Address for other trainers; port * takes a free one. Default: 127.0.0.1, with keys off loopback 0.0.0.0."
    )
    var bind: String?

    @Option(
        help: "Address that other trainers are told, behind address translation: tcp://HOST:PORT.")
    var advertise: String?

    @OptionGroup var security: KeyOptions

    @Option(help: "Seconds to wait for a coordinator that does not answer.")
    var patience = 60

    @Option(help: "Folder of the flight record. Default: one of this machine's temporary folder.")
    var flight: String?

    @Flag(help: .hidden)
    var supervised = false

    @Option(help: .hidden)
    var slotPause = 0.0

    @Option(help: .hidden)
    var flip: String?

    func run() async throws {
        StandardErrorLog.bootstrap()
        // Until there is a record to copy.
        signal(SIGUSR2, SIG_IGN)
        raiseOpenFileLimit()
        let device = try parseDevice(device)
        let keys = try security.forWorker(coordinator: coordinator)
        if let advertise { try Address.checkAdvertised(advertise) }
        let isLocal = Address.isLocal(coordinator)
        let bind = bind ?? (keys != nil && !isLocal ? "tcp://0.0.0.0:*" : "tcp://127.0.0.1:*")
        try Address.checkBind(bind, hasKeys: keys != nil, isInsecure: security.insecure)
        guard isLocal || !Address.isLocal(bind) || advertise != nil else {
            throw ValidationError(
                "the coordinator is not on this machine's loopback, and trainers there cannot reach this one "
                    + "at \(bind); give --bind tcp://HOST:*, with this machine's address")
        }
        guard slotsAtOnce >= 0, patience > 0 else {
            throw ValidationError("--slots-at-once and --patience must not be negative")
        }
        guard (0...3600).contains(slotPause) else {
            throw ValidationError("--slot-pause is \(slotPause); expected seconds from 0 to 3600")
        }
        guard flip == nil || BitFlip(flip!) != nil else {
            throw ValidationError("--flip is '\(flip!)'; expected one of \(BitFlip.forms)")
        }
        let threads =
            slotsAtOnce > 0
            ? slotsAtOnce
            : device == .cpu ? ProcessInfo.processInfo.activeProcessorCount : 1
        let options = TrainerOptions(
            coordinator: coordinator, keys: keys, device: device, slotThreads: threads,
            dataRoot: dataRoot, bind: bind, advertised: advertise, patience: .seconds(patience),
            host: hostName(), version: lineupVersion, flightFolder: flight,
            slotPause: .seconds(slotPause), flip: flip.flatMap { BitFlip($0) })
        let supervised = supervised
        let end = try await onOwnThread {
            let shell = try TrainerShell(options: options)
            let signals = DrainSignals(drain: shell.drain)
            let record = RecordSignal(copy: shell.copyRecord)
            if supervised { watchStandardInput(shell.drain) }
            defer { withExtendedLifetime((signals, record)) {} }
            return try shell.run()
        }
        if end == .drained { throw ExitCode(75) }
    }
}

import ArgumentParser
import Coordinator
import Foundation
import Storage
import Transport

/// `lineup watch`: a live view of a run.
struct WatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Watch a running cluster: steps, loss, workers, scores.",
        discussion: """
            A terminal is redrawn in place; a pipe gets plain lines.

            Example: lineup watch tcp://head:5555
            Example: lineup watch experiments/base
            """
    )

    @Argument(help: "The coordinator's address, or a run's folder.")
    var target: String

    @OptionGroup var security: KeyOptions

    @Option(help: "Seconds to wait for a coordinator that does not answer.")
    var patience = 10

    func run() async throws {
        let (target, patience, security) = (target, patience, security)
        try await onOwnThread {
            guard let address = try Self.address(of: target) else {
                // Nobody leads the run now: its ledger is what there is to see.
                let reader = try LedgerReader(run: target)
                let snapshot = try reader.snapshot(includesSteps: false)
                print(LedgerReport.text(snapshot, width: 80, lastStep: nil), terminator: "")
                return
            }
            let observer = try ClusterObserver(
                address: address, keys: try security.forWorker(coordinator: address))
            while observer.ending == nil {
                try observer.poll(timeout: .milliseconds(250))
                if ContinuousClock().now - observer.heardAt > .seconds(patience) {
                    throw ObserverFailure(
                        message: "no coordinator has answered at \(address) for \(patience) s; "
                            + "start one there, or name another address")
                }
            }
            observer.finish()
            say(observer.ending ?? "")
        }
    }

    private static func address(of target: String) throws -> String? {
        if target.contains("://") {
            try Address.check(target)
            return target
        }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: target, isDirectory: &isFolder),
            isFolder.boolValue
        else {
            throw ObserverFailure(
                message: "'\(target)' is neither an address nor a run's folder; expected "
                    + "tcp://HOST:PORT or a folder that lineup train made")
        }
        guard let found = CoordinatorAddress(file: target + "/coordinator.json") else {
            return nil
        }
        // A killed coordinator leaves its file behind.
        if found.host == hostName() && kill(found.process, 0) != 0 { return nil }
        return found.address
    }
}

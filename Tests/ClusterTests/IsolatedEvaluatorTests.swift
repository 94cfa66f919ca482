import Basics
import Foundation
import Storage
import Testing

/// An evaluator on a node of its own: another network, and no sight of the run's folder.
@Suite(.serialized) struct IsolatedEvaluatorTests {
    @Test(
        .enabled(if: VirtualNode.isAvailable, "needs root, unshare, ip and network namespaces"),
        .timeLimit(.minutes(4)))
    func aSeparateNodeScoresEveryCheckpoint() throws {
        let run = LocalRun.folder("isolated")
        let node = try VirtualNode()
        defer { node.remove() }
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://\(node.outerAddress):*", "--insecure",
                "--expect-trainers", "1",
            ] + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        let evaluator = try node.start(
            ["evaluator", "--coordinator", address], hiding: run)
        let trainer = try LineupProcess(
            [
                "trainer", "--coordinator", address, "--bind", "tcp://\(node.outerAddress):*",
                "--insecure",
            ])
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)")
        #expect(try evaluator.wait(seconds: 30) == 0, "\(evaluator.errors)")
        let reader = try LedgerReader(run: run)
        let rows = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(rows.map(\.step).sorted() == [0, 8, 16, 24].flatMap { [$0, $0, $0] })
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.undisturbed.get().ledger)
    }
}

/// A network namespace that one virtual cable joins to this machine.
final class VirtualNode {
    let outerAddress: String
    private let innerAddress: String
    private let outer: String
    private let inner: String

    /// Whether this process may make one.
    static let isAvailable: Bool = {
        guard geteuid() == 0, run(["unshare", "--net", "--mount", "true"]) == 0 else {
            return false
        }
        guard let node = try? VirtualNode() else { return false }
        node.remove()
        return true
    }()

    init() throws {
        let number = Int.random(in: 0..<4096)
        (outer, inner) = ("lnp\(number)a", "lnp\(number)b")
        let base = "10.\(200 + number / 1024).\(number / 64 % 16).\(number % 64 * 4)"
        let stem = base.split(separator: ".").dropLast().joined(separator: ".")
        outerAddress = "\(stem).\(number % 64 * 4 + 1)"
        innerAddress = "\(stem).\(number % 64 * 4 + 2)"
        for command in [
            ["ip", "link", "add", outer, "type", "veth", "peer", "name", inner],
            ["ip", "addr", "add", outerAddress + "/30", "dev", outer],
            ["ip", "link", "set", outer, "up"],
        ] {
            let code = Self.run(command)
            guard code == 0 else { throw CocoaError(.executableLoad) }
        }
    }

    /// Starts `lineup` in the node, with an empty file system in the place of `folder`.
    func start(_ arguments: [String], hiding folder: String) throws -> LineupProcess {
        let script = """
            set -e
            mount -t tmpfs none "$1"
            [ -z "$(ls -A "$1")" ]
            for turn in $(seq 200); do ip link show "$2" >/dev/null 2>&1 && break; sleep 0.05; done
            ip addr add "$3/30" dev "$2"
            ip link set "$2" up
            shift 3
            exec "$@"
            """
        let lineup = try LineupProcess.executable().path
        let process = try LineupProcess(
            [
                "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script,
                "sh", folder, inner, innerAddress, lineup,
            ] + arguments, executable: URL(fileURLWithPath: "/usr/bin/env"))
        // The namespace is there once it differs from ours.
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
        let deadline = Date().addingTimeInterval(10)
        let link = "/proc/\(process.identifier)/ns/net"
        while (try? FileManager.default.destinationOfSymbolicLink(atPath: link)) == own {
            try #require(Date() < deadline && process.isRunning, "\(process.errors)")
            usleep(10_000)
        }
        let code = Self.run(["ip", "link", "set", inner, "netns", "\(process.identifier)"])
        try #require(code == 0, "\(inner) cannot be moved into the namespace")
        return process
    }

    func remove() { Self.run(["ip", "link", "delete", outer]) }

    @discardableResult
    private static func run(_ command: [String]) -> Int32 { LineupProcess.run(command) }
}

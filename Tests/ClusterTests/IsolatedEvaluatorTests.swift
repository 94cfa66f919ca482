import FaultRig
import Foundation
import Storage
import Testing

/// An evaluator on a node of its own: another network, and no sight of the run's folder.
@Suite(.serialized) struct IsolatedEvaluatorTests {
    @Test(
        .enabled(if: VirtualNetwork.obstacle == nil, "needs root, ip and network namespaces"),
        .timeLimit(.minutes(4)))
    func aSeparateNodeScoresEveryCheckpoint() throws {
        let run = LocalRun.folder("isolated")
        try FileManager.default.createDirectory(atPath: run, withIntermediateDirectories: true)
        let network = try VirtualNetwork()
        let (head, other) = (try network.addNode(), try network.addNode())
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://\(head.address):*", "--insecure",
                "--expect-trainers", "1",
            ] + LocalRun.settings(steps: 24), in: Placement(node: head))
        let address = try LocalRun.address(of: coordinator)
        let evaluator = try LineupProcess(
            ["evaluator", "--coordinator", address, "--insecure"],
            in: Placement(node: other, hidden: run))
        let trainer = try LineupProcess(
            [
                "trainer", "--coordinator", address, "--bind", "tcp://\(head.address):*",
                "--insecure",
            ], in: Placement(node: head))
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)")
        #expect(try evaluator.wait(seconds: 30) == 0, "\(evaluator.errors)")
        let reader = try LedgerReader(run: run)
        let rows = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(rows.map(\.step).sorted() == [0, 8, 16, 24].flatMap { [$0, $0, $0] })
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.undisturbed.get().ledger)
    }

    @Test(
        .enabled(if: VirtualNetwork.obstacle == nil, "needs root, ip and network namespaces"),
        .timeLimit(.minutes(4)))
    func aFetchThatBreaksOffThreeTimesIsNoFailureOfTheSets() throws {
        let run = LocalRun.folder("cut")
        try FileManager.default.createDirectory(atPath: run, withIntermediateDirectories: true)
        let (socket, port) = try TCP.listen()
        close(socket)
        let proxy = ChaosProxy(seed: 5)
        let link = try proxy.open(to: port)
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--bulk-bind",
                "tcp://127.0.0.1:\(port)", "--bulk-advertise", "tcp://127.0.0.1:\(link.port)",
                "--expect-evaluators", "1",
            ] + LocalRun.settings(steps: 8))
        let address = try LocalRun.address(of: coordinator)
        let trainer = try LineupProcess(["trainer", "--coordinator", address])
        let last = run + "/checkpoints/step-000000008.safetensors"
        let deadline = Date().addingTimeInterval(60)
        while !FileManager.default.fileExists(atPath: last), Date() < deadline { usleep(20_000) }
        // From here on nobody but the evaluator needs the link.
        proxy.set(.init(bytesPerSecond: 200_000), on: link)
        let evaluator = try LineupProcess(
            ["evaluator", "--coordinator", address], in: Placement(hidden: run))
        while proxy.counts.cuts < 3, evaluator.isRunning {
            proxy.strike(.cut(afterBytes: 4_000), on: link)
            usleep(30_000)
        }
        #expect(proxy.counts.cuts >= 3)
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        #expect(try trainer.wait(seconds: 30) == 0, "\(trainer.errors)")
        #expect(try evaluator.wait(seconds: 30) == 0, "\(evaluator.errors)")
        let reader = try LedgerReader(run: run)
        let rows = try reader.evaluations().filter { $0.metric == "general_accuracy" }
        #expect(rows.map(\.step).sorted() == [0, 8].flatMap { [$0, $0, $0] })
        #expect(try reader.events().allSatisfy { $0.kind != "evaluation_failed" })
    }
}

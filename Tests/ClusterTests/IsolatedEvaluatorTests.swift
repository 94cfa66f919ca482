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
}

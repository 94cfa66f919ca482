package import Foundation
package import Storage

#if canImport(Glibc)
    import Glibc
#endif

/// A coordinator and its workers as real processes, over a network that can be struck.
package final class RigCluster {
    /// How the processes reach one another.
    package enum Wiring {
        /// As on one machine: control over loopback, data over Unix sockets.
        case plain
        /// Every connection over loopback and through a proxy.
        case proxied(ChaosProxy)
        /// Every process on a node of its own.
        case nodes(VirtualNetwork)
    }

    /// A trainer or evaluator, and what can be struck of it.
    package final class Worker {
        package let process: LineupProcess
        package let group: ControlGroup?
        /// Its way to the coordinator, where there is a proxy.
        package let controlLink: ChaosProxy.Link?
        /// The others' way to its data socket, where there is a proxy.
        package let dataLink: ChaosProxy.Link?
        package let node: VirtualNetwork.Node?
        package let startedAt = Date()

        fileprivate init(
            process: LineupProcess, group: ControlGroup?, controlLink: ChaosProxy.Link? = nil,
            dataLink: ChaosProxy.Link? = nil, node: VirtualNetwork.Node? = nil
        ) {
            self.process = process
            self.group = group
            self.controlLink = controlLink
            self.dataLink = dataLink
            self.node = node
        }

        package var isRunning: Bool { process.isRunning }
    }

    package let folder: String
    package let wiring: Wiring
    private let lineup: URL
    private let settings: [String]
    private let expectedTrainers: Int
    private let expectedEvaluators: Int
    /// The folder of the coordinator's keys, which its workers use too.
    private let keys: String?
    private var bulkPorts: (bound: UInt16, link: ChaosProxy.Link)?
    private var controlPort: UInt16 = 0
    /// Where the coordinator runs, where the processes have nodes.
    package private(set) var coordinatorNode: VirtualNetwork.Node?
    private var spareNodes: [VirtualNetwork.Node] = []
    /// The coordinator of the present term.
    package private(set) var coordinator: LineupProcess!
    /// When it was started.
    package private(set) var coordinatorStartedAt = Date()
    /// Trainers, oldest first; the dead are taken out by ``forgetTheDead()``.
    package private(set) var trainers: [Worker] = []
    package private(set) var evaluators: [Worker] = []
    private let coordinatorGroup: ControlGroup?
    private var reader: LedgerReader?

    /// Describes a cluster; nothing is started.
    ///
    /// - Parameters:
    ///   - settings: `KEY=VALUE`, as `--set` takes them.
    ///   - keys: an empty or missing folder in which keys are made; without one there are none.
    ///   - coordinatorGroup: control group of every coordinator.
    package init(
        lineup: URL, folder: String, settings: [String], wiring: Wiring = .plain,
        expectedTrainers: Int = 1, expectedEvaluators: Int = 0, keys: String? = nil,
        coordinatorGroup: ControlGroup? = nil
    ) throws {
        self.lineup = lineup
        self.folder = folder
        self.settings = settings
        self.wiring = wiring
        self.expectedTrainers = expectedTrainers
        self.expectedEvaluators = expectedEvaluators
        self.keys = keys
        self.coordinatorGroup = coordinatorGroup
        switch wiring {
        case .plain: break
        case .proxied(let proxy):
            controlPort = try TCP.freePort()
            let bound = try TCP.freePort()
            bulkPorts = (bound, try proxy.open(to: bound))
        case .nodes(let network): coordinatorNode = try network.addNode()
        }
        if let keys { _ = try Self.output(of: ["keys", "create", "--keys", keys], lineup) }
    }

    deinit { end() }

    // MARK: Processes

    /// Starts the coordinator, or the next one, and waits until it can be reached.
    package func startCoordinator() throws {
        coordinatorStartedAt = Date()
        var arguments = [
            "coordinator", folder, "--expect-trainers", "\(expectedTrainers)",
            "--expect-evaluators", "\(expectedEvaluators)",
        ]
        switch wiring {
        case .plain: arguments += ["--bind", "tcp://127.0.0.1:*"]
        case .proxied:
            let (bound, link) = bulkPorts!
            arguments += [
                "--bind", "tcp://127.0.0.1:\(controlPort)", "--bulk-bind",
                "tcp://127.0.0.1:\(bound)", "--bulk-advertise", "tcp://127.0.0.1:\(link.port)",
            ]
        case .nodes:
            arguments += ["--bind", "tcp://\(coordinatorNode!.address):5555"]
        }
        arguments += access
        coordinator = try LineupProcess(
            arguments + settings.flatMap { ["--set", $0] }, executable: lineup,
            in: Placement(node: coordinatorNode, group: coordinatorGroup))
        _ = try address()
    }

    /// How processes are let in.
    private var access: [String] {
        if let keys { return ["--keys", keys] }
        guard case .nodes = wiring else { return [] }
        return ["--insecure"]
    }

    /// Where the coordinator of the present term listens.
    private func address() throws -> String {
        let deadline = Date().addingTimeInterval(60)
        struct Address: Decodable {
            let address: String
            let process: Int32
        }
        while Date() < deadline {
            if let data = FileManager.default.contents(atPath: folder + "/coordinator.json"),
                let found = try? JSONDecoder().decode(Address.self, from: data),
                found.process == coordinator.identifier
            {
                return found.address
            }
            guard coordinator.isRunning else { break }
            usleep(5_000)
        }
        throw RigError("the coordinator did not start: \(coordinator.errors.suffix(2_000))")
    }

    /// Starts a trainer.
    ///
    /// - Parameter slotPause: seconds that a slot takes longer than it would.
    @discardableResult
    package func startTrainer(
        slotsAtOnce: Int = 1, patience: Int = 20, slotPause: Double = 0,
        group: ControlGroup? = nil
    ) throws -> Worker {
        let options =
            [
                "--slots-at-once", "\(slotsAtOnce)", "--patience", "\(patience)", "--slot-pause",
                "\(slotPause)",
            ] + access
        let worker: Worker
        switch wiring {
        case .plain:
            worker = Worker(
                process: try start(["trainer", "--coordinator", try address()] + options, group),
                group: group)
        case .proxied(let proxy):
            let control = try proxy.open(to: controlPort)
            let port = try TCP.freePort()
            let data = try proxy.open(to: port)
            worker = Worker(
                process: try start(
                    [
                        "trainer", "--coordinator", "tcp://127.0.0.1:\(control.port)", "--bind",
                        "tcp://127.0.0.1:\(port)", "--advertise", "tcp://127.0.0.1:\(data.port)",
                    ] + options, group), group: group, controlLink: control, dataLink: data)
        case .nodes(let network):
            let node = try spareNodes.popLast() ?? network.addNode()
            worker = Worker(
                process: try start(
                    [
                        "trainer", "--coordinator", try address(), "--bind",
                        "tcp://\(node.address):*",
                    ] + options, group, node: node), group: group, node: node)
        }
        trainers.append(worker)
        return worker
    }

    /// Starts an evaluator, on a node of its own where there are nodes; no proxy touches its control link.
    @discardableResult
    package func startEvaluator(group: ControlGroup? = nil) throws -> Worker {
        var node: VirtualNetwork.Node?
        if case .nodes(let network) = wiring {
            node = try spareNodes.popLast() ?? network.addNode()
        }
        let process = try start(
            ["evaluator", "--coordinator", try address()] + access, group, node: node)
        let worker = Worker(process: process, group: group, node: node)
        evaluators.append(worker)
        return worker
    }

    private func start(
        _ arguments: [String], _ group: ControlGroup?, node: VirtualNetwork.Node? = nil
    ) throws -> LineupProcess {
        try LineupProcess(
            arguments, executable: lineup, in: Placement(node: node, group: group))
    }

    /// Every way to the coordinator's bulk socket, where there is a proxy.
    package var bulkLink: ChaosProxy.Link? { bulkPorts?.link }

    /// Takes processes that have ended out of the lists.
    package func forgetTheDead() {
        for worker in trainers + evaluators where !worker.isRunning {
            if let node = worker.node {
                heal(node)
                spareNodes.append(node)
            }
        }
        trainers.removeAll { !$0.isRunning }
        evaluators.removeAll { !$0.isRunning }
    }

    /// Puts a node's network in order.
    package func heal(_ node: VirtualNetwork.Node) {
        node.setLink(up: true)
        node.limit(kilobitsPerSecond: nil)
        if let coordinatorNode { node.setBlackhole(to: coordinatorNode, false) }
    }

    /// kill -9 of every process.
    package func killAll() {
        for worker in trainers + evaluators { worker.process.send(SIGKILL) }
        coordinator?.send(SIGKILL)
        for worker in trainers + evaluators { worker.process.killTree() }
        coordinator?.killTree()
        forgetTheDead()
    }

    /// Ends every process.
    package func end() {
        killAll()
        reader = nil
    }

    // MARK: What the ledger says

    /// The ledger, opened once.
    package func ledger() throws -> LedgerReader {
        if let reader { return reader }
        let opened = try LedgerReader(run: folder)
        reader = opened
        return opened
    }

    /// Last committed step, 0 where there is none.
    package func lastStep() -> Int {
        guard let ledger = try? ledger() else { return 0 }
        return ((try? ledger.run()) ?? nil)?.lastStep ?? 0
    }

    /// Waits until the ledger has a step.
    package func wait(forStep step: Int, seconds: Double = 120) throws {
        let deadline = Date().addingTimeInterval(seconds)
        while lastStep() < step {
            guard Date() < deadline, coordinator.isRunning else {
                throw RigError(
                    "step \(step) was not committed, \(lastStep()) was the last: "
                        + "\(coordinator.errors.suffix(1_000))")
            }
            usleep(5_000)
        }
    }

    /// Waits until so many trainers have computed slots of one of the last steps.
    package func wait(forTrainers count: Int, seconds: Double = 60) throws {
        let deadline = Date().addingTimeInterval(seconds)
        while true {
            let step = lastStep()
            if step > 0, try contributors(ofStep: step).count >= count { return }
            guard Date() < deadline, coordinator.isRunning else {
                throw RigError(
                    "\(count) trainers were waited for: \(coordinator.errors.suffix(1_000))")
            }
            usleep(20_000)
        }
    }

    /// Workers that computed slots of a step.
    package func contributors(ofStep step: Int) throws -> Set<String> {
        Set(try ledger().miniBatches(in: step...step).map(\.worker))
    }

    /// The digest of all results, as `lineup ledger digest` prints it.
    package func ledgerDigest() throws -> String {
        try Self.output(of: ["ledger", "digest", folder], lineup)
    }

    /// Digest of the weights of a checkpoint.
    package func weights(step: Int) throws -> String {
        let name = String(repeating: "0", count: 9 - "\(step)".count) + "\(step)"
        return try Self.output(
            of: ["checkpoint", "digest", "\(folder)/checkpoints/step-\(name).safetensors"], lineup)
    }

    private static func output(of arguments: [String], _ lineup: URL) throws -> String {
        let process = try LineupProcess(arguments, executable: lineup)
        let text = process.standardOutput().trimmingCharacters(in: .whitespacesAndNewlines)
        guard try process.wait() == 0 else { throw RigError(process.errors) }
        return text
    }
}

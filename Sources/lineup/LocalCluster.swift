import Coordinator
import Foundation
import Synchronization
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// One child process of a local cluster.
///
/// - Note: @unchecked: Foundation's process is started and asked from the supervising thread alone.
final class RoleProcess: @unchecked Sendable {
    let name: String
    let log: String
    private let process = Process()
    private let input = Pipe()

    init(name: String, arguments: [String], log: String) throws {
        self.name = name
        self.log = log
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = arguments
        // The child leaves when this end closes, however this process ends.
        process.standardInput = input
        if !FileManager.default.fileExists(atPath: log) {
            _ = FileManager.default.createFile(atPath: log, contents: nil)
        }
        let output = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        try output.seekToEnd()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        try? output.close()
    }

    var isRunning: Bool { process.isRunning }
    var identifier: Int32 { process.processIdentifier }

    /// Exit code, or 128 plus the signal that ended it.
    var status: Int32 {
        process.terminationReason == .uncaughtSignal
            ? 128 + process.terminationStatus : process.terminationStatus
    }

    func signal(_ number: Int32) {
        if process.isRunning { kill(process.processIdentifier, number) }
    }

    /// The last line that the child wrote, for people to whom its log is too far.
    var lastLine: String {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").last.map(String.init) ?? ""
    }
}

/// What a local cluster consists of.
struct LocalClusterPlan: Sendable {
    var folder: RunFolder
    var trainers: Int
    var evaluators: Int
    var devices: [String]
    var evaluatorDevice: String
    var slotsAtOnce: Int
    var dataRoot: String?
    var restarts: Int
    /// Folder of keys, nil without keys.
    var keys: String?
    /// Whether a run goes on in another numerics class.
    var acceptsNumerics = false

    /// What every role is told of the keys.
    var keyArguments: [String] { keys.map { ["--keys", $0] } ?? [] }
}

/// Starts every role as a process of its own on this machine and stays until the run ends.
final class LocalCluster {
    private let plan: LocalClusterPlan
    private var coordinator: RoleProcess?
    private var workers: [Int: (process: RoleProcess, restarts: Int)] = [:]
    private var startTimes: [Int: ContinuousClock.Instant] = [:]
    private let isDraining = Flag()
    private var givenUp: Set<Int> = []

    init(_ plan: LocalClusterPlan) { self.plan = plan }

    private var logs: String { plan.folder.path + "/logs" }

    /// Runs the cluster and returns the coordinator's exit code.
    func run() throws -> Int32 {
        try FileManager.default.createDirectory(
            atPath: logs, withIntermediateDirectories: true)
        let signals = DrainSignals { [isDraining] in isDraining.raise() }
        defer {
            stopAll()
            withExtendedLifetime(signals) {}
        }
        let coordinator = try RoleProcess(
            name: "coordinator",
            arguments: [
                "coordinator", plan.folder.path, "--bind", "tcp://127.0.0.1:*", "--supervised",
                "--expect-trainers", "\(plan.trainers)", "--expect-evaluators",
                "\(plan.evaluators)",
            ] + (plan.acceptsNumerics ? ["--accept-numerics"] : []) + plan.keyArguments
                + (plan.dataRoot.map { ["--data-root", $0] } ?? []),
            log: logs + "/coordinator.log")
        self.coordinator = coordinator
        let address = try waitForAddress(coordinator)
        for number in 0..<plan.trainers + plan.evaluators {
            try start(number, address, restarts: 0)
        }
        return try supervise(coordinator, address)
    }

    private func waitForAddress(_ coordinator: RoleProcess) throws -> String {
        let deadline = ContinuousClock().now + .seconds(120)
        while ContinuousClock().now < deadline {
            if let found = CoordinatorAddress(file: plan.folder.addressFile),
                found.process == coordinator.identifier
            {
                return found.address
            }
            guard coordinator.isRunning else {
                throw failure(of: coordinator)
            }
            usleep(20_000)
        }
        throw CoordinatorFailure(
            message: "the coordinator has not started within 120 s; see \(coordinator.log)")
    }

    private func failure(of process: RoleProcess) -> any Error {
        var line = process.lastLine
        if line.hasPrefix("lineup: ") { line = String(line.dropFirst("lineup: ".count)) }
        let text = line.isEmpty ? "\(process.name) ended with code \(process.status)" : line
        return process.status == 2
            ? ObserverFailure(message: text) : CoordinatorFailure(message: text)
    }

    private func start(_ number: Int, _ address: String, restarts: Int) throws {
        let isTrainer = number < plan.trainers
        let place = isTrainer ? number : number - plan.trainers
        let name = (isTrainer ? "trainer-" : "evaluator-") + "\(place)"
        let device =
            isTrainer ? plan.devices[place % plan.devices.count] : plan.evaluatorDevice
        var arguments =
            [
                isTrainer ? "trainer" : "evaluator", "--coordinator", address, "--device", device,
                "--supervised", "--flight", plan.folder.flight,
            ] + plan.keyArguments
        if isTrainer { arguments += ["--slots-at-once", "\(plan.slotsAtOnce)"] }
        if let root = plan.dataRoot { arguments += ["--data-root", root] }
        workers[number] = (
            try RoleProcess(name: name, arguments: arguments, log: "\(logs)/\(name).log"), restarts
        )
        startTimes[number] = ContinuousClock().now
    }

    private func supervise(_ coordinator: RoleProcess, _ address: String) throws -> Int32 {
        let keys = try plan.keys.map { path in
            let folder = KeyFolder(path: path)
            return WorkerKeys(
                own: try folder.pair(.worker), coordinator: try folder.publicKey(.coordinator))
        }
        let observer = try ClusterObserver(address: address, keys: keys)
        var saidDraining = false
        while coordinator.isRunning {
            try observer.poll(timeout: .milliseconds(100))
            if isDraining.isRaised && !saidDraining {
                saidDraining = true
                say("stopping at the next step boundary; a second signal kills")
                coordinator.signal(SIGTERM)
            }
            if observer.ending == nil && !saidDraining { try replaceDead(address) }
        }
        try? observer.poll(timeout: .milliseconds(50))
        observer.finish()
        if coordinator.status != 0 && coordinator.status != 75 {
            throw failure(of: coordinator)
        }
        return coordinator.status
    }

    /// A worker that died is started again, a few times; the run goes on meanwhile.
    private func replaceDead(_ address: String) throws {
        var lost: RoleProcess?
        var trainersLeft = plan.trainers
        for (number, worker) in workers where !worker.process.isRunning {
            let code = worker.process.status
            let isTrainer = number < plan.trainers
            // 0: it has nothing left to do. 75: it was asked to leave.
            let isDone = code == 0 || code == 75
            if isDone || code == 2 || worker.restarts >= plan.restarts {
                if isTrainer {
                    trainersLeft -= 1
                    if !isDone || lost == nil { lost = worker.process }
                    if code == 2 { throw failure(of: worker.process) }
                } else if !isDone, givenUp.insert(number).inserted {
                    say("\(worker.process.name) is not started again: \(worker.process.lastLine)")
                }
                continue
            }
            guard let started = startTimes[number], ContinuousClock().now - started > .seconds(1)
            else { continue }
            say(
                "\(worker.process.name) ended with code \(code); starting another "
                    + "(\(worker.restarts + 1) of \(plan.restarts)), log \(worker.process.log)")
            try start(number, address, restarts: worker.restarts + 1)
        }
        if plan.trainers > 0, trainersLeft == 0, let lost, lost.status != 0 {
            throw failure(of: lost)
        }
    }

    private func stopAll() {
        let clock = ContinuousClock()
        let begun = clock.now
        coordinator?.signal(SIGTERM)
        var isAsked = false
        while clock.now - begun < .seconds(10),
            workers.values.contains(where: { $0.process.isRunning })
                || coordinator?.isRunning == true
        {
            // Workers hear from the coordinator; one that came too late for that is asked here.
            if !isAsked, coordinator?.isRunning != true, clock.now - begun > .seconds(1) {
                isAsked = true
                for worker in workers.values { worker.process.signal(SIGTERM) }
            }
            usleep(20_000)
        }
        for worker in workers.values { worker.process.signal(SIGKILL) }
        coordinator?.signal(SIGKILL)
    }
}

/// Raised once, from any thread.
private final class Flag: Sendable {
    private let value = Mutex(false)
    var isRaised: Bool { value.withLock { $0 } }
    func raise() { value.withLock { $0 = true } }
}

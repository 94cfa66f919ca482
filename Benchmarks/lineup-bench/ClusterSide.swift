import Basics
import Foundation
import Storage

/// What one run of real processes left in its ledger.
struct ClusterOutcome {
    /// Every committed step.
    let steps: [StepRecord]
    /// Digest of the weights after the last step.
    let weights: String
    /// The last checkpoint, where the run's folder was kept.
    let checkpoint: String

    /// Seconds of each step after the first `skipped`, from commit to commit.
    func seconds(after skipped: Int) -> [Double] {
        (skipped..<steps.count).map { steps[$0].committed - steps[$0 - 1].committed }
    }
}

/// A coordinator and its trainers, each a process of its own.
struct Cluster {
    let lineup: String
    let folder: String
    let dataRoot: String
    let overrides: [String]
    /// Cores and slots at once of each trainer; all cores where nil.
    let trainers: [(cores: [Int]?, slots: Int)]
    let coordinatorCores: [Int]?
    /// Folder of keys, nil without keys.
    var keys: String?
    /// Trainers that the first step waits for; all of `trainers` where nil.
    var expectedTrainers: Int?
    var keepsFolder = false

    /// Trains from the beginning to the end of the schedule.
    func run() throws -> ClusterOutcome {
        defer { if !keepsFolder { try? FileManager.default.removeItem(atPath: folder) } }
        let running = try start()
        defer { running.end() }
        try running.waitForEnd()
        let steps = try running.checkedSteps()
        let reader = try LedgerReader(run: folder)
        defer { try? reader.close() }
        guard let last = steps.last,
            let checkpoint = try reader.checkpoints().last(where: { $0.step == last.step })
        else { throw BenchFailure("the run in \(folder) has no checkpoint of its last step") }
        return ClusterOutcome(
            steps: steps, weights: checkpoint.digest.hex, checkpoint: folder + "/" + checkpoint.file
        )
    }

    /// Starts every process; the run begins on its own.
    func start() throws -> RunningCluster {
        let files = FileManager.default
        try? files.removeItem(atPath: folder)
        let logs = folder + ".logs"
        try? files.removeItem(atPath: logs)
        try files.createDirectory(atPath: logs, withIntermediateDirectories: true)
        let coordinator = try Child(
            "coordinator", executable: lineup,
            arguments: [
                "coordinator", folder, "--bind", "tcp://127.0.0.1:*", "--supervised",
                "--expect-trainers", "\(expectedTrainers ?? trainers.count)", "--data-root",
                dataRoot,
            ] + keyArguments + overrides.flatMap { ["--set", $0] }, cores: coordinatorCores,
            log: logs + "/coordinator.log", answers: false)
        let address: String
        do { address = try self.address(of: coordinator) } catch {
            coordinator.end()
            throw error
        }
        let workers = try trainers.enumerated().map { number, trainer in
            try Child(
                "trainer \(number)", executable: lineup,
                arguments: [
                    "trainer", "--coordinator", address, "--slots-at-once", "\(trainer.slots)",
                    "--supervised",
                ] + keyArguments, cores: trainer.cores, log: logs + "/trainer-\(number).log",
                answers: false)
        }
        return RunningCluster(
            address: address, folder: folder, logs: logs, coordinator: coordinator, workers: workers
        )
    }

    private var keyArguments: [String] { keys.map { ["--keys", $0] } ?? [] }

    private func address(of coordinator: Child) throws -> String {
        struct Address: Decodable {
            let address: String
            let process: Int32
        }
        let file = folder + "/coordinator.json"
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            if let data = FileManager.default.contents(atPath: file),
                let found = try? JSONDecoder().decode(Address.self, from: data),
                found.process == coordinator.identifier
            {
                return found.address
            }
            guard coordinator.isRunning else {
                throw BenchFailure("the coordinator ended: \(coordinator.lastWords)")
            }
            usleep(10_000)
        }
        throw BenchFailure("the coordinator said no address within 60 s: \(coordinator.lastWords)")
    }
}

/// A cluster at work, which can be halted between measurements for some seconds.
final class RunningCluster {
    /// Where the coordinator listens.
    let address: String
    private let folder: String
    private let logs: String
    private let coordinator: Child
    private let workers: [Child]
    private var reader: LedgerReader?

    init(
        address: String, folder: String, logs: String, coordinator: Child, workers: [Child]
    ) {
        self.address = address
        self.folder = folder
        self.logs = logs
        self.coordinator = coordinator
        self.workers = workers
    }

    private func halt() {
        for process in workers + [coordinator] { kill(process.identifier, SIGSTOP) }
    }

    /// Seconds of processor time that the coordinator has used.
    func coordinatorSeconds() throws -> Double {
        let text = try String(
            contentsOfFile: "/proc/\(coordinator.identifier)/stat", encoding: .utf8)
        // proc(5): after the name in brackets; utime and stime are fields 14 and 15.
        let fields = text[(text.lastIndex(of: ")") ?? text.startIndex)...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13])
        else { throw BenchFailure("/proc says nothing of the coordinator's processor time") }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Memory of the coordinator at its largest, in megabytes.
    func coordinatorMegabytes() throws -> Double {
        let text = try String(
            contentsOfFile: "/proc/\(coordinator.identifier)/status", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        guard let kibibytes = line?.split(whereSeparator: \.isWhitespace).dropFirst().first,
            let count = Double(kibibytes)
        else { throw BenchFailure("/proc says nothing of the coordinator's memory") }
        return count * 1024 / 1e6
    }

    /// Lets every process run on.
    func go() {
        for worker in workers { kill(worker.identifier, SIGCONT) }
        // The coordinator finds messages of all of them when it wakes up.
        usleep(300_000)
        kill(coordinator.identifier, SIGCONT)
    }

    /// Waits until a step is in the ledger, then halts every process.
    func run(to step: Int) throws {
        go()
        let deadline = ContinuousClock.now + .seconds(600)
        while try lastStep() < step {
            guard ContinuousClock.now < deadline, coordinator.isRunning else {
                throw BenchFailure(
                    "step \(step) was not committed: \(coordinator.lastWords)")
            }
            // Rarely, so that watching costs the cluster nothing.
            usleep(50_000)
        }
        halt()
    }

    /// Lets the cluster make steps.
    ///
    /// - Returns: seconds from commit to commit of the next `count` steps that are begun while
    ///   it runs; the one that was halted on its way is finished first.
    func steps(_ count: Int) throws -> [Double] {
        let halted = try lastStep() + 1
        try run(to: halted + count)
        let committed = try ledger().steps(in: halted...halted + count).map(\.committed)
        return zip(committed.dropFirst(), committed).map { $0 - $1 }
    }

    /// Drains the run.
    ///
    /// - Returns: the last step and the digest of the weights after it.
    func drain() throws -> (step: Int, weights: String) {
        go()
        coordinator.leave()
        coordinator.wait(atMost: 60)
        end()
        let steps = try checkedSteps()
        let store = CheckpointStore(directory: folder + "/checkpoints/recovery")
        guard let last = steps.last?.step,
            let snapshot = try store.newest(), snapshot.metadata.step == last
        else { throw BenchFailure("the drained run in \(folder) holds no state; see \(logs)") }
        return (last, snapshot.digests.weights.hex)
    }

    func waitForEnd() throws {
        try coordinator.waitForEnd(within: 900)
        for worker in workers { try worker.waitForEnd(within: 30) }
    }

    func end() {
        go()
        coordinator.end()
        for worker in workers { worker.end() }
    }

    /// All committed steps of a run in which nothing was computed twice.
    func checkedSteps() throws -> [StepRecord] {
        let reader = try ledger()
        guard try reader.miniBatches().allSatisfy({ $0.outcome == .used }) else {
            throw BenchFailure(
                "a trainer lost its connection on the way, so the run's times say nothing; is the "
                    + "machine busy? See \(logs)")
        }
        return try reader.steps()
    }

    private func ledger() throws -> LedgerReader {
        if let reader { return reader }
        let opened = try LedgerReader(run: folder)
        reader = opened
        return opened
    }

    /// The digest that chains all effects up to a step.
    func digest(after step: Int) throws -> UInt64? { try ledger().history(afterStep: step) }

    func lastStep() throws -> Int {
        // The ledger is not there before the coordinator has made it.
        guard let reader = try? ledger() else { return 0 }
        return (try? reader.run()?.lastStep) ?? 0
    }
}

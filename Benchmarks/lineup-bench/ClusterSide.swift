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
    var keepsFolder = false

    /// Trains from the beginning to the end of the schedule.
    func run() throws -> ClusterOutcome {
        let files = FileManager.default
        try? files.removeItem(atPath: folder)
        let logs = folder + ".logs"
        try? files.removeItem(atPath: logs)
        try files.createDirectory(atPath: logs, withIntermediateDirectories: true)
        defer { if !keepsFolder { try? files.removeItem(atPath: folder) } }
        let coordinator = try Child(
            "coordinator", executable: lineup,
            arguments: [
                "coordinator", folder, "--bind", "tcp://127.0.0.1:*", "--supervised",
                "--expect-trainers", "\(trainers.count)", "--data-root", dataRoot,
            ] + overrides.flatMap { ["--set", $0] }, cores: coordinatorCores,
            log: logs + "/coordinator.log", answers: false)
        defer { coordinator.end() }
        let address = try address(of: coordinator)
        let workers = try trainers.enumerated().map { number, trainer in
            try Child(
                "trainer \(number)", executable: lineup,
                arguments: [
                    "trainer", "--coordinator", address, "--slots-at-once", "\(trainer.slots)",
                    "--supervised",
                ], cores: trainer.cores, log: logs + "/trainer-\(number).log", answers: false)
        }
        defer { for worker in workers { worker.end() } }
        try coordinator.waitForEnd(within: 900)
        for worker in workers { try worker.waitForEnd(within: 30) }
        let reader = try LedgerReader(run: folder)
        defer { try? reader.close() }
        let steps = try reader.steps()
        guard try reader.miniBatches().allSatisfy({ $0.outcome == .used }) else {
            throw BenchFailure(
                "a trainer lost its connection on the way, so the run's times say nothing; is the "
                    + "machine busy? See \(logs)")
        }
        guard let last = steps.last,
            let checkpoint = try reader.checkpoints().last(where: { $0.step == last.step })
        else { throw BenchFailure("the run in \(folder) has no checkpoint of its last step") }
        return ClusterOutcome(
            steps: steps, weights: checkpoint.digest.hex, checkpoint: folder + "/" + checkpoint.file
        )
    }

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

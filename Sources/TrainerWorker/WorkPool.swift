internal import Foundation
internal import Synchronization

/// OS threads that compute slots; each keeps its own intra-op thread setting.
///
/// - Note: @unchecked: `jobs`, `running` and `isStopping` are touched only under `condition`.
final class WorkPool: @unchecked Sendable {
    private let condition = NSCondition()
    private var jobs: [@Sendable () -> Void] = []
    private var running = 0
    private var isStopping = false

    /// Starts the threads.
    init(threads: Int) {
        for _ in 0..<threads {
            let thread = Thread { [self] in work() }
            // LibTorch's convolutions need more than the 512 KiB of a secondary thread.
            thread.stackSize = 16 << 20
            thread.start()
        }
    }

    /// Adds a job behind those that wait.
    func submit(_ job: @escaping @Sendable () -> Void) {
        condition.withLock {
            jobs.append(job)
            condition.broadcast()
        }
    }

    /// Drops the jobs that have not started.
    func dropWaiting() {
        condition.withLock { jobs = [] }
    }

    /// Returns when no job is left, or after a while.
    ///
    /// - Returns: whether no job is left.
    func waitUntilIdle(seconds: Double) -> Bool {
        condition.withLock {
            let end = Date().addingTimeInterval(seconds)
            while !jobs.isEmpty || running > 0 {
                guard condition.wait(until: end) else { return jobs.isEmpty && running == 0 }
            }
            return true
        }
    }

    /// Ends the threads once their jobs are done.
    func stop() {
        condition.withLock {
            isStopping = true
            jobs = []
            condition.broadcast()
        }
    }

    private func work() {
        while true {
            let job: (@Sendable () -> Void)? = condition.withLock {
                while jobs.isEmpty && !isStopping { condition.wait() }
                guard !jobs.isEmpty else { return nil }
                running += 1
                return jobs.removeFirst()
            }
            guard let job else { return }
            job()
            condition.withLock {
                running -= 1
                condition.broadcast()
            }
        }
    }
}

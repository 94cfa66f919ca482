import Foundation
import Synchronization

/// Runs numbered pieces of work on several threads.
enum ParallelWork {
    /// Threads that are used when none are asked for.
    static var defaultThreadCount: Int { max(ProcessInfo.processInfo.activeProcessorCount, 1) }

    /// Calls `body` once for each of `0..<count`; results come back in order.
    ///
    /// The first failure stops the handing out of work; of several, the lowest index is thrown, so
    /// that the same input gives the same message.
    static func map<Result: Sendable>(
        count: Int, threads: Int, _ body: @escaping @Sendable (Int) throws(DatasetError) -> Result
    ) throws(DatasetError) -> [Result] {
        let queue = WorkQueue<Result>(count: count)
        let group = DispatchGroup()
        for _ in 1..<max(min(threads, count), 1) {
            group.enter()
            let thread = Thread {
                queue.work(body)
                group.leave()
            }
            thread.stackSize = 4 << 20
            thread.start()
        }
        queue.work(body)
        group.wait()
        return try queue.results()
    }
}

private final class WorkQueue<Result: Sendable>: Sendable {
    private struct State {
        var next = 0
        var results: [Result?]
        var failure: (index: Int, error: DatasetError)?
    }

    private let count: Int
    private let state: Mutex<State>

    init(count: Int) {
        self.count = count
        state = Mutex(State(results: [Result?](repeating: nil, count: count)))
    }

    func work(_ body: (Int) throws(DatasetError) -> Result) {
        while let index = take() {
            do throws(DatasetError) {
                let result = try body(index)
                state.withLock { $0.results[index] = result }
            } catch {
                state.withLock { state in
                    if index < state.failure?.index ?? Int.max { state.failure = (index, error) }
                }
            }
        }
    }

    func results() throws(DatasetError) -> [Result] {
        let (results, failure) = state.withLock { ($0.results, $0.failure) }
        if let failure { throw failure.error }
        return results.compactMap { $0 }
    }

    private func take() -> Int? {
        state.withLock { state -> Int? in
            guard state.failure == nil, state.next < count else { return nil }
            state.next += 1
            return state.next - 1
        }
    }
}

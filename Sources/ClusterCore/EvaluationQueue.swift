/// Which sets of which checkpoints are scored, leased or waiting.
///
/// An evaluation is a pure function of (checkpoint, set): a lease only keeps two evaluators from
/// doing the same work, it guards nothing. Holds no clock: time comes in as `now`, since any fixed
/// instant.
public struct EvaluationQueue: Codable, Sendable {
    /// One set of one checkpoint.
    public struct Task: Codable, Hashable, Comparable, Sendable {
        /// Step of the checkpoint.
        public let step: Int
        /// Name of the set.
        public let set: String

        /// Names a task.
        public init(step: Int, set: String) {
            self.step = step
            self.set = set
        }

        /// By step, then by name.
        public static func < (left: Task, right: Task) -> Bool {
            (left.step, left.set) < (right.step, right.set)
        }
    }

    private enum State: Codable, Equatable {
        /// Nobody works on it. Leaves for `leased` when an evaluator polls.
        case waiting(failures: Int)
        /// One evaluator works on it. Leaves for `waiting` at `deadline` or when the evaluator
        /// leaves, for `scored` when its rows are recorded.
        case leased(to: String, deadline: Duration, failures: Int)
        /// Its rows are in the ledger, or it failed `attemptsMax` times.
        case scored
    }

    /// How often a set is tried that evaluators report as failed.
    public static let attemptsMax = 3

    private let sets: [String]
    private let lease: Duration
    private var states: [Task: State] = [:]

    /// Starts with nothing to score.
    ///
    /// - Parameters:
    ///   - lease: how long an evaluator keeps a task without being heard of.
    ///   - scored: sets whose rows the ledger holds, by step of the checkpoint.
    public init(sets: [String], lease: Duration, scored: [Int: Set<String>] = [:]) {
        self.sets = sets
        self.lease = lease
        for (step, names) in scored {
            for set in names { recorded(Task(step: step, set: set)) }
        }
    }

    /// A checkpoint is durable: what is not scored of it is to be scored.
    public mutating func checkpointStored(step: Int) {
        for set in sets {
            let task = Task(step: step, set: set)
            if states[task] == nil { states[task] = .waiting(failures: 0) }
        }
    }

    /// A checkpoint is deleted: nobody can score it any more.
    ///
    /// - Returns: the sets on which it was not scored.
    public mutating func checkpointDeleted(step: Int) -> [String] {
        let open = sets.filter {
            states[Task(step: step, set: $0)].map { $0 != .scored } ?? false
        }
        for set in open { states[Task(step: step, set: set)] = nil }
        return open
    }

    /// Whether every set of every checkpoint is scored.
    public var isDone: Bool { states.values.allSatisfy { $0 == .scored } }

    /// Tasks not yet scored.
    public var openCount: Int { states.values.count { $0 != .scored } }

    /// Whether a set of the checkpoint is not yet scored.
    public func isOpen(step: Int) -> Bool {
        sets.contains { states[Task(step: step, set: $0)].map { $0 != .scored } ?? false }
    }

    /// Whether an evaluator works on a set of the checkpoint.
    public func isLeased(step: Int) -> Bool {
        sets.contains {
            if case .leased = states[Task(step: step, set: $0)] { true } else { false }
        }
    }

    /// An evaluator says that it works on a task: its lease lasts longer.
    public mutating func renew(_ task: Task, evaluator: String, now: Duration) {
        if case .leased(evaluator, _, let failures)? = states[task] {
            states[task] = .leased(to: evaluator, deadline: now + lease, failures: failures)
        }
    }

    /// Leases the free sets of the oldest unscored checkpoint, its share where several evaluators
    /// are there.
    public mutating func grant(
        to evaluator: String, evaluators: Int, now: Duration
    ) -> (step: Int, sets: [String])? {
        tick(now: now)
        let free = states.filter { if case .waiting = $0.value { true } else { false } }
        guard let step = free.keys.map(\.step).min() else { return nil }
        let waiting = sets.filter { free[Task(step: step, set: $0)] != nil }
        let share = max(1, (waiting.count + evaluators - 1) / max(1, evaluators))
        let granted = Array(waiting.prefix(share))
        for set in granted {
            let task = Task(step: step, set: set)
            guard case .waiting(let failures) = states[task] else { continue }
            states[task] = .leased(to: evaluator, deadline: now + lease, failures: failures)
        }
        return (step, granted)
    }

    /// The rows of a task are in the ledger.
    public mutating func recorded(_ task: Task) {
        if sets.contains(task.set) { states[task] = .scored }
    }

    /// An evaluator could not score a task: it is offered again, a few times.
    ///
    /// - Returns: whether it was given up.
    public mutating func failed(_ task: Task, at evaluator: String) -> Bool {
        // A report that was sent twice counts once.
        guard case .leased(evaluator, _, let before)? = states[task] else { return false }
        let failures = before + 1
        states[task] = failures >= Self.attemptsMax ? .scored : .waiting(failures: failures)
        return failures >= Self.attemptsMax
    }

    /// An evaluator is gone: its tasks are free.
    public mutating func evaluatorLeft(_ evaluator: String) {
        for (task, state) in states {
            if case .leased(evaluator, _, let failures) = state {
                states[task] = .waiting(failures: failures)
            }
        }
    }

    /// Frees tasks whose lease has run out.
    public mutating func tick(now: Duration) {
        for (task, state) in states {
            if case .leased(_, let deadline, let failures) = state, deadline <= now {
                states[task] = .waiting(failures: failures)
            }
        }
    }
}

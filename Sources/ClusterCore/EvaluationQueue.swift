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
    /// Tasks that are not scored: few, however long the run is.
    private var open: Set<Task> = []

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
            if states[task] == nil { note(task, as: .waiting(failures: 0)) }
        }
    }

    private mutating func note(_ task: Task, as state: State?) {
        states[task] = state
        if let state, state != .scored { open.insert(task) } else { open.remove(task) }
    }

    /// A checkpoint is deleted: nobody can score it any more.
    ///
    /// - Returns: the sets on which it was not scored.
    public mutating func checkpointDeleted(step: Int) -> [String] {
        let unscored = sets.filter { open.contains(Task(step: step, set: $0)) }
        for name in unscored { note(Task(step: step, set: name), as: nil) }
        return unscored
    }

    /// The checkpoints from a step on are no longer the run's; others may come.
    public mutating func superseded(from step: Int) {
        for task in states.keys where task.step >= step { note(task, as: nil) }
    }

    /// Whether every set of every checkpoint is scored.
    public var isDone: Bool { open.isEmpty }

    /// Tasks not yet scored.
    public var openCount: Int { open.count }

    /// Whether a set of the checkpoint is not yet scored.
    public func isOpen(step: Int) -> Bool {
        sets.contains { open.contains(Task(step: step, set: $0)) }
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
            note(task, as: .leased(to: evaluator, deadline: now + lease, failures: failures))
        }
    }

    /// Leases the free sets of the oldest unscored checkpoint, its share where several evaluators
    /// are there.
    public mutating func grant(
        to evaluator: String, evaluators: Int, now: Duration
    ) -> (step: Int, sets: [String])? {
        tick(now: now)
        let free = open.filter { if case .waiting = states[$0] { true } else { false } }
        guard let step = free.lazy.map(\.step).min() else { return nil }
        let waiting = sets.filter { free.contains(Task(step: step, set: $0)) }
        let share = max(1, (waiting.count + evaluators - 1) / max(1, evaluators))
        let granted = Array(waiting.prefix(share))
        for name in granted {
            let task = Task(step: step, set: name)
            guard case .waiting(let failures) = states[task] else { continue }
            note(task, as: .leased(to: evaluator, deadline: now + lease, failures: failures))
        }
        return (step, granted)
    }

    /// The rows of a task are in the ledger.
    public mutating func recorded(_ task: Task) {
        if sets.contains(task.set) { note(task, as: .scored) }
    }

    /// An evaluator could not score a task: it is offered again, a few times.
    ///
    /// - Returns: whether it was given up.
    public mutating func failed(_ task: Task, at evaluator: String) -> Bool {
        // A report that was sent twice counts once.
        guard case .leased(evaluator, _, let before)? = states[task] else { return false }
        let failures = before + 1
        note(task, as: failures >= Self.attemptsMax ? .scored : .waiting(failures: failures))
        return failures >= Self.attemptsMax
    }

    /// An evaluator is gone: its tasks are free.
    public mutating func evaluatorLeft(_ evaluator: String) {
        for task in open {
            if case .leased(evaluator, _, let failures) = states[task] {
                note(task, as: .waiting(failures: failures))
            }
        }
    }

    /// Frees tasks whose lease has run out.
    public mutating func tick(now: Duration) {
        for task in open {
            if case .leased(_, let deadline, let failures) = states[task], deadline <= now {
                note(task, as: .waiting(failures: failures))
            }
        }
    }
}

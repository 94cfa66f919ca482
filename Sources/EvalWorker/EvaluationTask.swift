/// One set of one checkpoint.
public struct EvaluationTask: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Step of the checkpoint.
    public let step: Int
    /// Name of the set.
    public let set: String

    /// Names a task.
    public init(step: Int, set: String) {
        self.step = step
        self.set = set
    }

    /// Reads the form of ``description``.
    init?(_ text: some StringProtocol) {
        let parts = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, let step = Int(parts[0]), step >= 0, String(step) == parts[0],
            !parts[1].isEmpty
        else { return nil }
        self.init(step: step, set: String(parts[1]))
    }

    /// By step, then by name.
    public static func < (left: EvaluationTask, right: EvaluationTask) -> Bool {
        (left.step, left.set) < (right.step, right.set)
    }

    /// In the form `60-val_eval`, which file names use.
    public var description: String { "\(step)-\(set)" }
}

public import Basics

/// A loss, optimizer or schedule that cannot do what is asked.
public struct MetricLearningError: LineupError {
    /// What went wrong, to branch on.
    public enum Code: Sendable {
        /// A number is outside its range.
        case invalidValue
        /// Labels and embeddings do not fit each other.
        case shapeMismatch
    }

    /// What went wrong, to branch on.
    public let code: Code
    /// One sentence for the operator.
    public let message: String

    /// Makes an error.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// True: every one of these comes from settings or data.
    public var isBadInput: Bool { true }
}

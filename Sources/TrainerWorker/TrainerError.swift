public import Basics

/// A trainer that cannot start or go on.
public struct TrainerError: LineupError, Equatable {
    /// What is wrong.
    public enum Code: Sendable, Equatable {
        case noCoordinator
        case refused
        case differs
        case diverged
        case failed
    }

    /// To branch on.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// Wrong addresses, versions and data are the operator's.
    public var isBadInput: Bool { code != .failed && code != .diverged }

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

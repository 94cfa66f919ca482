public import Basics

/// A run that cannot be created, opened or gone on with.
public struct CoordinatorError: LineupError, Equatable {
    /// What is wrong.
    public enum Code: Sendable, Equatable {
        case runExists
        case noRun
        case differs
        case badSetting
        case failed
    }

    /// To branch on.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// All but a run that failed on its way.
    public var isBadInput: Bool { code != .failed }

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

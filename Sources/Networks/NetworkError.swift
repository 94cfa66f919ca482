public import Basics

/// A network that cannot be built or run as asked.
public struct NetworkError: LineupError {
    /// What went wrong, to branch on.
    public enum Code: Sendable {
        /// A backbone or head of this name does not exist.
        case unknownName
        /// A size is not positive, too small, or contradicts another.
        case invalidSize
        /// Images, parameters or buffers do not fit the network.
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

    /// True: every one of these comes from settings or files.
    public var isBadInput: Bool { true }
}

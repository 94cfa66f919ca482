public import Basics

/// Why a file of a run could not be read or written.
public struct StorageError: LineupError {
    /// What to branch on.
    public enum Code: String, Sendable {
        /// The file or folder does not exist.
        case notFound
        /// The file is not what its name says, or fails one of its checks.
        case corrupt
        /// A newer Lineup wrote the file.
        case newerVersion
        /// Another coordinator holds the run.
        case locked
        /// Another coordinator has begun a later term: this one must stop writing.
        case staleTerm
        /// A step is not the one after the last committed step.
        case stepOutOfOrder
        /// What is being stored already exists with other contents.
        case conflict
        /// An argument is outside what can be stored.
        case invalidValue
        /// The file system has no room left.
        case diskFull
        /// The operating system refused a read or a write.
        case io
        /// SQLite refused; the message carries its reason.
        case database
    }

    /// What to branch on.
    public let code: Code
    /// One sentence that names the thing, the value, what was expected and what to do.
    public let message: String
    /// The error underneath, as text, where there is one.
    public let cause: String?

    /// Makes an error.
    public init(_ code: Code, _ message: String, cause: String? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    /// Whether the operator's input caused it: the command then exits with 2, else with 1.
    public var isBadInput: Bool {
        switch code {
        case .notFound, .corrupt, .newerVersion, .locked: return true
        case .staleTerm, .stepOutOfOrder, .conflict, .invalidValue, .diskFull, .io, .database:
            return false
        }
    }
}

public import Basics

/// A mistake in settings, always the operator's.
public struct SettingsError: LineupError {
    /// What kind of mistake it is, to branch on.
    public enum Code: Sendable, Equatable {
        /// The text is not JSON.
        case malformed
        /// No setting has this name.
        case unknownKey
        /// A value of the wrong type or outside its range.
        case invalidValue
        /// Two settings that exclude each other.
        case conflict
        /// A setting that a run keeps from its start on was changed.
        case refusedChange
    }

    /// What kind of mistake it is.
    public let code: Code
    /// One sentence that names the key, the value, what was expected and what to do.
    public let message: String
    /// Always true.
    public var isBadInput: Bool { true }

    /// Makes an error of a kind with its sentence.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

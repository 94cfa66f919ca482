/// An error that ends a command with one clear line.
///
/// The line names the thing, the value, what was expected and what to do.
public protocol LineupError: Error, CustomStringConvertible, Sendable {
    /// One sentence without a trailing newline.
    var message: String { get }

    /// Whether the operator's input caused it: the command then exits with 2, else with 1.
    var isBadInput: Bool { get }
}

extension LineupError {
    /// The message, so that string interpolation shows nothing else.
    public var description: String { message }
}

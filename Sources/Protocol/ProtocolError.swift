public import Basics

/// Bytes from the network that are not a message of this protocol.
public struct ProtocolError: LineupError, Equatable {
    /// What is wrong with the bytes.
    public enum Code: Sendable, Equatable {
        case malformed
        case tooLarge
        case version
    }

    /// To branch on.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// A peer's fault is never the operator's input.
    public var isBadInput: Bool { false }

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

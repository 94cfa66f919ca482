public import Basics
internal import CZeroMQ

/// A socket could not be opened, bound, connected or used.
public struct TransportError: LineupError, Equatable {
    /// What failed.
    public enum Code: Sendable, Equatable {
        case addressInUse
        case badAddress
        case badKey
        case notLocal
        case system
        /// A peer has said nothing for long.
        case unanswered
    }

    /// To branch on.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// Addresses and keys come from the operator.
    public var isBadInput: Bool { code != .system && code != .unanswered }

    package init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The last ZeroMQ error of this thread.
    static func last(_ what: String) -> TransportError {
        let number = zmq_errno()
        let text = unsafe String(cString: zmq_strerror(number))
        switch number {
        case EADDRINUSE:
            return TransportError(
                .addressInUse,
                "\(what): the address is in use; stop what holds it or choose another port")
        case EADDRNOTAVAIL, ENODEV:
            return TransportError(
                .notLocal, "\(what): this machine has no such address or interface")
        case EINVAL, EPROTONOSUPPORT, ENOCOMPATPROTO:
            return TransportError(
                .badAddress, "\(what): not an address; expected tcp://HOST:PORT or ipc://FILE")
        default:
            return TransportError(.system, "\(what): \(text)")
        }
    }
}

public import Foundation
internal import CZeroMQ

/// One received frame; owns ZeroMQ's buffer, so that nothing is copied on the way in.
///
/// - Note: @unchecked: the buffer is never written after the frame is made.
public final class Frame: @unchecked Sendable {
    private let message: UnsafeMutablePointer<zmq_msg_t>

    init() {
        message = .allocate(capacity: 1)
        zmq_msg_init(message)
    }

    /// A frame of this process's own, as if it had come over a connection.
    package init(copying bytes: UnsafeRawBufferPointer) {
        message = .allocate(capacity: 1)
        guard zmq_msg_init_size(message, bytes.count) == 0 else {
            fatalError("no memory for a frame of \(bytes.count) bytes")
        }
        UnsafeMutableRawBufferPointer(start: zmq_msg_data(message), count: bytes.count)
            .copyMemory(from: bytes)
    }

    deinit {
        zmq_msg_close(message)
        message.deallocate()
    }

    var handle: UnsafeMutablePointer<zmq_msg_t> { message }

    /// Length in bytes.
    public var count: Int { zmq_msg_size(message) }

    /// The frame's bytes, valid inside the call.
    public func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(start: zmq_msg_data(message), count: count))
    }

    /// The frame's bytes, valid as long as the frame lives.
    public var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: zmq_msg_data(message), count: count)
    }

    /// The frame as text, nil when it is not UTF-8.
    public var text: String? {
        withUnsafeBytes { String(validating: $0, as: UTF8.self) }
    }

    /// A copy of the frame.
    public var data: Data { withUnsafeBytes { Data($0) } }

    /// Key that the frame's connection was opened with, as the gatekeeper has established it; nil on
    /// a socket without keys.
    public var key: PublicKey? {
        guard let text = lineup_zmq_user_id(message) else { return nil }
        return PublicKey(hex: Substring(String(cString: text)))
    }

    /// File descriptor of the connection that the frame came over, -1 when unknown.
    public var sourceDescriptor: Int32 { lineup_zmq_source_fd(message) }
}

internal import CZeroMQ
internal import Foundation
internal import Synchronization

/// Answers ZeroMQ's question whether a key may connect (RFC 27, ZAP), on a thread of its own, so that
/// a busy process keeps nobody waiting at the door.
final class Gatekeeper: Sendable {
    private let wakeup = Wakeup()
    private let hasEnded = DispatchSemaphore(value: 0)

    /// Starts to answer for every server socket of a context.
    ///
    /// - Parameter isFinal: whether who is turned away is told so, and then tries no more; else nothing is
    ///   said, the handshake's time runs out, and he tries again.
    init(
        of context: UnsafeMutableRawPointer, admits: @escaping @Sendable (PublicKey) -> Bool,
        isFinal: Bool, refusals: Refusals
    ) throws(TransportError) {
        let failure = Mutex<TransportError?>(nil)
        let isReady = DispatchSemaphore(value: 0)
        let address = UInt(bitPattern: context)
        let (wakeup, hasEnded) = (wakeup, hasEnded)
        Thread.detachNewThread {
            defer { hasEnded.signal() }
            guard let socket = zmq_socket(UnsafeMutableRawPointer(bitPattern: address), ZMQ_REP),
                zmq_bind(socket, "inproc://zeromq.zap.01") == 0
            else {
                failure.withLock { $0 = .last("open the gatekeeper's socket") }
                _ = isReady.signal()
                return
            }
            isReady.signal()
            Self.serve(socket, wakeup, admits, refusal: isFinal ? "400" : "300", refusals)
            zmq_close(socket)
        }
        isReady.wait()
        if let failure = failure.withLock({ $0 }) { throw failure }
    }

    /// Ends the thread and waits for its end.
    func stop() {
        wakeup.signal()
        hasEnded.wait()
    }

    private static func serve(
        _ socket: UnsafeMutableRawPointer, _ wakeup: Wakeup, _ admits: (PublicKey) -> Bool,
        refusal: String, _ refusals: Refusals
    ) {
        var items = [
            zmq_pollitem_t(socket: socket, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0),
            zmq_pollitem_t(
                socket: nil, fd: wakeup.descriptor, events: Int16(ZMQ_POLLIN), revents: 0),
        ]
        while true {
            zmq_poll(&items, 2, -1)
            if items[1].revents != 0 { return }
            while let request = Socket.receive(from: socket) {
                answer(request, on: socket, admits, refusal: refusal, refusals)
            }
        }
    }

    /// Answers one request.
    ///
    /// Request: version, number, domain, address, identity, mechanism, key. Reply: version, number,
    /// status, its text, user, metadata.
    private static func answer(
        _ request: [Frame], on socket: UnsafeMutableRawPointer, _ admits: (PublicKey) -> Bool,
        refusal: String, _ refusals: Refusals
    ) {
        let key =
            request.count == 7 && request[5].text == "CURVE"
            ? PublicKey(bytes: request[6].bytes) : nil
        let number = request.count > 1 ? request[1].data : Data()
        let isAdmitted = key.map(admits) ?? false
        if !isAdmitted {
            let from = request.count > 3 ? request[3].text ?? "" : ""
            refusals.note("a key that is not allowed", "key \(key?.hex ?? "none") from \(from)")
        }
        let reply = [
            Data("1.0".utf8), number, Data((isAdmitted ? "200" : refusal).utf8),
            Data((isAdmitted ? "" : "key not allowed").utf8),
            Data((isAdmitted ? key!.hex : "").utf8), Data(),
        ]
        for (place, part) in reply.enumerated() {
            let flags = ZMQ_DONTWAIT | (place + 1 < reply.count ? ZMQ_SNDMORE : 0)
            _ = part.withUnsafeBytes { zmq_send(socket, $0.baseAddress, $0.count, flags) }
        }
    }
}

internal import Basics
internal import CZeroMQ
public import Foundation

/// The ZeroMQ context of a process: its I/O thread and its sockets, and its key where it has one.
///
/// With a key every socket of the context is encrypted and authenticated with CURVE (RFC 26): none can
/// be forgotten.
///
/// - Note: @unchecked: a ZeroMQ context may be used from any thread (zmq_ctx_new(3)).
public final class Context: @unchecked Sendable {
    let handle: UnsafeMutableRawPointer
    private let gatekeeper: Gatekeeper?
    /// The process's key pair, nil where it has none.
    public let keys: KeyPair?

    /// Makes a context with one I/O thread, without keys.
    public init() {
        handle = Self.make()
        keys = nil
        gatekeeper = nil
    }

    /// Makes a context with one I/O thread.
    ///
    /// - Parameters:
    ///   - keys: the process's own, nil for a context without keys.
    ///   - refusals: told of every key that is turned away.
    ///   - isRefusalFinal: whether a key that is turned away now is told so, and tries no more.
    ///   - admits: whether a key may connect to the sockets that are bound here; called on another
    ///     thread.
    public init(
        keys: KeyPair?, refusals: Refusals, isRefusalFinal: Bool = true,
        admits: @escaping @Sendable (PublicKey) -> Bool
    ) throws(TransportError) {
        handle = Self.make()
        self.keys = keys
        guard keys != nil else {
            gatekeeper = nil
            return
        }
        // Before any socket: without a handler ZeroMQ admits every key.
        do throws(TransportError) {
            gatekeeper = try Gatekeeper(
                of: handle, admits: admits, isFinal: isRefusalFinal, refusals: refusals)
        } catch {
            gatekeeper = nil
            throw error
        }
    }

    private static func make() -> UnsafeMutableRawPointer {
        let handle: UnsafeMutableRawPointer = zmq_ctx_new()
        zmq_ctx_set(handle, ZMQ_MAX_SOCKETS, 65_536)
        return handle
    }

    deinit {
        gatekeeper?.stop()
        zmq_ctx_term(handle)
    }
}

/// A ZeroMQ socket; belongs to the thread that made it.
///
/// Sends never block: what a peer cannot take is refused and said so.
public final class Socket {
    /// The patterns that Lineup uses.
    public enum Kind: Sendable {
        /// Many peers, addressed by the name each has set as its identity; a later connection with
        /// the same name takes the place of the earlier.
        case router
        /// Many peers, addressed by a name that this socket makes up for each connection: nobody can
        /// take another's.
        case server
        /// One peer.
        case dealer
    }

    let handle: UnsafeMutableRawPointer
    private let context: Context
    private var monitor: UnsafeMutableRawPointer?

    /// Opens a socket.
    ///
    /// - Parameters:
    ///   - identity: how a ROUTER at the other end names this socket.
    ///   - frameBytesMax: a peer that sends a longer frame is disconnected.
    ///   - receiveQueueMax: messages of one connection that wait here before its peer is slowed down.
    ///   - sendQueueMax: messages queued for a peer before sends are refused; 0 has no limit.
    /// - Throws: ``TransportError`` where the system has no more sockets or no CURVE.
    public init(
        _ context: Context, _ kind: Kind, identity: String = "", frameBytesMax: Int,
        receiveQueueMax: Int = 1_000, sendQueueMax: Int = 0
    ) throws(TransportError) {
        self.context = context
        guard let handle = zmq_socket(context.handle, kind == .dealer ? ZMQ_DEALER : ZMQ_ROUTER)
        else {
            throw TransportError.last("open a socket")
        }
        self.handle = handle
        set(ZMQ_LINGER, 1_000)
        set(ZMQ_SNDHWM, Int32(sendQueueMax))
        set(ZMQ_RCVHWM, Int32(receiveQueueMax))
        watchForHalfOpen(kind)
        // Who says nothing after connecting is turned out; the kernel's queue takes a mass join.
        set(ZMQ_HANDSHAKE_IVL, 3_000)
        set(ZMQ_BACKLOG, 8_192)
        set(ZMQ_RECONNECT_IVL, 20)
        set(ZMQ_RECONNECT_IVL_MAX, 2_000)
        var longest = Int64(frameBytesMax)
        zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &longest, MemoryLayout<Int64>.size)
        if kind != .dealer {
            set(ZMQ_ROUTER_MANDATORY, 1)
            set(ZMQ_ROUTER_HANDOVER, kind == .router ? 1 : 0)
        }
        if !identity.isEmpty {
            zmq_setsockopt(handle, ZMQ_ROUTING_ID, identity, identity.utf8.count)
        }
        guard let keys = context.keys else { return }
        try set(ZMQ_CURVE_PUBLICKEY, keys.publicKey.bytes)
        try set(ZMQ_CURVE_SECRETKEY, keys.secret)
        if kind != .dealer {
            set(ZMQ_CURVE_SERVER, 1)
            try set(ZMQ_ZAP_DOMAIN, Array("lineup".utf8))
        }
    }

    deinit {
        if let monitor {
            zmq_socket_monitor(handle, nil, 0)
            zmq_close(monitor)
        }
        zmq_close(handle)
    }

    /// Finds half-open connections; a machine that is merely overloaded answers in time.
    private func watchForHalfOpen(_ kind: Kind) {
        guard kind == .server else {
            set(ZMQ_HEARTBEAT_IVL, 1_000)
            set(ZMQ_HEARTBEAT_TIMEOUT, 15_000)
            return
        }
        // ZeroMQ looks through the timers of all its connections for every heartbeat that is answered:
        // with thousands of them the kernel does it. The peers' own heartbeats are answered all the same.
        set(ZMQ_TCP_KEEPALIVE, 1)
        set(ZMQ_TCP_KEEPALIVE_IDLE, 5)
        set(ZMQ_TCP_KEEPALIVE_INTVL, 5)
        set(ZMQ_TCP_KEEPALIVE_CNT, 2)
        set(ZMQ_TCP_MAXRT, 15_000)
    }

    /// An option without which the socket would not be safe.
    private func set(_ option: Int32, _ bytes: [UInt8]) throws(TransportError) {
        guard zmq_setsockopt(handle, option, bytes, bytes.count) == 0 else {
            throw TransportError.last("use a key")
        }
    }

    private func set(_ option: Int32, _ value: Int32) {
        var value = value
        zmq_setsockopt(handle, option, &value, MemoryLayout<Int32>.size)
    }

    /// Binds and returns the address as resolved, with the port that a `*` became.
    public func bind(_ address: String) throws(TransportError) -> String {
        guard zmq_bind(handle, address) == 0 else {
            throw TransportError.last("bind \(address)")
        }
        var bytes = [CChar](repeating: 0, count: 1_024)
        var length = bytes.count
        guard zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, &bytes, &length) == 0 else {
            throw TransportError.last("bind \(address)")
        }
        let text = bytes.prefix(max(0, length - 1)).map { UInt8(bitPattern: $0) }
        return String(decoding: text, as: UTF8.self)
    }

    /// Binds, and beside it an address for processes of this machine, which is faster.
    ///
    /// - Parameters:
    ///   - host: what others know this machine by, where it is bound to all interfaces.
    ///   - advertised: the one address by which others are to reach the socket, where ports or
    ///     addresses are translated between them and this machine.
    /// - Returns: all addresses, separated by spaces, as ``Address/choose(_:)`` takes them.
    public func bindForData(
        _ address: String, host: String, advertised: String? = nil
    ) throws(TransportError) -> String {
        let bound = Address.reachable(try bind(address), from: host)
        if let advertised { return Address.adding(context.keys?.publicKey, to: advertised) }
        let name = Address.localPrefix + "lineup-" + UInt64.random(in: .min ... .max).hex
        // Where there are no Unix sockets the first address has to do.
        let addresses = zmq_bind(handle, name) == 0 ? "\(bound) \(name)" : bound
        return Address.adding(context.keys?.publicKey, to: addresses)
    }

    /// Connects to the best of some addresses; whoever is not there yet is tried again until it is.
    ///
    /// - Throws: ``TransportError`` for what is no address, and where this process has keys but the
    ///   address names none: nothing is sent in the clear then.
    public func connect(_ addresses: String) throws(TransportError) {
        if context.keys != nil {
            guard let key = Address.key(in: addresses) else {
                throw TransportError(
                    .badKey, "\(addresses) does not say which key its owner holds")
            }
            try set(ZMQ_CURVE_SERVERKEY, key.bytes)
        }
        let address = Address.choose(addresses)
        guard zmq_connect(handle, address) == 0 else {
            throw TransportError.last("connect to \(address)")
        }
    }

    /// Sends frames as one message to a peer that has named itself.
    @discardableResult
    public func send(_ frames: [Data], to peer: String) -> Bool {
        send(frames, to: Data(peer.utf8))
    }

    /// Sends frames as one message; false when the peer is unknown or its queue is full.
    ///
    /// - Parameter peer: for a ROUTER, the first frame of what came from the peer.
    @discardableResult
    public func send(_ frames: [Data], to peer: Data? = nil) -> Bool {
        let parts = (peer.map { [$0] } ?? []) + frames
        for (number, part) in parts.enumerated() {
            let flags = ZMQ_DONTWAIT | (number + 1 < parts.count ? ZMQ_SNDMORE : 0)
            let sent = part.withUnsafeBytes {
                zmq_send(handle, $0.baseAddress, $0.count, flags)
            }
            // Only the first frame can be refused: ZeroMQ sends a message whole or not at all.
            guard sent >= 0 else { return false }
        }
        return true
    }

    /// Sends a header and a payload that `fill` writes straight into ZeroMQ's buffer.
    ///
    /// - Parameter fill: writes the payload and returns the header, which may hold its digest.
    @discardableResult
    public func send(
        payloadBytes: Int, to peer: String? = nil,
        fill: (UnsafeMutableRawBufferPointer) throws -> Data
    ) rethrows -> Bool {
        var message = zmq_msg_t()
        guard zmq_msg_init_size(&message, payloadBytes) == 0 else { return false }
        var isTaken = false
        defer { if !isTaken { zmq_msg_close(&message) } }
        let header = try fill(
            UnsafeMutableRawBufferPointer(start: zmq_msg_data(&message), count: payloadBytes))
        if let peer {
            let name = Data(peer.utf8)
            let sent = name.withUnsafeBytes {
                zmq_send(handle, $0.baseAddress, $0.count, ZMQ_DONTWAIT | ZMQ_SNDMORE)
            }
            guard sent >= 0 else { return false }
        }
        let sent = header.withUnsafeBytes {
            zmq_send(handle, $0.baseAddress, $0.count, ZMQ_DONTWAIT | ZMQ_SNDMORE)
        }
        guard sent >= 0 else { return false }
        isTaken = zmq_msg_send(&message, handle, ZMQ_DONTWAIT) >= 0
        return isTaken
    }

    /// Sends a header and a payload from where it lies.
    ///
    /// - Parameter owner: is kept until ZeroMQ needs the payload no more; what changes in it until
    ///   then is sent as it is by then.
    @discardableResult
    public func send(
        _ header: Data, payload: UnsafeRawBufferPointer, of owner: AnyObject
    ) -> Bool {
        var message = zmq_msg_t()
        let kept = Unmanaged.passRetained(owner)
        guard
            zmq_msg_init_data(
                &message, UnsafeMutableRawPointer(mutating: payload.baseAddress!), payload.count,
                { _, owner in Unmanaged<AnyObject>.fromOpaque(owner!).release() },
                kept.toOpaque()) == 0
        else {
            kept.release()
            return false
        }
        let sent = header.withUnsafeBytes {
            zmq_send(handle, $0.baseAddress, $0.count, ZMQ_DONTWAIT | ZMQ_SNDMORE)
        }
        guard sent >= 0, zmq_msg_send(&message, handle, ZMQ_DONTWAIT) >= 0 else {
            zmq_msg_close(&message)
            return false
        }
        return true
    }

    /// The next message if one is there, as its frames; a ROUTER's begins with the sender's name.
    public func receive() -> [Frame]? { Self.receive(from: handle) }

    static func receive(from handle: UnsafeMutableRawPointer) -> [Frame]? {
        var frames: [Frame] = []
        while true {
            let frame = Frame()
            guard zmq_msg_recv(frame.handle, handle, ZMQ_DONTWAIT) >= 0 else { return nil }
            // A message of Lineup has three frames at most; of one with many the rest is let go.
            if frames.count < framesMax { frames.append(frame) }
            guard zmq_msg_more(frame.handle) != 0 else { return frames }
        }
    }

    private static let framesMax = 8

    /// Starts to report connections; see ``connectionEvents()``.
    public func watchConnections() throws(TransportError) {
        let address = "inproc://monitor-\(UInt(bitPattern: handle))"
        let events =
            ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH
            | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | ZMQ_EVENT_DISCONNECTED
        guard zmq_socket_monitor(handle, address, events) == 0 else {
            throw TransportError.last("watch connections")
        }
        guard let monitor = zmq_socket(context.handle, ZMQ_PAIR) else {
            throw TransportError.last("watch connections")
        }
        var linger: Int32 = 0
        zmq_setsockopt(monitor, ZMQ_LINGER, &linger, MemoryLayout<Int32>.size)
        // ZeroMQ's I/O thread would wait for a reader that is behind, and every connection with it.
        var waiting: Int32 = 100_000
        zmq_setsockopt(monitor, ZMQ_RCVHWM, &waiting, MemoryLayout<Int32>.size)
        guard zmq_connect(monitor, address) == 0 else {
            throw TransportError.last("watch connections")
        }
        self.monitor = monitor
    }

    /// A change of one connection.
    public enum ConnectionEvent: Equatable, Sendable {
        /// Both sides have agreed; messages flow.
        case opened
        /// The connection of a file descriptor has ended.
        case closed(descriptor: Int32)
        /// Both sides did not agree, and the connection ends.
        case failed(HandshakeFailure)
    }

    /// Why two sides did not agree.
    public enum HandshakeFailure: Equatable, Sendable {
        /// The other side does not allow this one's key.
        case keyRefused
        /// One side has keys, the other has none.
        case otherMechanism
        /// The other side hung up, said nothing for too long or spoke something else.
        case unclear
    }

    /// What happened to connections since the last call, in order.
    public func connectionEvents() -> [ConnectionEvent] {
        guard let monitor else { return [] }
        var found: [ConnectionEvent] = []
        while true {
            let frame = Frame()
            guard zmq_msg_recv(frame.handle, monitor, ZMQ_DONTWAIT) >= 0 else { return found }
            var event: UInt32 = 0
            var value: Int32 = 0
            let known = frame.withUnsafeBytes {
                lineup_zmq_monitor_event($0.baseAddress, $0.count, &event, &value) == 0
            }
            if known { found.append(Self.connectionEvent(Int32(event), value)) }
            while zmq_msg_more(frame.handle) != 0 {
                guard zmq_msg_recv(frame.handle, monitor, ZMQ_DONTWAIT) >= 0 else { break }
            }
        }
    }

    private static func connectionEvent(_ event: Int32, _ value: Int32) -> ConnectionEvent {
        switch event {
        case ZMQ_EVENT_DISCONNECTED: return .closed(descriptor: value)
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: return .opened
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: return .failed(.keyRefused)
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL
        where value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return .failed(.otherMechanism)
        default: return .failed(.unclear)
        }
    }

    var monitorHandle: UnsafeMutableRawPointer? { monitor }
}

internal import Basics
internal import CZeroMQ
public import Foundation

/// The ZeroMQ context of a process: its I/O thread and its sockets.
///
/// - Note: @unchecked: a ZeroMQ context may be used from any thread (zmq_ctx_new(3)).
public final class Context: @unchecked Sendable {
    let handle: UnsafeMutableRawPointer

    /// Makes a context with one I/O thread.
    public init() {
        handle = zmq_ctx_new()
        zmq_ctx_set(handle, ZMQ_MAX_SOCKETS, 65_536)
    }

    deinit { zmq_ctx_term(handle) }
}

/// A ZeroMQ socket; belongs to the thread that made it.
///
/// Sends never block: what a peer cannot take is refused and said so.
public final class Socket {
    /// The patterns that Lineup uses.
    public enum Kind: Sendable {
        /// Many peers, addressed by the name each has set as its identity.
        case router
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
    ///   - highWaterMark: messages queued for a peer before sends are refused; 0 has no limit.
    public init(
        _ context: Context, _ kind: Kind, identity: String = "", frameBytesMax: Int,
        highWaterMark: Int = 0
    ) throws(TransportError) {
        self.context = context
        let type = kind == .router ? ZMQ_ROUTER : ZMQ_DEALER
        guard let handle = zmq_socket(context.handle, type) else {
            throw TransportError.last("open a socket")
        }
        self.handle = handle
        set(ZMQ_LINGER, 1_000)
        set(ZMQ_SNDHWM, Int32(highWaterMark))
        set(ZMQ_RCVHWM, Int32(highWaterMark))
        // Heartbeats find half-open connections; a machine that is merely overloaded answers in time.
        set(ZMQ_HEARTBEAT_IVL, 1_000)
        set(ZMQ_HEARTBEAT_TIMEOUT, 15_000)
        set(ZMQ_HANDSHAKE_IVL, 5_000)
        set(ZMQ_RECONNECT_IVL, 100)
        set(ZMQ_RECONNECT_IVL_MAX, 2_000)
        var longest = Int64(frameBytesMax)
        zmq_setsockopt(handle, ZMQ_MAXMSGSIZE, &longest, MemoryLayout<Int64>.size)
        if kind == .router {
            set(ZMQ_ROUTER_MANDATORY, 1)
            set(ZMQ_ROUTER_HANDOVER, 1)
        }
        if !identity.isEmpty {
            zmq_setsockopt(handle, ZMQ_ROUTING_ID, identity, identity.utf8.count)
        }
    }

    deinit {
        if let monitor {
            zmq_socket_monitor(handle, nil, 0)
            zmq_close(monitor)
        }
        zmq_close(handle)
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
        if let advertised { return advertised }
        let name = Address.localPrefix + "lineup-" + UInt64.random(in: .min ... .max).hex
        // Where there are no Unix sockets the first address has to do.
        return zmq_bind(handle, name) == 0 ? "\(bound) \(name)" : bound
    }

    /// Connects to the best of some addresses; whoever is not there yet is tried again until it is.
    public func connect(_ addresses: String) throws(TransportError) {
        let address = Address.choose(addresses)
        guard zmq_connect(handle, address) == 0 else {
            throw TransportError.last("connect to \(address)")
        }
    }

    /// Sends frames as one message; false when the peer is unknown or its queue is full.
    @discardableResult
    public func send(_ frames: [Data], to peer: String? = nil) -> Bool {
        var parts = frames
        if let peer { parts.insert(Data(peer.utf8), at: 0) }
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

    /// The next message if one is there, as its frames; a ROUTER's begins with the sender's name.
    public func receive() -> [Frame]? {
        var frames: [Frame] = []
        while true {
            let frame = Frame()
            guard zmq_msg_recv(frame.handle, handle, ZMQ_DONTWAIT) >= 0 else { return nil }
            frames.append(frame)
            guard zmq_msg_more(frame.handle) != 0 else { return frames }
        }
    }

    /// Starts to report connections; see ``connectionEvents()``.
    public func watchConnections() throws(TransportError) {
        let address = "inproc://monitor-\(UInt(bitPattern: handle))"
        let events = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED
        guard zmq_socket_monitor(handle, address, events) == 0 else {
            throw TransportError.last("watch connections")
        }
        guard let monitor = zmq_socket(context.handle, ZMQ_PAIR) else {
            throw TransportError.last("watch connections")
        }
        var linger: Int32 = 0
        zmq_setsockopt(monitor, ZMQ_LINGER, &linger, MemoryLayout<Int32>.size)
        guard zmq_connect(monitor, address) == 0 else {
            throw TransportError.last("watch connections")
        }
        self.monitor = monitor
    }

    /// A change of one connection, named by its file descriptor.
    public enum ConnectionEvent: Equatable, Sendable {
        case opened(descriptor: Int32)
        case closed(descriptor: Int32)
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
            if known {
                if Int32(event) == ZMQ_EVENT_DISCONNECTED {
                    found.append(.closed(descriptor: value))
                } else {
                    found.append(.opened(descriptor: value))
                }
            }
            while zmq_msg_more(frame.handle) != 0 {
                guard zmq_msg_recv(frame.handle, monitor, ZMQ_DONTWAIT) >= 0 else { break }
            }
        }
    }

    var monitorHandle: UnsafeMutableRawPointer? { monitor }
}

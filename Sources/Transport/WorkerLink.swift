internal import Foundation
internal import Logging
public import Protocol

/// A worker's control connection to the coordinator.
public final class WorkerLink {
    /// The socket, to poll on.
    public let socket: Socket
    /// This process's name in the cluster.
    public let worker: String
    /// Run id, once the coordinator has told it; sent with every message.
    public var run: UInt64 = 0
    private let coordinator: String
    private let role: WireRole
    private let keys: WorkerKeys?
    private let logger = Logger(label: "lineup.link")
    private var hasOpened = false
    private var unclearFailures = 0
    /// So often in a row somebody has to hang up during the handshake before the key is doubted.
    private static let unclearFailuresMax = 5

    /// Connects; whether anybody answers shows when WELCOME comes or does not.
    ///
    /// - Parameters:
    ///   - context: one with `keys.own`, where there are keys.
    ///   - coordinator: `tcp://HOST:PORT` or `ipc://FILE`.
    ///   - keys: nil where the coordinator has none.
    ///   - host: this machine's name for others.
    public init(
        _ context: Context, coordinator: String, role: WireRole, keys: WorkerKeys?, host: String
    ) throws(TransportError) {
        try Address.check(coordinator)
        self.coordinator = coordinator
        self.role = role
        self.keys = keys
        worker = WorkerName.make(
            role: role.word, host: host, process: ProcessInfo.processInfo.processIdentifier,
            key: keys?.own.publicKey.fingerprint)
        // The coordinator names the connection; who this is says HELLO.
        socket = try Socket(context, .dealer, frameBytesMax: WireCodec.controlBytesMax)
        try socket.watchConnections()
        try socket.connect(Address.adding(keys?.coordinator, to: coordinator))
    }

    /// Sends a control message.
    public func send(_ body: WireBody) {
        socket.send([WireCodec.encode(body, run: run)])
    }

    /// What happened to the connection since the last call, in order.
    ///
    /// - Throws: ``TransportError`` when the coordinator does not let this worker in, and why.
    public func connectionEvents() throws(TransportError) -> [Socket.ConnectionEvent] {
        let events = socket.connectionEvents()
        for event in events {
            switch event {
            case .opened:
                hasOpened = true
                unclearFailures = 0
            case .failed(let failure): try failed(failure)
            case .closed: break
            }
        }
        return events
    }

    private func failed(_ failure: Socket.HandshakeFailure) throws(TransportError) {
        switch failure {
        case .keyRefused:
            let key = keys?.own.publicKey
            throw TransportError(
                .badKey,
                "the coordinator at \(coordinator) does not allow this key "
                    + "(\(key?.fingerprint ?? "none")); on its machine run: lineup keys allow "
                    + "\(key?.hex ?? "KEY") --role \(role.word) --name NAME")
        case .otherMechanism where keys == nil:
            throw TransportError(
                .badKey,
                "the coordinator at \(coordinator) admits only workers with a key; make one here "
                    + "with 'lineup keys create --coordinator KEY', where KEY is what 'lineup keys "
                    + "list' shows on its machine, or name their folder with --keys")
        case .otherMechanism:
            throw TransportError(
                .badKey,
                "the coordinator at \(coordinator) has no keys, and nothing is sent to it in the "
                    + "clear; start it with --keys, or write --insecure here on a network you trust"
            )
        case .unclear:
            unclearFailures += 1
            // One that was there before may be starting again.
            guard let keys, !hasOpened, unclearFailures >= Self.unclearFailuresMax else { return }
            throw TransportError(
                .badKey,
                "whoever listens at \(coordinator) does not hold the coordinator's key "
                    + "(\(keys.coordinator.fingerprint) in coordinator.public), or runs without keys; "
                    + "compare it with 'lineup keys list' on the coordinator's machine")
        }
    }

    /// Every control message that has arrived, oldest first; what is no message is logged.
    ///
    /// - Throws: ``ProtocolError`` when the coordinator speaks another protocol version.
    public func receive() throws(ProtocolError) -> [WireBody] {
        var bodies: [WireBody] = []
        while let frames = socket.receive() {
            guard frames.count == 1 else { continue }
            do throws(ProtocolError) {
                let envelope = try frames[0].withUnsafeBytes { bytes throws(ProtocolError) in
                    try WireCodec.decode(bytes)
                }
                if envelope.run != 0 { run = envelope.run }
                if let body = envelope.body { bodies.append(body) }
            } catch {
                if error.code == .version { throw error }
                logger.warning("ignored a message", metadata: ["why": "\(error.message)"])
            }
        }
        return bodies
    }
}

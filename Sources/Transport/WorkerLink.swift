internal import Logging
public import Protocol

/// A worker's control connection to the coordinator.
public final class WorkerLink {
    /// The socket, to poll on.
    public let socket: Socket
    /// Run id, once the coordinator has told it; sent with every message.
    public var run: UInt64 = 0
    private let logger = Logger(label: "lineup.link")

    /// Connects; whether anybody answers shows when WELCOME comes or does not.
    public init(_ context: Context, coordinator: String, worker: String) throws(TransportError) {
        try Address.check(coordinator)
        socket = try Socket(
            context, .dealer, identity: worker, frameBytesMax: WireCodec.controlBytesMax)
        try socket.watchConnections()
        try socket.connect(coordinator)
    }

    /// Sends a control message.
    public func send(_ body: WireBody) {
        socket.send([WireCodec.encode(body, run: run)])
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

/// Names of processes, unique over a run's lifetime.
public enum WorkerName {
    /// For instance `trainer-node7-4121-9f3a`.
    public static func make(role: String, host: String, process: Int32) -> String {
        let suffix = String(UInt16.random(in: .min ... .max), radix: 16)
        let short = host.split(separator: ".").first.map(String.init) ?? "host"
        return "\(role)-\(short)-\(process)-\(suffix)"
    }
}

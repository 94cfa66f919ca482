import Foundation
import Protocol
import Transport

/// Raw bytes on the port of a control socket, beside a worker that must still be served.
struct SocketTarget: FuzzTarget {
    static let name = "socket"
    static let share = 10
    static let episodeFrames = 20

    private let context: Context
    private let router: Socket
    private let worker: Socket
    private let port: UInt16

    init() throws {
        context = Context()
        router = try Socket(context, .router, frameBytesMax: WireCodec.controlBytesMax)
        try router.watchConnections()
        let address = try router.bind("tcp://127.0.0.1:*")
        port = UInt16(address.split(separator: ":").last ?? "") ?? 0
        worker = try Socket(context, .dealer, identity: "t0", frameBytesMax: 1 << 20)
        try worker.connect(address)
    }

    /// What a ZMTP 3.1 peer with the NULL mechanism begins with, and a HELLO.
    private static let valid: [UInt8] = {
        let greeting: [UInt8] =
            [0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1] + Array("NULL".utf8)
            + Array(repeating: 0, count: 16 + 32)
        let properties: [UInt8] =
            [5] + Array("READY".utf8) + [11] + Array("Socket-Type".utf8) + [0, 0, 0, 6]
            + Array("DEALER".utf8) + [8] + Array("Identity".utf8) + [0, 0, 0, 2] + Array("x1".utf8)
        let hello = Array(WireCodec.encode(.goodbye(WireGoodbye()), run: 1))
        return greeting + [4, UInt8(properties.count)] + properties + [0, UInt8(hello.count)]
            + hello
    }()

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        for _ in 0..<frames {
            let frame =
                random.chance(200)
                ? (0..<random.below(300)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                : Mutator.mutate(Self.valid, .bytes, others: [Self.valid], using: &random)
            log.feed(frame)
            speak(frame)
            drain()
        }
        try checkService()
    }

    private func speak(_ bytes: [UInt8]) {
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { return }
        _ = bytes.withUnsafeBytes {
            Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }

    /// What the coordinator's shell does with frames.
    private func drain() {
        while let frames = router.receive() {
            guard frames.count == 2, frames[0].text != nil else { continue }
            _ = try? frames[1].withUnsafeBytes { try WireCodec.decode($0) }
        }
        _ = router.connectionEvents()
    }

    private func checkService() throws {
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(10)
        worker.send([WireCodec.encode(.progress(WireProgress()), run: 1)])
        while clock.now < deadline {
            Poller.wait([router], timeout: .milliseconds(50))
            while let frames = router.receive() {
                if frames.count == 2, frames[0].text == "t0" { return }
            }
        }
        throw FuzzFailure("a worker is not served any more")
    }
}

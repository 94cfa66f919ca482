import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Plain sockets, on 127.0.0.1 where no host is named.
package enum TCP {
    package static let loopback = "127.0.0.1"

    private static func address(_ host: String, _ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = inet_addr(host)
        return address
    }

    private static func open(blocking: Bool) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw RigError("no socket: errno \(errno)") }
        prepare(descriptor, blocking: blocking)
        return descriptor
    }

    /// Keeps a descriptor from children, and from blocking where asked to.
    static func prepare(_ descriptor: Int32, blocking: Bool) {
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        if !blocking { _ = fcntl(descriptor, F_SETFL, O_NONBLOCK) }
    }

    private static func with<Result>(
        _ host: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var target = address(host, port)
        return withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    /// Listens at a port; at a free one where it is 0.
    package static func listen(
        _ port: UInt16 = 0, host: String = loopback, blocking: Bool = true
    ) throws -> (descriptor: Int32, port: UInt16) {
        let descriptor = try open(blocking: blocking)
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        guard with(host, port, { bind(descriptor, $0, $1) }) == 0, Glibc.listen(descriptor, 64) == 0
        else {
            close(descriptor)
            throw RigError("port \(port) is not free")
        }
        return (descriptor, try self.port(of: descriptor))
    }

    /// Connects; not to the end where the socket does not block.
    package static func connect(
        _ port: UInt16, host: String = loopback, blocking: Bool = true
    ) throws -> Int32 {
        let descriptor = try open(blocking: blocking)
        guard with(host, port, { Glibc.connect(descriptor, $0, $1) }) == 0 || errno == EINPROGRESS
        else {
            close(descriptor)
            throw RigError("nobody listens at port \(port)")
        }
        return descriptor
    }

    /// The port that a socket has at this end.
    package static func port(of descriptor: Int32) throws -> UInt16 {
        var found = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let code = withUnsafeMutablePointer(to: &found) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                getsockname(descriptor, $0, &length)
            }
        }
        guard code == 0 else { throw RigError("a socket without an address") }
        return UInt16(bigEndian: found.sin_port)
    }

    /// A port that nobody has now, and that the system gives to nobody who asks for any.
    package static func freePort() throws -> UInt16 {
        for _ in 0..<100 {
            let port = UInt16.random(in: 15_000..<30_000)
            if let (descriptor, _) = try? listen(port) {
                close(descriptor)
                return port
            }
        }
        throw RigError("no free port between 15000 and 30000")
    }

    /// Ends a connection by a reset.
    package static func reset(_ descriptor: Int32) {
        var now = linger(l_onoff: 1, l_linger: 0)
        setsockopt(
            descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        close(descriptor)
    }
}

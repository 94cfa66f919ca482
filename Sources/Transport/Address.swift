internal import Basics
internal import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Rules about addresses that people type, and the choice among those that a process has.
public enum Address {
    /// Whether only processes of this machine can reach the address.
    public static func isLocal(_ address: String) -> Bool {
        if address.hasPrefix("ipc://") || address.hasPrefix("inproc://") { return true }
        guard let host = host(of: address) else { return false }
        return host == "localhost" || host == "[::1]" || host.hasPrefix("127.")
    }

    /// Host part of `tcp://HOST:PORT`.
    public static func host(of address: String) -> String? {
        guard address.hasPrefix("tcp://") else { return nil }
        let rest = address.dropFirst("tcp://".count)
        guard let colon = rest.lastIndex(of: ":"), colon != rest.startIndex else { return nil }
        return String(rest[..<colon])
    }

    /// Checks the form `tcp://HOST:PORT` or `ipc://FILE`.
    ///
    /// - Throws: ``TransportError`` that shows the address and the form.
    public static func check(_ address: String) throws(TransportError) {
        if address.hasPrefix("ipc://"), address.count > "ipc://".count { return }
        let port = address.split(separator: ":").last.map(String.init) ?? ""
        guard host(of: address) != nil,
            port == "*" || (UInt16(port) != nil)
        else {
            throw TransportError(
                .badAddress,
                "address '\(address)': expected tcp://HOST:PORT, for example tcp://127.0.0.1:5555")
        }
    }

    /// Checks an address that others are told: `tcp://HOST:PORT` with a host and a port of its own.
    ///
    /// - Throws: ``TransportError`` that shows the address and the form.
    public static func checkAdvertised(_ address: String) throws(TransportError) {
        let port = address.split(separator: ":").last.flatMap { UInt16($0) } ?? 0
        guard let host = host(of: address), port > 0, !["0.0.0.0", "[::]", "*", ""].contains(host)
        else {
            throw TransportError(
                .badAddress,
                "advertised address '\(address)': expected tcp://HOST:PORT as others reach it, "
                    + "for example tcp://node7:5600")
        }
    }

    /// Refuses to let other machines in without keys.
    ///
    /// - Throws: ``TransportError`` that shows the address and what to do.
    public static func checkBind(
        _ address: String, hasKeys: Bool, isInsecure: Bool
    ) throws(TransportError) {
        try check(address)
        guard !isLocal(address), !hasKeys, !isInsecure else { return }
        throw TransportError(
            .badAddress,
            "address '\(address)' can be reached from other machines, and there are no keys; make "
                + "some with 'lineup keys create', bind 127.0.0.1, or write --insecure on a network "
                + "you trust")
    }

    /// The one of a socket's two addresses, separated by a space, over which it is reached fastest.
    ///
    /// A Unix socket counts where it can be opened: its name is random and seen only in the network
    /// namespace of its owner, so that it answers nowhere else.
    public static func choose(_ addresses: String) -> String {
        let parts = addresses.split(separator: " ")
        if let local = parts.dropFirst().first(where: { $0.hasPrefix(localPrefix) }),
            answers(String(local))
        {
            return String(local)
        }
        return parts.first.map(String.init) ?? addresses
    }

    static let localPrefix = "ipc://@"

    /// Adds the memory by which processes of this machine find out that they can read a process's.
    ///
    /// - Returns: nil where the addresses name no Unix socket: nobody would count as near.
    public static func adding(_ memory: SharedMemory.Name, to addresses: String) -> String? {
        guard addresses.contains(" " + localPrefix) else { return nil }
        return
            "\(addresses) \(memoryPrefix)\(memory.process)/\(memory.descriptor)/\(memory.nonce.hex)"
    }

    /// The memory of whoever listens at an address, nil where none is said or it is on another
    /// machine.
    ///
    /// Memory counts as near where ``choose(_:)`` takes a Unix socket: what separates networks keeps
    /// memory apart as well.
    public static func memory(in addresses: String) -> SharedMemory.Name? {
        let parts = addresses.split(separator: " ")
        guard let text = parts.first(where: { $0.hasPrefix(memoryPrefix) }),
            choose(addresses).hasPrefix(localPrefix)
        else { return nil }
        let numbers = text.dropFirst(memoryPrefix.count).split(separator: "/")
        guard numbers.count == 3, let process = Int32(numbers[0]),
            let descriptor = Int32(numbers[1]), let nonce = UInt64(hex: String(numbers[2]))
        else { return nil }
        return SharedMemory.Name(process: process, descriptor: descriptor, nonce: nonce)
    }

    private static let memoryPrefix = "memory="

    /// Adds the key that whoever listens at an address holds.
    public static func adding(_ key: PublicKey?, to addresses: String) -> String {
        key.map { "\(addresses) \(keyPrefix)\($0.hex)" } ?? addresses
    }

    /// The key that whoever listens at an address must hold, nil where none is said.
    public static func key(in addresses: String) -> PublicKey? {
        addresses.split(separator: " ").lazy.filter { $0.hasPrefix(keyPrefix) }
            .compactMap { PublicKey(hex: $0.dropFirst(keyPrefix.count)) }.first
    }

    private static let keyPrefix = "curve="

    /// Whether somebody listens at an abstract Unix socket, `ipc://@NAME`.
    private static func answers(_ address: String) -> Bool {
        let name = Array(address.dropFirst(localPrefix.count).utf8)
        var target = sockaddr_un()
        target.sun_family = sa_family_t(AF_UNIX)
        // An abstract name begins with a zero byte.
        guard name.count < MemoryLayout.size(ofValue: target.sun_path) else { return false }
        withUnsafeMutableBytes(of: &target.sun_path) { path in
            for (place, byte) in name.enumerated() { path[place + 1] = byte }
        }
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        let length = MemoryLayout<sa_family_t>.size + 1 + name.count
        return withUnsafePointer(to: &target) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                // Its queue may be full; then somebody listens all the same.
                connect(descriptor, $0, socklen_t(length)) == 0 || errno == EAGAIN
            }
        }
    }

    /// The same address with a host that others can reach, where it was bound to all interfaces.
    public static func reachable(_ bound: String, from seen: String) -> String {
        guard let host = host(of: bound), host == "0.0.0.0" || host == "[::]" || host == "*"
        else { return bound }
        return bound.replacing("tcp://\(host):", with: "tcp://\(seen):", maxReplacements: 1)
    }
}

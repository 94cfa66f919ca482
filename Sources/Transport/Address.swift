/// Rules about addresses that people type.
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

    /// The same address with a host that others can reach, where it was bound to all interfaces.
    public static func reachable(_ bound: String, from seen: String) -> String {
        guard let host = host(of: bound), host == "0.0.0.0" || host == "[::]" || host == "*"
        else { return bound }
        return bound.replacing("tcp://\(host):", with: "tcp://\(seen):", maxReplacements: 1)
    }
}

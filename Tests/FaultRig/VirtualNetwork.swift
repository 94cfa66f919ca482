import CLinux
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Nodes with a network of their own, joined by a bridge; nothing of it is seen outside.
///
/// Every node and the bridge is a network namespace that lives as long as a sleeping process in
/// it, so that nothing is left when this process ends, however it does.
package final class VirtualNetwork {
    /// Why this machine cannot make one; nil where it can.
    package static let obstacle: String? = {
        guard geteuid() == 0 else { return "needs root" }
        do {
            let network = try VirtualNetwork()
            _ = try network.addNode()
            return nil
        } catch {
            return "\(error)"
        }
    }()

    /// Whether `ss -K` ends connections on this kernel.
    package static let canReset: Bool = {
        guard let (near, far, listener) = try? loopbackPair() else { return false }
        defer { for descriptor in [near, far, listener] { close(descriptor) } }
        guard let port = try? TCP.port(of: near) else { return false }
        guard LineupProcess.run(["ss", "-K", "-t", "sport", "=", ":\(port)"]) == 0 else {
            return false
        }
        usleep(20_000)
        var byte: UInt8 = 0
        return recv(far, &byte, 1, Int32(MSG_DONTWAIT)) < 0 && errno == ECONNRESET
    }()

    /// Whether `tc` can limit a node's link on this kernel.
    package static let canLimit: Bool = {
        guard obstacle == nil, let network = try? VirtualNetwork(),
            let node = try? network.addNode()
        else { return false }
        return node.limit(kilobitsPerSecond: 800)
    }()

    private static func loopbackPair() throws -> (Int32, Int32, Int32) {
        let (listener, port) = try TCP.listen()
        let near = try TCP.connect(port)
        let far = accept(listener, nil, nil)
        guard far >= 0 else { throw RigError("no connection over loopback") }
        return (near, far, listener)
    }

    private let hub: LineupProcess
    private var nodes = 0

    /// Makes the bridge.
    package init() throws {
        hub = try Self.namespace()
        try run(["ip", "link", "add", "bridge", "type", "bridge"])
        try run(["ip", "link", "set", "bridge", "up"])
    }

    /// Adds a node with a cable to the bridge.
    package func addNode() throws -> Node {
        nodes += 1
        guard nodes < 250 else { throw RigError("a virtual network has at most 249 nodes") }
        let node = Node(
            holder: try Self.namespace(), address: "10.77.0.\(nodes)", cable: "cable\(nodes)",
            network: self)
        try run([
            "ip", "link", "add", node.cable, "type", "veth", "peer", "name", "eth0", "netns",
            "\(node.holder.identifier)",
        ])
        try run(["ip", "link", "set", node.cable, "master", "bridge"])
        try run(["ip", "link", "set", node.cable, "up"])
        for command in [
            ["link", "set", "lo", "up"], ["addr", "add", node.address + "/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ] { try node.run(["ip"] + command) }
        return node
    }

    private func run(_ command: [String]) throws {
        try Self.run(command, in: hub)
    }

    fileprivate static func run(_ command: [String], in holder: LineupProcess) throws {
        let code = LineupProcess.run(entrance(to: holder) + command)
        guard code == 0 else {
            throw RigError("'\(command.joined(separator: " "))' ended with \(code)")
        }
    }

    fileprivate static func entrance(to holder: LineupProcess) -> [String] {
        ["nsenter", "--net=/proc/\(holder.identifier)/ns/net"]
    }

    private static func namespace() throws -> LineupProcess {
        let holder = try LineupProcess(
            ["--net", "sleep", "7200"], executable: URL(fileURLWithPath: "/usr/bin/unshare"))
        let link = "/proc/\(holder.identifier)/ns/net"
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/net")
        let deadline = Date().addingTimeInterval(5)
        // The namespace is there once it differs from ours.
        while (try? FileManager.default.destinationOfSymbolicLink(atPath: link)) ?? own == own {
            guard Date() < deadline, holder.isRunning else {
                throw RigError("no network namespace: \(holder.errors.suffix(200))")
            }
            usleep(2_000)
        }
        return holder
    }

    /// A machine of its own, as far as the network is concerned.
    package final class Node {
        package let address: String
        fileprivate let holder: LineupProcess
        fileprivate let cable: String
        private let network: VirtualNetwork

        fileprivate init(
            holder: LineupProcess, address: String, cable: String, network: VirtualNetwork
        ) {
            self.holder = holder
            self.address = address
            self.cable = cable
            self.network = network
        }

        var entrance: [String] { VirtualNetwork.entrance(to: holder) }

        fileprivate func run(_ command: [String]) throws {
            try VirtualNetwork.run(command, in: holder)
        }

        /// Runs on a thread that is on this node; sockets that it opens stay there.
        package func inside<Result: Sendable>(
            _ body: @escaping @Sendable () throws -> Result
        ) throws -> Result {
            let path = "/proc/\(holder.identifier)/ns/net"
            let outcome = Mutex<Swift.Result<Result, any Error>?>(nil)
            let ended = DispatchSemaphore(value: 0)
            Thread.detachNewThread {
                let result = Swift.Result<Result, any Error> {
                    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
                    defer { close(descriptor) }
                    guard lineup_enter_network(descriptor) == 0 else {
                        throw RigError("\(path) cannot be entered: errno \(errno)")
                    }
                    return try body()
                }
                outcome.withLock { $0 = result }
                ended.signal()
            }
            ended.wait()
            return try outcome.withLock { try $0!.get() }
        }

        /// Pulls the cable, or puts it in again.
        ///
        /// - Returns: whether it worked, as with everything that is done to a node.
        @discardableResult
        package func setLink(up isUp: Bool) -> Bool {
            succeeds { try network.run(["ip", "link", "set", cable, isUp ? "up" : "down"]) }
        }

        /// Loses what this node sends to another, without a word.
        @discardableResult
        package func setBlackhole(to other: Node, _ isOn: Bool) -> Bool {
            succeeds {
                try run(["ip", "route", isOn ? "add" : "del", "blackhole", other.address + "/32"])
            }
        }

        /// Ends every connection of this node as a crash of its machine would.
        ///
        /// - Returns: whether there was any.
        package func resetConnections() -> Bool {
            // It succeeds where nothing is ended too, and names what is.
            let process = try? LineupProcess(
                ["-c", "ss -K -H -t state established"],
                executable: URL(fileURLWithPath: "/bin/sh"), in: Placement(node: self))
            return process.map { !$0.standardOutput().isEmpty } ?? false
        }

        /// Limits what the node receives; without limit where nil.
        @discardableResult
        package func limit(kilobitsPerSecond rate: Int?) -> Bool {
            succeeds {
                let queue = ["dev", cable, "root"]
                guard let rate else { return try network.run(["tc", "qdisc", "del"] + queue) }
                try network.run(
                    ["tc", "qdisc", "replace"] + queue
                        + ["tbf", "rate", "\(rate)kbit", "burst", "16k", "latency", "200ms"])
            }
        }

        private func succeeds(_ body: () throws -> Void) -> Bool {
            do {
                try body()
                return true
            } catch {
                return false
            }
        }
    }
}

import Foundation

/// Which process holds a claim, so that another can tell whether it still lives.
public struct ProcessIdentity: Codable, Hashable, Sendable {
    /// Name of the host, for people.
    public var host: String
    /// The running system: differs after a reboot, and between hosts of one name.
    public var boot: String
    /// The process-id namespace: a number means something only inside one.
    public var pidNamespace: String
    /// Process number.
    public var pid: Int32
    /// When the process started, in ticks since boot: tells it from a later one of its number.
    public var startTicks: UInt64

    enum CodingKeys: String, CodingKey {
        case host, boot, pid
        case pidNamespace = "pid_namespace"
        case startTicks = "start_ticks"
    }

    /// Names every part.
    public init(host: String, boot: String, pidNamespace: String, pid: Int32, startTicks: UInt64) {
        self.host = host
        self.boot = boot
        self.pidNamespace = pidNamespace
        self.pid = pid
        self.startTicks = startTicks
    }

    /// This process.
    public static let current = ProcessIdentity(
        host: ProcessInfo.processInfo.hostName, boot: firstLine("/proc/sys/kernel/random/boot_id"),
        pidNamespace: (try? FileManager.default.destinationOfSymbolicLink(
            atPath: "/proc/self/ns/pid")) ?? "", pid: ProcessInfo.processInfo.processIdentifier,
        startTicks: startTicks(of: "self") ?? 0)

    /// Whether the process is known to have ended; false also where that cannot be told from here.
    func isDead(seenFrom viewer: ProcessIdentity) -> Bool {
        guard !boot.isEmpty, boot == viewer.boot, pidNamespace == viewer.pidNamespace else {
            return false
        }
        guard let start = Self.startTicks(of: String(pid)) else { return true }
        return start != startTicks
    }

    /// The short form for tables: `host:pid`.
    public var label: String { "\(host):\(pid)" }

    /// Field 22 of /proc/PID/stat, counted after the command's closing parenthesis.
    package static func startTicks(of process: String) -> UInt64? {
        let line = firstLine("/proc/\(process)/stat")
        guard let close = line.lastIndex(of: ")") else { return nil }
        let fields = line[line.index(after: close)...].split(separator: " ")
        // A zombie has ended although its number is still taken.
        guard fields.count > 19, fields[0] != "Z" else { return nil }
        return UInt64(fields[19])
    }

    private static func firstLine(_ path: String) -> String {
        guard let data = FileManager.default.contents(atPath: path) else { return "" }
        return String(decoding: data, as: UTF8.self).split(separator: "\n").first.map(String.init)
            ?? ""
    }
}

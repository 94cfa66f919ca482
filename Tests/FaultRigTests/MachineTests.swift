import FaultRig
import Foundation
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// What the rig does to machines and processes, where this machine allows it.
@Suite(.serialized) struct MachineTests {
    private static let shell = URL(fileURLWithPath: "/bin/sh")

    /// Processor time of a process, seconds.
    private static func seconds(of process: Int32) -> Double {
        let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)
        let fields = (text ?? "").split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12 else { return 0 }
        return (Double(fields[11]) ?? 0) / Double(sysconf(Int32(_SC_CLK_TCK)))
            + (Double(fields[12]) ?? 0) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    @Test(.enabled(if: Ability.deathSignal.obstacle == nil, "needs setpriv"))
    func childrenHaveADeathSignal() throws {
        // A parent of its own starts a child by the same words, and is killed.
        let words = (LineupProcess.deathSignal + ["sleep", "60"]).joined(separator: " ")
        let parent = try LineupProcess(
            ["-c", "\(words) & echo $!; wait"], executable: Self.shell)
        var children: [Int32] = []
        for _ in 0..<200 where children.isEmpty {
            usleep(10_000)
            children = LineupProcess.children(of: parent.identifier)
        }
        let child = try #require(children.first)
        // The signal is set once setpriv has become the program.
        let name = "/proc/\(child)/comm"
        for _ in 0..<200
        where (try? String(contentsOfFile: name, encoding: .utf8)) != "sleep\n" { usleep(10_000) }
        kill(parent.identifier, SIGKILL)
        for _ in 0..<200 where kill(child, 0) == 0 { usleep(10_000) }
        #expect(kill(child, 0) == -1)
    }

    @Test(.enabled(if: Ability.freezer.obstacle == nil, "needs control groups"))
    func aFrozenProcessStandsStillAndGoesOn() throws {
        let group = try ControlGroup(freezes: true)
        let process = try LineupProcess(
            ["-c", "while :; do :; done"], executable: Self.shell, in: Placement(group: group))
        for _ in 0..<200 where Self.seconds(of: process.identifier) < 0.02 { usleep(10_000) }
        group.freeze(true)
        usleep(100_000)
        let before = Self.seconds(of: process.identifier)
        usleep(200_000)
        #expect(Self.seconds(of: process.identifier) == before)
        group.freeze(false)
        for _ in 0..<500 where Self.seconds(of: process.identifier) <= before { usleep(10_000) }
        #expect(Self.seconds(of: process.identifier) > before)
    }

    @Test(.enabled(if: Ability.quota.obstacle == nil, "needs control groups"))
    func aQuotaHoldsAProcessToItsShare() throws {
        let group = try ControlGroup(cores: 0.2)
        let process = try LineupProcess(
            ["-c", "while :; do :; done"], executable: Self.shell, in: Placement(group: group))
        let begun = Date()
        let start = Self.seconds(of: process.identifier)
        usleep(1_000_000)
        let used = Self.seconds(of: process.identifier) - start
        #expect(used > 0)
        #expect(used <= 0.2 * Date().timeIntervalSince(begun) + 0.1)
    }

    @Test(.enabled(if: Ability.network.obstacle == nil, "needs network namespaces"))
    func nodesHearOneAnotherUntilACableIsPulled() throws {
        let network = try VirtualNetwork()
        let (first, second) = (try network.addNode(), try network.addNode())
        func answers() throws -> Bool {
            // bash's /dev/tcp: a connection that is refused was heard, one that is not times out.
            let process = try LineupProcess(
                ["-c", "timeout 1 bash -c ': </dev/tcp/\(second.address)/9'; [ $? -ne 124 ]"],
                executable: Self.shell, in: Placement(node: first))
            return try process.wait(seconds: 10) == 0
        }
        #expect(try answers())
        second.setLink(up: false)
        #expect(try !answers())
        second.setLink(up: true)
        for _ in 0..<10 where try !answers() { usleep(100_000) }
        #expect(try answers())
        first.setBlackhole(to: second, true)
        let process = try LineupProcess(
            ["-c", "exec 2>&1; bash -c ': </dev/tcp/\(second.address)/9'"],
            executable: Self.shell, in: Placement(node: first))
        #expect(process.standardOutput().contains("Invalid argument"))
    }

    /// A connection from one node to another: both ends.
    private static func connection(
        from first: VirtualNetwork.Node, to second: VirtualNetwork.Node
    ) throws -> (near: Int32, far: Int32) {
        let host = second.address
        let (listener, port) = try second.inside { try TCP.listen(host: host) }
        defer { close(listener) }
        let near = try first.inside { try TCP.connect(port, host: host) }
        let far = accept(listener, nil, nil)
        try #require(far >= 0)
        return (near, far)
    }

    @Test(
        .enabled(
            if: Ability.network.obstacle == nil && VirtualNetwork.canReset,
            "needs network namespaces and ss -K"))
    func aResetEndsTheConnectionsOfANode() throws {
        let network = try VirtualNetwork()
        let (first, second) = (try network.addNode(), try network.addNode())
        #expect(!first.resetConnections())
        let (near, far) = try Self.connection(from: first, to: second)
        defer { for descriptor in [near, far] { close(descriptor) } }
        #expect(send(near, "a", 1, 0) == 1)
        var byte: UInt8 = 0
        #expect(recv(far, &byte, 1, 0) == 1)
        #expect(first.resetConnections())
        #expect(recv(far, &byte, 1, 0) == -1 && errno == ECONNRESET)
        #expect(!first.resetConnections())
    }

    @Test(
        .enabled(
            if: Ability.network.obstacle == nil && VirtualNetwork.canLimit,
            "needs network namespaces and tc"))
    func aNarrowLinkLetsThroughWhatItSays() throws {
        let network = try VirtualNetwork()
        let (first, second) = (try network.addNode(), try network.addNode())
        let (near, far) = try Self.connection(from: first, to: second)
        defer { for descriptor in [near, far] { close(descriptor) } }
        // 100 KB at 100 KB/s, of which 16 KB may come at once.
        #expect(second.limit(kilobitsPerSecond: 800))
        let count = 100_000
        let begun = ContinuousClock.now
        Thread.detachNewThread {
            let bytes = [UInt8](repeating: 7, count: count)
            var sent = 0
            while sent < count {
                let more = bytes[sent...].withUnsafeBytes {
                    send(near, $0.baseAddress, $0.count, 0)
                }
                guard more > 0 else { return }
                sent += more
            }
        }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        var received = 0
        while received < count {
            let more = recv(far, &bytes, bytes.count, 0)
            try #require(more > 0)
            received += more
        }
        #expect(ContinuousClock.now - begun >= .milliseconds(800))
        #expect(second.limit(kilobitsPerSecond: nil))
        #expect(!second.limit(kilobitsPerSecond: nil))
    }

    @Test(.enabled(if: Ability.network.obstacle == nil, "needs network namespaces"))
    func whatCannotBeDoneToANodeIsSaid() throws {
        let network = try VirtualNetwork()
        let (first, second) = (try network.addNode(), try network.addNode())
        #expect(!first.setBlackhole(to: second, false))
        #expect(first.setBlackhole(to: second, true))
        #expect(!first.setBlackhole(to: second, true))
        #expect(first.setBlackhole(to: second, false))
    }

    @Test(.enabled(if: Ability.smallDisk.obstacle == nil, "needs root and mount"))
    func aSmallDiskFillsAndIsRelieved() throws {
        let path = FileManager.default.temporaryDirectory.path + "/lineup-rig-test-\(getpid())"
        let disk = try SmallDisk(path, kilobytes: 200)
        defer { disk.remove() }
        disk.fill()
        #expect(throws: (any Error).self) {
            try Data(count: 50_000).write(to: URL(fileURLWithPath: path + "/a"))
        }
        disk.relieve()
        try Data(count: 50_000).write(to: URL(fileURLWithPath: path + "/b"))
    }
}

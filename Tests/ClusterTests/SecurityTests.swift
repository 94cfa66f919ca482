import Basics
import FaultRig
import Foundation
import Protocol
import Storage
import Testing
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// Clusters on an address that other machines reach, with keys, and who tries to get in.
@Suite(.serialized) struct SecurityTests {
    /// An address of this machine that is not loopback.
    private static let host: String? = {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return nil }
        defer { freeifaddrs(list) }
        for entry in sequence(first: list, next: { $0?.pointee.ifa_next }) {
            guard let entry = entry?.pointee, let address = entry.ifa_addr,
                address.pointee.sa_family == sa_family_t(AF_INET),
                entry.ifa_flags & UInt32(IFF_LOOPBACK) == 0,
                entry.ifa_flags & UInt32(IFF_UP) != 0
            else { continue }
            var text = [CChar](repeating: 0, count: 64)
            guard
                getnameinfo(
                    address, socklen_t(MemoryLayout<sockaddr_in>.size), &text, 64, nil, 0,
                    NI_NUMERICHOST) == 0
            else { continue }
            return String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
        }
        return nil
    }()

    private static var hasNetwork: Bool { host != nil }

    /// Runs `lineup keys` and returns what it prints.
    @discardableResult
    func keys(_ arguments: [String], in folder: String) throws -> String {
        let process = try LineupProcess(["keys"] + arguments + ["--keys", folder])
        let text = process.standardOutput()
        try #require(try process.wait(seconds: 30) == 0, "\(process.errors)")
        return text
    }

    /// A coordinator's folder of keys.
    func head() throws -> String {
        let folder = LocalRun.folder("head")
        try keys(["create"], in: folder)
        return folder
    }

    func key(_ file: String) throws -> String {
        let text = try String(contentsOfFile: file, encoding: .utf8)
        return try #require(text.split(separator: "\n").last.map(String.init))
    }

    /// The folder of another machine, whose key is allowed as `roles`, or not at all.
    func node(_ name: String, of head: String, roles: String?) throws -> String {
        let folder = LocalRun.folder(name)
        try keys(
            ["create", "--coordinator", try key(head + "/coordinator.public")], in: folder)
        if let roles {
            try keys(
                ["allow", try key(folder + "/worker.public"), "--role", roles, "--name", name],
                in: head)
        }
        return folder
    }

    private func coordinator(
        _ run: String, keys: String, steps: Int = 24, trainers: Int
    ) throws -> (process: LineupProcess, address: String) {
        let process = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://\(try #require(Self.host)):*", "--keys", keys,
                "--expect-trainers", "\(trainers)",
            ] + LocalRun.settings(steps: steps))
        return (process, try LocalRun.address(of: process))
    }

    private func trainer(_ address: String, _ arguments: String...) throws -> LineupProcess {
        let bind = "tcp://\(try #require(Self.host)):*"
        return try LineupProcess(
            [
                "trainer", "--coordinator", address, "--bind", bind, "--slots-at-once", "1",
                "--patience", "20",
            ] + arguments)
    }

    @Test(
        .enabled(if: hasNetwork, "needs an address that is not loopback"), .timeLimit(.minutes(4)))
    func trainingWithKeysGivesTheUndisturbedRunsBits() throws {
        let run = LocalRun.folder("keyed")
        let head = try head()
        let nodes = [
            try node("node7", of: head, roles: "trainer"),
            try node("node8", of: head, roles: "trainer,evaluator"),
        ]
        let (coordinator, address) = try coordinator(run, keys: head, trainers: 2)
        let trainers = try nodes.map { try trainer(address, "--keys", $0) }
        let evaluator = try LineupProcess(
            ["evaluator", "--coordinator", address, "--keys", nodes[1]])
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        for process in trainers + [evaluator] {
            #expect(try process.wait(seconds: 30) == 0, "\(process.errors)")
        }
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        #expect(try ClusterTests.ledgerDigest(run) == ClusterTests.undisturbed.get().ledger)
        let reader = try LedgerReader(run: run)
        let fingerprints = try Set(nodes.map { String(try key($0 + "/worker.public").prefix(16)) })
        let workers = try reader.workers()
        #expect(Set(workers.compactMap { WorkerName.key(of: $0.worker) }) == fingerprints)
        #expect(try reader.miniBatches().allSatisfy { $0.outcome == .used })
        // A secret key shows nowhere.
        let everything = ([coordinator, evaluator] + trainers).map(\.errors).joined()
        for folder in nodes + [head] {
            #expect(!everything.contains(try key(folder + "/worker.secret")))
        }
    }

    @Test(
        .enabled(if: hasNetwork, "needs an address that is not loopback"), .timeLimit(.minutes(4)))
    func whoMayNotComeInIsToldWhyAndChangesOfTheListCountAtOnce() throws {
        let run = LocalRun.folder("strict")
        let head = try head()
        let (coordinator, address) = try coordinator(
            run, keys: head, steps: 100_000, trainers: 1)
        let stranger = try node("stranger", of: head, roles: nil)
        let strangersKey = try key(stranger + "/worker.public")
        try expectRefusal(
            trainer(address, "--keys", stranger),
            saying: "does not allow this key", "lineup keys allow \(strangersKey) --role trainer")
        try expectRefusal(
            trainer(address, "--keys", try node("looker", of: head, roles: "observer")),
            saying: "(looker) is allowed as observer, not as trainer", "observer,trainer")
        let scorer = try node("scorer", of: head, roles: "evaluator")
        try expectRefusal(
            LineupProcess(["watch", address, "--keys", scorer]), saying: "not as observer")
        try expectRefusal(
            trainer(address, "--insecure"), saying: "admits only workers with a key", "lineup keys")
        try expectRefusal(
            LineupProcess(["evaluator", "--coordinator", address]), saying: "holds no keys",
            "--insecure")
        let misled = LocalRun.folder("misled")
        try keys(["create", "--coordinator", strangersKey], in: misled)
        try keys(
            [
                "allow", try key(misled + "/worker.public"), "--role", "trainer", "--name",
                "misled",
            ], in: head)
        try expectRefusal(
            trainer(address, "--keys", misled), saying: "does not hold the coordinator's key")
        // Allowed, it takes part; removed, it goes, and the coordinator stays.
        try keys(["allow", strangersKey, "--role", "trainer", "--name", "friend"], in: head)
        let friend = try trainer(address, "--keys", stranger)
        try LocalRun.wait(for: 3, in: run, of: coordinator)
        try keys(["remove", "friend"], in: head)
        try expectRefusal(friend, saying: "is not allowed any more")
        #expect(coordinator.isRunning)
        coordinator.send(SIGINT)
        #expect(try coordinator.wait(seconds: 30) == 75, "\(coordinator.errors)")
    }

    @Test(
        .enabled(if: hasNetwork, "needs an address that is not loopback"), .timeLimit(.minutes(4)))
    func aThiefOfANameAndGarbageOfAnAllowedKeyChangeNothing() throws {
        let run = LocalRun.folder("theft")
        let head = try head()
        let honest = try node("honest", of: head, roles: "trainer")
        let thief = KeyFolder(path: try node("thief", of: head, roles: "trainer,observer"))
        let (coordinator, address) = try coordinator(run, keys: head, trainers: 1)
        let worker = try trainer(address, "--keys", honest)
        try LocalRun.wait(for: 2, in: run, of: coordinator)
        let reader = try LedgerReader(run: run)
        let victim = try #require(try reader.workers().first { $0.role == "trainer" }).worker

        let pair = try thief.pair(.worker)
        let context = try Context(keys: pair, refusals: Refusals(label: "thief")) { _ in false }
        let socket = try Socket(
            context, .dealer, identity: victim, frameBytesMax: WireCodec.controlBytesMax)
        try socket.connect(Address.adding(try thief.publicKey(.coordinator), to: address))
        var hello = WireHello()
        hello.worker = victim
        hello.role = .trainer
        hello.lineupVersion = "0.1.0"
        socket.send([WireCodec.encode(.hello(hello), run: 0)])
        var answer: WireBody?
        let deadline = ContinuousClock.now + .seconds(10)
        while answer == nil, ContinuousClock.now < deadline {
            Poller.wait([socket], timeout: .milliseconds(100))
            guard let frame = socket.receive()?.first else { continue }
            answer = try frame.withUnsafeBytes { try WireCodec.decode($0) }.body
        }
        guard case .refusal(let refusal) = answer else {
            Issue.record("\(String(describing: answer))")
            return
        }
        #expect(refusal.code == .role && refusal.message.contains("another key"))
        // Whatever it says of a step, it is nobody; and garbage is garbage.
        for step in 1...40 {
            var done = WireSlotDone()
            done.step = UInt64(step)
            var ready = WireReady()
            ready.step = UInt64(step)
            ready.effectDigest = 1
            socket.send([WireCodec.encode(.slotDone(done), run: 0)])
            socket.send([WireCodec.encode(.ready(ready), run: 0)])
            socket.send([WireCodec.encode(.goodbye(WireGoodbye()), run: 0)])
            socket.send([Data((0..<500).map { _ in UInt8.random(in: .min ... .max) })])
            socket.send([Data(), Data([1]), Data([2])])
        }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        #expect(try worker.wait(seconds: 30) == 0, "\(worker.errors)")
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        #expect(try reader.workers().count == 1)
        #expect(try reader.miniBatches().allSatisfy { $0.worker == victim })
        let log = coordinator.errors
        #expect(log.contains("refused: ") && log.contains("what is no message"))
        // At a limited rate: a line in ten seconds, not one for each of 200 messages.
        #expect(log.split(separator: "\n").count { $0.contains("refused: ") } < 20)
    }

    @Test(.timeLimit(.minutes(2)))
    func aFolderOfKeysThatIsNotAsItShouldBeIsNamed() throws {
        let head = try head()
        let settings = try LocalRun.settings(steps: 4)
        func coordinator() throws -> LineupProcess {
            try LineupProcess(
                [
                    "coordinator", LocalRun.folder("never"), "--bind", "tcp://0.0.0.0:*", "--keys",
                    head,
                ] + settings)
        }
        let secret = head + "/coordinator.secret"
        let files = FileManager.default
        try files.setAttributes([.posixPermissions: 0o644], ofItemAtPath: secret)
        try expectRefusal(coordinator(), saying: secret, "mode 0644", "0600")
        try files.setAttributes([.posixPermissions: 0o600], ofItemAtPath: secret)
        let list = head + "/allowed"
        let text = try String(contentsOfFile: list, encoding: .utf8)
        try Data((text + "abc trainer\n").utf8).write(to: URL(fileURLWithPath: list))
        try expectRefusal(coordinator(), saying: list + ", line 3", "KEY ROLES NAME")
        try expectRefusal(
            LineupProcess([
                "keys", "allow", "12", "--role", "trainer", "--name", "x", "--keys", head,
            ]),
            saying: "64 hexadecimal digits")
        try expectRefusal(
            LineupProcess(["keys", "create", "--keys", head]), saying: "exists already")
        try expectRefusal(
            LineupProcess(["keys", "list", "--keys", "/nowhere"]), saying: "/nowhere", "keys create"
        )
        try expectRefusal(
            LineupProcess(["watch", "tcp://10.9.8.7:5555"]), saying: "tcp://10.9.8.7:5555",
            "--insecure")
        try expectRefusal(
            LineupProcess(
                ["trainer", "--coordinator", "tcp://127.0.0.1:9", "--keys", "/nowhere"]),
            saying: "/nowhere/worker.secret", "keys create")
    }

    @Test(.timeLimit(.minutes(3)))
    func aLocalClusterTakesKeysToo() throws {
        let run = LocalRun.folder("private")
        let head = try head()
        let process = try LineupProcess(
            ["train", run, "--trainers", "2", "--evaluators", "1", "--keys", head]
                + LocalRun.settings(steps: 8))
        #expect(try process.wait() == 0, "\(process.errors)")
        let fingerprint = String(try key(head + "/worker.public").prefix(16))
        let reader = try LedgerReader(run: run)
        let workers = try reader.workers()
        #expect(workers.count >= 3)
        #expect(workers.allSatisfy { WorkerName.key(of: $0.worker) == fingerprint })
    }
}

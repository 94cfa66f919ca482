import Foundation
import Protocol
import Testing
import Transport

@Suite struct KeyTests {
    /// An empty folder of its own for each test.
    private func folder() -> KeyFolder {
        KeyFolder(
            path: FileManager.default.temporaryDirectory.appendingPathComponent(
                "lineup-keys-\(UInt64.random(in: .min ... .max))"
            ).path)
    }

    private func mode(_ file: String) throws -> Int {
        let facts = try FileManager.default.attributesOfItem(atPath: file)
        return try #require(facts[.posixPermissions] as? Int)
    }

    private func complaint(_ body: () throws -> Void) throws -> String {
        let error = try #require(throws: TransportError.self) { try body() }
        #expect(error.isBadInput)
        return error.message
    }

    private func newKey() throws -> PublicKey { try KeyPair.generate().publicKey }

    @Test func aKeyPairSurvivesItsFilesAndOnlyItsOwnerReadsTheSecret() throws {
        let folder = folder()
        let made = try folder.create(.worker)
        #expect(try mode(folder.path) == 0o700)
        #expect(try mode(folder.secretFile(.worker)) == 0o600)
        #expect(try mode(folder.publicFile(.worker)) == 0o644)
        let read = try folder.pair(.worker)
        #expect(read.publicKey == made.publicKey)
        #expect(try folder.publicKey(.worker) == made.publicKey)
        let text = try String(contentsOfFile: folder.secretFile(.worker), encoding: .utf8)
        let secret = try #require(text.split(separator: "\n").last.map(String.init))
        var dumped = ""
        dump(read, to: &dumped)
        #expect(secret.count == 64)
        #expect(!"\(read) \(String(reflecting: read)) \(dumped)".contains(secret.prefix(8)))
        // A key is never written over.
        #expect(
            try complaint { _ = try folder.create(.worker) }.contains(folder.secretFile(.worker)))
        #expect(try folder.pair(.worker).publicKey == made.publicKey)
    }

    @Test(arguments: [0o640, 0o604, 0o644, 0o660])
    func aSecretKeyThatOthersCanReadIsNotRead(mode: Int) throws {
        let folder = folder()
        _ = try folder.create(.coordinator)
        let file = folder.secretFile(.coordinator)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        let line = try complaint { _ = try folder.pair(.coordinator) }
        for part in [file, "0" + String(mode, radix: 8), "0600"] { #expect(line.contains(part)) }
    }

    @Test(arguments: ["", "nothing", "12345678", String(repeating: "ab", count: 33)])
    func aFileThatHoldsNoKeyIsNamedAndNotShown(text: String) throws {
        let folder = folder()
        _ = try folder.create(.worker)
        let file = folder.secretFile(.worker)
        try Data((text + "\n").utf8).write(to: URL(fileURLWithPath: file))
        let line = try complaint { _ = try folder.pair(.worker) }
        #expect(line.contains(file) && line.contains("64 hexadecimal digits"))
        #expect(text.isEmpty || !line.contains(text))
        #expect(try complaint { _ = try folder.pair(.coordinator) }.contains("is not there"))
    }

    @Test func aListKeepsWhatPeopleWroteIntoIt() throws {
        let (one, two) = (try newKey(), try newKey())
        let text = """
            # The cluster of room 7.
            \(one.hex) trainer,evaluator node7

            \(two.hex)   observer   laptop
            """
        var list = try AllowList(parsing: text, file: "allowed")
        #expect(list.entries.map(\.name) == ["node7", "laptop"])
        #expect(list.entries[0].roles == [.trainer, .evaluator])
        try list.allow(.init(key: two, roles: [.evaluator], name: "laptop-2"))
        let three = try newKey()
        try list.allow(.init(key: three, roles: [.trainer], name: "node8"))
        #expect(
            list.text == """
                # The cluster of room 7.
                \(one.hex) trainer,evaluator node7

                \(two.hex) evaluator laptop-2
                \(three.hex) trainer node8

                """)
        #expect(try AllowList(parsing: list.text, file: "allowed") == list)
        for who in ["node7", two.fingerprint, three.hex] { _ = try list.remove(who) }
        #expect(list.entries.isEmpty)
        #expect(try complaint { _ = try list.remove("node7") }.contains("node7"))
    }

    @Test func aNameAndAKeyStandForOneAnother() throws {
        var list = AllowList()
        let key = try newKey()
        try list.allow(.init(key: key, roles: [.trainer], name: "node7"))
        let other = try newKey()
        let line = try complaint {
            try list.allow(.init(key: other, roles: [.trainer], name: "node7"))
        }
        #expect(line.contains("node7") && line.contains(key.fingerprint))
        #expect(list.entries.count == 1)
        #expect(
            try complaint { try list.allow(.init(key: other, roles: [.trainer], name: "a b")) }
                .contains("a b"))
    }

    @Test(arguments: [
        ("KEY trainer", "2 words"), ("KEY trainer node7 x", "4 words"),
        ("KEY master node7", "'master' is no role"), ("KEY trainer, node7", "'' is no role"),
        ("KEY trainer n*de", "'n*de' is no name"), ("12ab trainer node7", "4 characters"),
        ("KEY trainer node1\nKEY observer node2", "in the list already"),
    ])
    func aBadLineIsNamed(line: String, saying: String) throws {
        let text = "# first\n" + line.replacing("KEY", with: try newKey().hex)
        let error = try complaint { _ = try AllowList(parsing: text, file: "/k/allowed") }
        let number = line.contains("\n") ? 3 : 2
        #expect(error.hasPrefix("/k/allowed, line \(number): "), "\(error)")
        #expect(error.contains(saying), "\(error)")
    }

    @Test func aChangeOfTheListCountsAtOnceAndHalfAnEditDoesNot() throws {
        let folder = folder()
        _ = try folder.create(.coordinator)
        let (one, two) = (try newKey(), try newKey())
        var list = AllowList()
        try list.allow(.init(key: one, roles: [.trainer], name: "one"))
        try list.write(to: folder.allowList)
        let admission = try Admission(file: folder.allowList)
        #expect(admission.trainers.keys == [one])
        try list.allow(.init(key: two, roles: [.trainer, .observer], name: "two"))
        _ = try list.remove("one")
        try list.write(to: folder.allowList)
        #expect(admission.entry(for: two) != nil)
        // What is missing may be half an edit: it counts when it stays so.
        #expect(admission.entry(for: one) != nil)
        try waitUntil { admission.entry(for: one) == nil }
        #expect(admission.trainers.keys == [two] && admission.trainers.version == 2)
        try Data().write(to: URL(fileURLWithPath: folder.allowList))
        #expect(admission.trainers.keys == [two])
        try Data("\(two.hex) trai".utf8).write(to: URL(fileURLWithPath: folder.allowList))
        #expect(admission.entry(for: one) == nil)
        #expect(admission.entry(for: two)?.roles == [.trainer, .observer])
        try list.write(to: folder.allowList)
        try FileManager.default.setAttributes(
            [.posixPermissions: 0o666], ofItemAtPath: folder.allowList)
        #expect(
            try complaint { _ = try Admission(file: folder.allowList) }.contains("mode 0666"))
    }

    private func waitUntil(_ condition: () -> Bool) throws {
        let deadline = ContinuousClock.now + .seconds(10)
        while !condition() {
            try #require(ContinuousClock.now < deadline)
            usleep(10_000)
        }
    }

    @Test func listsThatAreChangedAtOnceLoseNothing() throws {
        let folder = folder()
        _ = try folder.create(.coordinator)
        try AllowList().write(to: folder.allowList)
        let keys = try (0..<16).map { _ in try newKey() }
        DispatchQueue.concurrentPerform(iterations: keys.count) { place in
            try? AllowList.edit(folder.allowList) {
                try $0.allow(.init(key: keys[place], roles: [.trainer], name: "n\(place)"))
            }
        }
        #expect(try AllowList(file: folder.allowList).entries.count == keys.count)
    }

    @Test func aNameSaysItsKey() throws {
        let key = try newKey()
        let name = WorkerName.make(
            role: "trainer", host: "node7.example", process: 4_121, key: key.fingerprint)
        #expect(name.hasPrefix("trainer-node7-4121-"))
        #expect(WorkerName.key(of: name) == key.fingerprint)
        #expect(WorkerName.key(of: name + "-send-3") == key.fingerprint)
        #expect(WorkerName.key(of: "trainer-node7-4121-9f3a") == nil)
        #expect(WorkerName.key(of: "trainer@02c4") == nil)
        #expect(WorkerName.key(of: "é@0123456789abcde") == nil)
        #expect(WorkerName.isOne(name))
        #expect(WorkerName.isOne(WorkerName.make(role: "trainer", host: "a b\u{1b}é", process: 1)))
        for text in ["", "a b", "a\n", "a\u{1b}[2J", String(repeating: "a", count: 201)] {
            #expect(!WorkerName.isOne(text))
        }
    }

    @Test func theUsersFolderFollowsItsConfiguration() {
        #expect(
            KeyFolder.standard(environment: ["HOME": "/home/a"]).path
                == "/home/a/.config/lineup/keys")
        #expect(
            KeyFolder.standard(environment: ["HOME": "/home/a", "XDG_CONFIG_HOME": "/c"]).path
                == "/c/lineup/keys")
    }
}

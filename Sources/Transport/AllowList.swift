internal import Foundation
public import Protocol
internal import Synchronization
internal import Logging

#if canImport(Glibc)
    import Glibc
#endif

/// The keys that a coordinator admits: one readable file, a key with its roles and name a line.
public struct AllowList: Equatable, Sendable {
    /// One admitted key.
    public struct Entry: Equatable, Sendable {
        /// The key.
        public var key: PublicKey
        /// What whoever holds it may be.
        public var roles: [WireRole]
        /// What people call it.
        public var name: String

        /// Names all three.
        public init(key: PublicKey, roles: [WireRole], name: String) {
            self.key = key
            self.roles = roles
            self.name = name
        }

        /// The entry as a line of the file.
        public var line: String { "\(key.hex) \(rolesText) \(name)" }

        /// The roles, separated by commas.
        public var rolesText: String { roles.map(\.word).joined(separator: ",") }
    }

    private enum Line: Equatable {
        case entry(Entry)
        case other(String)
    }

    private var lines: [Line]

    /// A list with no key in it, and a line that explains its form.
    public init() {
        lines = [
            .other("# Keys that this coordinator admits: KEY ROLES NAME. Changes count at once.")
        ]
    }

    /// Reads a list.
    ///
    /// - Parameter file: names it in errors.
    /// - Throws: ``TransportError`` with file, line, and what was expected there.
    public init(parsing text: String, file: String) throws(TransportError) {
        lines = []
        for (number, line) in text.split(
            separator: "\n", omittingEmptySubsequences: false
        ).enumerated() {
            let line = line.trimmingCharacters(in: .whitespaces)
            guard !line.isEmpty, !line.hasPrefix("#") else {
                lines.append(.other(line))
                continue
            }
            do throws(TransportError) {
                let entry = try Self.entry(line)
                try check(entry)
                lines.append(.entry(entry))
            } catch {
                throw TransportError(.badKey, "\(file), line \(number + 1): \(error.message)")
            }
        }
        while lines.last == .other("") { lines.removeLast() }
    }

    /// Reads the list in a file.
    ///
    /// - Throws: ``TransportError`` that names the file, and the line where one is wrong.
    public init(file: String) throws(TransportError) {
        var facts = stat()
        guard stat(file, &facts) == 0, let data = FileManager.default.contents(atPath: file) else {
            throw TransportError(
                .badKey,
                "\(file) cannot be read; 'lineup keys create' makes a coordinator's key and its "
                    + "list of allowed keys")
        }
        guard facts.st_mode & 0o002 == 0 else {
            throw TransportError(
                .badKey,
                "\(file) has mode 0\(String(facts.st_mode & 0o777, radix: 8)), so that everybody can "
                    + "allow keys; expected 0644: 'chmod 644 \(file)'")
        }
        try self.init(parsing: String(decoding: data, as: UTF8.self), file: file)
    }

    /// Changes the list in a file, one process at a time.
    public static func edit<Result>(
        _ file: String, _ change: (inout AllowList) throws -> Result
    ) throws -> Result {
        let folder = open((file as NSString).deletingLastPathComponent, O_RDONLY | O_CLOEXEC)
        defer { close(folder) }
        // Where it cannot be locked it cannot be read or written either, and that is said.
        flock(folder, LOCK_EX)
        var list = try AllowList(file: file)
        let result = try change(&list)
        try list.write(to: file)
        return result
    }

    /// The keys, in the order of the file.
    public var entries: [Entry] {
        lines.compactMap { line in
            guard case .entry(let entry) = line else { return nil }
            return entry
        }
    }

    /// The list as the text of its file.
    public var text: String {
        lines.map { line in
            switch line {
            case .entry(let entry): entry.line
            case .other(let text): text
            }
        }.joined(separator: "\n") + "\n"
    }

    /// Writes the list, whole or not at all.
    public func write(to file: String) throws(TransportError) {
        try KeyFolder.replace(file, with: text)
    }

    /// Adds a key, or gives one that is there other roles and another name.
    ///
    /// - Throws: ``TransportError`` when the name is no word or belongs to another key.
    public mutating func allow(_ entry: Entry) throws(TransportError) {
        let place = lines.firstIndex { line in
            guard case .entry(let known) = line else { return false }
            return known.key == entry.key
        }
        var others = self
        if let place { others.lines.remove(at: place) }
        try others.check(entry)
        if let place { lines[place] = .entry(entry) } else { lines.append(.entry(entry)) }
    }

    /// Removes the key that a name, a fingerprint or its 64 digits name.
    ///
    /// - Throws: ``TransportError`` when there is none.
    public mutating func remove(_ who: String) throws(TransportError) -> Entry {
        for (place, line) in lines.enumerated() {
            guard case .entry(let entry) = line,
                [entry.name, entry.key.fingerprint, entry.key.hex].contains(who)
            else { continue }
            lines.remove(at: place)
            return entry
        }
        throw TransportError(
            .badKey,
            "no allowed key is called '\(who)'; expected a name, a fingerprint or a key that "
                + "'lineup keys list' shows")
    }

    /// Refuses a name that is none, and what would be taken for another entry.
    private func check(_ entry: Entry) throws(TransportError) {
        guard Self.isName(entry.name) else {
            throw TransportError(
                .badKey,
                "'\(entry.name)' is no name; expected letters, digits, '.', '_' and '-'")
        }
        for known in entries {
            guard known.key.fingerprint != entry.key.fingerprint else {
                throw TransportError(
                    .badKey,
                    "key \(entry.key.fingerprint) is in the list already, as '\(known.name)'"
                )
            }
            guard known.name != entry.name else {
                throw TransportError(
                    .badKey,
                    "the name '\(entry.name)' belongs to key \(known.key.fingerprint); choose "
                        + "another, or remove that key first")
            }
        }
    }

    private static func entry(_ line: String) throws(TransportError) -> Entry {
        let fields = line.split(separator: " ").map(String.init)
        guard fields.count == 3 else {
            throw TransportError(
                .badKey,
                "\(fields.count) words; expected KEY ROLES NAME, for example 64 hexadecimal digits, "
                    + "'trainer,evaluator' and 'node7'")
        }
        guard let key = PublicKey(hex: fields[0]) else {
            throw TransportError(
                .badKey,
                "'\(fields[0].prefix(8))...' is no key but \(fields[0].count) characters; expected "
                    + "64 hexadecimal digits")
        }
        return Entry(key: key, roles: try roles(fields[1]), name: fields[2])
    }

    /// Reads roles that are separated by commas.
    ///
    /// - Throws: ``TransportError`` that names the word that is no role.
    public static func roles(_ text: String) throws(TransportError) -> [WireRole] {
        var roles: [WireRole] = []
        for word in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let role = WireRole(word: String(word)) else {
                throw TransportError(
                    .badKey,
                    "'\(word)' is no role; expected trainer, evaluator or observer, several "
                        + "separated by commas")
            }
            if !roles.contains(role) { roles.append(role) }
        }
        return roles
    }

    /// A name for a machine of the list, from what the machine calls itself.
    public static func name(for host: String) -> String {
        let name = String(host.unicodeScalars.map { isPart($0) ? Character($0) : "-" })
        return name.isEmpty ? "here" : name
    }

    private static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.unicodeScalars.allSatisfy(isPart)
    }

    private static func isPart(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII
            && (scalar.properties.isAlphabetic || "0123456789._-".unicodeScalars.contains(scalar))
    }
}

/// An allow list as it is now: a change of its file counts without a restart.
public final class Admission: Sendable {
    private struct State {
        private(set) var allowed: [AllowList.Entry]
        private(set) var byKey: [PublicKey: AllowList.Entry] = [:]
        var version = 0
        /// The file whose keys count.
        var stamp: Stamp
        /// A file of which the missing keys do not count yet, and when it was first seen.
        var latest: (stamp: Stamp, since: ContinuousClock.Instant)?
        var checkedAt: ContinuousClock.Instant

        init(_ allowed: [AllowList.Entry], stamp: Stamp) {
            self.allowed = allowed
            self.stamp = stamp
            checkedAt = .now
            set(allowed)
        }

        mutating func set(_ allowed: [AllowList.Entry]) {
            self.allowed = allowed
            byKey = Dictionary(allowed.map { ($0.key, $0) }, uniquingKeysWith: { $1 })
        }
    }

    /// Says whether a file is the one that was read.
    private struct Stamp: Equatable {
        var seconds = 0
        var nanoseconds = 0
        var bytes = 0
        var file: UInt = 0

        init(_ path: String) {
            var facts = stat()
            guard stat(path, &facts) == 0 else { return }
            seconds = facts.st_mtim.tv_sec
            nanoseconds = facts.st_mtim.tv_nsec
            bytes = Int(facts.st_size)
            file = UInt(facts.st_ino)
        }
    }

    private let file: String
    private let state: Mutex<State>
    private let logger = Logger(label: "lineup.keys")
    /// The file is looked at once in this time.
    private static let interval = Duration.milliseconds(100)

    /// Reads the list for the first time.
    ///
    /// - Throws: ``TransportError`` that names the file, and the line where one is wrong.
    public init(file: String) throws(TransportError) {
        self.file = file
        // Before the list is read: a change in between is seen later.
        let stamp = Stamp(file)
        let list = try AllowList(file: file)
        state = Mutex(State(list.entries, stamp: stamp))
    }

    /// What is allowed for a key now, nil where nothing is.
    public func entry(for key: PublicKey) -> AllowList.Entry? {
        state.withLock { state in
            refresh(&state)
            // Whoever was allowed a moment ago is not turned away.
            if state.byKey[key] == nil { refresh(&state, atOnce: true) }
            return state.byKey[key]
        }
    }

    /// The keys that may belong to trainers, and a number that grows whenever the list changes.
    public var trainers: (keys: [PublicKey], version: Int) {
        state.withLock { state in
            refresh(&state)
            let trainers = state.allowed.filter { $0.roles.contains(.trainer) }
            return (trainers.map(\.key), state.version)
        }
    }

    private func refresh(_ state: inout State, atOnce: Bool = false) {
        let now = ContinuousClock.now
        guard atOnce || now - state.checkedAt > Self.interval else { return }
        state.checkedAt = now
        let stamp = Stamp(file)
        guard stamp != state.stamp else { return }
        do throws(TransportError) {
            var allowed = try AllowList(file: file).entries
            // A file that is just being written may lack keys: only one that stays so removes them.
            if state.latest?.stamp != stamp { state.latest = (stamp, now) }
            let known = Set(allowed.map(\.key))
            let missing = state.allowed.filter { !known.contains($0.key) }
            if !missing.isEmpty, now - state.latest!.since < Self.interval {
                allowed += missing
            } else {
                state.stamp = stamp
            }
            guard allowed != state.allowed else { return }
            state.set(allowed)
            state.version += 1
            logger.notice(
                "the list of allowed keys has changed", metadata: ["keys": "\(allowed.count)"])
        } catch {
            // Half an edit must not end the run; who is allowed stays so.
            state.stamp = stamp
            logger.error(
                "the list of allowed keys cannot be read; the one before stays in force",
                metadata: ["why": "\(error.message)"])
        }
    }
}

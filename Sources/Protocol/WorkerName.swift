/// Names of processes, unique over a run's lifetime.
///
/// Where the process has a key the name ends with `@` and the key's fingerprint, so that whoever
/// gets a message can check the name against the key that the connection was opened with.
public enum WorkerName {
    /// For instance `trainer-node7-4121-9f3a` or `trainer-node7-4121-9f3a@02c4d31a77e0b95f`.
    ///
    /// - Parameter key: fingerprint of the process's key, nil without one.
    public static func make(
        role: String, host: String, process: Int32, key: String? = nil
    ) -> String {
        let suffix = String(UInt16.random(in: .min ... .max), radix: 16)
        let short = host.split(separator: ".").first.map(String.init) ?? "host"
        let plain = String(short.map { isPart($0) ? $0 : "-" }.prefix(64))
        return "\(role)-\(plain)-\(process)-\(suffix)" + (key.map { "@" + $0 } ?? "")
    }

    /// Whether a text has the form of a name: it may be shown and kept.
    public static func isOne(_ text: String) -> Bool {
        (1...200).contains(text.utf8.count) && text.allSatisfy(isPart)
    }

    private static func isPart(_ character: Character) -> Bool {
        character.isASCII
            && (character.isLetter || character.isNumber || "-_.@".contains(character))
    }

    /// Fingerprint of the key that a name belongs to, nil where it belongs to none.
    ///
    /// What follows the sixteen digits tells several sockets of one process apart.
    public static func key(of name: String) -> String? {
        guard let mark = name.utf8.lastIndex(of: UInt8(ascii: "@")) else { return nil }
        let digits = name.utf8[name.utf8.index(after: mark)...].prefix(16)
        guard digits.count == 16 else { return nil }
        return String(Substring(digits))
    }

    /// Name of a further socket of a worker, over which it sends one stream.
    public static func stream(_ number: Int, of worker: String) -> String {
        "\(worker)\(streamMark)\(number)"
    }

    /// The worker that a name of ``stream(_:of:)`` belongs to, or the name itself.
    public static func owner(of name: String) -> String {
        guard let last = name.split(separator: "-", omittingEmptySubsequences: false).last,
            !last.isEmpty, last.allSatisfy(\.isNumber)
        else { return name }
        let rest = name.dropLast(last.count)
        return rest.hasSuffix(streamMark) ? String(rest.dropLast(streamMark.count)) : name
    }

    private static let streamMark = "-send-"

    /// Whether a worker, or another process with its key, is one of some.
    public static func isAmong(_ workers: [String], _ name: String) -> Bool {
        guard !workers.isEmpty else { return false }
        let owner = owner(of: name)
        let key = key(of: name)
        return workers.contains { $0 == owner || key != nil && Self.key(of: $0) == key }
    }
}

extension WireRole {
    /// The roles that a worker can have, and that a key can be allowed for.
    public static let workers: [WireRole] = [.trainer, .evaluator, .observer]

    /// The role in one word.
    public var word: String {
        switch self {
        case .trainer: "trainer"
        case .evaluator: "evaluator"
        case .observer: "observer"
        default: "unknown"
        }
    }

    /// The role that a word names.
    public init?(word: String) {
        guard let role = Self.workers.first(where: { $0.word == word }) else { return nil }
        self = role
    }
}

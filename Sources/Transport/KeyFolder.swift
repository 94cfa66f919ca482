public import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// A folder of keys.
///
/// | file | where | mode |
/// |---|---|---|
/// | `worker.secret`, `worker.public` | everywhere: this user's key as trainer, evaluator, observer | 0600, 0644 |
/// | `coordinator.public` | everywhere: whom workers take for the coordinator | 0644 |
/// | `coordinator.secret` | where the coordinator runs | 0600 |
/// | `allowed` | where the coordinator runs: the keys that it admits | 0644 |
public struct KeyFolder: Sendable {
    /// Whose key.
    public enum Owner: String, Sendable {
        case coordinator
        case worker
    }

    /// The folder's path.
    public let path: String

    /// Names a folder, which need not be there.
    public init(path: String) {
        self.path = path
    }

    /// `lineup/keys` in the user's folder of configuration.
    public static func standard(
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> KeyFolder {
        let home = environment["HOME"] ?? NSHomeDirectory()
        let given = environment["XDG_CONFIG_HOME"].flatMap { $0.isEmpty ? nil : $0 }
        return KeyFolder(path: (given ?? home + "/.config") + "/lineup/keys")
    }

    /// The allow list's file.
    public var allowList: String { path + "/allowed" }

    /// The file of an owner's secret half.
    public func secretFile(_ owner: Owner) -> String { "\(path)/\(owner.rawValue).secret" }

    /// The file of an owner's public half.
    public func publicFile(_ owner: Owner) -> String { "\(path)/\(owner.rawValue).public" }

    /// Whether the folder holds what a coordinator needs.
    public var suitsCoordinator: Bool { holds([secretFile(.coordinator), allowList]) }

    /// Whether the folder holds what a worker needs.
    public var suitsWorker: Bool { holds([secretFile(.worker), publicFile(.coordinator)]) }

    private func holds(_ files: [String]) -> Bool {
        files.allSatisfy { FileManager.default.fileExists(atPath: $0) }
    }

    // MARK: Making

    /// Makes a key pair and writes both files.
    ///
    /// - Throws: ``TransportError`` when the owner has a key here already.
    public func create(_ owner: Owner) throws(TransportError) -> KeyPair {
        let pair = try KeyPair.generate()
        guard mkdirs() else { throw failure("folder \(path) cannot be made") }
        let file = secretFile(owner)
        let digits = pair.secret.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }
        let text =
            "# Secret key of a Lineup \(owner.rawValue). Who reads it is that \(owner.rawValue).\n"
            + digits.joined() + "\n"
        // Never over an existing key, and never readable by others, not even for a moment.
        let descriptor = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            guard errno == EEXIST else { throw failure("\(file) cannot be made") }
            throw TransportError(.badKey, "\(file) exists already; it is never overwritten")
        }
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        guard fchmod(descriptor, 0o600) == 0, write(descriptor, bytes, bytes.count) == bytes.count,
            fsync(descriptor) == 0
        else {
            let error = failure("\(file) cannot be written")
            unlink(file)
            throw error
        }
        try publish(pair.publicKey, of: owner)
        return pair
    }

    /// Writes an owner's public key, for instance the coordinator's on a worker's machine.
    public func publish(_ key: PublicKey, of owner: Owner) throws(TransportError) {
        guard mkdirs() else { throw failure("folder \(path) cannot be made") }
        try Self.replace(
            publicFile(owner),
            with: "# Public key of a Lineup \(owner.rawValue).\n\(key.hex)\n")
    }

    private func mkdirs() -> Bool {
        let made: Void? = try? FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: true,
            attributes: [.posixPermissions: 0o700])
        return made != nil
    }

    /// Writes a file that everyone may read, whole or not at all.
    static func replace(_ file: String, with text: String) throws(TransportError) {
        let temporary = "\(file).\(getpid())"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        let bytes = Array(text.utf8)
        defer { close(descriptor) }
        guard descriptor >= 0, fchmod(descriptor, 0o644) == 0,
            write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0,
            rename(temporary, file) == 0
        else {
            let error = failure("\(file) cannot be written")
            unlink(temporary)
            throw error
        }
    }

    // MARK: Reading

    /// Reads an owner's key pair.
    ///
    /// - Throws: ``TransportError`` that names the file when it is missing, others can read it or it
    ///   holds no key; what it holds is never shown.
    public func pair(_ owner: Owner) throws(TransportError) -> KeyPair {
        let file = secretFile(owner)
        var facts = stat()
        guard stat(file, &facts) == 0 else { throw missing(file, owner) }
        guard facts.st_mode & 0o077 == 0 else {
            throw TransportError(
                .badKey,
                "\(file) has mode 0\(String(facts.st_mode & 0o777, radix: 8)), so that others can "
                    + "read this secret key; expected 0600: make a new key, or 'chmod 600 \(file)' "
                    + "if nobody has read it")
        }
        let text = try digits(in: file, what: "a secret key", owner)
        var secret: [UInt8] = []
        for place in stride(from: 0, to: 64, by: 2) {
            let digits = text.dropFirst(place).prefix(2)
            guard let byte = UInt8(digits, radix: 16) else {
                throw noKey(file, "a secret key")
            }
            secret.append(byte)
        }
        return try KeyPair(secret: secret)
    }

    /// Reads an owner's public key.
    ///
    /// - Throws: ``TransportError`` that names the file when it is missing or holds no key.
    public func publicKey(_ owner: Owner) throws(TransportError) -> PublicKey {
        let file = publicFile(owner)
        let text = try digits(in: file, what: "a public key", owner)
        guard let key = PublicKey(hex: text) else { throw noKey(file, "a public key") }
        return key
    }

    /// The one line of a file that is no comment: 64 hexadecimal digits.
    private func digits(
        in file: String, what: String, _ owner: Owner
    ) throws(TransportError) -> String {
        guard let data = FileManager.default.contents(atPath: file) else {
            throw missing(file, owner)
        }
        let lines = String(decoding: data.prefix(4_096), as: UTF8.self)
            .split(whereSeparator: \.isNewline)
            .map { $0.trimmingCharacters(in: .whitespaces) }
            .filter { !$0.isEmpty && !$0.hasPrefix("#") }
        guard lines.count == 1, lines[0].utf8.count == 64,
            lines[0].utf8.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit })
        else { throw noKey(file, what) }
        return lines[0]
    }

    private func noKey(_ file: String, _ what: String) -> TransportError {
        TransportError(
            .badKey,
            "\(file) holds no \(what.dropFirst(2)); expected one line of 64 hexadecimal digits, as "
                + "'lineup keys create' writes it")
    }

    private func missing(_ file: String, _ owner: Owner) -> TransportError {
        guard errno == ENOENT || errno == ENOTDIR || errno == 0 else {
            return failure("\(file) cannot be read")
        }
        let make =
            owner == .coordinator && file == secretFile(.coordinator)
            ? "make it with 'lineup keys create'"
            : "make it with 'lineup keys create --coordinator KEY', where KEY is what 'lineup keys "
                + "list' shows on the coordinator's machine"
        return TransportError(.badKey, "\(file) is not there; \(make)")
    }

    private func failure(_ what: String) -> TransportError { Self.failure(what) }

    private static func failure(_ what: String) -> TransportError {
        TransportError(
            .badKey, "\(what): \(String(cString: strerror(errno))); check the path and its owner")
    }
}

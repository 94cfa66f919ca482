internal import Basics
internal import CZeroMQ

/// Whether this libzmq can encrypt and authenticate connections with CURVE.
public let hasCurve = zmq_has("curve") == 1

/// The public half of a key pair: names a process to its peers, and may be known to anyone.
public struct PublicKey: Hashable, Sendable, CustomStringConvertible {
    private let words: SIMD4<UInt64>

    /// Reads 64 hexadecimal digits; nil for anything else.
    public init?(hex text: some StringProtocol) {
        var words = SIMD4<UInt64>()
        var count = 0
        for digit in text.utf8 {
            guard count < 64, let value = Character(Unicode.Scalar(digit)).hexDigitValue else {
                return nil
            }
            words[count / 16] = words[count / 16] << 4 | UInt64(value)
            count += 1
        }
        guard count == 64 else { return nil }
        self.words = words
    }

    /// Reads 32 bytes; nil for another number.
    init?(bytes: UnsafeRawBufferPointer) {
        guard bytes.count == 32 else { return nil }
        words = SIMD4(
            (0..<4).map {
                UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self))
            })
    }

    /// The key as 32 bytes.
    public var bytes: [UInt8] {
        (0..<4).flatMap { word in withUnsafeBytes(of: words[word].bigEndian, Array.init) }
    }

    /// The key as 64 hexadecimal digits.
    public var hex: String { (0..<4).map { words[$0].hex }.joined() }

    /// The first sixteen digits, by which people and names of workers refer to a key.
    public var fingerprint: String { words[0].hex }

    /// The key as 64 hexadecimal digits.
    public var description: String { hex }
}

/// A CURVE key pair.
///
/// The secret half leaves it only for ZeroMQ and for its file.
public struct KeyPair: Sendable, CustomStringConvertible, CustomReflectable {
    /// The half that others may know.
    public let publicKey: PublicKey
    let secret: [UInt8]

    /// Draws a new pair from the system's randomness.
    ///
    /// - Throws: ``TransportError`` when this libzmq has no CURVE.
    public static func generate() throws(TransportError) -> KeyPair {
        try checkCurve()
        // Z85 writes 32 bytes as 40 characters and a zero.
        var publicText = [CChar](repeating: 0, count: 41)
        var secretText = publicText
        guard zmq_curve_keypair(&publicText, &secretText) == 0 else {
            throw TransportError.last("make a key pair")
        }
        return KeyPair(publicKey: try decode(publicText), secret: bytes(secretText))
    }

    private init(publicKey: PublicKey, secret: [UInt8]) {
        self.publicKey = publicKey
        self.secret = secret
    }

    /// The pair of a secret half.
    init(secret: [UInt8]) throws(TransportError) {
        precondition(secret.count == 32, "a secret key has 32 bytes")
        try Self.checkCurve()
        var secretText = [CChar](repeating: 0, count: 41)
        var publicText = secretText
        zmq_z85_encode(&secretText, secret, secret.count)
        guard zmq_curve_public(&publicText, secretText) == 0 else {
            throw TransportError.last("find the public half of a key")
        }
        self.init(publicKey: try Self.decode(publicText), secret: secret)
    }

    private static func checkCurve() throws(TransportError) {
        guard hasCurve else {
            throw TransportError(
                .badKey,
                "this machine's libzmq was built without CURVE; install one that is built with "
                    + "libsodium, or go without keys by --insecure on a network you trust")
        }
    }

    private static func bytes(_ text: [CChar]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 32)
        zmq_z85_decode(&bytes, text)
        return bytes
    }

    private static func decode(_ text: [CChar]) throws(TransportError) -> PublicKey {
        guard let key = bytes(text).withUnsafeBytes({ PublicKey(bytes: $0) }) else {
            throw TransportError(.system, "ZeroMQ made a key of another length")
        }
        return key
    }

    /// Names the pair without its secret half.
    public var description: String { "key pair \(publicKey.fingerprint)" }

    /// Shows nothing to `dump` and the debugger's printing.
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// What a worker needs where the cluster has keys: its own, and the coordinator's, which it insists on.
public struct WorkerKeys: Sendable {
    /// The worker's own pair.
    public let own: KeyPair
    /// Whoever does not hold the secret half of this key is not the coordinator.
    public let coordinator: PublicKey

    /// Names both.
    public init(own: KeyPair, coordinator: PublicKey) {
        self.own = own
        self.coordinator = coordinator
    }
}

/// What a coordinator needs where the cluster has keys: its own, and who may come.
public struct CoordinatorKeys: Sendable {
    /// The coordinator's own pair.
    public let own: KeyPair
    /// The allow list as it is now.
    public let admission: Admission

    /// Names both.
    public init(own: KeyPair, admission: Admission) {
        self.own = own
        self.admission = admission
    }
}

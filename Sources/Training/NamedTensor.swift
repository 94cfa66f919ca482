import Basics
import Tensors

/// One tensor of a training state: its name, sizes and values.
///
/// The memory belongs to the state or snapshot that it came from and stays valid with it.
public struct NamedTensor: Sendable {
    /// The name in checkpoints: `network/conv1.weight`, `optimizer/m/conv1.weight`.
    public let name: String
    /// Sizes.
    public let shape: [Int]
    private let buffer: FloatBuffer
    private let offset: Int

    init(name: String, shape: [Int], buffer: FloatBuffer, offset: Int) {
        self.name = name
        self.shape = shape
        self.buffer = buffer
        self.offset = offset
    }

    /// Elements.
    public var count: Int { shape.reduce(1, *) }
    /// Bytes.
    public var byteCount: Int { count * 4 }

    /// Calls `body` with the values' bytes, 32-bit little-endian floats in row-major order.
    public func withUnsafeBytes<Result, Failure>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { withExtendedLifetime(buffer) {} }
        return try body(buffer.bytes(offset..<offset + count))
    }

    /// Calls `body` with the values' bytes, for writing.
    public func withUnsafeMutableBytes<Result, Failure>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        defer { withExtendedLifetime(buffer) {} }
        return try body(
            UnsafeMutableRawBufferPointer(mutating: buffer.bytes(offset..<offset + count)))
    }

    /// Takes values over.
    ///
    /// - Throws: ``TrainingError`` with code `shapeMismatch` when they have other sizes.
    func fill(from bytes: UnsafeRawBufferPointer, shape: [Int]) throws(TrainingError) {
        guard shape == self.shape, bytes.count == byteCount else {
            throw TrainingError(
                .shapeMismatch,
                "tensor '\(name)' has sizes \(shape) and \(bytes.count) bytes, the run wants "
                    + "\(self.shape) and \(byteCount); resume with the run's own settings")
        }
        withUnsafeMutableBytes { $0.copyMemory(from: bytes) }
    }

    /// The values.
    public func floats() -> [Float] {
        withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }

    /// The digest of name, sizes and bytes.
    public var digest: UInt64 {
        withUnsafeBytes { StateDigest.tensor(name: name, shape: shape, bytes: $0) }
    }

    /// The tensor over the same memory.
    func view() throws(TensorError) -> Tensor {
        try Tensor(
            viewing: buffer.base + offset, shape: shape, dtype: .float32, keepingAlive: buffer)
    }
}

/// The digests of training states and checkpoints.
public enum StateDigest {
    /// XXH64 over the name, the rank, the sizes (64-bit little-endian) and the bytes.
    public static func tensor(
        name: String, shape: [Int], bytes: UnsafeRawBufferPointer
    ) -> UInt64 {
        var hash = XXH64()
        hash.update(name)
        hash.update(UInt64(shape.count))
        for size in shape { hash.update(UInt64(size)) }
        hash.update(bytes)
        return hash.finish()
    }

    /// XXH64 over the digests of tensors in order (64-bit little-endian).
    ///
    /// Over a state's `network/` tensors this is the digest of its weights.
    public static func combined(_ digests: [UInt64]) -> UInt64 {
        var hash = XXH64()
        for digest in digests { hash.update(digest) }
        return hash.finish()
    }
}

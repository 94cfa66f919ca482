import Basics

// @unchecked: whoever hands a buffer to another thread stops writing it; the fold and the exchange
// let each thread write blocks of its own.
/// Host memory for 32-bit floats, aligned to pages, zero at first.
///
/// A gradient in ``FlatLayout`` order, a partial sum, or the memory under a state's tensors.
public final class FloatBuffer: @unchecked Sendable {
    /// Elements.
    public let count: Int
    /// The first element.
    public let base: UnsafeMutablePointer<Float>

    /// Allocates zeros.
    public init(count: Int) {
        precondition(count >= 0, "a buffer of \(count) floats")
        self.count = count
        let raw = UnsafeMutableRawPointer.allocate(
            byteCount: max(64, count * 4), alignment: 4096)
        base = raw.bindMemory(to: Float.self, capacity: count)
        base.initialize(repeating: 0, count: count)
    }

    deinit { UnsafeMutableRawPointer(base).deallocate() }

    /// The elements.
    public var floats: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: base, count: count)
    }

    /// The bytes of some elements; valid while the buffer lives.
    public func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        precondition(
            0 <= range.lowerBound && range.upperBound <= count, "elements \(range) of \(count)")
        return UnsafeRawBufferPointer(
            start: base + range.lowerBound, count: range.count * 4)
    }

    /// The XXH64 of some elements' bytes.
    public func digest(_ range: Range<Int>) -> UInt64 {
        withExtendedLifetime(self) { XXH64.digest(bytes(range)) }
    }
}

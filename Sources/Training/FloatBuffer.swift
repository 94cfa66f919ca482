import Basics
import Foundation

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

    private let byteCount: Int
    /// Whose memory it is; nil for memory of its own.
    private let owner: AnyObject?

    /// Reserves zeros; memory is taken when it is first touched.
    ///
    /// Traps when the address space has no room.
    public init(count: Int) {
        precondition(0 <= count && count < 1 << 60, "a buffer of \(count) floats")
        self.count = count
        byteCount = max(4096, (count * 4 + 4095) / 4096 * 4096)
        let raw = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let raw, raw != MAP_FAILED else {
            preconditionFailure("no room for a buffer of \(count) floats: error \(errno)")
        }
        // Large pages where the system has them: a gradient of 100 MB is 25,000 small ones.
        if byteCount >= 4 << 20 { madvise(raw, byteCount, Int32(MADV_HUGEPAGE)) }
        base = raw.bindMemory(to: Float.self, capacity: count)
        owner = nil
    }

    /// Lies in memory of another object, which it keeps alive.
    public init(in memory: UnsafeMutableRawPointer, count: Int, of owner: AnyObject) {
        self.count = count
        base = memory.bindMemory(to: Float.self, capacity: count)
        byteCount = 0
        self.owner = owner
    }

    deinit { if owner == nil { munmap(base, byteCount) } }

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

    /// Whether no element is infinite or NaN.
    public var isFinite: Bool {
        let exponent = Float.infinity.bitPattern
        return withExtendedLifetime(self) {
            UnsafeBufferPointer(floats).withMemoryRebound(to: UInt32.self) { bits in
                // Without a branch: a gradient of 25 million takes some milliseconds.
                var found: UInt32 = 0
                for word in bits { found |= word & exponent == exponent ? 1 : 0 }
                return found == 0
            }
        }
    }

    /// The XXH64 of some elements' bytes.
    public func digest(_ range: Range<Int>) -> UInt64 {
        withExtendedLifetime(self) { XXH64.digest(bytes(range)) }
    }
}

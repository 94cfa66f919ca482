import Foundation
import Synchronization

/// Makes the C library keep memory that a slot frees for the next slot.
///
/// A slot allocates the same activations every time. By default the C library gives large blocks
/// back to the kernel, per thread, and each slot pays for fresh zero pages again.
enum KeptMemory {
    private typealias Option = @convention(c) (Int32, Int32) -> Int32
    private static let done = Atomic<Bool>(false)

    /// Sets the process's allocator once; does nothing where the C library is not glibc.
    static func enable() {
        guard !done.exchange(true, ordering: .relaxed) else { return }
        // glibc's header is not in Swift's module; the numbers are from <malloc.h>.
        guard let symbol = dlsym(nil, "mallopt") else { return }
        let set = unsafeBitCast(symbol, to: Option.self)
        let (trimThreshold, mapThreshold, arenas): (Int32, Int32, Int32) = (-1, -3, -8)
        _ = set(arenas, 1)  // M_ARENA_MAX: other arenas are unmapped whole when they empty
        _ = set(mapThreshold, 32 << 20)  // M_MMAP_THRESHOLD: the largest that glibc takes
        _ = set(trimThreshold, .max)  // M_TRIM_THRESHOLD
    }
}

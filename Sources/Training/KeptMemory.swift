import Foundation
import Synchronization

/// Makes the C library keep memory that a slot frees for the next slot.
///
/// A slot allocates the same activations every time. By default glibc gives large blocks, and whole
/// heaps of threads, back to the kernel, and each slot pays for fresh zero pages again: up to a third
/// of the CPU time of an evaluation of small images.
public enum KeptMemory {
    private typealias Option = @convention(c) (Int32, Int32) -> Int32
    private static let done = Atomic<Bool>(false)

    /// Sets the process's allocator, once.
    ///
    /// ``SlotComputer`` and ``Embedder`` call it; calling it first in `main` also covers threads that
    /// exist before them, which otherwise keep heaps of their own. Without glibc it does nothing.
    public static func enable() {
        guard !done.exchange(true, ordering: .relaxed) else { return }
        // glibc's header is not in Swift's module; the numbers are from <malloc.h>.
        guard let symbol = dlsym(nil, "mallopt") else { return }
        let set = unsafeBitCast(symbol, to: Option.self)
        let (trimThreshold, mapThreshold, arenas): (Int32, Int32, Int32) = (-1, -3, -8)
        _ = set(arenas, 1)
        // Older versions take at most 32 MiB.
        if set(mapThreshold, 1 << 30) == 0 { _ = set(mapThreshold, 32 << 20) }
        _ = set(trimThreshold, .max)
    }
}

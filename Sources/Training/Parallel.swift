import Foundation
import Synchronization

/// Work on several OS threads at once.
package enum Parallel {
    /// Calls `body(part, parts)` for every part, each on its own thread, and waits for all.
    package static func run(parts: Int, _ body: @Sendable (_ part: Int, _ parts: Int) -> Void) {
        guard parts > 1 else { return body(0, 1) }
        DispatchQueue.concurrentPerform(iterations: parts) { body($0, parts) }
    }

    /// As ``run(parts:_:)``, and throws the first part's error.
    package static func tryRun(
        parts: Int, _ body: @Sendable (_ part: Int, _ parts: Int) throws -> Void
    ) throws {
        let failures = Mutex<[Int: any Error]>([:])
        run(parts: parts) { part, parts in
            do { try body(part, parts) } catch { failures.withLock { $0[part] = error } }
        }
        let found = failures.withLock { $0 }
        if let first = found.keys.min() { throw found[first]! }
    }
}

/// Digests that several threads fill in.
final class DigestList: Sendable {
    private let list: Mutex<[UInt64]>

    init(count: Int) { list = Mutex([UInt64](repeating: 0, count: count)) }

    func set(_ index: Int, _ digest: UInt64) { list.withLock { $0[index] = digest } }

    var values: [UInt64] { list.withLock { $0 } }
}

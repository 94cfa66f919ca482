public import Foundation
internal import Protocol
internal import Synchronization

/// The keys of peers that the coordinator allows now; may be used from any thread.
public final class AdmittedKeys: Sendable {
    private let keys = Mutex<Set<PublicKey>>([])

    /// Admits nobody yet.
    public init() {}

    /// Takes the coordinator's list in the place of the one before; what is no key counts for nothing.
    public func replace(with keys: [Data]) {
        let set = Set(keys.compactMap { $0.withUnsafeBytes { PublicKey(bytes: $0) } })
        self.keys.withLock { $0 = set }
    }

    /// Whether a key is admitted.
    public func admits(_ key: PublicKey) -> Bool { keys.withLock { $0.contains(key) } }

    /// Whether a message comes from the process that it is named after: its connection was opened with
    /// an admitted key, and the name belongs to that key.
    public func admits(_ frame: Frame, from worker: String) -> Bool {
        guard let key = frame.key, WorkerName.key(of: worker) == key.fingerprint else {
            return false
        }
        return admits(key)
    }
}

internal import Synchronization

/// A set that several threads read and change.
final class SharedSet<Element: Hashable & Sendable>: Sendable {
    private let elements = Mutex<Set<Element>>([])

    func insert(_ element: Element) { elements.withLock { _ = $0.insert(element) } }
    func remove(_ element: Element) { elements.withLock { _ = $0.remove(element) } }
    func removeAll() { elements.withLock { $0 = [] } }
    func contains(_ element: Element) -> Bool { elements.withLock { $0.contains(element) } }
}

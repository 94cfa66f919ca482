import Synchronization

/// Decoded images, kept because every checkpoint is scored on the same ones.
///
/// The first to come stay. Evaluation goes over its images in a fixed order again and again, where
/// throwing out the least recently used would throw out just what comes next.
public final class InputCache: Sendable {
    /// A decoded image.
    private final class Entry: @unchecked Sendable {
        // @unchecked: written in `init` only.
        let values: UnsafeMutableBufferPointer<Float>

        init(copying source: UnsafeMutableBufferPointer<Float>) {
            values = .allocate(capacity: source.count)
            _ = values.initialize(from: source)
        }

        deinit { values.deallocate() }
    }

    private struct State {
        var entries: [String: Entry] = [:]
        var bytes = 0
    }

    /// The most bytes of pixels that are kept.
    public let bytesMax: Int
    private let state = Mutex(State())

    /// Makes an empty cache; with 0 bytes it keeps nothing.
    public init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// Bytes of pixels that are kept now.
    public var bytes: Int { state.withLock(\.bytes) }

    /// Fills `target` with the image: from the cache, else from the source.
    func load(
        _ index: Int, of source: any ImageSource, into target: UnsafeMutableBufferPointer<Float>
    ) throws {
        let key = source.key(index)
        if let entry = state.withLock({ $0.entries[key] }), entry.values.count == target.count {
            _ = target.update(from: entry.values)
            return
        }
        try source.load(index, into: target)
        let size = target.count * MemoryLayout<Float>.stride
        guard state.withLock({ $0.bytes + size <= bytesMax && $0.entries[key] == nil }) else {
            return
        }
        let entry = Entry(copying: target)
        state.withLock { state in
            guard state.bytes + size <= bytesMax, state.entries[key] == nil else { return }
            state.entries[key] = entry
            state.bytes += size
        }
    }
}

import Foundation

/// Batches of decoded images in order, filled ahead by threads of its own.
///
/// Without threads each batch is filled when it is asked for. The batches are the same either way.
final class BatchFeeder: @unchecked Sendable {
    // @unchecked: what changes is touched only under `condition`, but for a buffer's contents: those
    // belong to the thread that took the buffer.

    typealias Buffer = UnsafeMutableBufferPointer<Float>

    private let source: any ImageSource
    private let cache: InputCache
    private let batches: Range<Int>
    private let batchSize: Int
    private let condition = NSCondition()
    private var free: [Buffer] = []
    private var ready: [Int: Buffer] = [:]
    private var failures: [Int: any Error] = [:]
    private var next: Int
    private var working = 0
    private var isClosed = false
    private let allocated: [Buffer]
    private let threadCount: Int

    init(
        _ source: any ImageSource, cache: InputCache, batches: Range<Int>, batchSize: Int,
        threads: Int
    ) {
        self.source = source
        self.cache = cache
        self.batches = batches
        self.batchSize = batchSize
        next = batches.lowerBound
        threadCount = min(threads, batches.count)
        // One in use, one in each thread's hands, one ready.
        allocated = (0..<(threadCount == 0 ? 1 : threadCount + 2)).map { _ in
            let bytes = batchSize * source.elementCount * MemoryLayout<Float>.stride
            return UnsafeMutableRawBufferPointer.allocate(byteCount: bytes, alignment: 64)
                .bindMemory(to: Float.self)
        }
        free = allocated
        for _ in 0..<threadCount {
            working += 1
            let thread = Thread { [self] in work() }
            thread.name = "decode"
            thread.start()
        }
    }

    deinit { for buffer in allocated { UnsafeMutableRawBufferPointer(buffer).deallocate() } }

    /// Lends the next batch in order to `body`.
    func withBatch<Result>(_ batch: Int, _ body: (Buffer) throws -> Result) throws -> Result {
        if threadCount == 0 {
            try fill(allocated[0], batch)
            return try body(allocated[0])
        }
        let buffer = try takeReady(batch)
        defer {
            condition.lock()
            free.append(buffer)
            condition.broadcast()
            condition.unlock()
        }
        return try body(buffer)
    }

    /// Waits until no thread decodes any more; what is decoded ahead is dropped.
    func close() {
        condition.lock()
        isClosed = true
        condition.broadcast()
        while working > 0 { condition.wait() }
        condition.unlock()
    }

    private func takeReady(_ batch: Int) throws -> Buffer {
        condition.lock()
        defer { condition.unlock() }
        while true {
            if let error = failures[batch] { throw error }
            if let buffer = ready.removeValue(forKey: batch) { return buffer }
            condition.wait()
        }
    }

    private func work() {
        condition.lock()
        defer {
            working -= 1
            condition.broadcast()
            condition.unlock()
        }
        while true {
            while free.isEmpty && !isClosed && next < batches.upperBound { condition.wait() }
            guard !isClosed, next < batches.upperBound, let buffer = free.popLast() else { return }
            let batch = next
            next += 1
            condition.unlock()
            var failure: (any Error)?
            do { try fill(buffer, batch) } catch { failure = error }
            condition.lock()
            if let failure {
                failures[batch] = failure
                free.append(buffer)
            } else {
                ready[batch] = buffer
            }
            condition.broadcast()
        }
    }

    /// Decodes a batch; places beyond the last image are zero.
    private func fill(_ buffer: Buffer, _ batch: Int) throws {
        let size = source.elementCount
        for place in 0..<batchSize {
            let target = Buffer(rebasing: buffer[place * size..<(place + 1) * size])
            let image = batch * batchSize + place
            if image < source.count {
                try cache.load(image, of: source, into: target)
            } else {
                target.update(repeating: 0)
            }
        }
    }
}

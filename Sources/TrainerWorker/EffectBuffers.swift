internal import Basics
internal import Foundation
internal import Synchronization
internal import Training
internal import Transport

/// Where a slot's contribution lies: gradient and BN statistics.
struct SlotContribution: Sendable {
    let gradient: FloatBuffer
    let statistics: FloatBuffer

    /// XXH64 of both, for audits; never 0, which says that there is none.
    var digest: UInt64 {
        var hash = XXH64()
        hash.update(gradient.bytes(0..<gradient.count))
        hash.update(statistics.bytes(0..<statistics.count))
        return max(1, hash.finish())
    }
}

/// Cuts gradient and BN statistics into the blocks that are exchanged.
///
/// Blocks of the gradient come first, in flat order; those of the statistics follow.
struct EffectLayout: Sendable {
    let gradientCount: Int
    let statisticsCount: Int
    let gradientBlocks: Int
    let blockCount: Int

    init(_ layout: FlatLayout) {
        gradientCount = layout.elementCount
        statisticsCount = layout.statisticsCount
        gradientBlocks = layout.blockCount
        let size = FlatLayout.blockElements
        blockCount = gradientBlocks + (statisticsCount + size - 1) / size
    }

    /// Elements of a block within its buffer.
    func range(_ block: Int) -> Range<Int> {
        let isGradient = block < gradientBlocks
        let start = (isGradient ? block : block - gradientBlocks) * FlatLayout.blockElements
        let end = isGradient ? gradientCount : statisticsCount
        return start..<min(start + FlatLayout.blockElements, end)
    }

    /// Address of a block in a contribution.
    func pointer(_ block: Int, in contribution: SlotContribution) -> UnsafeMutablePointer<Float> {
        let buffer =
            block < gradientBlocks ? contribution.gradient : contribution.statistics
        return buffer.base + range(block).lowerBound
    }
}

/// A partial sum that arrived, where ZeroMQ has put it if that address suits.
private struct ReceivedPart {
    let base: UnsafePointer<Float>
    private let owner: AnyObject

    init(_ frame: Frame) {
        let bytes = frame.bytes
        if let start = bytes.baseAddress,
            Int(bitPattern: start).isMultiple(of: MemoryLayout<Float>.alignment)
        {
            base = start.bindMemory(to: Float.self, capacity: bytes.count / 4)
            owner = frame
        } else {
            let copy = FloatBuffer(count: bytes.count / 4)
            UnsafeMutableRawBufferPointer(copy.floats).copyMemory(from: bytes)
            base = UnsafePointer(copy.base)
            owner = copy
        }
    }
}

/// The numbers of one step's exchange: what this trainer computed, received and finished.
final class StepBuffers {
    let step: Int
    let history: UInt64
    let layout: EffectLayout
    let slotCount: Int
    let effect: SlotContribution
    private(set) var slots: [Int: SlotContribution] = [:]
    private var received: [Int: [SlotRun: ReceivedPart]] = [:]
    /// XXH64 of each finished block, taken while it is in the cache.
    private(set) var digests: [UInt64]

    init(
        step: Int, history: UInt64, layout: EffectLayout, slotCount: Int, effect: SlotContribution
    ) {
        self.step = step
        self.history = history
        self.layout = layout
        self.slotCount = slotCount
        self.effect = effect
        digests = [UInt64](repeating: 0, count: layout.blockCount)
    }

    func keep(slot: Int, _ contribution: SlotContribution) { slots[slot] = contribution }

    func keepPartial(_ block: Int, run: SlotRun, _ frame: Frame) {
        received[block, default: [:]][run] = ReceivedPart(frame)
    }

    /// Copies a finished block whose digest has been checked.
    func keepResult(
        _ block: Int, _ bytes: UnsafeRawBufferPointer, digest: UInt64, keepingParts: Bool
    ) {
        UnsafeMutableRawPointer(layout.pointer(block, in: effect)).copyMemory(
            from: bytes.baseAddress!, byteCount: bytes.count)
        digests[block] = digest
        if !keepingParts { received[block] = nil }
    }

    /// Folds a block beside the effect.
    ///
    /// - Returns: XXH64 of what a finished block would be.
    func secondFold(_ block: Int) throws -> UInt64 {
        let count = layout.range(block).count
        return try withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { floats in
            try sum(
                SlotRun(0, slotCount), block: block, into: floats.baseAddress!,
                scale: Float(1) / Float(slotCount))
            return XXH64.digest(UnsafeRawBufferPointer(floats))
        }
    }

    /// Forgets what was received and folded, not what was computed here.
    func forgetSums() { received = [:] }

    /// A block of the effect.
    func bytes(ofBlock block: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: layout.pointer(block, in: effect), count: layout.range(block).count * 4)
    }

    /// Sums a run of a block in tree order from what is held here.
    func sum(
        _ run: SlotRun, block: Int, into output: UnsafeMutablePointer<Float>, scale: Float? = nil
    ) throws {
        var parts: [SlotRun: UnsafePointer<Float>] = [:]
        for (slot, contribution) in slots where run.low <= slot && slot < run.high {
            parts[SlotRun(slot, slot + 1)] = UnsafePointer(
                layout.pointer(block, in: contribution))
        }
        for (other, part) in received[block] ?? [:]
        where run.low <= other.low && other.high <= run.high {
            parts[other] = part.base
        }
        try Fold.sum(
            run, parts: parts, into: output, count: layout.range(block).count, scale: scale)
    }

    /// Puts finished blocks into the effect, the root's sum times 1/G, and digests them.
    func finish(_ blocks: [Int], threads: Int) throws {
        let root = SlotRun(0, slotCount)
        let scale = Float(1) / Float(slotCount)
        let shared = Unguarded(self)
        let found = Mutex<[(block: Int, digest: UInt64)]>([])
        try Parallel.tryRun(parts: max(1, min(threads, blocks.count))) { part, parts in
            let buffers = shared.value
            var own: [(block: Int, digest: UInt64)] = []
            for place in blocks.count * part / parts..<blocks.count * (part + 1) / parts {
                let block = blocks[place]
                try buffers.sum(
                    root, block: block, into: buffers.layout.pointer(block, in: buffers.effect),
                    scale: scale)
                own.append((block, XXH64.digest(buffers.bytes(ofBlock: block))))
            }
            found.withLock { $0 += own }
        }
        for (block, digest) in found.withLock({ $0 }) {
            digests[block] = digest
            received[block] = nil
        }
    }
}

/// Lends an object to threads that read it and write disjoint parts of its buffers.
private struct Unguarded<Value>: @unchecked Sendable {
    // @unchecked: the lender waits for the threads, and they write blocks of their own.
    let value: Value
    init(_ value: Value) { self.value = value }
}

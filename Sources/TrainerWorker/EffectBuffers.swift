internal import Basics
internal import Foundation
internal import Training
internal import Transport

/// Where a slot's contribution lies: gradient and BN statistics.
struct SlotContribution: Sendable {
    let gradient: FloatBuffer
    let statistics: FloatBuffer
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

/// The numbers of one step's exchange: what this trainer computed, received and finished.
final class StepBuffers {
    let step: Int
    let history: UInt64
    let layout: EffectLayout
    let slotCount: Int
    let effect: SlotContribution
    private(set) var slots: [Int: SlotContribution] = [:]
    private var received: [Int: [SlotRun: FloatBuffer]] = [:]

    init(
        step: Int, history: UInt64, layout: EffectLayout, slotCount: Int, effect: SlotContribution
    ) {
        self.step = step
        self.history = history
        self.layout = layout
        self.slotCount = slotCount
        self.effect = effect
    }

    func keep(slot: Int, _ contribution: SlotContribution) { slots[slot] = contribution }

    /// Copies a partial that arrived; ZeroMQ's buffer may lie at any address.
    func keepPartial(_ block: Int, run: SlotRun, _ bytes: UnsafeRawBufferPointer) {
        let buffer = FloatBuffer(count: layout.range(block).count)
        UnsafeMutableRawPointer(buffer.base).copyMemory(
            from: bytes.baseAddress!, byteCount: bytes.count)
        received[block, default: [:]][run] = buffer
    }

    func keepResult(_ block: Int, _ bytes: UnsafeRawBufferPointer) {
        UnsafeMutableRawPointer(layout.pointer(block, in: effect)).copyMemory(
            from: bytes.baseAddress!, byteCount: bytes.count)
        received[block] = nil
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
        for (other, buffer) in received[block] ?? [:]
        where run.low <= other.low && other.high <= run.high {
            parts[other] = UnsafePointer(buffer.base)
        }
        try Fold.sum(
            run, parts: parts, into: output, count: layout.range(block).count, scale: scale)
    }

    /// Puts finished blocks into the effect: the root's sum times 1/G.
    func finish(_ blocks: [Int], threads: Int) throws {
        let root = SlotRun(0, slotCount)
        let scale = Float(1) / Float(slotCount)
        let shared = Unguarded(self)
        try Parallel.tryRun(parts: max(1, min(threads, blocks.count))) { part, parts in
            for place in stride(from: part, to: blocks.count, by: parts) {
                let buffers = shared.value
                try buffers.sum(
                    root, block: blocks[place],
                    into: buffers.layout.pointer(blocks[place], in: buffers.effect), scale: scale)
            }
        }
        for block in blocks { received[block] = nil }
    }
}

/// Lends an object to threads that read it and write disjoint parts of its buffers.
private struct Unguarded<Value>: @unchecked Sendable {
    // @unchecked: the lender waits for the threads, and they write blocks of their own.
    let value: Value
    init(_ value: Value) { self.value = value }
}

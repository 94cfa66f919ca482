internal import Basics
public import Training
internal import Transport

/// Cuts gradient, BN statistics and entries of the memory into the blocks that are exchanged.
///
/// Blocks of the gradient come first, in flat order; those of the statistics follow, and then those of the
/// entries. Of the first two the mean over slots is wanted. Each entry is one slot's and zero in all others,
/// so that of entries it is the sum.
public struct EffectLayout: Sendable {
    /// Elements of the gradient.
    public let gradientCount: Int
    /// Elements of all running means and variances together.
    public let statisticsCount: Int
    /// Elements of what a step puts into the memory; 0 without one.
    public let entryCount: Int
    /// Most elements of a slot's embeddings, where mining spans the step; else 0.
    public let embeddingCount: Int
    /// Blocks of the gradient.
    public let gradientBlocks: Int
    /// Where blocks of entries begin.
    private let firstEntryBlock: Int
    /// All blocks.
    public let blockCount: Int

    /// Cuts a network's gradient and statistics, and what goes into the memory.
    public init(_ layout: FlatLayout, memory: MemoryShape? = nil, embeddingCount: Int = 0) {
        self.init(
            gradientCount: layout.elementCount, statisticsCount: layout.statisticsCount,
            entryCount: memory?.entryCount ?? 0, embeddingCount: embeddingCount)
    }

    /// Cuts vectors of given sizes.
    public init(
        gradientCount: Int, statisticsCount: Int, entryCount: Int = 0, embeddingCount: Int = 0
    ) {
        self.gradientCount = gradientCount
        self.statisticsCount = statisticsCount
        self.entryCount = entryCount
        self.embeddingCount = embeddingCount
        let size = FlatLayout.blockElements
        gradientBlocks = (gradientCount + size - 1) / size
        firstEntryBlock = gradientBlocks + (statisticsCount + size - 1) / size
        blockCount = firstEntryBlock + (entryCount + size - 1) / size
    }

    /// Elements of a block within its buffer.
    public func range(_ block: Int) -> Range<Int> {
        let (first, end) =
            if block < gradientBlocks {
                (0, gradientCount)
            } else if block < firstEntryBlock {
                (gradientBlocks, statisticsCount)
            } else {
                (firstEntryBlock, entryCount)
            }
        let start = (block - first) * FlatLayout.blockElements
        return start..<min(start + FlatLayout.blockElements, end)
    }

    /// What the sum over slots of a block is multiplied with; nil where it is left as it is.
    func scale(_ block: Int, slotCount: Int) -> Float? {
        block < firstEntryBlock ? Float(1) / Float(slotCount) : nil
    }

    /// Bytes of a block.
    public func byteCount(_ block: Int) -> Int { range(block).count * 4 }

    /// Address of a block in a contribution.
    func pointer(_ block: Int, in contribution: SlotContribution) -> UnsafeMutablePointer<Float> {
        buffer(block, in: contribution).base + range(block).lowerBound
    }

    /// Where a block of a contribution lies.
    package func buffer(_ block: Int, in contribution: SlotContribution) -> FloatBuffer {
        if block < gradientBlocks { return contribution.gradient }
        return block < firstEntryBlock ? contribution.statistics : contribution.entries
    }

    /// XXH64 of a block of a contribution.
    func digest(_ block: Int, in contribution: SlotContribution) -> UInt64 {
        buffer(block, in: contribution).digest(range(block))
    }
}

/// Where a slot's contribution lies: gradient, BN statistics, entries of the memory, and embeddings where
/// mining spans the step.
///
/// In memory that processes of the same user on the same machine can read, where the system gives
/// such memory.
public struct SlotContribution: Sendable {
    /// The gradient, in ``FlatLayout`` order.
    public let gradient: FloatBuffer
    /// Means and unbiased variances of each batch norm, in buffer order.
    public let statistics: FloatBuffer
    /// What goes into the memory: rows of all slots, zero but for the slot's own; empty without one.
    public let entries: FloatBuffer
    /// Row-major `[images, dimension]`; the end is not used by smaller slots.
    public let embeddings: FloatBuffer
    let memory: SharedMemory?

    /// Reserves zeros.
    public init(_ layout: EffectLayout) {
        let (gradients, statistics) = (layout.gradientCount, layout.statisticsCount)
        let (entries, embeddings) = (layout.entryCount, layout.embeddingCount)
        memory = SharedMemory(byteCount: (gradients + statistics + entries + embeddings) * 4)
        guard let memory else {
            gradient = FloatBuffer(count: gradients)
            self.statistics = FloatBuffer(count: statistics)
            self.entries = FloatBuffer(count: entries)
            self.embeddings = FloatBuffer(count: embeddings)
            return
        }
        gradient = FloatBuffer(in: memory.base, count: gradients, of: memory)
        self.statistics = FloatBuffer(
            in: memory.base + gradients * 4, count: statistics, of: memory)
        self.entries = FloatBuffer(
            in: memory.base + (gradients + statistics) * 4, count: entries, of: memory)
        self.embeddings = FloatBuffer(
            in: memory.base + (gradients + statistics + entries) * 4, count: embeddings,
            of: memory)
    }

    /// Writes what a slot's forward pass gives.
    ///
    /// - Returns: XXH64 of the embeddings.
    public func store(embeddings values: [Float], statistics batchStatistics: [Float]) -> UInt64 {
        precondition(values.count <= embeddings.count, "\(values.count) numbers of embeddings")
        _ = embeddings.floats.update(from: values)
        _ = statistics.floats.update(from: batchStatistics)
        return embeddings.digest(0..<values.count)
    }

    /// Writes what a slot puts into the memory.
    ///
    /// - Parameters:
    ///   - embeddings: row-major `[labels.count, dimension]`.
    ///   - labels: one identity for each row.
    public func store(
        entries embeddings: [Float], labels: [Int], slot: Int, _ shape: MemoryShape
    ) {
        entries.floats.update(repeating: 0)
        shape.write(embeddings, labels: labels, slot: slot, into: entries.floats)
    }

    /// Changes a bit of the gradient: for tests of what audits find.
    public func flipBit() { gradient.base.flipBit() }
}

extension UnsafeMutablePointer<Float> {
    func flipBit() { pointee = Float(bitPattern: pointee.bitPattern ^ 1 << 20) }
}

/// What a slot came to, as digests that are taken once it is computed: whatever is used of it later has
/// to be the same.
public struct SlotSeal: Sendable, Equatable {
    /// XXH64 of each block.
    let blocks: [UInt64]
    /// XXH64 of the blocks' digests, for audits: the same for everybody who computed the slot; never 0,
    /// which says that there is none.
    public let digest: UInt64

    /// Digests gradient and statistics, every byte once.
    public init(_ contribution: SlotContribution, _ layout: EffectLayout) {
        blocks = (0..<layout.blockCount).map { layout.digest($0, in: contribution) }
        var hash = XXH64()
        for block in blocks { hash.update(block) }
        digest = max(1, hash.finish())
    }
}

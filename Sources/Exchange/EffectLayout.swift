internal import Basics
public import Training
internal import Transport

/// Cuts gradient and BN statistics into the blocks that are exchanged.
///
/// Blocks of the gradient come first, in flat order; those of the statistics follow.
public struct EffectLayout: Sendable {
    /// Elements of the gradient.
    public let gradientCount: Int
    /// Elements of all running means and variances together.
    public let statisticsCount: Int
    /// Most elements of a slot's embeddings, where mining spans the step; else 0.
    public let embeddingCount: Int
    /// Blocks of the gradient.
    public let gradientBlocks: Int
    /// All blocks.
    public let blockCount: Int

    /// Cuts a network's gradient and statistics.
    public init(_ layout: FlatLayout, embeddingCount: Int = 0) {
        self.init(
            gradientCount: layout.elementCount, statisticsCount: layout.statisticsCount,
            embeddingCount: embeddingCount)
    }

    /// Cuts vectors of given sizes.
    public init(gradientCount: Int, statisticsCount: Int, embeddingCount: Int = 0) {
        self.gradientCount = gradientCount
        self.statisticsCount = statisticsCount
        self.embeddingCount = embeddingCount
        let size = FlatLayout.blockElements
        gradientBlocks = (gradientCount + size - 1) / size
        blockCount = gradientBlocks + (statisticsCount + size - 1) / size
    }

    /// Elements of a block within its buffer.
    public func range(_ block: Int) -> Range<Int> {
        let isGradient = block < gradientBlocks
        let start = (isGradient ? block : block - gradientBlocks) * FlatLayout.blockElements
        let end = isGradient ? gradientCount : statisticsCount
        return start..<min(start + FlatLayout.blockElements, end)
    }

    /// Bytes of a block.
    public func byteCount(_ block: Int) -> Int { range(block).count * 4 }

    /// Address of a block in a contribution.
    func pointer(_ block: Int, in contribution: SlotContribution) -> UnsafeMutablePointer<Float> {
        buffer(block, in: contribution).base + range(block).lowerBound
    }

    /// Where a block of a contribution lies.
    func buffer(_ block: Int, in contribution: SlotContribution) -> FloatBuffer {
        block < gradientBlocks ? contribution.gradient : contribution.statistics
    }

    /// XXH64 of a block of a contribution.
    func digest(_ block: Int, in contribution: SlotContribution) -> UInt64 {
        buffer(block, in: contribution).digest(range(block))
    }
}

/// Where a slot's contribution lies: gradient, BN statistics, and embeddings where mining spans the step.
///
/// In memory that processes of the same user on the same machine can read, where the system gives
/// such memory.
public struct SlotContribution: Sendable {
    /// The gradient, in ``FlatLayout`` order.
    public let gradient: FloatBuffer
    /// Means and unbiased variances of each batch norm, in buffer order.
    public let statistics: FloatBuffer
    /// Row-major `[images, dimension]`; the end is not used by smaller slots.
    public let embeddings: FloatBuffer
    let memory: SharedMemory?

    /// Reserves zeros.
    public init(_ layout: EffectLayout) {
        let (gradients, statistics) = (layout.gradientCount, layout.statisticsCount)
        let embeddings = layout.embeddingCount
        memory = SharedMemory(byteCount: (gradients + statistics + embeddings) * 4)
        guard let memory else {
            gradient = FloatBuffer(count: gradients)
            self.statistics = FloatBuffer(count: statistics)
            self.embeddings = FloatBuffer(count: embeddings)
            return
        }
        gradient = FloatBuffer(in: memory.base, count: gradients, of: memory)
        self.statistics = FloatBuffer(
            in: memory.base + gradients * 4, count: statistics, of: memory)
        self.embeddings = FloatBuffer(
            in: memory.base + (gradients + statistics) * 4, count: embeddings, of: memory)
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

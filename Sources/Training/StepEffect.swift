import Basics
public import MetricLearning

/// The coordinator's numbers for one step, exchanged as bit patterns.
public struct StepScalars: Hashable, Sendable {
    /// The learning rate, for the records.
    public let learningRate: Double
    /// The rate with Adam's bias corrections, which a moment's quotient is multiplied with.
    public let effectiveRate: Double
    /// What is added to the root of Adam's second moment.
    public let effectiveEpsilon: Double

    /// Takes numbers that the coordinator sent.
    public init(learningRate: Double, effectiveRate: Double, effectiveEpsilon: Double) {
        self.learningRate = learningRate
        self.effectiveRate = effectiveRate
        self.effectiveEpsilon = effectiveEpsilon
    }

    /// Works the numbers out for the update that makes `step`, counted from 1.
    public init(_ optimizer: OptimizerConfiguration, step: Int, learningRate: Double) {
        let scalars = optimizer.rule.scalars(step: step, learningRate: learningRate)
        self.init(
            learningRate: learningRate, effectiveRate: scalars.rate,
            effectiveEpsilon: scalars.epsilon)
    }

    /// The three numbers' bits, in the order of the properties.
    public var bitPatterns: [UInt64] {
        [learningRate.bitPattern, effectiveRate.bitPattern, effectiveEpsilon.bitPattern]
    }
}

/// Everything that turns the state before a step into the state after it.
public struct StepEffect: Sendable {
    /// The step that this makes: one more than the state's.
    public let step: Int
    /// The mean gradient over slots, in ``FlatLayout`` order.
    public let gradient: FloatBuffer
    /// The mean over slots of each batch norm's mean and unbiased variance, in buffer order.
    public let batchStatistics: [Float]
    /// What the step puts into the memory, as ``MemoryShape`` says; empty without one.
    public let entries: [Float]
    /// The coordinator's numbers.
    public let scalars: StepScalars

    /// Collects an effect.
    public init(
        step: Int, gradient: FloatBuffer, batchStatistics: [Float], entries: [Float] = [],
        scalars: StepScalars
    ) {
        self.step = step
        self.gradient = gradient
        self.batchStatistics = batchStatistics
        self.entries = entries
        self.scalars = scalars
    }

    /// The XXH64 of each 256 KiB block of the gradient.
    public func blockDigests(threads: Int = 1) -> [UInt64] {
        let block = FlatLayout.blockElements
        let blocks = (gradient.count + block - 1) / block
        let digests = DigestList(count: blocks)
        Parallel.run(parts: threads) { part, parts in
            for number in stride(from: part, to: blocks, by: parts) {
                let start = number * block
                digests.set(
                    number, gradient.digest(start..<min(start + block, gradient.count)))
            }
        }
        return digests.values
    }

    /// The digest of the whole effect: blocks, statistics, entries of the memory, scalars and step.
    public func digest(threads: Int = 1) -> UInt64 {
        Self.digest(
            blocks: blockDigests(threads: threads), batchStatistics: batchStatistics,
            entries: entries, scalars: scalars, step: step)
    }

    /// The digest of an effect whose blocks' digests are known.
    public static func digest(
        blocks: [UInt64], batchStatistics: [Float], entries: [Float] = [], scalars: StepScalars,
        step: Int
    ) -> UInt64 {
        var hash = XXH64()
        for digest in blocks { hash.update(digest) }
        batchStatistics.withUnsafeBytes { hash.update($0) }
        entries.withUnsafeBytes { hash.update($0) }
        for bits in scalars.bitPatterns { hash.update(bits) }
        hash.update(UInt64(step))
        return hash.finish()
    }
}

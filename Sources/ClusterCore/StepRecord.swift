public import Protocol

/// What the ledger stores of one step; the coordinator's commit is the writing of it.
public struct StepRecord: Equatable, Sendable {
    /// One mini-batch of the step.
    public struct MiniBatch: Equatable, Sendable {
        /// Slot number.
        public let slot: Int
        /// Who computed it.
        public let worker: String
        /// Which lease of the slot, from 1.
        public let attempt: Int
        /// Unscaled loss of the slot.
        public let loss: Float
        /// Seconds spent waiting for and decoding images.
        public let decodeSeconds: Double
        /// Seconds of forward and backward.
        public let computeSeconds: Double
    }

    /// Step, from 1.
    public let step: Int
    /// Mean loss over the slots: the tree's sum times 1/G in float.
    public let loss: Float
    /// Of a sum of losses, each one's mean over the slots, without its weight, and behind them that of the
    /// loss against the memory; else empty.
    public let lossParts: [Float]
    /// Mean fraction of positive triplets over the slots.
    public let fractionPositive: Double
    /// Active anchors or triplets, summed over the slots.
    public let activeCount: Int
    /// Root mean squared distance of two embeddings of a slot, the mean over the slots.
    public let spread: Double
    /// What the embeddings look like, at the steps that summaries are written of.
    public let summary: StepSummary?
    /// Learning rate of the step.
    public let learningRate: Double
    /// What the step's effect was given, bit for bit.
    public let scalars: WireStepScalars
    /// Samples trained on.
    public let samples: Int
    /// Digest of the effect.
    public let digest: UInt64
    /// Digest of the part of the state before the step that was checked, where members agreed.
    public let stateDigest: UInt64
    /// History digest after the step.
    public let history: UInt64
    /// The slots, in order.
    public let miniBatches: [MiniBatch]
    /// Seconds from PLAN to the last READY.
    public let totalSeconds: Double
    /// The longest exchange any member reported, in seconds.
    public let exchangeSeconds: Double
}

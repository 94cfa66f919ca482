public import Basics
public import MetricLearning
public import Networks
public import Tensors

/// The arithmetic of forward and backward passes.
public enum Precision: String, CaseIterable, Hashable, Sendable {
    /// 32-bit floats throughout.
    case fp32
    /// The backbone's operators in bfloat16; state, head, loss and gradients in 32-bit floats.
    case bf16

    var autocast: DType? { self == .bf16 ? .bfloat16 : nil }
}

/// Over what a step's losses mine.
public enum MiningScope: Hashable, Sendable {
    /// Each slot by itself.
    case slot
    /// All slots together.
    ///
    /// - Parameter keepsGraphs: whether a slot keeps the graph of its forward pass for its backward
    ///   pass, or makes it a second time.
    case step(keepsGraphs: Bool)
}

/// Everything that decides what a step does to the weights, but the samples.
public struct TrainingConfiguration: Hashable, Sendable {
    /// The network.
    public var network: NetworkConfiguration
    /// The loss.
    public var loss: LossConfiguration
    /// Identities of the training data; a loss with vectors of its own has one for each.
    public var classCount: Int
    /// The optimizer.
    public var optimizer: OptimizerConfiguration
    /// What training leaves as it is.
    public var freeze: Freeze
    /// The arithmetic of forward and backward passes.
    public var precision: Precision
    /// Intra-op threads of one slot; part of the numerics class.
    public var threadsPerSlot: Int
    /// Where slots run.
    public var device: Device
    /// Mini-batches of one step.
    public var slotsPerStep: Int
    /// Most images of a slot, where losses compare with a memory; else 0.
    public var imagesPerSlot: Int
    /// Seed of the initial weights.
    public var seed: UInt64
    /// Over what losses mine.
    public var mining: MiningScope

    /// Makes a configuration.
    public init(
        network: NetworkConfiguration, loss: LossConfiguration = .init(), classCount: Int = 0,
        optimizer: OptimizerConfiguration = .init(), freeze: Freeze = .init(),
        precision: Precision = .fp32, threadsPerSlot: Int = 1, device: Device = .cpu,
        slotsPerStep: Int = 4, imagesPerSlot: Int = 0, seed: UInt64 = 1,
        mining: MiningScope = .slot
    ) {
        self.network = network
        self.loss = loss
        self.classCount = classCount
        self.optimizer = optimizer
        self.freeze = freeze
        self.precision = precision
        self.threadsPerSlot = threadsPerSlot
        self.device = device
        self.slotsPerStep = slotsPerStep
        self.imagesPerSlot = imagesPerSlot
        self.seed = seed
        self.mining = mining
    }

    /// Floats in a state for each parameter: its value, the optimizer's, its average.
    public var stateFloatsPerParameter: Int {
        1 + optimizer.rule.momentNames.count + (optimizer.averageDecay == nil ? 0 : 1)
    }
}

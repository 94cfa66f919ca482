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

/// Everything that decides what a step does to the weights, but the samples.
public struct TrainingConfiguration: Hashable, Sendable {
    /// The network.
    public var network: NetworkConfiguration
    /// The loss.
    public var loss: LossConfiguration
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
    /// Seed of the initial weights.
    public var seed: UInt64

    /// Makes a configuration.
    public init(
        network: NetworkConfiguration, loss: LossConfiguration = .init(),
        optimizer: OptimizerConfiguration = .init(), freeze: Freeze = .init(),
        precision: Precision = .fp32, threadsPerSlot: Int = 1, device: Device = .cpu,
        slotsPerStep: Int = 4, seed: UInt64 = 1
    ) {
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.freeze = freeze
        self.precision = precision
        self.threadsPerSlot = threadsPerSlot
        self.device = device
        self.slotsPerStep = slotsPerStep
        self.seed = seed
    }

    /// Floats in a state for each parameter: its value, the optimizer's, its average.
    public var stateFloatsPerParameter: Int {
        1 + optimizer.rule.momentNames.count + (optimizer.averageDecay == nil ? 0 : 1)
    }
}

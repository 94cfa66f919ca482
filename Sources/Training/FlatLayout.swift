public import Basics
public import Networks

/// Where each parameter lies in the flat vector that gradients are exchanged in.
///
/// The order is registration order, each tensor row-major (`[out, in, rows, columns]`), without
/// gaps: the network's, then for each loss that has vectors of identities their matrix
/// `[identities, dimension]`, `loss.softmax` for instance. Blocks of 256 KiB cut the vector at places
/// that depend on these alone.
public struct FlatLayout: Sendable, Hashable {
    /// One parameter's place.
    public struct Entry: Sendable, Hashable {
        /// The parameter's name.
        public let name: String
        /// Its sizes.
        public let shape: [Int]
        /// Its first element.
        public let offset: Int
        /// Its elements.
        public let count: Int
        /// What it does in its layer.
        public let role: ParameterRole
        /// Whether it belongs to the head.
        public let isHead: Bool
        /// The first step that moves it: 1, or later when it is frozen at first.
        public let firstStep: Int
        /// Where its first values come from.
        public let initializer: Initializer
        /// The loss whose identities it holds; nil in the network.
        public let loss: LossConfiguration?

        /// What checkpoints call its value.
        var storedName: String { loss == nil ? "network/\(name)" : lossName("loss/") }
        /// What checkpoints call its average.
        var averageName: String {
            loss == nil ? Embedder.averagePrefix + name : lossName("loss/average/")
        }

        private func lossName(_ prefix: String) -> String {
            prefix + name.dropFirst(FlatLayout.lossPrefix.count)
        }

        /// Whether a step leaves it as it is; its gradient is then zeros, in its place.
        public func isFrozen(at step: Int) -> Bool { step < firstStep }
    }

    /// Elements of a whole block: 256 KiB of 32-bit floats.
    public static let blockElements = 65_536

    /// What the names of losses' parameters begin with.
    static let lossPrefix = "loss."

    /// The parameters in registration order.
    public let entries: [Entry]
    /// Elements of the whole vector.
    public let elementCount: Int
    /// Elements of all running means and variances together.
    public let statisticsCount: Int

    /// Lays out a network's parameters and those of its losses.
    ///
    /// - Parameter classCount: identities of the training data.
    /// - Throws: ``TrainingError`` with code `invalidValue` for a freeze that fits no parameter or all,
    ///   and for a loss that tells identities apart where there are not two.
    public init(
        _ network: Network, freeze: Freeze = .init(), loss: LossConfiguration = .init(),
        classCount: Int = 0
    ) throws(TrainingError) {
        let frozen = try freeze.frozen(of: network)
        var entries: [Entry] = []
        var offset = 0
        for (parameter, isFrozen) in zip(network.parameters, frozen) {
            entries.append(
                Entry(
                    name: parameter.name, shape: parameter.shape, offset: offset,
                    count: parameter.count, role: parameter.role, isHead: parameter.block == nil,
                    firstStep: isFrozen ? freeze.firstStep : 1,
                    initializer: parameter.initializer, loss: nil))
            offset += parameter.count
        }
        for part in loss.parts where part.name.hasClasses {
            guard classCount >= 2 else {
                throw TrainingError(
                    .invalidValue,
                    "\(part.name.rawValue) has a vector for each identity that is trained on, but the "
                        + "data's split 'train' has \(classCount); it needs at least 2: add data, or "
                        + "take another loss (loss.name, loss.plus)")
            }
            let shape = [classCount, network.embeddingDimension]
            entries.append(
                Entry(
                    name: Self.lossPrefix + part.name.rawValue, shape: shape, offset: offset,
                    count: shape.reduce(1, *), role: .weight, isHead: false, firstStep: 1,
                    initializer: .kaimingNormalFanOut, loss: part))
            offset += shape.reduce(1, *)
        }
        self.entries = entries
        elementCount = offset
        statisticsCount = network.buffers.reduce(0) { $0 + $1.count }
    }

    /// Blocks that cover the vector; the last may be short.
    public var blockCount: Int {
        (elementCount + Self.blockElements - 1) / Self.blockElements
    }

    /// The elements of one block.
    public func blockRange(_ block: Int) -> Range<Int> {
        precondition(0 <= block && block < blockCount, "block \(block) of \(blockCount)")
        let start = block * Self.blockElements
        return start..<min(start + Self.blockElements, elementCount)
    }
}

extension TrainingConfiguration {
    /// Where the parameters lie, and which steps move them.
    ///
    /// - Throws: ``TrainingError`` or ``NetworkError`` for settings that no network and no loss over
    ///   ``classCount`` identities can have.
    public func layout() throws -> FlatLayout {
        try FlatLayout(Network(network), freeze: freeze, loss: loss, classCount: classCount)
    }
}

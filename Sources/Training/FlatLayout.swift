public import Networks

/// Where each parameter lies in the flat vector that gradients are exchanged in.
///
/// The order is registration order, each tensor row-major (`[out, in, rows, columns]`), without
/// gaps. Blocks of 256 KiB cut the vector at places that depend on the network alone.
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

        /// Whether a step leaves it as it is; its gradient is then zeros, in its place.
        public func isFrozen(at step: Int) -> Bool { step < firstStep }
    }

    /// Elements of a whole block: 256 KiB of 32-bit floats.
    public static let blockElements = 65_536

    /// The parameters in registration order.
    public let entries: [Entry]
    /// Elements of the whole vector.
    public let elementCount: Int
    /// Elements of all running means and variances together.
    public let statisticsCount: Int

    /// Lays out a network's parameters.
    ///
    /// - Throws: ``TrainingError`` with code `invalidValue` for a freeze that fits no parameter or all.
    public init(_ network: Network, freeze: Freeze = .init()) throws(TrainingError) {
        let frozen = try freeze.frozen(of: network)
        var entries: [Entry] = []
        var offset = 0
        for (parameter, isFrozen) in zip(network.parameters, frozen) {
            entries.append(
                Entry(
                    name: parameter.name, shape: parameter.shape, offset: offset,
                    count: parameter.count, role: parameter.role, isHead: parameter.block == nil,
                    firstStep: isFrozen ? freeze.firstStep : 1))
            offset += parameter.count
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
    /// - Throws: ``TrainingError`` or ``NetworkError`` for settings that no network can have.
    public func layout() throws -> FlatLayout {
        try FlatLayout(Network(network), freeze: freeze)
    }
}

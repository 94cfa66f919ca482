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
        /// Whether training leaves it as it is.
        public let isFrozen: Bool
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
    public init(_ network: Network) {
        var entries: [Entry] = []
        var offset = 0
        for parameter in network.parameters {
            entries.append(
                Entry(
                    name: parameter.name, shape: parameter.shape, offset: offset,
                    count: parameter.count, isFrozen: parameter.isFrozen))
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

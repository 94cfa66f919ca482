import Networks

/// Which parameters training leaves as they are, and for how long.
///
/// Batch norms' running averages move all the same: they are measured, not trained.
public struct Freeze: Hashable, Sendable {
    /// Names, in which `*` stands for any characters: `layer1.*`.
    public var patterns: [String]
    /// Only these last blocks of the backbone, and the head, are trained; nil: all.
    public var trainedBlocks: Int?
    /// The first steps alone; nil: the whole run.
    public var steps: Int?

    /// Makes a configuration; freezes nothing unless told to.
    public init(patterns: [String] = [], trainedBlocks: Int? = nil, steps: Int? = nil) {
        self.patterns = patterns
        self.trainedBlocks = trainedBlocks
        self.steps = steps
    }

    /// The first step that moves what is frozen.
    var firstStep: Int { steps.map { $0 + 1 } ?? .max }

    /// Whether each parameter is frozen.
    ///
    /// - Throws: ``TrainingError`` with code `invalidValue` for a pattern or a number of blocks that
    ///   freezes nothing, and when all that is left to train is nothing.
    func frozen(of network: Network) throws(TrainingError) -> [Bool] {
        let name = network.configuration.backbone.rawValue
        var frozen = [Bool](repeating: false, count: network.parameters.count)
        for pattern in patterns {
            let hits = network.parameters.indices.filter {
                Self.matches(network.parameters[$0].name, pattern)
            }
            guard !hits.isEmpty else {
                let known = network.parameters.prefix(3).map(\.name).joined(separator: ", ")
                throw TrainingError(
                    .invalidValue,
                    "network.freeze names '\(pattern)', which fits no parameter of \(name) "
                        + "(\(known) ...); use such a name, with * for any characters")
            }
            for hit in hits { frozen[hit] = true }
        }
        if let trainedBlocks {
            guard trainedBlocks < network.blockCount else {
                throw TrainingError(
                    .invalidValue,
                    "network.train_last_blocks is \(trainedBlocks), but \(name) has "
                        + "\(network.blockCount) blocks, so nothing is frozen; set less, or -1")
            }
            for (index, parameter) in network.parameters.enumerated() {
                if let block = parameter.block, block < network.blockCount - trainedBlocks {
                    frozen[index] = true
                }
            }
        }
        guard frozen.contains(false) else {
            throw TrainingError(
                .invalidValue,
                "network.freeze and network.train_last_blocks leave no parameter of \(name) to "
                    + "train; freeze fewer")
        }
        return frozen
    }

    private static func matches(_ name: String, _ pattern: String) -> Bool {
        let parts = pattern.split(separator: "*", omittingEmptySubsequences: false)
        guard let first = parts.first, let last = parts.last, parts.count > 1 else {
            return name == pattern
        }
        guard name.count >= first.count + last.count, name.hasPrefix(first), name.hasSuffix(last)
        else { return false }
        var rest = name.dropFirst(first.count).dropLast(last.count)
        for part in parts.dropFirst().dropLast() where !part.isEmpty {
            guard let found = rest.firstRange(of: part) else { return false }
            rest = rest[found.upperBound...]
        }
        return true
    }
}

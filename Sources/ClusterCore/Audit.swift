internal import Basics

/// Which slots and which blocks of which step are computed by two workers and compared, so that
/// silent corruption is found.
///
/// A pure function of (seed, step, slot or block): every worker and every coordinator knows it
/// without being told.
public struct Audit: Codable, Sendable, Equatable {
    let seed: UInt64
    let fraction: Double

    /// Nothing is computed twice.
    public static let none = Audit(seed: 0, fraction: 0)

    /// - Parameter fraction: the share that is computed twice, from 0 to 1.
    public init(seed: UInt64, fraction: Double) {
        self.seed = seed
        self.fraction = fraction
    }

    /// Whether anything is computed twice.
    public var isOn: Bool { fraction > 0 }

    /// Whether two workers compute the slot.
    public func covers(slot: Int, step: Int) -> Bool { draws(step: step, slot: UInt64(slot), 0) }

    /// Whether two workers fold the block.
    public func covers(block: Int, step: Int) -> Bool { draws(step: step, slot: UInt64(block), 1) }

    /// Blocks of a step that a second worker folds.
    public func blocks(step: Int, count: Int) -> Set<Int> {
        guard fraction > 0 else { return [] }
        return Set((0..<count).filter { covers(block: $0, step: step) })
    }

    private func draws(step: Int, slot: UInt64, _ item: UInt64) -> Bool {
        guard fraction > 0 else { return false }
        var random = CounterRandom(
            seed: seed, step: UInt64(step), slot: slot, item: item, purpose: .audit)
        return random.uniform() < fraction
    }
}

/// A contiguous run of slots, the unit in which partial sums travel.
public struct SlotRun: Codable, Hashable, Comparable, Sendable, CustomStringConvertible {
    /// First slot.
    public let low: Int
    /// One past the last slot.
    public let high: Int

    /// Traps when the run is empty: an absent partial is never represented.
    public init(_ low: Int, _ high: Int) {
        precondition(0 <= low && low < high, "slot run [\(low), \(high)) must not be empty")
        self.low = low
        self.high = high
    }

    /// Slots in the run.
    public var count: Int { high - low }

    /// By first slot, then by length.
    public static func < (left: SlotRun, right: SlotRun) -> Bool {
        (left.low, left.high) < (right.low, right.high)
    }

    /// In the notation `[low,high)`.
    public var description: String { "[\(low),\(high))" }
}

/// The one order in which anything is summed over slots.
///
/// A run `[lo, hi)` splits at the largest power of two below its size; the tree depends on the
/// number of slots alone, never on who computed them, so neither do the sums' bits.
public enum FoldTree {
    /// The two children of a run of at least two slots.
    public static func split(_ run: SlotRun) -> (SlotRun, SlotRun) {
        precondition(run.count >= 2, "slot run \(run) is a leaf")
        var half = 1
        while half * 2 < run.count { half *= 2 }
        return (SlotRun(run.low, run.low + half), SlotRun(run.low + half, run.high))
    }

    /// The fewest whole subtrees of the tree over `0..<slotCount` that cover exactly `slots`.
    public static func cover(_ slots: Set<Int>, slotCount: Int) -> [SlotRun] {
        guard slotCount > 0 else { return [] }
        var found: [SlotRun] = []
        func visit(_ run: SlotRun) {
            let held = (run.low..<run.high).filter(slots.contains).count
            if held == run.count {
                found.append(run)
            } else if held > 0 {
                let (left, right) = split(run)
                visit(left)
                visit(right)
            }
        }
        visit(SlotRun(0, slotCount))
        return found
    }

    /// Sums leaves in tree order with `combine(left, right)`.
    public static func fold<Value>(
        _ leaves: [Value], _ combine: (Value, Value) throws -> Value
    ) rethrows -> Value {
        precondition(!leaves.isEmpty, "a fold needs at least one leaf")
        func visit(_ run: SlotRun) throws -> Value {
            guard run.count > 1 else { return leaves[run.low] }
            let (left, right) = split(run)
            return try combine(visit(left), visit(right))
        }
        return try visit(SlotRun(0, leaves.count))
    }
}

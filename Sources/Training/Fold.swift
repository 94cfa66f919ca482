public import Basics
import Foundation

/// Sums gradients over slots, in the one order of ``FoldTree``.
///
/// Every element is summed alone, so neither blocks nor threads change a bit.
public enum Fold {
    /// Sums a run of slots over `count` elements from leaves and partial sums of whole subtrees.
    ///
    /// - Parameters:
    ///   - run: the subtree to sum; `SlotRun(0, G)` for everything.
    ///   - parts: each leaf or subtree's elements; only those of the tree over `0..<G` fit.
    ///   - output: receives the sum; none of the parts may overlap it.
    ///   - scale: what the sum is multiplied with once: Float(1) / Float(G) at the root, nil for a
    ///     partial sum that travels on.
    /// - Throws: ``TrainingError`` with code `missingPartial` that names the slots without a part.
    public static func sum(
        _ run: SlotRun, parts: [SlotRun: UnsafePointer<Float>],
        into output: UnsafeMutablePointer<Float>, count: Int, scale: Float? = nil
    ) throws(TrainingError) {
        let plan = try FoldPlan(run, available: Set(parts.keys))
        plan.execute(plan.runs.map { parts[$0]! }, into: output, count: count, scale: scale)
    }

    /// Sums the gradients of all slots and multiplies once by Float(1) / Float(G).
    ///
    /// - Parameters:
    ///   - gradients: one buffer for each slot, in slot order.
    ///   - output: may not be one of them.
    ///   - threads: how many threads share the blocks; has no influence on the bits.
    public static func mean(
        _ gradients: [FloatBuffer], into output: FloatBuffer, threads: Int = 1
    ) throws(TrainingError) {
        guard let count = gradients.first?.count, output.count == count,
            gradients.allSatisfy({ $0.count == count })
        else {
            throw TrainingError(
                .shapeMismatch,
                "gradients of \(gradients.map(\.count)) elements cannot be summed into "
                    + "\(output.count)")
        }
        let leaves = (0..<gradients.count).map { SlotRun($0, $0 + 1) }
        let plan = try FoldPlan(SlotRun(0, gradients.count), available: Set(leaves))
        let order = plan.runs.map(\.low)
        let scale = Float(1) / Float(gradients.count)
        let block = FlatLayout.blockElements
        let blocks = (count + block - 1) / block
        Parallel.run(parts: max(1, min(threads, blocks))) { part, parts in
            let start = min(count, blocks * part / parts * block)
            let end = min(count, blocks * (part + 1) / parts * block)
            plan.execute(
                order.map { UnsafePointer(gradients[$0].base + start) },
                into: output.base + start, count: end - start, scale: scale)
        }
    }

    /// The mean of one number for each slot, in tree order.
    public static func mean(_ losses: [Float]) -> Float {
        FoldTree.fold(losses) { $0 + $1 } * (Float(1) / Float(losses.count))
    }

    /// The mean of one vector for each slot, in tree order.
    public static func mean(_ vectors: [[Float]]) -> [Float] {
        let scale = Float(1) / Float(vectors.count)
        let sum = FoldTree.fold(vectors) { left, right in
            precondition(left.count == right.count, "\(left.count) and \(right.count) values")
            return zip(left, right).map { $0 + $1 }
        }
        return sum.map { $0 * scale }
    }
}

/// The additions of one fold in order, worked out once for all blocks.
struct FoldPlan: Sendable {
    private indirect enum Node: Sendable {
        case part(Int)
        case sum(Node, Node)

        /// Scratch tiles that summing into one output needs.
        var depth: Int {
            switch self {
            case .part: 0
            case .sum(let left, .part): left.depth
            case .sum(let left, let right): max(left.depth, right.depth + 1)
            }
        }
    }

    private let root: Node
    /// The parts that are read, in the order in which `execute` wants them.
    let runs: [SlotRun]
    /// Elements summed at once: so few that output and scratch stay in the nearest cache.
    private static let tile = 2048

    init(_ run: SlotRun, available: Set<SlotRun>) throws(TrainingError) {
        var runs: [SlotRun] = []
        root = try Self.node(run, available, &runs)
        self.runs = runs
    }

    private static func node(
        _ run: SlotRun, _ available: Set<SlotRun>, _ runs: inout [SlotRun]
    ) throws(TrainingError) -> Node {
        if available.contains(run) {
            runs.append(run)
            return .part(runs.count - 1)
        }
        guard run.count > 1 else {
            throw TrainingError(
                .missingPartial, "no partial sum covers slot \(run.low); it has to be sent again")
        }
        let (left, right) = FoldTree.split(run)
        return .sum(try node(left, available, &runs), try node(right, available, &runs))
    }

    /// Sums `count` elements; `sources` are in the order of ``runs``.
    func execute(
        _ sources: [UnsafePointer<Float>], into output: UnsafeMutablePointer<Float>, count: Int,
        scale: Float?
    ) {
        let (depth, tile) = (max(1, root.depth), Self.tile)
        withUnsafeTemporaryAllocation(of: Float.self, capacity: depth * tile) { scratch in
            for start in stride(from: 0, to: count, by: tile) {
                let length = min(tile, count - start)
                let target = output + start
                sum(root, sources, start, length, target, scratch.baseAddress!)
                if let scale { for at in 0..<length { target[at] *= scale } }
            }
        }
    }

    private func sum(
        _ node: Node, _ sources: [UnsafePointer<Float>], _ start: Int, _ count: Int,
        _ output: UnsafeMutablePointer<Float>, _ scratch: UnsafeMutablePointer<Float>
    ) {
        switch node {
        case .part(let place): output.update(from: sources[place] + start, count: count)
        case .sum(.part(let left), .part(let right)):
            let (left, right) = (sources[left] + start, sources[right] + start)
            for at in 0..<count { output[at] = left[at] + right[at] }
        case .sum(let left, .part(let right)):
            sum(left, sources, start, count, output, scratch)
            let right = sources[right] + start
            for at in 0..<count { output[at] += right[at] }
        case .sum(let left, let right):
            sum(left, sources, start, count, output, scratch)
            sum(right, sources, start, count, scratch, scratch + Self.tile)
            for at in 0..<count { output[at] += scratch[at] }
        }
    }
}

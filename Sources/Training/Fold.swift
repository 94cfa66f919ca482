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
        let scratch = FloatBuffer(count: plan.depth * min(count, FlatLayout.blockElements))
        for start in stride(from: 0, to: count, by: FlatLayout.blockElements) {
            let length = min(FlatLayout.blockElements, count - start)
            let sources = plan.runs.map { parts[$0]! + start }
            plan.execute(
                sources, into: output + start, count: length, scale: scale, scratch: scratch.base)
        }
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
            let scratch = FloatBuffer(count: plan.depth * min(count, block))
            for number in blocks * part / parts..<blocks * (part + 1) / parts {
                let start = number * block
                let sources = order.map { UnsafePointer(gradients[$0].base + start) }
                plan.execute(
                    sources, into: output.base + start, count: min(block, count - start),
                    scale: scale, scratch: scratch.base)
            }
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

        /// Scratch blocks that summing into one output needs.
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
    /// Scratch blocks that `execute` needs.
    var depth: Int { max(1, root.depth) }

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

    func execute(
        _ sources: [UnsafePointer<Float>], into output: UnsafeMutablePointer<Float>, count: Int,
        scale: Float?, scratch: UnsafeMutablePointer<Float>
    ) {
        func visit(
            _ node: Node, _ output: UnsafeMutablePointer<Float>,
            _ scratch: UnsafeMutablePointer<Float>
        ) {
            switch node {
            case .part(let place): output.update(from: sources[place], count: count)
            case .sum(.part(let left), .part(let right)):
                add(sources[left], sources[right], output)
            case .sum(let left, .part(let right)):
                visit(left, output, scratch)
                add(UnsafePointer(output), sources[right], output)
            case .sum(let left, let right):
                visit(left, output, scratch)
                visit(right, scratch, scratch + count)
                add(UnsafePointer(output), UnsafePointer(scratch), output)
            }
        }
        func add(
            _ left: UnsafePointer<Float>, _ right: UnsafePointer<Float>,
            _ output: UnsafeMutablePointer<Float>
        ) {
            for at in 0..<count { output[at] = left[at] + right[at] }
        }
        visit(root, output, scratch)
        if let scale { for at in 0..<count { output[at] *= scale } }
    }
}

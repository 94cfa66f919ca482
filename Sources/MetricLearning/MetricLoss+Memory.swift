internal import Basics
package import Tensors

/// Cross-batch memory: a mini-batch's rows are compared with embeddings of earlier steps as well.
///
/// The loss is L(rows) + `memory_weight` L(rows as anchors, earlier embeddings as positives and
/// negatives); of a sum, each of its losses that compares rows is taken in both ways, with its own
/// weight. The second has a gradient by the rows alone.
///
/// - SeeAlso: Wang, Zhang, Huang, Scott, "Cross-batch memory for embedding learning", CVPR 2020,
///   arXiv:1912.06798. There a mini-batch's own rows enter the queue before they are compared with it,
///   so that each row meets itself; here they enter after the step. There the queue is filled with the
///   images of a warmed-up network at once; here by the steps before it is used.
extension MetricLoss {
    /// Refuses losses that cannot be compared with earlier steps, which settings refuse by name.
    func checkMemory() throws(MetricLearningError) {
        guard configuration.memory > 0 else { return }
        let comparing = parts.map(\.configuration).filter { !$0.name.hasClasses }
        guard !comparing.isEmpty,
            comparing.allSatisfy({ $0.name.takesMemory && $0.normalization != .columns })
        else {
            throw MetricLearningError(
                .invalidValue,
                "loss.memory is \(configuration.memory), but "
                    + "\(configuration.parts.map(\.name.rawValue).joined(separator: ", ")) cannot "
                    + "all be compared with earlier images; set loss.memory=0")
        }
    }

    /// The loss of rows as anchors with references as their positives and negatives, without
    /// `memory_weight`.
    ///
    /// - Parameters:
    ///   - embeddings: `[count, dimension]`, any floating-point dtype.
    ///   - labels: one identity for each row.
    ///   - draws: for each row, two numbers in [0, 1): its positive's and its negative's.
    /// - Throws: ``MetricLearningError`` with code `shapeMismatch`, or a `TensorError`.
    package func evaluate(
        _ embeddings: Tensor, labels: [Int], against references: References, draws: [Double]
    ) throws -> LossResult {
        guard embeddings.size(1) == references.embeddings.size(1) else {
            throw MetricLearningError(
                .shapeMismatch,
                "embeddings are \(embeddings.shape) and those of earlier steps "
                    + "\(references.embeddings.shape); both need the same number of columns")
        }
        let isHalf = embeddings.dtype == .bfloat16 || embeddings.dtype == .float16
        let rows = try isHalf ? embeddings.to(dtype: .float32) : embeddings
        let comparing = parts.filter { !$0.configuration.name.hasClasses }
        var results: [LossResult] = []
        for part in comparing {
            results.append(try part.evaluate(rows, labels, against: references, draws))
        }
        var sum = results[0]
        sum.loss = try sum.loss * comparing[0].configuration.weight
        for (result, part) in zip(results, comparing).dropFirst() {
            sum.loss = try sum.loss + result.loss * part.configuration.weight
        }
        return sum
    }

    /// The sum of a mini-batch's own loss and that against the memory; counts are the first's.
    func adding(_ memory: LossResult, to own: LossResult) throws(TensorError) -> LossResult {
        var sum = own
        if own.parts.isEmpty { sum.parts = [try own.loss.item() / parts[0].configuration.weight] }
        sum.parts.append(try memory.loss.item())
        sum.loss = try own.loss + memory.loss * configuration.memoryWeight
        return sum
    }
}

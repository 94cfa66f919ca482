public import Basics
public import Tensors

/// A loss and what is reported beside it.
public struct LossResult: Sendable {
    /// One element, with its graph.
    public internal(set) var loss: Tensor
    /// Share of valid terms that are active; 0 when none is valid.
    ///
    /// This and the two counts are those of a sum's first loss.
    public let fractionPositive: Double
    /// Terms above `active_threshold`: those that still pull.
    public let activeCount: Int
    /// Terms that count: triplets (batch_all, triplet), positive pairs (semi-hard, lifted, nt_xent), identities
    /// (proxy_anchor), else rows.
    public let validCount: Int
    /// Of a sum, each loss's own value before its weight; empty for one loss.
    ///
    /// Where a memory is compared with, each loss's own and then that against the memory before its weight.
    public var parts: [Double] = []
    /// What each row adds, whatever the reducer: the mean of the terms of which it is the anchor, of
    /// losses over identities its own term.
    ///
    /// NaN for a row without a term; empty where no term is a row's (`proxy_anchor`). Of a sum, the
    /// weighted sum over the losses that say something of the row.
    public var rowLosses: [Double] = []

    /// The weighted sum of what losses say of each row; empty where none says anything.
    static func rowLosses(of results: [LossResult], weights: [Double]) -> [Double] {
        let told = zip(results.map(\.rowLosses), weights).filter { !$0.0.isEmpty }
        return (0..<(told.first?.0.count ?? 0)).map { row in
            let terms = told.map { $0.0[row] * $0.1 }.filter { !$0.isNaN }
            return terms.isEmpty ? .nan : terms.reduce(0, +)
        }
    }
}

/// A metric-learning loss over one mini-batch, or a weighted sum of several.
///
/// batch_hard is a graph of LibTorch's operators over the matrix of distances. Every other loss that
/// compares rows is an ``AnchorLoss``, one that compares them with vectors of identities a
/// ``ClassLoss``: value and derivative are computed in float64, on one thread, in memory linear in
/// the matrix of distances or similarities, and the derivative by the embeddings and by the vectors
/// is handed to autograd. The types in `Losses` say what each does where an anchor lacks positives
/// or negatives; a mini-batch without a valid term has loss 0 and gradient 0, never NaN.
public struct MetricLoss: Sendable {
    /// What decides the loss.
    public let configuration: LossConfiguration
    let parts: [LossPart]

    /// Makes a loss.
    ///
    /// - Throws: ``MetricLearningError`` with code `invalidValue` for parts that do not go together.
    public init(_ configuration: LossConfiguration) throws(MetricLearningError) {
        self.configuration = configuration
        var parts: [LossPart] = []
        for part in configuration.parts { parts.append(try LossPart(part)) }
        self.parts = parts
        try checkMemory()
    }

    /// The loss of a mini-batch.
    ///
    /// - Parameters:
    ///   - embeddings: `[count, dimension]`, any floating-point dtype; half precision is computed in
    ///     float32.
    ///   - labels: one identity for each row; below the number of vectors where a loss has such.
    ///   - classes: for each loss that has vectors of identities, in the order of
    ///     `LossConfiguration.parts`, `[identities, dimension]`.
    ///   - references: embeddings of earlier steps, which are compared with as well; nil for none.
    ///   - random: what `batch_sample` draws from.
    /// - Throws: ``MetricLearningError`` with code `shapeMismatch`, or a `TensorError`.
    public func callAsFunction(
        _ embeddings: Tensor, labels: [Int], classes: [Tensor] = [],
        references: References? = nil,
        random: CounterRandom = CounterRandom(seed: 0, purpose: .mining)
    ) throws -> LossResult {
        var random = random
        func draws() -> [Double] {
            guard parts.contains(where: { $0.configuration.name == .batchSample }) else {
                return []
            }
            return labels.flatMap { _ in [random.uniform(), random.uniform()] }
        }
        let result = try evaluate(embeddings, labels: labels, classes: classes, draws: draws())
        guard let references else { return result }
        return try adding(
            evaluate(embeddings, labels: labels, against: references, draws: draws()), to: result)
    }

    /// The loss of a mini-batch with given draws.
    ///
    /// - Parameter draws: for each row, two numbers in [0, 1): its positive's and its negative's.
    package func evaluate(
        _ embeddings: Tensor, labels: [Int], classes: [Tensor] = [], draws: [Double]
    ) throws -> LossResult {
        try check(embeddings, labels, classes)
        let isHalf = embeddings.dtype == .bfloat16 || embeddings.dtype == .float16
        let rows = try isHalf ? embeddings.to(dtype: .float32) : embeddings
        var vectors = classes.makeIterator()
        let results = try parts.map { part in
            let own = part.configuration.name.hasClasses ? vectors.next() : nil
            return try part.evaluate(rows, labels, own, draws)
        }
        let weights = parts.map(\.configuration.weight)
        var sum = try weights[0] == 1 ? results[0].loss : results[0].loss * weights[0]
        guard results.count > 1 || weights[0] != 1 else { return results[0] }
        for (result, weight) in zip(results, weights).dropFirst() {
            sum = try sum + result.loss * weight
        }
        return LossResult(
            loss: sum, fractionPositive: results[0].fractionPositive,
            activeCount: results[0].activeCount, validCount: results[0].validCount,
            parts: results.count == 1 ? [] : try results.map { try $0.loss.item() },
            rowLosses: LossResult.rowLosses(of: results, weights: weights))
    }

    private static func checkTriplets(
        _ labels: [Int], _ name: LossName
    ) throws(MetricLearningError) {
        guard labels.count % 3 == 0 else {
            throw MetricLearningError(
                .shapeMismatch,
                "there are \(labels.count) rows, but \(name.rawValue) takes them in threes: anchor, "
                    + "positive, negative; set batch.triplets")
        }
        for first in stride(from: 0, to: labels.count, by: 3)
        where labels[first] != labels[first + 1] || labels[first] == labels[first + 2] {
            throw MetricLearningError(
                .shapeMismatch,
                "rows \(first) to \(first + 2) show identities \(labels[first]), "
                    + "\(labels[first + 1]) and \(labels[first + 2]), but \(name.rawValue) takes "
                    + "anchor, positive and negative; set batch.triplets")
        }
    }

    private func check(
        _ embeddings: Tensor, _ labels: [Int], _ classes: [Tensor]
    ) throws(MetricLearningError) {
        guard embeddings.rank == 2, embeddings.size(0) == labels.count, !labels.isEmpty else {
            throw MetricLearningError(
                .shapeMismatch,
                "embeddings are \(embeddings.shape) and there are \(labels.count) labels; "
                    + "one label a row is needed")
        }
        if let name = parts.map(\.configuration.name).first(where: \.isOfTriplets) {
            try Self.checkTriplets(labels, name)
        }
        let names = parts.map(\.configuration.name).filter(\.hasClasses)
        guard classes.count == names.count else {
            throw MetricLearningError(
                .shapeMismatch,
                "\(classes.count) matrices of identities' vectors are given; "
                    + "\(configuration.name.rawValue) and what is added to it need \(names.count)")
        }
        for (name, vectors) in zip(names, classes) {
            guard vectors.rank == 2, vectors.size(1) == embeddings.size(1) else {
                throw MetricLearningError(
                    .shapeMismatch,
                    "\(name.rawValue) has vectors of sizes \(vectors.shape) and embeddings of "
                        + "\(embeddings.shape); both need the same number of columns")
            }
            if let label = labels.first(where: { !(0..<vectors.size(0)).contains($0) }) {
                throw MetricLearningError(
                    .shapeMismatch,
                    "an image has identity \(label), but \(name.rawValue) has vectors for "
                        + "0..<\(vectors.size(0)); count the identities of the data it is trained on"
                )
            }
        }
    }
}

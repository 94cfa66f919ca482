import Basics
package import MetricLearning
import Networks
import Synchronization
package import Tensors

/// A slot after the first phase of a step that mines over all of its slots.
///
/// Backward uses the graph up, where one was kept; after that, or without one, it is made again.
public final class EmbeddedSlot: Sendable {
    /// Row-major `[batch, embeddingDimension]`.
    public let embeddings: [Float]
    /// Each batch norm's mean and unbiased variance, in buffer order.
    public let batchStatistics: [Float]
    private let graph: Mutex<SlotPass?>

    init(_ pass: SlotPass, keepsGraph: Bool) throws {
        embeddings = try pass.embeddings.floats()
        batchStatistics = try pass.statistics.values()
        graph = Mutex(keepsGraph ? pass : nil)
    }

    func takeGraph() -> SlotPass? {
        graph.withLock { pass in
            defer { pass = nil }
            return pass
        }
    }
}

/// The loss of all slots of a step, and its derivative.
public struct StepLoss: Sendable {
    /// The loss of the whole step: a mean over all of its terms.
    public let loss: Float
    /// Share of valid terms that are active.
    public let fractionPositive: Double
    /// Active terms.
    public let activeCount: Int
    /// Valid terms.
    public let validCount: Int
    /// Of a sum of losses each one's own, without its weight; empty for one loss.
    public let lossParts: [Float]
    /// What each row of the step adds, in the order of the embeddings; see ``SlotResult/rowLosses``.
    public let rowLosses: [Float]
    /// Root mean squared distance of two embeddings, of unit length where the loss looks at directions
    /// alone.
    public let spread: Double
    /// The derivative by each embedding, times the number of slots, since gradients of slots are
    /// averaged; `[rows, dimension]`, float32, on the CPU.
    package let derivative: Tensor
    /// The derivative by each loss's vectors of identities.
    ///
    /// Every slot has all of it, so that the mean over slots is it again.
    package let classDerivatives: [Tensor]
}

/// The two phases of a step that mines over all of its slots: forward of each, then the loss of all and
/// backward of each.
///
/// Embeddings of all slots in slot order make one matrix. Its loss is computed once, on one thread; the
/// rows of its derivative that belong to a slot are what the slot's backward pass begins with. As long
/// as state and images are the same, forward gives the same bits with and without a graph, and a second
/// time: batch norms of training use the mini-batch alone, and nothing in the network is random.
/// Batch statistics are those of the first pass.
///
/// - SeeAlso: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
///   arXiv:2101.06983, for gradient caching.
extension SlotComputer {
    /// The first phase of one slot.
    ///
    /// - Parameters:
    ///   - images: `[count, 3, height, width]` planar floats, left as they are.
    ///   - state: read only.
    public func embed(
        images: UnsafePointer<Float>, count: Int, state: TrainingState
    ) throws -> EmbeddedSlot {
        try Engine.setIntraOpThreads(configuration.threadsPerSlot)
        let images = try view(images, count: count)
        let keepsGraph = configuration.mining == .step(keepsGraphs: true)
        func pass() throws -> SlotPass { try SlotPass(images, state, configuration) }
        return try EmbeddedSlot(
            keepsGraph ? withGradient(pass) : withoutGradient(pass), keepsGraph: keepsGraph)
    }

    /// The loss of a whole step.
    ///
    /// - Parameters:
    ///   - embeddings: row-major `[labels.count, dimension]`, all slots in slot order.
    ///   - labels: one identity for each row.
    ///   - state: read only.
    public func loss(
        of embeddings: [Float], labels: [Int], state: TrainingState
    ) throws -> StepLoss {
        let dimension = embeddings.count / max(1, labels.count)
        return try loss(
            of: Tensor(embeddings, shape: [labels.count, dimension]), labels: labels,
            classes: Array(state.preparedParameters()[state.network.parameters.count...]),
            references: state.references(), step: state.step)
    }

    /// The loss of a whole step, in the dtype of the embeddings.
    ///
    /// - Parameters:
    ///   - classes: for each loss that has vectors of identities, `[identities, dimension]`.
    ///   - references: what the memory holds, where it is compared with.
    ///   - step: updates made before this step.
    package func loss(
        of embeddings: Tensor, labels: [Int], classes: [Tensor], references: References? = nil,
        step: Int
    ) throws -> StepLoss {
        try Engine.setIntraOpThreads(1)
        return try withGradient {
            let leaf = try embeddings.detach().requiresGradient()
            let classes = try classes.map { try $0.detach().requiresGradient() }
            let result = try loss(
                leaf, labels: labels, classes: classes, references: references,
                random: randomness(of: labels, step: step))
            let derivatives = try gradients(of: result.loss, withRespectTo: [leaf] + classes)
            return StepLoss(
                loss: Float(try result.loss.item()), fractionPositive: result.fractionPositive,
                activeCount: result.activeCount, validCount: result.validCount,
                lossParts: result.parts.map(Float.init),
                rowLosses: result.rowLosses.map(Float.init),
                spread: spread(of: try leaf.floats(), rows: labels.count),
                derivative: try derivatives[0].mul_(Double(configuration.slotsPerStep)),
                classDerivatives: Array(derivatives[1...]))
        }
    }

    /// The second phase of one slot.
    ///
    /// - Parameters:
    ///   - slot: what the first phase left.
    ///   - firstRow: where the slot's rows begin in the step.
    ///   - images: those of the first phase; read where the slot has no graph.
    ///   - gradient: receives what the slot adds to the mean over slots; ``FlatLayout/elementCount``
    ///     elements.
    public func backward(
        _ slot: EmbeddedSlot, firstRow: Int, of loss: StepLoss, images: UnsafePointer<Float>,
        state: TrainingState, into gradient: FloatBuffer
    ) throws -> SlotResult {
        try checkSize(of: gradient, for: state)
        try Engine.setIntraOpThreads(configuration.threadsPerSlot)
        let count = slot.embeddings.count / loss.derivative.size(1)
        return try withGradient {
            let pass =
                try slot.takeGraph()
                ?? SlotPass(view(images, count: count), state, configuration)
            let upstream = try loss.derivative.narrow(0, start: firstRow, length: count)
                .to(device: pass.embeddings.device, dtype: pass.embeddings.dtype).contiguous()
            try pass.storeGradient(
                of: pass.embeddings, upstream: upstream, ofClasses: loss.classDerivatives,
                in: gradient)
            return SlotResult(
                loss: loss.loss, fractionPositive: loss.fractionPositive,
                activeCount: loss.activeCount, validCount: loss.validCount,
                lossParts: loss.lossParts,
                rowLosses: Array(loss.rowLosses.dropFirst(firstRow).prefix(count)),
                gradient: gradient,
                batchStatistics: slot.batchStatistics, embeddings: slot.embeddings,
                embeddingMeanNorm: Self.meanNorm(slot.embeddings, rows: count),
                spread: loss.spread)
        }
    }
}

import Networks
import Tensors

/// One mini-batch's way through the network, with the graph that leads back where one is recorded.
struct SlotPass {
    /// `[batch, dimension]`.
    let embeddings: Tensor
    /// The mini-batch's own.
    let statistics: BatchStatistics
    /// For each loss that has vectors of identities, `[identities, dimension]`.
    var classes: [Tensor] { Array(leaves[parameterCount...]) }
    private let leaves: [Tensor]
    /// How many leaves are the network's.
    private let parameterCount: Int
    private let frozen: [Bool]
    private let layout: FlatLayout

    /// Runs forward.
    ///
    /// - Parameters:
    ///   - images: `[batch, 3, height, width]`, float32.
    ///   - state: read only.
    init(
        _ images: Tensor, _ state: TrainingState, _ configuration: TrainingConfiguration
    ) throws {
        layout = state.layout
        let frozen = layout.entries.map { $0.isFrozen(at: state.step + 1) }
        leaves = try zip(state.preparedParameters(), frozen).map { parameter, isFrozen in
            try parameter.detach().requiresGradient(!isFrozen)
        }
        self.frozen = frozen
        parameterCount = state.network.parameters.count
        statistics = try BatchStatistics(state.network, device: configuration.device)
        let input = try images.to(device: configuration.device).contiguous(.channelsLast)
        embeddings = try state.network.forward(
            input, parameters: Array(leaves[..<parameterCount]), batchNorm: .training(statistics),
            autocast: configuration.precision.autocast)
    }

    /// Runs backward; the graph is used up.
    ///
    /// - Parameters:
    ///   - output: one element, unless `upstream` is given.
    ///   - upstream: the derivative of what follows by `output`, in its shape.
    ///   - ofClasses: the gradients of ``classes``, where the graph does not lead to them.
    ///   - buffer: receives the gradient, row-major in flat order; that of frozen parameters is zeros.
    func storeGradient(
        of output: Tensor, upstream: Tensor? = nil, ofClasses: [Tensor]? = nil,
        in buffer: FloatBuffer
    ) throws(TensorError) {
        let reached = ofClasses == nil ? leaves[...] : leaves[..<parameterCount]
        let trained = zip(reached, frozen).filter { !$1 }.map(\.0)
        var gradients =
            (try gradients(of: output, withRespectTo: trained, gradOutput: upstream)
            + (ofClasses ?? [])).makeIterator()
        for (entry, isFrozen) in zip(layout.entries, frozen) {
            let place = try Tensor(
                viewing: buffer.base + entry.offset, shape: entry.shape, dtype: .float32,
                keepingAlive: buffer)
            if isFrozen {
                try place.zero_()
            } else {
                try place.relayout_(from: gradients.next()!)
            }
        }
    }
}

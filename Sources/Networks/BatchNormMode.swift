public import Tensors

/// Where batch norms take mean and variance from.
public enum BatchNormMode: Sendable {
    /// From the batch itself; what it had is left in the collector.
    case training(BatchStatistics)
    /// From the running averages: one tensor for each of ``Network/buffers``.
    case evaluation([Tensor])
}

// @unchecked: used by the one thread that runs the forward pass, then read.
/// The batch means and unbiased variances of one forward pass.
///
/// LibTorch updates running averages in place; each pass gives it private ones with momentum 1,
/// which then hold the batch's own statistics.
public final class BatchStatistics: @unchecked Sendable {
    /// One tensor for each of ``Network/buffers``, in the same order.
    public let tensors: [Tensor]

    /// Makes private running averages for one pass.
    ///
    /// - Parameter dtype: as the parameters'.
    public init(
        _ network: Network, device: Device, dtype: DType = .float32
    ) throws(TensorError) {
        let total = network.buffers.reduce(0) { $0 + $1.count }
        guard total > 0 else {
            tensors = []
            return
        }
        let all = try Tensor.zeros([total], dtype: dtype, device: device)
        var views: [Tensor] = []
        var start = 0
        for buffer in network.buffers {
            views.append(try all.narrow(0, start: start, length: buffer.count))
            start += buffer.count
        }
        tensors = views
    }

    /// All values in buffer order: each batch norm's mean, then its unbiased variance.
    public func values() throws(TensorError) -> [Float] {
        var values: [Float] = []
        for tensor in tensors { values += try tensor.floats() }
        return values
    }
}

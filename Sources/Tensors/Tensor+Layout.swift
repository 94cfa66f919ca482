import CTorch

extension Tensor {
    /// Copies the elements of a tensor of the same sizes, whatever the two memory formats are.
    ///
    /// The same values as ``copy_(_:)``, which is many times slower between channels-last and
    /// row-major weights on a CPU: it walks each element's strides.
    public func relayout_(from source: Tensor) throws(TensorError) {
        let isOnHost =
            device == .cpu && source.device == .cpu && dtype == .float32
            && source.dtype == .float32 && rank == 4 && shape == source.shape
        guard isOnHost, isContiguous != source.isContiguous, isChannelsLast || isContiguous,
            source.isChannelsLast || source.isContiguous
        else {
            try copy_(source)
            return
        }
        let sizes = shape
        let (channels, window) = (sizes[1], sizes[2] * sizes[3])
        let toRowMajor = isContiguous
        guard let from = source.raw.data?.bindMemory(to: Float.self, capacity: count),
            let to = raw.data?.bindMemory(to: Float.self, capacity: count)
        else { return }
        defer { withExtendedLifetime(source) {} }
        for output in 0..<sizes[0] {
            let source = from + output * channels * window
            let target = to + output * channels * window
            if toRowMajor {
                Self.transpose(source, rows: window, columns: channels, into: target)
            } else {
                Self.transpose(source, rows: channels, columns: window, into: target)
            }
        }
    }

    /// Transposes a matrix of which one side is a convolution's window, so a few elements long.
    private static func transpose(
        _ source: UnsafePointer<Float>, rows: Int, columns: Int,
        into target: UnsafeMutablePointer<Float>
    ) {
        if rows < columns {
            for column in 0..<columns {
                for row in 0..<rows { target[column * rows + row] = source[row * columns + column] }
            }
        } else {
            for row in 0..<rows {
                for column in 0..<columns {
                    target[column * rows + row] = source[row * columns + column]
                }
            }
        }
    }
}

import Tensors

/// Which rows of a mini-batch are positives and negatives of which, as masks.
struct BatchPairs {
    private let labels: [Int]

    init(labels: [Int]) { self.labels = labels }

    private func mask(
        _ device: Device, _ test: (_ row: Int, _ column: Int) -> Bool
    ) throws(TensorError) -> Tensor {
        let count = labels.count
        var flags = [Bool](repeating: false, count: count * count)
        for row in 0..<count {
            for column in 0..<count { flags[row * count + column] = test(row, column) }
        }
        return try Tensor(copying: flags, shape: [count, count]).to(device: device)
    }

    /// `[batch, batch]`: the same label and another row.
    func positives(like matrix: Tensor) throws(TensorError) -> Tensor {
        try mask(matrix.device) { labels[$0] == labels[$1] && $0 != $1 }
    }

    /// `[batch, batch]`: another label.
    func negatives(like matrix: Tensor) throws(TensorError) -> Tensor {
        try mask(matrix.device) { labels[$0] != labels[$1] }
    }

    /// `[batch]`: whether the row has a negative at all.
    func hasNegative(like matrix: Tensor) throws(TensorError) -> Tensor {
        let hasOthers = Set(labels).count > 1
        return try Tensor(copying: labels.map { _ in hasOthers }).to(device: matrix.device)
    }
}

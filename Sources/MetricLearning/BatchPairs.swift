import Tensors

/// Which rows of a mini-batch are positives and negatives of which.
struct BatchPairs {
    let count: Int
    let labels: [Int]
    /// Anchor of each ordered pair of two different rows with one label.
    let anchors: [Int]
    /// Positive of each such pair.
    let positives: [Int]
    /// Negatives of each row.
    let negativeCounts: [Int]

    init(labels: [Int]) {
        self.labels = labels
        count = labels.count
        var rowsOfLabel: [Int: [Int]] = [:]
        for (row, label) in labels.enumerated() { rowsOfLabel[label, default: []].append(row) }
        var anchors: [Int] = []
        var positives: [Int] = []
        for (row, label) in labels.enumerated() {
            for other in rowsOfLabel[label]! where other != row {
                anchors.append(row)
                positives.append(other)
            }
        }
        self.anchors = anchors
        self.positives = positives
        negativeCounts = labels.map { labels.count - rowsOfLabel[$0]!.count }
    }

    var tripletCount: Int { anchors.reduce(0) { $0 + negativeCounts[$1] } }

    private func mask(
        rows: [Int], _ device: Device, _ test: (_ row: Int, _ column: Int) -> Bool
    ) throws(TensorError) -> Tensor {
        var flags = [Bool](repeating: false, count: rows.count * count)
        for (place, row) in rows.enumerated() {
            for column in 0..<count { flags[place * count + column] = test(row, column) }
        }
        return try Tensor(copying: flags, shape: [rows.count, count]).to(device: device)
    }

    /// `[batch, batch]`: the same label and another row.
    func positives(like matrix: Tensor) throws(TensorError) -> Tensor {
        try mask(rows: Array(0..<count), matrix.device) { labels[$0] == labels[$1] && $0 != $1 }
    }

    /// `[batch, batch]`: another label.
    func negatives(like matrix: Tensor) throws(TensorError) -> Tensor {
        try mask(rows: Array(0..<count), matrix.device) { labels[$0] != labels[$1] }
    }

    /// `[pairs, batch]`: another label than the pair's.
    func pairNegatives(like matrix: Tensor) throws(TensorError) -> Tensor {
        try mask(rows: anchors, matrix.device) { labels[$0] != labels[$1] }
    }

    /// `[batch]`: whether the row has a negative at all.
    func hasNegative(like matrix: Tensor) throws(TensorError) -> Tensor {
        try Tensor(copying: negativeCounts.map { $0 > 0 }).to(device: matrix.device)
    }

    /// Each pair's anchor row of distances, `[pairs, batch]`.
    ///
    /// A product with rows of the identity: exact, and its gradient is a matrix product in a fixed
    /// order where gathering would add with atomics on a GPU.
    func anchorRows(of distances: Tensor) throws(TensorError) -> Tensor {
        let selector = try oneHot(anchors, like: distances)
        return try selector.matmul(distances)
    }

    /// Each pair's own distance, `[pairs, 1]`.
    func positives(in rows: Tensor) throws(TensorError) -> Tensor {
        try (rows * oneHot(positives, like: rows)).sum([1], keepDims: true)
    }

    private func oneHot(_ columns: [Int], like other: Tensor) throws(TensorError) -> Tensor {
        var values = [Float](repeating: 0, count: columns.count * count)
        for (row, column) in columns.enumerated() { values[row * count + column] = 1 }
        return try Tensor(values, shape: [columns.count, count])
            .to(device: other.device, dtype: other.dtype)
    }
}

import Basics
import Tensors

/// How similar each row of a mini-batch is to each identity's vector.
struct SimilarityTable {
    /// Row-major `[rows, classes]`; a loss puts derivatives in their place.
    let values: UnsafeMutableBufferPointer<Double>
    /// One identity for each row, below ``classCount``.
    let labels: [Int]
    let classCount: Int

    /// The similarities of one row.
    func row(_ row: Int) -> UnsafeMutableBufferPointer<Double> {
        .init(rebasing: values[row * classCount..<(row + 1) * classCount])
    }
}

/// A loss over the similarities of rows and identities.
protocol ClassLoss: Sendable {
    /// Adds a mini-batch's terms, ends every row where they are those of rows, and puts the derivative of their sum by each similarity in its
    /// place.
    func differentiate(_ table: SimilarityTable, _ tally: inout LossTally)
}

/// Goes over a mini-batch and the vectors of all identities, on one thread, in float64.
///
/// Needs the table of similarities and copies of rows and vectors; derivatives take the similarities'
/// place.
struct ClassPass {
    let labels: [Int]
    let configuration: LossConfiguration

    /// A loss's value, and its gradient handed to autograd.
    ///
    /// - Parameters:
    ///   - rows: `[count, dimension]`.
    ///   - classes: `[identities, dimension]`.
    ///   - isCosine: compare directions; otherwise inner products.
    func result(
        of loss: some ClassLoss, _ rows: Tensor, _ classes: Tensor, isCosine: Bool
    ) throws(TensorError) -> LossResult {
        let rows = try isCosine ? unitRows(rows) : rows
        let classes = try isCosine ? unitRows(classes) : classes
        let (exactRows, exactClasses) = (try Self.exact(rows), try Self.exact(classes))
        let table = try exactRows.matmul(exactClasses.transpose()).contiguous()
        var tally = LossTally(threshold: configuration.activeThreshold)
        loss.differentiate(
            SimilarityTable(
                values: try table.unsafeMutableBytes().bindMemory(to: Double.self),
                labels: labels, classCount: classes.size(0)), &tally)
        let divisor = configuration.reducer.divisor(of: tally)
        let slopes = try table.mul_(1 / divisor)
        return try Self.result(
            tally.sum / divisor, tally,
            [(rows, slopes.matmul(exactClasses)), (classes, slopes.transpose().matmul(exactRows))])
    }

    /// `center`: half the square of a row's distance from its identity's vector, for every row.
    ///
    /// The vectors of identities that the mini-batch lacks get gradient 0.
    ///
    /// - SeeAlso: Wen, Zhang, Li, Qiao, "A discriminative feature learning approach for deep face
    ///   recognition", ECCV 2016, equation 2. There the sum over the mini-batch, here a reducer's
    ///   mean; the centres move by the optimizer and not by a rule of their own.
    func center(_ rows: Tensor, _ classes: Tensor) throws(TensorError) -> LossResult {
        let (exactRows, exactClasses) = (try Self.exact(rows), try Self.exact(classes))
        let (rowSlopes, classSlopes) = (try exactRows.zerosLike(), try exactClasses.zerosLike())
        let dimension = rows.size(1)
        let row = try exactRows.unsafeMutableBytes().bindMemory(to: Double.self)
        let vector = try exactClasses.unsafeMutableBytes().bindMemory(to: Double.self)
        let rowSlope = try rowSlopes.unsafeMutableBytes().bindMemory(to: Double.self)
        let classSlope = try classSlopes.unsafeMutableBytes().bindMemory(to: Double.self)
        var tally = LossTally(threshold: configuration.activeThreshold)
        for (place, label) in labels.enumerated() {
            var square = 0.0
            for at in 0..<dimension {
                let difference = row[place * dimension + at] - vector[label * dimension + at]
                square += difference * difference
                rowSlope[place * dimension + at] = difference
                classSlope[label * dimension + at] -= difference
            }
            tally.add(square / 2)
            tally.endRow()
        }
        withExtendedLifetime((exactRows, exactClasses)) {}
        let divisor = configuration.reducer.divisor(of: tally)
        return try Self.result(
            tally.sum / divisor, tally,
            [(rows, rowSlopes.mul_(1 / divisor)), (classes, classSlopes.mul_(1 / divisor))])
    }

    private static func exact(_ tensor: Tensor) throws(TensorError) -> Tensor {
        try tensor.detach().to(device: .cpu, dtype: .float64).contiguous()
    }

    /// A value whose gradient is given; the product with the gradient is taken in float64, where it
    /// does not overflow.
    private static func result(
        _ value: Double, _ tally: LossTally, _ slopes: [(source: Tensor, slope: Tensor)]
    ) throws(TensorError) -> LossResult {
        var product = try Tensor.zeros([], dtype: .float64)
        for (source, slope) in slopes {
            let exact = try source.to(device: .cpu, dtype: .float64)
            product = try product + (exact * slope).sum()
        }
        return LossResult(
            loss: try product - product.detach() + value,
            fractionPositive: tally.fractionPositive, activeCount: tally.active,
            validCount: tally.valid, rowLosses: tally.rowLosses)
    }
}

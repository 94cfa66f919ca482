import Basics
import Tensors

/// `triplet` and `dot_triplet`: the margin of d(a,p) - d(a,n), for every triplet that is given.
///
/// Rows come in threes: an anchor, its positive and its negative. Labels say nothing here. With
/// similarities (`dot_triplet`) d is one less the inner product s of rows of length 1, so that a term is
/// max(0, margin - (s(a,p) - s(a,n))), and a threshold adds max(0, threshold - s(a,p)) to it.
///
/// One pass in float64 on one thread, in memory linear in the rows. Equal rows are at distance 0, with
/// gradient 0; a row of zeros has similarity 0 to every other.
///
/// - SeeAlso: Schroff, Kalenichenko, Philbin, "FaceNet", arXiv:1503.03832, equation 2: a sum there, a
///   reducer's mean here.
struct GivenTriplets {
    let configuration: LossConfiguration

    /// A loss's value, and its gradient handed to autograd.
    ///
    /// - Parameter rows: `[3 triplets, dimension]`, float32 or float64.
    func result(_ rows: Tensor) throws(TensorError) -> LossResult {
        let source = try configuration.distance == .cosine ? unitRows(rows) : rows
        let exact = try ClassPass.exact(source)
        let slopes = try exact.zerosLike()
        let tally = differentiate(
            try exact.unsafeMutableBytes().bindMemory(to: Double.self),
            try slopes.unsafeMutableBytes().bindMemory(to: Double.self),
            dimension: rows.size(1))
        withExtendedLifetime(exact) {}
        let divisor = configuration.reducer.divisor(of: tally)
        return try ClassPass.result(
            tally.sum / divisor, tally, [(source, slopes.mul_(1 / divisor))])
    }

    private func differentiate(
        _ rows: UnsafeMutableBufferPointer<Double>, _ slopes: UnsafeMutableBufferPointer<Double>,
        dimension: Int
    ) -> LossTally {
        func row(
            _ all: UnsafeMutableBufferPointer<Double>, _ number: Int
        ) -> UnsafeMutableBufferPointer<Double> {
            .init(rebasing: all[number * dimension..<(number + 1) * dimension])
        }
        var tally = LossTally(threshold: configuration.activeThreshold)
        for first in stride(from: 0, to: rows.count / dimension, by: 3) {
            func pair(_ other: Int) -> RowPair {
                RowPair(
                    distance: configuration.distance, left: row(rows, first),
                    right: row(rows, first + other), leftSlope: row(slopes, first),
                    rightSlope: row(slopes, first + other))
            }
            let (near, far) = (pair(1), pair(2))
            let term = configuration.margin.term(near.value - far.value)
            let lack = self.lack(near.value)
            tally.add(term.value + lack)
            // The term is the anchor's; its positive and its negative have none.
            for _ in 0..<3 { tally.endRow() }
            near.pull(term.slope + (lack > 0 ? 1 : 0), near.value)
            far.pull(-term.slope, far.value)
        }
        return tally
    }

    /// What the similarity of an anchor and its positive lacks of the threshold.
    private func lack(_ distance: Double) -> Double {
        guard configuration.name == .dotTriplet, configuration.positiveThreshold > -1 else {
            return 0
        }
        return max(0, configuration.positiveThreshold - (1 - distance))
    }
}

/// Two rows, and where the derivatives by them are summed.
private struct RowPair {
    let distance: Distance
    let left: UnsafeMutableBufferPointer<Double>
    let right: UnsafeMutableBufferPointer<Double>
    let leftSlope: UnsafeMutableBufferPointer<Double>
    let rightSlope: UnsafeMutableBufferPointer<Double>

    /// How far they are apart; rows of cosine have length 1 or 0.
    var value: Double {
        var sum = 0.0
        for place in left.indices {
            let difference = left[place] - right[place]
            switch distance {
            case .euclidean, .sqeuclidean: sum += difference * difference
            case .cityblock: sum += abs(difference)
            case .cosine: sum += left[place] * right[place]
            }
        }
        switch distance {
        case .euclidean: return sum.squareRoot()
        case .sqeuclidean, .cityblock: return sum
        case .cosine: return 1 - sum
        }
    }

    /// Adds the derivative of `slope` times the distance, which is `value`.
    func pull(_ slope: Double, _ value: Double) {
        guard slope != 0 else { return }
        for place in left.indices {
            let difference = left[place] - right[place]
            switch distance {
            case .cosine:
                leftSlope[place] -= slope * right[place]
                rightSlope[place] -= slope * left[place]
                continue
            case .euclidean: add(value > 0 ? slope * difference / value : 0, place)
            case .sqeuclidean: add(2 * slope * difference, place)
            case .cityblock:
                add(difference == 0 ? 0 : difference > 0 ? slope : -slope, place)
            }
        }
    }

    private func add(_ derivative: Double, _ place: Int) {
        leftSlope[place] += derivative
        rightSlope[place] -= derivative
    }
}

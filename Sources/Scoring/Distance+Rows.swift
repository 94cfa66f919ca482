package import Basics

/// Distances of embeddings, computed in float64.
///
/// Every sum runs in one fixed order: eight partial sums, element i into sum i mod 8, folded
/// pairwise at the end. No fused multiply-add is used. The result is therefore one function of the
/// two rows, on any machine. A cosine distance is 1 where a row is zero.
extension Distance {
    /// A number that orders pairs as the distance does: for Euclidean distances its square.
    ///
    /// The square root is left out because it could round two different sums to one value and so
    /// make a tie where there is none.
    package func rank(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
        switch self {
        case .euclidean, .sqeuclidean:
            sumInLanes(a.count) {
                load(a, $0) - load(b, $0)
            } term: {
                $0 * $0
            }
        case .cityblock:
            sumInLanes(a.count) {
                load(a, $0) - load(b, $0)
            } term: {
                $0.replacing(with: -$0, where: $0 .< 0)
            }
        case .cosine: cosineDistance(a, b)
        }
    }

    /// The distance itself.
    package func distance(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>)
        -> Double
    { self == .euclidean ? rank(a, b).squareRoot() : rank(a, b) }

    /// The distance between rows of float64, summed from the first element to the last.
    func distance(_ a: [Double], _ b: [Double]) -> Double {
        var sum = 0.0
        switch self {
        case .euclidean, .sqeuclidean:
            for k in a.indices { sum += (a[k] - b[k]) * (a[k] - b[k]) }
            return self == .euclidean ? sum.squareRoot() : sum
        case .cityblock:
            for k in a.indices { sum += abs(a[k] - b[k]) }
            return sum
        case .cosine:
            var squares = (0.0, 0.0)
            for k in a.indices {
                sum += a[k] * b[k]
                squares = (squares.0 + a[k] * a[k], squares.1 + b[k] * b[k])
            }
            let norms = squares.0.squareRoot() * squares.1.squareRoot()
            return norms == 0 ? 1 : 1 - sum / norms
        }
    }
}

/// Euclidean norm of a row.
func norm(_ a: UnsafeBufferPointer<Float>) -> Double {
    sumInLanes(a.count) {
        load(a, $0)
    } term: {
        $0 * $0
    }.squareRoot()
}

private typealias Lanes = SIMD8<Double>

/// Inner product of two rows.
func product(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
    sumInLanes(a.count) {
        load(a, $0) * load(b, $0)
    } term: {
        $0
    }
}

private func cosineDistance(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>)
    -> Double
{
    let norms = norm(a) * norm(b)
    return norms == 0 ? 1 : 1 - product(a, b) / norms
}

/// Eight elements from `start`; elements beyond the row are zero.
@inline(__always) private func load(_ row: UnsafeBufferPointer<Float>, _ start: Int) -> Lanes {
    if start + 8 <= row.count {
        return Lanes(
            UnsafeRawPointer(row.baseAddress! + start).loadUnaligned(as: SIMD8<Float>.self))
    }
    var lanes = Lanes()
    for lane in 0..<(row.count - start) { lanes[lane] = Double(row[start + lane]) }
    return lanes
}

@inline(__always) private func sumInLanes(
    _ count: Int, _ read: (Int) -> Lanes, term: (Lanes) -> Lanes
) -> Double {
    var total = Lanes()
    for start in stride(from: 0, to: count, by: 8) { total += term(read(start)) }
    let four = total.lowHalf + total.highHalf
    let two = four.lowHalf + four.highHalf
    return two[0] + two[1]
}

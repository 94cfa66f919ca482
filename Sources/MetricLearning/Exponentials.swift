import Basics
import Foundation

/// log(1 + exp(x)) without overflow.
func softplus(_ x: Double) -> Double { max(x, 0) + log1p(exp(-abs(x))) }

/// 1 / (1 + exp(-x)) without overflow.
func sigmoid(_ x: Double) -> Double {
    let small = exp(-abs(x))
    return (x >= 0 ? 1 : small) / (1 + small)
}

/// log(exp(x) + exp(y)) without overflow; minus infinity stands for log 0.
func logAddExp(_ x: Double, _ y: Double) -> Double {
    let larger = max(x, y)
    return larger == -.infinity ? larger : larger + log1p(exp(-abs(x - y)))
}

/// log of the sum of exp(value(place)); minus infinity for none.
func logSumExp(_ count: Int, _ value: (Int) -> Double) -> Double {
    var largest = -Double.infinity
    for place in 0..<count { largest = max(largest, value(place)) }
    guard largest > -.infinity else { return largest }
    var sum = 0.0
    for place in 0..<count { sum += exp(value(place) - largest) }
    return largest + log(sum)
}

extension Margin {
    /// The term for a difference of distances, and its derivative.
    func term(_ difference: Double) -> (value: Double, slope: Double) {
        switch self {
        case .number(let margin):
            let violation = difference + margin
            return violation > 0 ? (violation, 1) : (0, 0)
        case .soft: return (softplus(difference), sigmoid(difference))
        case .none: return (difference, 1)
        }
    }
}

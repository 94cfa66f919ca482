import Basics

/// How a parameter gets its first values.
///
/// The values are a pure function of (seed, parameter index, shape): they come from a counter-based
/// generator and use only operations that IEEE 754 rounds exactly, so that every machine makes the
/// same bits.
public enum Initializer: Hashable, Sendable {
    /// The same value everywhere.
    case constant(Float)
    /// Normal with standard deviation sqrt(2 / fan_out); of a matrix, 2 over its rows.
    ///
    /// - SeeAlso: He, Zhang, Ren, Sun, arXiv:1502.01852, equation 14.
    case kaimingNormalFanOut
    /// Uniform in +-sqrt(6 / (fan_in + fan_out)).
    ///
    /// - SeeAlso: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural
    ///   networks", 2010, equation 16.
    case glorotUniform
    /// Orthonormal rows, or columns where there are more rows than columns.
    ///
    /// - SeeAlso: Saxe, McClelland, Ganguli, arXiv:1312.6120.
    case orthogonal

    /// Writes the first values of a parameter.
    ///
    /// - Parameters:
    ///   - values: row-major, as many elements as `shape` has.
    ///   - index: the parameter's place in registration order.
    public func fill(
        _ values: UnsafeMutableBufferPointer<Float>, shape: [Int], seed: UInt64, index: Int
    ) {
        precondition(
            values.count == shape.reduce(1, *), "\(values.count) elements for shape \(shape)")
        var random = CounterRandom(seed: seed, item: UInt64(index), purpose: .initialisation)
        switch self {
        case .constant(let value):
            values.update(repeating: value)
        case .kaimingNormalFanOut:
            let deviation = (2 / Double(Self.fans(shape).out)).squareRoot()
            var normal = NormalSource()
            for at in values.indices { values[at] = Float(deviation * normal.next(&random)) }
        case .glorotUniform:
            let fans = Self.fans(shape)
            let bound = (6 / Double(fans.in + fans.out)).squareRoot()
            for at in values.indices { values[at] = Float(bound * (2 * random.uniform() - 1)) }
        case .orthogonal:
            Self.fillOrthogonal(values, shape: shape, &random)
        }
    }

    static func fans(_ shape: [Int]) -> (in: Int, out: Int) {
        guard shape.count >= 2 else { return (shape.first ?? 1, shape.first ?? 1) }
        let window = shape.dropFirst(2).reduce(1, *)
        return (shape[1] * window, shape[0] * window)
    }

    /// Orthonormalises normal vectors of the longer side, each twice, by modified Gram-Schmidt.
    private static func fillOrthogonal(
        _ values: UnsafeMutableBufferPointer<Float>, shape: [Int], _ random: inout CounterRandom
    ) {
        let rows = shape[0]
        let columns = values.count / rows
        let vectors = min(rows, columns)
        let length = max(rows, columns)
        var normal = NormalSource()
        var basis = (0..<vectors * length).map { _ in normal.next(&random) }
        basis.withUnsafeMutableBufferPointer { basis in
            for current in 0..<vectors {
                let vector = basis.baseAddress! + current * length
                for _ in 0..<2 {
                    for earlier in 0..<current {
                        let other = basis.baseAddress! + earlier * length
                        let share = dot(vector, other, length)
                        for at in 0..<length { vector[at] -= share * other[at] }
                    }
                }
                let norm = dot(vector, vector, length).squareRoot()
                for at in 0..<length { vector[at] /= norm }
            }
            for row in 0..<rows {
                for column in 0..<columns {
                    let place = rows <= columns ? row * length + column : column * length + row
                    values[row * columns + column] = Float(basis[place])
                }
            }
        }
    }

    /// A dot product in one fixed order of eight interleaved sums.
    private static func dot(
        _ left: UnsafePointer<Double>, _ right: UnsafePointer<Double>, _ count: Int
    ) -> Double {
        var sums = SIMD8<Double>()
        let whole = count / 8 * 8
        for at in stride(from: 0, to: whole, by: 8) {
            sums +=
                UnsafeRawPointer(left + at).loadUnaligned(as: SIMD8<Double>.self)
                * UnsafeRawPointer(right + at).loadUnaligned(as: SIMD8<Double>.self)
        }
        var sum = 0.0
        for lane in 0..<8 { sum += sums[lane] }
        for at in whole..<count { sum += left[at] * right[at] }
        return sum
    }
}

/// Standard normal numbers by Marsaglia's polar method, without the C library's logarithm.
struct NormalSource {
    private var spare: Double?

    mutating func next(_ random: inout CounterRandom) -> Double {
        if let value = spare {
            spare = nil
            return value
        }
        while true {
            let x = 2 * random.uniform() - 1
            let y = 2 * random.uniform() - 1
            let square = x * x + y * y
            guard square < 1, square > 0 else { continue }
            let factor = (-2 * Self.logarithm(square) / square).squareRoot()
            spare = y * factor
            return x * factor
        }
    }

    /// Natural logarithm from exactly rounded operations alone: 2 artanh((m - 1) / (m + 1)) + e ln 2.
    static func logarithm(_ value: Double) -> Double {
        var mantissa = value.significand
        var exponent = Double(value.exponent)
        if mantissa > 1.414_213_562_373_095_1 {
            mantissa /= 2
            exponent += 1
        }
        let ratio = (mantissa - 1) / (mantissa + 1)
        let square = ratio * ratio
        var sum = 0.0
        for odd in stride(from: 23, through: 1, by: -2) { sum = sum * square + 1 / Double(odd) }
        return 2 * ratio * sum + exponent * 0.693_147_180_559_945_3
    }
}

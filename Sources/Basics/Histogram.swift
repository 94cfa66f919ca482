#if canImport(Glibc)
    import Glibc
#endif

/// How values are spread, in TensorBoard's buckets.
///
/// Bucket limits grow by a tenth from 1e-12 up to 1e20 to both sides of zero, about as those of TensorFlow's
/// histograms; they are the same for all, so that histograms of parts add up to that of the whole.
public struct Histogram: Sendable, Equatable {
    /// Least value; infinite where there is none.
    public private(set) var min = Double.infinity
    /// Greatest value; minus infinite where there is none.
    public private(set) var max = -Double.infinity
    /// Values.
    public private(set) var count = 0
    /// Their sum.
    public private(set) var sum = 0.0
    /// The sum of their squares.
    public private(set) var sumOfSquares = 0.0
    /// Values of each bucket that has any, by the bucket's number.
    public private(set) var buckets: [Int: Int] = [:]

    /// Limits above zero, ascending.
    private static let limits: [Double] = {
        var limits: [Double] = []
        var limit = 1e-12
        while limit < 1e20 {
            limits.append(limit)
            limit *= 1.1
        }
        return limits
    }()

    /// Bucket numbers are -``bucketMax``...``bucketMax``; 0 holds what is nearer to zero than 1e-12.
    public static let bucketMax = limits.count

    /// Holds nothing.
    public init() {}

    /// Puts a histogram together that somebody else counted; nil where the parts cannot be one's.
    public init?(
        min: Double, max: Double, sum: Double, sumOfSquares: Double, buckets: [Int: Int]
    ) {
        guard !buckets.isEmpty,
            buckets.allSatisfy({
                abs($0.key) <= Self.bucketMax && 0 < $0.value && $0.value < 1 << 40
            }),
            min <= max, [min, max, sum, sumOfSquares].allSatisfy(\.isFinite), sumOfSquares >= 0
        else { return nil }
        self.min = min
        self.max = max
        self.sum = sum
        self.sumOfSquares = sumOfSquares
        self.buckets = buckets
        count = buckets.values.reduce(0, +)
    }

    /// The mean; 0 where there is nothing.
    public var mean: Double { count > 0 ? sum / Double(count) : 0 }

    /// Counts a value; infinite ones and NaN are left out.
    public mutating func add(_ value: Double) {
        guard value.isFinite else { return }
        min = Swift.min(min, value)
        max = Swift.max(max, value)
        count += 1
        sum += value
        sumOfSquares += value * value
        buckets[Self.bucket(of: value), default: 0] += 1
    }

    /// Adds what another holds.
    public mutating func add(_ other: Histogram) {
        min = Swift.min(min, other.min)
        max = Swift.max(max, other.max)
        count += other.count
        sum += other.sum
        sumOfSquares += other.sumOfSquares
        buckets.merge(other.buckets, uniquingKeysWith: +)
    }

    /// The bucket of a value: n > 0 holds values from limit n - 1 on and below limit n.
    static func bucket(of value: Double) -> Int {
        let size = abs(value)
        guard size >= limits[0] else { return 0 }
        // The logarithm may be off by one where a value lies on a limit.
        var place = Swift.min(limits.count - 1, Int(log(size / 1e-12) / log(1.1)))
        while place > 0, limits[place] > size { place -= 1 }
        while place + 1 < limits.count, limits[place + 1] <= size { place += 1 }
        return value > 0 ? place + 1 : -(place + 1)
    }

    /// Where a bucket ends upwards.
    public static func upperLimit(ofBucket bucket: Int) -> Double {
        switch bucket {
        case 1...: bucket < limits.count ? limits[bucket] : .greatestFiniteMagnitude
        case 0: limits[0]
        default: -bucket <= limits.count ? -limits[-bucket - 1] : -.greatestFiniteMagnitude
        }
    }
}

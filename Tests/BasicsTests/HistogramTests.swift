import Basics
import Testing

@Suite struct HistogramTests {
    private static func histogram(_ values: [Double]) -> Histogram {
        var histogram = Histogram()
        for value in values { histogram.add(value) }
        return histogram
    }

    @Test func partsAddUpToTheWhole() {
        let values = (0..<500).map { Double($0 * $0 % 997) / 64 - 3 }
        var sum = Self.histogram(Array(values[..<123]))
        sum.add(Self.histogram(Array(values[123...])))
        let whole = Self.histogram(values)
        // Sums of binary fractions are exact.
        #expect(sum == whole)
        #expect(whole.count == 500 && whole.buckets.values.reduce(0, +) == 500)
        #expect(whole.min == values.min() && whole.max == values.max())
    }

    @Test(arguments: [1e-12, 1.1e-12, 0.5, 1, 7.25, 1e19, 1e25, -1e-12, -0.3, -1e30, 0, 1e-20])
    func aValueLiesWithinItsBucket(value: Double) throws {
        let bucket = try #require(Self.histogram([value]).buckets.keys.first)
        let upper = Histogram.upperLimit(ofBucket: bucket)
        let lower = Histogram.upperLimit(ofBucket: bucket - 1)
        #expect(lower <= value && value <= upper)
        #expect(lower < upper)
    }

    @Test func whatIsNoNumberIsLeftOut() {
        #expect(Self.histogram([.nan, .infinity, -.infinity]) == Histogram())
        #expect(Histogram().mean == 0)
    }

    @Test func partsThatNobodyCountedAreRefused() {
        #expect(
            Histogram(
                min: 0, max: 1, sum: 1, sumOfSquares: 1, buckets: [Histogram.bucketMax + 1: 1])
                == nil)
        #expect(Histogram(min: 2, max: 1, sum: 1, sumOfSquares: 1, buckets: [0: 1]) == nil)
        #expect(Histogram(min: 0, max: .nan, sum: 1, sumOfSquares: 1, buckets: [0: 1]) == nil)
        #expect(Histogram(min: 0, max: 1, sum: 1, sumOfSquares: 1, buckets: [0: 0]) == nil)
        #expect(Histogram(min: 0, max: 1, sum: 1, sumOfSquares: 1, buckets: [:]) == nil)
    }
}

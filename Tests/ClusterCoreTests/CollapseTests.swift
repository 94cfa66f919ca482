import Basics
import ClusterCore
import Protocol
import Testing

/// A network that maps everything to one place is named, once.
@Suite struct CollapseTests {
    private static let rest = 0.693_147

    private static func cluster() -> SmallCluster {
        SmallCluster(["a"], slots: 1, collapse: CollapseDetector(rest: rest, scale: 1))
    }

    private static func train(
        _ cluster: inout SmallCluster, steps: Int, loss: Double, spread: Double,
        fraction: Double = 1
    ) {
        for _ in 0..<steps {
            cluster.done(0, by: "a") {
                $0.loss = Float(loss).bitPattern
                $0.fractionPositive = fraction
                $0.spread = spread
            }
            cluster.commit(at: .seconds(1))
        }
    }

    @Test func itIsSaidOnceAndWhenItIsOver() throws {
        var cluster = Self.cluster()
        Self.train(&cluster, steps: 19, loss: 0.694, spread: 0.01)
        #expect(cluster.events["collapse"] == nil)
        Self.train(&cluster, steps: 30, loss: 0.694, spread: 0.01)
        let text = try #require(cluster.events["collapse"])
        #expect(text.count == 1)
        #expect(text[0].contains("0.694") && text[0].contains("optimizer.learning_rate"))
        Self.train(&cluster, steps: 20, loss: 0.3, spread: 2)
        #expect(cluster.events["collapse_over"]?.count == 1)
    }

    @Test(arguments: [(0.694, 0.5, 1.0), (0.6, 0.01, 1.0), (0.694, 0.01, 0.5)])
    func whatLooksAlikeIsNone(loss: Double, spread: Double, fraction: Double) {
        var cluster = Self.cluster()
        Self.train(&cluster, steps: 60, loss: loss, spread: spread, fraction: fraction)
        #expect(cluster.events["collapse"] == nil)
    }

    /// The loss's own value lies at the margin, whatever that against the memory adds.
    @Test func besideAMemoryTheLossItselfIsWatched() {
        var cluster = Self.cluster()
        for _ in 0..<20 {
            cluster.done(0, by: "a") {
                $0.loss = Float(1.1).bitPattern
                $0.lossParts = [Float(0.694).bitPattern, Float(0.406).bitPattern]
                $0.fractionPositive = 1
                $0.spread = 0.01
            }
            cluster.commit(at: .seconds(1))
        }
        #expect(cluster.events["collapse"]?.count == 1)
    }

    @Test func summariesOfAllSlotsAddUp() throws {
        var cluster = SmallCluster(["a"], slots: 2)
        for slot in 0..<2 {
            var distances = Histogram()
            distances.add(Double(slot) + 0.5)
            cluster.done(slot, by: "a") {
                $0.summary.distances = distances.message
                $0.summary.losses = distances.message
                $0.summary.top1 = Double(slot)
                $0.summary.precisionRank = 3
            }
        }
        cluster.commit(at: .seconds(1))
        let summary = try #require(cluster.commits.first?.summary)
        #expect(summary.distances.count == 2 && summary.distances.sum == 2)
        #expect(summary.losses == summary.distances)
        #expect(summary.top1 == 0.5 && summary.precisionRank == 3)
    }

    @Test func aSummaryThatIsTooLongIsDropped() throws {
        var cluster = SmallCluster(["a"], slots: 1)
        cluster.done(0, by: "a") {
            $0.summary.losses.buckets = Array(repeating: 1, count: 100_000)
            $0.summary.losses.counts = Array(repeating: 1, count: 100_000)
        }
        cluster.commit(at: .seconds(1))
        let record = try #require(cluster.commits.first)
        #expect(record.summary == nil)
    }
}

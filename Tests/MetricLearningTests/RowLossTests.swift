import Basics
import MetricLearning
import Tensors
import Testing

/// What rows add to a loss.
@Suite struct RowLossTests {
    private func rowLosses(
        _ loss: LossConfiguration, _ rows: [Double], labels: [Int], classes: [Tensor] = []
    ) throws -> (rows: [Double], loss: Double) {
        try Engine.setIntraOpThreads(1)
        let embeddings = try Tensor(
            copying: rows, shape: [labels.count, rows.count / labels.count])
        let result = try withoutGradient {
            try MetricLoss(loss)(embeddings, labels: labels, classes: classes)
        }
        return (result.rowLosses, try result.loss.item())
    }

    /// 0 and 1 are one identity, 2.5 and 6 another; with margin 0.5 the third alone is too far from its
    /// positive, from the nearer negative by 2.5 and from the farther by 1.5.
    @Test(arguments: [(LossName.batchHard, 2.5), (.batchAll, 2), (.semiHard, 1.5)])
    func fourPointsOnALine(name: LossName, third: Double) throws {
        let loss = LossConfiguration(
            name: name, margin: .number(0.5), distance: .euclidean,
            normalization: Normalization.none)
        let found = try rowLosses(loss, [0, 1, 2.5, 6], labels: [7, 7, 8, 8])
        // Beyond 3.5 there is no negative: the farthest, at 2.5, is taken.
        let expected = [0, 0, third, 0]
        #expect(found.rows.count == 4)
        #expect(zip(found.rows, expected).allSatisfy { abs($0 - $1) < 1e-12 })
    }

    @Test func aRowWithoutATermHasNone() throws {
        let rows: [Double] = [0, 1, 3]
        let all = try rowLosses(
            .init(name: .batchAll, margin: .soft), rows, labels: [1, 1, 2]
        ).rows
        #expect(all[0] > 0 && all[1] > 0 && all[2].isNaN)
        // There the positive's distance is 0, and the row counts.
        let hard = try rowLosses(
            .init(name: .batchHard, margin: .number(2.5)), rows, labels: [1, 1, 2]
        ).rows
        #expect(hard.count == 3)
        #expect(zip(hard, [0.5, 1.5, 0.5]).allSatisfy { abs($0 - $1) < 1e-12 })
    }

    /// Where all rows have as many terms the loss is their mean.
    ///
    /// In float64, sums of at most a thousand
    /// terms in two orders: within 1e-12 of the value.
    @Test(arguments: LossName.allCases.filter { $0 != .proxyAnchor && !$0.isOfTriplets })
    func theMeanOfTheRowsIsTheLoss(_ name: LossName) throws {
        var loss = LossConfiguration(name: name)
        loss.reducer = .mean
        loss.weight = 0.25
        let classes = try Tensor(
            copying: (0..<16).map { Double($0 * 7 % 11) - 5 }, shape: [4, 4])
        let found = try rowLosses(
            loss, LossGradientTests.rows, labels: LossGradientTests.labels,
            classes: name.hasClasses ? [classes] : [])
        #expect(found.rows.count == 12)
        let mean = found.rows.reduce(0, +) / 12
        #expect(abs(mean - found.loss) <= 1e-12 * max(1, abs(found.loss)))
        #expect(Set(found.rows).count > 1)
    }

    /// 0 is 1 from its positive and 4 from its negative, 5 is 3 and 2 from its own.
    @Test func aTripletsTermIsItsAnchors() throws {
        let loss = LossConfiguration(
            name: .triplet, margin: .number(0.5), distance: .euclidean,
            normalization: Normalization.none)
        let rows = try rowLosses(
            loss, [0, 1, 4, 5, 8, 7], labels: [1, 1, 2, 3, 3, 4]
        ).rows
        #expect(rows.count == 6)
        #expect(rows[0] == 0 && abs(rows[3] - 1.5) < 1e-12)
        #expect([1, 2, 4, 5].allSatisfy { rows[$0].isNaN })
    }

    /// A sum's rows add up, and a loss whose terms are those of identities adds nothing.
    @Test func ofASumTheRowsAddUp() throws {
        let classes = try Tensor(copying: (0..<8).map { Double($0) / 8 }, shape: [2, 4])
        let (rows, labels) = (Array(LossGradientTests.rows[..<16]), [0, 0, 1, 1])
        let hard = LossConfiguration(name: .batchHard, margin: .soft)
        var center = LossConfiguration(name: .center)
        center.weight = 0.5
        let proxies = LossConfiguration(name: .proxyAnchor)
        let alone = try rowLosses(proxies, rows, labels: labels, classes: [classes])
        #expect(alone.rows.isEmpty && alone.loss > 0)
        var sum = hard
        sum.plus = [center, proxies]
        let found = try rowLosses(sum, rows, labels: labels, classes: [classes, classes]).rows
        let first = try rowLosses(hard, rows, labels: labels).rows
        let second = try rowLosses(center, rows, labels: labels, classes: [classes]).rows
        #expect(found == zip(first, second).map { $0 + $1 })
    }
}

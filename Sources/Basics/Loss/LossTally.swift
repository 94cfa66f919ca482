/// The sum of a loss's terms, how many there are and how many are active.
public struct LossTally: Sendable {
    /// Above which a term is active.
    public let threshold: Double
    /// Sum of all terms.
    public private(set) var sum = 0.0
    /// Terms that count.
    public private(set) var valid = 0
    /// Terms above ``threshold``.
    public private(set) var active = 0
    /// Of every row that has ended, in order, the mean of its terms; NaN for one that has none.
    public private(set) var rowLosses: [Double] = []
    private var rowSum = 0.0
    private var rowValid = 0

    /// No terms yet.
    public init(threshold: Double) { self.threshold = threshold }

    /// Adds one term.
    public mutating func add(_ term: Double) {
        add(sum: term, valid: 1, active: term > threshold ? 1 : 0)
    }

    /// Adds several.
    public mutating func add(sum: Double, valid: Int, active: Int) {
        self.sum += sum
        self.valid += valid
        self.active += active
        rowSum += sum
        rowValid += valid
    }

    /// Ends a row: what was added since the one before are its terms.
    public mutating func endRow() {
        rowLosses.append(rowValid == 0 ? .nan : rowSum / Double(rowValid))
        (rowSum, rowValid) = (0, 0)
    }

    /// Share of valid terms that are active; 0 without any.
    public var fractionPositive: Double { valid == 0 ? 0 : Double(active) / Double(valid) }
}

extension Reducer {
    /// What the sum of a loss's terms is divided by; 1 where nothing counts.
    public func divisor(of tally: LossTally) -> Double {
        Double(max(self == .mean ? tally.valid : tally.active, 1))
    }
}

import Foundation

/// The learning rate of every step.
public struct LearningRateSchedule: Hashable, Sendable {
    /// How the rate changes once it is warm.
    public enum Decay: Hashable, Sendable {
        /// Not at all.
        case none
        /// base * 0.001^share, where share goes from 0 after `start` updates to 1 at the end.
        ///
        /// Continuous where it starts; constant when `start` is negative or not before the end.
        case exponential(start: Int)
        /// base * factor^n after n of the milestones' updates.
        case step(milestones: [Int], factor: Double)
        /// Half a cosine from the base to `finalFactor` * base, with the same share.
        ///
        /// - SeeAlso: Loshchilov, Hutter, arXiv:1608.03983, without restarts.
        case cosine(start: Int, finalFactor: Double)
        /// base * factor^n after n plateaus of a score, but not below `finalFactor` * base.
        case plateau(factor: Double, finalFactor: Double)
    }

    /// The full rate.
    public var base: Double
    /// How it falls.
    public var decay: Decay
    /// Updates in which the rate rises in a straight line to its full value.
    ///
    /// A decay that would start earlier starts after them.
    public var warmupSteps: Int
    /// Share of the full rate at the first update.
    public var warmupFactor: Double
    /// Updates of the whole run.
    public var totalSteps: Int

    /// Makes a schedule.
    public init(
        base: Double, decay: Decay = .none, warmupSteps: Int = 0, warmupFactor: Double = 0.1,
        totalSteps: Int
    ) {
        self.base = base
        self.decay = decay
        self.warmupSteps = warmupSteps
        self.warmupFactor = warmupFactor
        self.totalSteps = totalSteps
    }

    /// The rate of one update.
    ///
    /// - Parameters:
    ///   - updatesBefore: updates made so far; 0 for the first.
    ///   - reductions: plateaus so far.
    public func rate(updatesBefore: Int, reductions: Int = 0) -> Double {
        if updatesBefore < warmupSteps {
            let share = Double(updatesBefore) / Double(warmupSteps)
            return base * (warmupFactor + (1 - warmupFactor) * share)
        }
        switch decay {
        case .none: return base
        case .plateau(let factor, let finalFactor):
            return base * max(finalFactor, AdamConfiguration.power(factor, reductions))
        case .exponential(let start):
            let share = share(updatesBefore, from: start)
            return share > 0 ? base * pow(0.001, share) : base
        case .step(let milestones, let factor):
            return base * AdamConfiguration.power(factor, milestones.count { $0 <= updatesBefore })
        case .cosine(let start, let finalFactor):
            let low = base * finalFactor
            let share = share(updatesBefore, from: start)
            return low + (base - low) * (1 + cos(.pi * share)) / 2
        }
    }

    /// How much of a decay is over, 0 to 1.
    private func share(_ updatesBefore: Int, from start: Int) -> Double {
        guard start >= 0 else { return 0 }
        let start = max(start, warmupSteps)
        guard start < totalSteps, updatesBefore > start else { return 0 }
        return Double(updatesBefore - start) / Double(totalSteps - start)
    }
}

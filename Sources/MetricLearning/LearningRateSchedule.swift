import Foundation

/// The learning rate of every step.
public struct LearningRateSchedule: Hashable, Sendable {
    /// The rate before any decay.
    public var base: Double
    /// Updates before the decay starts; negative or at least `totalSteps` for no decay.
    public var decayStartStep: Int
    /// Updates of the whole run.
    public var totalSteps: Int

    /// Makes a schedule.
    public init(base: Double, decayStartStep: Int = -1, totalSteps: Int) {
        self.base = base
        self.decayStartStep = decayStartStep
        self.totalSteps = totalSteps
    }

    /// base * 0.001^(max(0, updates - start) / (total - start)), or the base.
    ///
    /// Continuous where the decay starts; reaches a thousandth of the base at the end.
    ///
    /// - Parameter updatesBefore: updates made so far; 0 for the first.
    public func rate(updatesBefore: Int) -> Double {
        guard decayStartStep >= 0, decayStartStep < totalSteps, updatesBefore > decayStartStep
        else { return base }
        let share = Double(updatesBefore - decayStartStep) / Double(totalSteps - decayStartStep)
        return base * pow(0.001, share)
    }
}

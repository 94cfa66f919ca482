public import Basics

/// An input that the scoring functions refuse.
public struct ScoringError: LineupError, Equatable {
    /// What to branch on.
    public enum Code: Sendable, Equatable {
        /// The number of values is not rows times dimension.
        case shapeMismatch
        /// A tuple names an image that has no embedding.
        case indexOutOfRange
        /// Two parts hold the same tuple.
        case overlappingParts
        /// Parts are of different sets, or computed with different settings.
        case foreignPart
        /// Metrics were asked for before every tuple was there.
        case incompleteParts
    }

    /// What to branch on.
    public let code: Code
    /// One sentence without a trailing newline.
    public let message: String
    /// Whether the operator's input caused it.
    public let isBadInput: Bool

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
        isBadInput = code == .indexOutOfRange
    }
}

public import Basics

/// A training state, slot or step that does not fit the run.
public struct TrainingError: LineupError {
    /// What went wrong, to branch on.
    public enum Code: Sendable {
        /// A tensor that the state needs is missing from what is loaded.
        case missingTensor
        /// A tensor, buffer or batch has another size than the run needs.
        case shapeMismatch
        /// What is loaded was written with another optimizer.
        case otherOptimizer
        /// A step effect does not follow the state's step.
        case stepOutOfOrder
        /// A partial sum that the fold needs is missing.
        case missingPartial
        /// A number or name is outside what is possible.
        case invalidValue
        /// What was computed has changed in memory since.
        case damaged
    }

    /// What went wrong, to branch on.
    public let code: Code
    /// One sentence for the operator.
    public let message: String

    /// Makes an error.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// True where a file or setting is the cause.
    public var isBadInput: Bool {
        switch code {
        case .missingTensor, .shapeMismatch, .otherOptimizer, .invalidValue: true
        case .stepOutOfOrder, .missingPartial, .damaged: false
        }
    }
}

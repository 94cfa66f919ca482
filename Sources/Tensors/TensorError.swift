public import Basics

/// What went wrong in the tensor engine.
public struct TensorError: LineupError, Equatable {
    /// The kinds of failure that a caller may branch on.
    public enum Code: Sendable {
        /// The shim or LibTorch could not be opened.
        case engineMissing
        /// The shim was made for another version of Lineup.
        case engineMismatch
        /// No operator has this name and overload.
        case unknownOperator
        /// An argument is of the wrong kind or missing.
        case badArgument
        /// LibTorch refused the call, mostly for the shapes or dtypes.
        case operatorFailed
        /// Host or device memory ran out.
        case outOfMemory
        /// A tensor has another shape, dtype or place than the call needs.
        case unsuitableTensor
        /// There is no such device here.
        case deviceMissing
    }

    /// What kind of failure it is.
    public let code: Code
    /// One sentence that names the operator, the tensors and LibTorch's reason.
    public let message: String
    /// LibTorch's whole text, where ``message`` shows its first line.
    public let detail: String

    /// Describes a failure.
    public init(code: Code, message: String, detail: String = "") {
        self.code = code
        self.message = message
        self.detail = detail
    }

    /// True for a device that was asked for and is not there.
    public var isBadInput: Bool { code == .deviceMissing }
}

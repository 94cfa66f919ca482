public import Basics
import Foundation

/// Why an evaluation cannot be done or recorded.
public struct EvalWorkerError: LineupError, Equatable {
    /// What to branch on.
    public enum Code: String, Sendable {
        /// The folder is no run, or is not there.
        case notARun
        /// A setting is not usable for evaluation.
        case setting
        /// The data set is not the run's, or a set is not in it.
        case dataset
        /// A file of the run is not what its name says.
        case corrupt
        /// Another evaluator got another value for the same row.
        case disagreement
        /// The operating system refused.
        case io
        /// Asked to stop.
        case stopped
        /// The coordinator does not take this evaluator.
        case refused
        /// No coordinator answers.
        case noCoordinator
    }

    /// What to branch on.
    public let code: Code
    /// One sentence without a trailing newline.
    public let message: String

    /// Makes an error.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Whether the operator's input caused it.
    public var isBadInput: Bool {
        switch code {
        case .notARun, .setting, .dataset, .corrupt, .refused, .noCoordinator: true
        case .disagreement, .io, .stopped: false
        }
    }

    /// Describes a failed system call; read `errno` at once.
    static func system(_ what: String, _ path: String) -> EvalWorkerError {
        let text = String(cString: strerror(errno))
        return EvalWorkerError(
            .io, "cannot \(what) \(path): \(text); check the disk and the permissions")
    }
}

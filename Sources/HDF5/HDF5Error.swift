public import Basics

/// Why an HDF5 file could not be read or written.
public struct HDF5Error: LineupError {
    /// What to branch on.
    public enum Code: String, Sendable {
        /// There is no such file, or no such data set in it.
        case notFound
        /// The file exists already.
        case exists
        /// It is no HDF5 file, or a damaged or truncated one.
        case corrupt
        /// A data set has another type or shape than was asked for.
        case mismatch
        /// The library refused a read or a write, such as on a full disk.
        case io
    }

    /// What to branch on.
    public let code: Code
    /// One sentence that names the thing, the value, what was expected and what to do.
    public let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Whether what was given caused it.
    public var isBadInput: Bool { code != .io }
}

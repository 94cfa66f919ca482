public import Basics

/// What went wrong with one image, in one line that names it.
public struct ImageError: LineupError {
    /// Kinds of failure to branch on.
    public enum Code: Sendable, Equatable {
        /// The file is not there.
        case missing
        /// The file is there and cannot be read.
        case unreadable
        /// The file cannot be written.
        case unwritable
        /// The bytes are no JPEG.
        case notJPEG
        /// The bytes begin as a JPEG and end early or are damaged.
        case corrupt
        /// A JPEG in a form that is not supported, or too large.
        case unsupported
        /// The bytes are not the ones that the catalogue lists.
        case differs
        /// A size or a setting that makes no sense.
        case invalidSize
    }

    /// The kind of failure.
    public let code: Code
    /// One sentence without a trailing newline.
    public let message: String

    /// True but for files that cannot be written: that is the disk's doing.
    public var isBadInput: Bool { code != .unwritable }

    /// Makes an error from its kind and its sentence.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

public import Basics
import Images

/// What is wrong with a data set or with how it is asked for, in one line.
public struct DatasetError: LineupError {
    /// Kinds of failure to branch on.
    public enum Code: Sendable, Equatable {
        /// A file or folder is not there.
        case missing
        /// A file cannot be read or written.
        case inputOutput
        /// A file's contents break its format.
        case malformed
        /// Files that should agree do not.
        case inconsistent
        /// A setting asks for what the data cannot give.
        case notEnough
        /// A setting is out of its range.
        case invalidSetting
        /// The folder holds something else, or another process works on it.
        case occupied
    }

    /// The kind of failure.
    public let code: Code
    /// One sentence without a trailing newline.
    public let message: String

    /// True but for files that cannot be read or written: that is the disk's doing.
    public var isBadInput: Bool { code != .inputOutput }

    /// Makes an error from its kind and its sentence.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    init(_ error: ImageError) {
        let code: Code =
            switch error.code {
            case .missing: .missing
            case .unreadable, .unwritable: .inputOutput
            case .notJPEG, .corrupt, .unsupported: .malformed
            case .differs: .inconsistent
            case .invalidSize: .invalidSetting
            }
        self.init(code, error.message)
    }
}

/// Runs `body`, turning an image's error into this module's.
func imaging<Result>(_ body: () throws(ImageError) -> Result) throws(DatasetError) -> Result {
    do throws(ImageError) {
        return try body()
    } catch {
        throw DatasetError(error)
    }
}

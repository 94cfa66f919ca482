import Basics

/// A run that its coordinator ended.
struct CoordinatorFailure: LineupError {
    let message: String
    var isBadInput: Bool { false }
}

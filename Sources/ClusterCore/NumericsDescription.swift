/// The text of a numerics class: words, separated by spaces, that each say one thing.
public struct NumericsDescription: Sendable {
    private let words: [Substring]

    /// Takes a text apart.
    public init(_ text: String) { words = text.split(separator: " ") }

    /// Whether this says everything that `other` does: as a newer Lineup, that knows more of what decides
    /// bits, says of the machine that an older one has described.
    public func covers(_ other: NumericsDescription) -> Bool {
        Set(words).isSuperset(of: other.words)
    }

    /// What this says and another class does not, for people.
    public func without(_ text: String) -> String {
        let known = Set(text.split(separator: " "))
        let own = words.filter { !known.contains($0) }
        return own.isEmpty ? "nothing more" : own.joined(separator: " ").clipped()
    }
}

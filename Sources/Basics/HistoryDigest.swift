/// Chains the digests of committed steps: two runs with equal histories did equal steps.
public enum HistoryDigest {
    /// Before step 1 of any run.
    public static let start: UInt64 = 0

    /// After a step: XXH64 over 16 bytes, the history before and the effect's digest.
    public static func next(_ history: UInt64, effect: UInt64) -> UInt64 {
        var hash = XXH64()
        hash.update(history)
        hash.update(effect)
        return hash.finish()
    }
}

/// Time as a process lives it: what passes while it is halted, or while its machine sleeps, is left out.
///
/// Whoever did not run did not listen either, so that time holds nobody's silence against them.
public struct AwakeClock: Sendable {
    /// A process that runs reads its clock more often than this.
    public static let pauseMin = Duration.milliseconds(250)

    private var read: Duration = .zero
    private var halted: Duration = .zero

    /// Starts at zero.
    public init() {}

    /// The awake time at a moment since the start; moments never go back.
    public mutating func now(at moment: Duration) -> Duration {
        if moment - read > Self.pauseMin { halted += moment - read }
        read = moment
        return moment - halted
    }
}

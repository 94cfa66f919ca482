internal import Synchronization

/// Which submission of a slot is the one that counts: a slot that was cancelled and leased again
/// runs once.
final class SlotTickets: Sendable {
    private let tickets = Mutex<(last: Int, valid: [SlotInputs.Key: Int])>((0, [:]))

    /// A ticket for a new submission; older ones of the slot are void.
    func issue(_ key: SlotInputs.Key) -> Int {
        tickets.withLock { tickets in
            tickets.last += 1
            tickets.valid[key] = tickets.last
            return tickets.last
        }
    }

    func isValid(_ ticket: Int, for key: SlotInputs.Key) -> Bool {
        tickets.withLock { $0.valid[key] == ticket }
    }

    func cancel(_ key: SlotInputs.Key) { tickets.withLock { $0.valid[key] = nil } }
    func cancelAll() { tickets.withLock { $0.valid = [:] } }
}

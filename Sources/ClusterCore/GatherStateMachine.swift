/// Decides who gets which slot's embeddings, in a step that mines over all of its slots.
///
/// Everybody who computes slots computes the loss of the whole step, and so needs the embeddings of all.
/// A member sends those that it has computed, and no others: what comes from a worker is its own word,
/// and can be forgotten with it. Holds no numbers.
public struct GatherStateMachine: Codable, Sendable {
    /// What the shell does next, in order.
    public enum Action: Equatable, Sendable {
        /// Send the embeddings of these slots, which were computed here.
        case send(slots: [Int], to: [String])
        /// Ask for those of these slots again: what was sent did not arrive.
        case want(slots: [Int], from: String)
        /// Drop what was received of these slots, and the loss: it was sent by somebody who computes
        /// wrongly.
        case forget(slots: [Int])
        /// Drop embeddings, the loss and every gradient: all of the step is computed again.
        case startOver
    }

    private let me: String
    private let slotCount: Int
    private var members: [String]
    /// Slots whose embeddings were computed here.
    private var own: Set<Int> = []
    /// Who has sent those of others.
    private var senders: [Int: String] = [:]

    /// Starts a step.
    public init(me: String, members: [String], slotCount: Int) {
        self.me = me
        self.members = members
        self.slotCount = slotCount
    }

    /// Slots whose embeddings are not here, in order.
    public var lacking: [Int] { (0..<slotCount).filter { wants($0) } }

    /// Whether the embeddings of all slots are here.
    public var isComplete: Bool { own.union(senders.keys).count == slotCount }

    /// Whether received embeddings of a slot are to be kept.
    public func wants(_ slot: Int) -> Bool {
        0 <= slot && slot < slotCount && !own.contains(slot) && senders[slot] == nil
    }

    /// A slot's forward pass is done here.
    public mutating func embedded(_ slot: Int) -> [Action] {
        guard own.insert(slot).inserted else { return [] }
        return send([slot], to: members)
    }

    /// Embeddings of a slot arrived and were kept.
    public mutating func received(_ slot: Int, from peer: String) {
        if wants(slot) { senders[slot] = peer }
    }

    /// The membership changed: whoever is new gets what was computed here.
    public mutating func membersChanged(_ members: [String]) -> [Action] {
        let newcomers = members.filter { !self.members.contains($0) }
        self.members = members
        return send(own.sorted(), to: newcomers)
    }

    /// Nothing of these workers is used any more.
    ///
    /// - Returns: the slots whose embeddings are gone; what was computed from them is wrong too.
    public mutating func distrust(_ isWrong: (String) -> Bool) -> [Int] {
        let gone = senders.filter { isWrong($0.value) }.keys.sorted()
        for slot in gone { senders[slot] = nil }
        return gone
    }

    /// A member lacks embeddings: it gets those that were computed here.
    public func wanted(_ slots: [Int], by worker: String) -> [Action] {
        send(slots.filter { own.contains($0) }, to: [worker])
    }

    /// The connection to a member broke and is there again.
    public func reconnected(_ peer: String) -> [Action] {
        members.contains(peer) ? send(own.sorted(), to: [peer]) : []
    }

    /// What to ask for when nothing has come for a while.
    ///
    /// - Parameter holders: who computes each slot.
    public func missing(holders: [Int: [String]]) -> [Action] {
        var wanted: [String: [Int]] = [:]
        for slot in lacking {
            for holder in holders[slot] ?? [] where holder != me {
                wanted[holder, default: []].append(slot)
            }
        }
        return wanted.keys.sorted().map { .want(slots: wanted[$0]!, from: $0) }
    }

    private func send(_ slots: [Int], to names: [String]) -> [Action] {
        let others = names.filter { $0 != me }
        return slots.isEmpty || others.isEmpty ? [] : [.send(slots: slots, to: others)]
    }
}

/// What a copy of the state after one step has to be.
public enum StateVerdict: Equatable, Sendable {
    /// Members have yet to say.
    case open
    /// More than half of them hold a state with this digest.
    case agreed(UInt64)
    /// No digest has more than half.
    case split
    /// Nobody can say any more: no copy is trusted.
    case unknown
    /// Other arithmetic has other bits: any copy will do.
    case any
}

/// What members say of their states after one step, all of it: the digests must be equal.
struct StateVote: Codable, Sendable {
    /// Who has yet to say.
    private(set) var awaited = Roll()
    /// What the others have said.
    private(set) var digests: [String: UInt64] = [:]

    init(of voters: [String]) { for id in voters { awaited.append(id) } }

    /// Takes what a worker says; its first word counts.
    mutating func hear(_ digest: UInt64, from worker: String) {
        guard awaited.contains(worker) else { return }
        awaited.remove(worker)
        digests[worker] = digest
    }

    /// A worker has gone on without having said.
    mutating func giveUp(on worker: String) { awaited.remove(worker) }

    /// Who said something else than `digest`, in order of name.
    func others(than digest: UInt64) -> [String] {
        digests.keys.filter { digests[$0] != digest }.sorted()
    }

    /// What they agree on; only those that `isHere` says are waited for.
    func verdict(isHere: (String) -> Bool) -> StateVerdict {
        if awaited.all.contains(where: isHere) { return .open }
        if digests.isEmpty { return .unknown }
        var counts: [UInt64: Int] = [:]
        for digest in digests.values { counts[digest, default: 0] += 1 }
        let winner = counts.first { 2 * $0.value > digests.count }
        return winner.map { .agreed($0.key) } ?? .split
    }
}

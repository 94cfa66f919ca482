internal import Protocol
internal import Transport

/// Blocks of steps, or of folds, that this trainer has not begun: a peer may be ahead, and a joiner
/// collects effects while its state is on the way.
struct ParkedData {
    /// Most bytes kept, headers included; what comes beyond is dropped and asked for later.
    static let bytesMax = 4 << 30

    /// What an item takes beside its payload, about.
    private static let headerBytes = 512

    struct Item {
        let header: WireDataHeader
        let payload: Frame
        let peer: String
    }

    private var items: [UInt64: [Item]] = [:]
    private var byteCount = 0

    mutating func park(_ item: Item) {
        let count = item.payload.count + Self.headerBytes
        guard byteCount + count <= Self.bytesMax else { return }
        byteCount += count
        items[item.header.step, default: []].append(item)
    }

    /// What was kept for a step; what was kept for earlier ones is dropped.
    mutating func take(step: Int) -> [Item] {
        for old in items.keys where old < UInt64(step) { drop(old) }
        let found = items[UInt64(step)] ?? []
        drop(UInt64(step))
        return found
    }

    private mutating func drop(_ step: UInt64) {
        byteCount -=
            items.removeValue(forKey: step)?.reduce(0) {
                $0 + $1.payload.count + Self.headerBytes
            } ?? 0
    }
}

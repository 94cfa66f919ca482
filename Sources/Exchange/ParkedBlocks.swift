public import Protocol
public import Transport

/// Blocks of steps, or of folds, that this trainer has not begun: a peer may be ahead, and a joiner
/// collects effects while its state is on the way.
public struct ParkedBlocks {
    /// Most bytes kept, headers included; what comes beyond is dropped and asked for later.
    static let bytesMax = 4 << 30

    /// What an item takes beside its payload, about.
    private static let headerBytes = 512

    /// A message as it came.
    public struct Item {
        /// Its header.
        public let header: WireDataHeader
        /// Its payload; empty where that lies in the sender's memory.
        public let payload: Frame
        /// Who sent it.
        public let peer: String

        /// Names all three.
        public init(header: WireDataHeader, payload: Frame, peer: String) {
            self.header = header
            self.payload = payload
            self.peer = peer
        }
    }

    private var items: [UInt64: [Item]] = [:]
    private var byteCount = 0

    /// Holds nothing yet.
    public init() {}

    /// Keeps a message while there is room.
    public mutating func park(_ item: Item) {
        let count = item.payload.count + Self.headerBytes
        guard byteCount + count <= Self.bytesMax else { return }
        byteCount += count
        items[item.header.step, default: []].append(item)
    }

    /// What was kept for a step; what was kept for earlier ones is dropped.
    public mutating func take(step: Int) -> [Item] {
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

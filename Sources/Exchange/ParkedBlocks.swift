public import Protocol
public import Transport

/// Blocks of steps, or of folds, that this trainer has not begun: a peer may be ahead, and a joiner
/// collects effects while its state is on the way.
public struct ParkedBlocks {
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

    /// What a block of a step is of; equal ones have equal bits within a fold.
    private struct Key: Hashable {
        let kind: Int
        let block: UInt32
        let low: UInt32
        let high: UInt32

        init(_ header: WireDataHeader) {
            kind = header.kind.rawValue
            (block, low, high) = (header.block, header.low, header.high)
        }
    }

    /// Most bytes kept, headers included; what comes beyond is dropped and asked for later.
    private let bytesMax: Int
    /// Messages of a step in the order in which they came, and where each lies.
    private struct Step {
        var items: [Item] = []
        var places: [Key: Int] = [:]
    }

    private var steps: [UInt64: Step] = [:]
    /// Bytes kept, headers included.
    package private(set) var byteCount = 0

    /// Holds nothing yet.
    ///
    /// - Parameter bytesMax: most bytes kept.
    public init(bytesMax: Int) { self.bytesMax = bytesMax }

    /// Has room for the partials and the results of some steps.
    public init(_ layout: EffectLayout, steps: Int) {
        let effect = (0..<layout.blockCount).reduce(0) {
            $0 + layout.byteCount($1) + Self.headerBytes
        }
        self.init(bytesMax: steps * 2 * effect)
    }

    /// Keeps a message while there is room; of equal ones the first, or the one of the latest fold, since
    /// what was folded before is not used any more.
    public mutating func park(_ item: Item) {
        let (step, key) = (item.header.step, Key(item.header))
        let place = steps[step]?.places[key]
        let known = place.map { steps[step]!.items[$0] }
        if let known, !Self.replaces(item, known) { return }
        let count = byteCount + Self.byteCount(item) - (known.map(Self.byteCount) ?? 0)
        guard count <= bytesMax else { return }
        byteCount = count
        if let place {
            steps[step]!.items[place] = item
        } else {
            var kept = steps.removeValue(forKey: step) ?? Step()
            kept.places[key] = kept.items.count
            kept.items.append(item)
            steps[step] = kept
        }
    }

    /// Forgets everything.
    public mutating func removeAll() {
        steps = [:]
        byteCount = 0
    }

    private static func replaces(_ item: Item, _ known: Item) -> Bool {
        if item.header.fold != known.header.fold { return item.header.fold > known.header.fold }
        // What lay in memory may be gone by now.
        return known.payload.count == 0 && item.payload.count > 0
    }

    private static func byteCount(_ item: Item) -> Int { item.payload.count + headerBytes }

    /// What was kept for a step; what was kept for earlier ones is dropped.
    public mutating func take(step: Int) -> [Item] {
        for old in steps.keys where old < UInt64(step) { drop(old) }
        let found = steps[UInt64(step)]?.items ?? []
        drop(UInt64(step))
        return found
    }

    private mutating func drop(_ step: UInt64) {
        byteCount -=
            steps.removeValue(forKey: step)?.items.reduce(0) { $0 + Self.byteCount($1) } ?? 0
    }
}

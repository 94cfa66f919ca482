public import Basics
public import Protocol
public import Transport

/// A message between trainers about blocks, once it is known to speak of this network and this step's
/// slots.
public enum BlockMessage {
    /// The sum over some slots of a block.
    case partial(block: Int, run: SlotRun)
    /// A finished block.
    case result(block: Int)
    /// A request for partials.
    case wantPartials([Int])
    /// A request for finished blocks.
    case wantResults([Int])

    /// Reads a message.
    ///
    /// - Parameter payload: the block's bytes, or empty where they lie in the sender's memory.
    /// - Returns: nil for a block or slots that there are not, for another size than the block's, and for
    ///   a request that differs from its digest.
    public init?(
        _ header: WireDataHeader, _ payload: Frame, layout: EffectLayout, slotCount: Int
    ) {
        let block = Int(header.block)
        let isWhole =
            block < layout.blockCount
            && payload.count == (header.memoryNonce == 0 ? layout.byteCount(block) : 0)
        switch header.kind {
        case .partial:
            guard isWhole, header.low < header.high, Int(header.high) <= slotCount else {
                return nil
            }
            self = .partial(block: block, run: SlotRun(Int(header.low), Int(header.high)))
        case .result:
            guard isWhole else { return nil }
            self = .result(block: block)
        case .wantPartials, .wantResults:
            guard
                let blocks = BlockCarrier.blocks(
                    wantedBy: header, payload, blockCount: layout.blockCount)
            else { return nil }
            self = header.kind == .wantPartials ? .wantPartials(blocks) : .wantResults(blocks)
        default: return nil
        }
    }

    /// Whether it brings a block, which is of use also before its step is begun.
    public var isBlock: Bool {
        switch self {
        case .partial, .result: true
        case .wantPartials, .wantResults: false
        }
    }
}

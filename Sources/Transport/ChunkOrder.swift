internal import Basics
public import Protocol

/// Puts the chunks of a stream that ``ChunkSender`` sends into order, and asks for what is missing.
///
/// A chunk that was damaged or lost is asked for alone; those after it are kept meanwhile, as many as
/// the sender may have under way. A stream that broke off goes on where it stopped: whatever comes a
/// second time is answered with where the receiver stands.
public struct ChunkOrder {
    /// Bytes that have arrived without a gap.
    public private(set) var received = 0
    private var ahead: [Int: (digest: UInt64, payload: Frame)] = [:]
    private var asked: Set<Int> = []

    /// Starts at the first byte.
    public init() {}

    /// Takes a chunk; all chunks of a stream name the same total.
    ///
    /// - Parameter take: gets whole chunks in order, each once: offset, bytes and their XXH64.
    /// - Returns: what the sender is told.
    public mutating func add<Failure: Error>(
        _ header: WireDataHeader, _ payload: Frame,
        take: (Int, UnsafeRawBufferPointer, UInt64) throws(Failure) -> Void
    ) throws(Failure) -> [WireDataHeader] {
        let offset = Int(clamping: header.offset)
        guard offset >= received else { return [Self.answer(.credit, received)] }
        // Anything else is no chunk, and would leave a gap that no sender can fill.
        guard offset - received < ChunkSender.windowChunks * ChunkSender.chunkBytes,
            offset.isMultiple(of: ChunkSender.chunkBytes),
            payload.count
                == min(ChunkSender.chunkBytes, max(0, Int(clamping: header.total) - offset))
        else { return [] }
        guard XXH64.digest(payload.bytes) == header.digest else {
            asked.insert(offset)
            return [Self.answer(.again, offset)]
        }
        guard offset == received else {
            ahead[offset] = (header.digest, payload)
            return missing
        }
        try take(offset, payload.bytes, header.digest)
        received += payload.count
        while let next = ahead.removeValue(forKey: received) {
            try take(received, next.payload.bytes, next.digest)
            received += next.payload.count
        }
        asked = asked.filter { $0 >= received }
        return [Self.answer(.credit, received)] + (ahead.isEmpty ? [] : missing)
    }

    /// Asks for the next chunk, once.
    private var missing: [WireDataHeader] {
        mutating get { asked.insert(received).inserted ? [Self.answer(.again, received)] : [] }
    }

    private static func answer(_ kind: WireDataHeader.Kind, _ offset: Int) -> WireDataHeader {
        var header = WireDataHeader()
        header.kind = kind
        header.offset = UInt64(offset)
        return header
    }

    /// Takes a chunk that nobody needs for granted.
    public static func acknowledging(_ header: WireDataHeader, _ payload: Frame) -> WireDataHeader {
        let end = header.offset.addingReportingOverflow(UInt64(payload.count))
        return answer(.credit, Int(clamping: end.overflow ? .max : end.partialValue))
    }
}

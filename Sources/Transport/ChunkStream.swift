internal import Basics
public import Foundation
public import Protocol

/// Sends a long byte stream as chunks, no faster than the receiver takes them.
///
/// The receiver answers each chunk with one credit, so that its memory stays bounded and no
/// message is ever dropped at a queue limit.
public enum ChunkSender {
    /// Bytes in a chunk: the size at which ZeroMQ over TCP is fastest (docs/protocol.md).
    public static let chunkBytes = 256 << 10
    /// Chunks under way without a credit.
    public static let windowChunks = 32

    /// Sends the concatenation of `segments` and returns when the receiver has taken all of it.
    ///
    /// - Parameters:
    ///   - base: names the stream; offset, total and digest are set for each chunk.
    ///   - silence: how long the receiver may say nothing.
    ///   - isCancelled: asked between chunks.
    /// - Throws: ``TransportError`` when the receiver falls silent or the send is cancelled.
    public static func send(
        _ context: Context, to address: String, identity: String, base: WireDataHeader,
        segments: [UnsafeRawBufferPointer], silence: Duration = .seconds(20),
        isCancelled: () -> Bool = { false }
    ) throws(TransportError) {
        let socket = try Socket(
            context, .dealer, identity: identity, frameBytesMax: WireCodec.headerBytesMax)
        try socket.connect(address)
        let total = segments.reduce(0) { $0 + $1.count }
        let chunkCount = (total + chunkBytes - 1) / chunkBytes
        var cursor = SegmentCursor(segments)
        var sent = 0
        var credited = 0
        let clock = ContinuousClock()
        var heard = clock.now
        while credited < chunkCount {
            if isCancelled() {
                throw TransportError(.system, "sending to \(address) was cancelled")
            }
            if sent < chunkCount && sent - credited < windowChunks {
                let offset = sent * chunkBytes
                var ahead = cursor
                let isSent = socket.send(payloadBytes: min(chunkBytes, total - offset)) { bytes in
                    ahead.read(into: bytes)
                    var header = base
                    header.offset = UInt64(offset)
                    header.total = UInt64(total)
                    header.digest = XXH64.digest(UnsafeRawBufferPointer(bytes))
                    return WireCodec.encode(header)
                }
                if isSent {
                    cursor = ahead
                    sent += 1
                    continue
                }
            }
            Poller.wait([socket], timeout: .milliseconds(100))
            while let frames = socket.receive() {
                guard let first = frames.first,
                    let header = try? first.withUnsafeBytes({ try WireCodec.decodeHeader($0) })
                else { continue }
                heard = clock.now
                if header.kind == .credit {
                    credited += min(Int(clamping: header.length), sent - credited)
                }
                if header.kind == .fetchFailed {
                    let why = frames.last?.text ?? "no reason given"
                    throw TransportError(.system, "\(address) refused the data: \(why)")
                }
            }
            if clock.now - heard > silence {
                throw TransportError(
                    .system, "\(address) has taken nothing for \(silence.components.seconds) s")
            }
            if credited == sent { heard = max(heard, clock.now - silence / 2) }
        }
    }
}

/// Walks over segments in pieces that may span them.
private struct SegmentCursor {
    private let segments: [UnsafeRawBufferPointer]
    private var segment = 0
    private var offset = 0

    init(_ segments: [UnsafeRawBufferPointer]) { self.segments = segments }

    /// Fills a buffer with the next bytes; no more may be asked for than are left.
    mutating func read(into target: UnsafeMutableRawBufferPointer) {
        var done = 0
        while done < target.count {
            let current = segments[segment]
            let take = min(target.count - done, current.count - offset)
            UnsafeMutableRawBufferPointer(rebasing: target[done..<done + take]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: current[offset..<offset + take]))
            done += take
            offset += take
            if offset == current.count {
                segment += 1
                offset = 0
            }
        }
    }
}

/// Gets a stored file of a run from the coordinator, in pieces, several under way at once.
public enum FileFetcher {
    /// Bytes asked for at once.
    public static let pieceBytes = 1 << 20
    private static let window = 8

    /// Fetches a file of known size, or its beginning; the file's own digests say whether it is whole.
    ///
    /// - Parameters:
    ///   - file: path relative to the run's folder, as the coordinator named it.
    ///   - byteCount: the first bytes that are wanted, at most as many as the file has.
    /// - Throws: ``TransportError`` when nobody answers or the coordinator refuses.
    public static func fetch(
        _ context: Context, from address: String, run: UInt64, file: String,
        byteCount: Int, silence: Duration = .seconds(20), isCancelled: () -> Bool = { false }
    ) throws(TransportError) -> Data {
        guard byteCount >= 0, byteCount <= 1 << 40 else {
            throw TransportError(.system, "fetch \(file): \(byteCount) bytes are no checkpoint")
        }
        let socket = try Socket(context, .dealer, frameBytesMax: WireCodec.payloadBytesMax)
        try socket.connect(address)
        var data = Data(count: byteCount)
        let pieces = (byteCount + pieceBytes - 1) / pieceBytes
        var asked = 0
        var missing = Set(0..<pieces)
        let clock = ContinuousClock()
        var heard = clock.now
        while !missing.isEmpty {
            if isCancelled() { throw TransportError(.system, "fetching \(file) was cancelled") }
            while asked < pieces && asked - (pieces - missing.count) < window {
                var header = WireDataHeader()
                header.kind = .fetch
                header.run = run
                header.file = file
                header.offset = UInt64(asked * pieceBytes)
                header.length = UInt64(min(pieceBytes, byteCount - asked * pieceBytes))
                guard socket.send([WireCodec.encode(header), Data()]) else { break }
                asked += 1
            }
            Poller.wait([socket], timeout: .milliseconds(100))
            while let frames = socket.receive() {
                guard frames.count == 2,
                    let header = try? frames[0].withUnsafeBytes({ try WireCodec.decodeHeader($0) })
                else { continue }
                heard = clock.now
                if header.kind == .fetchFailed {
                    throw TransportError(
                        .system, "fetch \(file) from \(address): \(frames[1].text ?? "refused")")
                }
                let offset = Int(clamping: header.offset)
                guard header.kind == .fetched, offset % pieceBytes == 0, offset < byteCount,
                    frames[1].count == min(pieceBytes, byteCount - offset)
                else { continue }
                frames[1].withUnsafeBytes { bytes in
                    data.withUnsafeMutableBytes { target in
                        UnsafeMutableRawBufferPointer(
                            rebasing: target[offset..<offset + bytes.count]
                        ).copyMemory(from: bytes)
                    }
                }
                missing.remove(offset / pieceBytes)
            }
            if clock.now - heard > silence {
                throw TransportError(
                    .system,
                    "fetch \(file): \(address) has not answered for \(silence.components.seconds) s"
                )
            }
        }
        return data
    }
}

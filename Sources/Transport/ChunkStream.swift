internal import Basics
public import Foundation
public import Protocol

/// Sends a long byte stream as chunks, no faster than the receiver takes them.
///
/// The receiver, a ``ChunkOrder``, answers with how far it has come and with what did not arrive, so that
/// its memory stays bounded, no message is ever dropped at a queue limit, and a chunk that is damaged
/// costs one chunk.
public enum ChunkSender {
    /// Bytes in a chunk: the size at which ZeroMQ over TCP is fastest (docs/protocol.md).
    public static let chunkBytes = 256 << 10
    /// Chunks under way without a credit.
    public static let windowChunks = 32
    /// A receiver that has said nothing for so long may not have got the chunk that it needs next.
    private static let patience = Duration.seconds(1)
    /// How often one chunk is sent again before the link is given up.
    private static let repeatsMax = 16

    /// Sends the concatenation of `segments` and returns when the receiver has taken all of it.
    ///
    /// - Parameters:
    ///   - base: names the stream; offset, total and digest are set for each chunk.
    ///   - silence: how long the receiver may say nothing.
    ///   - isCancelled: asked between chunks.
    /// - Throws: ``TransportError`` when the receiver falls silent or refuses, a chunk is damaged again
    ///   and again, or the send is cancelled.
    public static func send(
        _ context: Context, to address: String, identity: String, base: WireDataHeader,
        segments: [UnsafeRawBufferPointer], silence: Duration = .seconds(20),
        isCancelled: () -> Bool = { false }
    ) throws(TransportError) {
        let socket = try Socket(
            context, .dealer, identity: identity, frameBytesMax: WireCodec.headerBytesMax)
        try socket.connect(address)
        let total = segments.reduce(0) { $0 + $1.count }
        let chunkCount = chunks(total)
        func transmit(_ place: Int) -> Bool {
            let offset = place * chunkBytes
            return socket.send(payloadBytes: min(chunkBytes, total - offset)) { bytes in
                read(segments, from: offset, into: bytes)
                var header = base
                header.offset = UInt64(offset)
                header.total = UInt64(total)
                header.digest = XXH64.digest(UnsafeRawBufferPointer(bytes))
                return WireCodec.encode(header)
            }
        }
        var sent = 0
        var credited = 0
        var troubled = (place: -1, repeats: 0)
        // What was sent again since nothing was heard.
        var probed: Int?
        let clock = ContinuousClock()
        var heard = clock.now
        var probedAt = clock.now
        while credited < chunkCount {
            if isCancelled() {
                throw TransportError(.system, "sending to \(address) was cancelled")
            }
            if sent < chunkCount, sent - credited < windowChunks, transmit(sent) {
                sent += 1
                continue
            }
            Poller.wait([socket], timeout: .milliseconds(100))
            while let frames = socket.receive() {
                guard let first = frames.first,
                    let header = try? first.withUnsafeBytes({ try WireCodec.decodeHeader($0) })
                else { continue }
                heard = clock.now
                switch header.kind {
                case .credit:
                    credited = max(credited, chunks(min(Int(clamping: header.offset), total)))
                    sent = max(sent, credited)
                    // All that was under way may be lost.
                    let isNext = probed.map { credited == $0 + 1 && credited < sent } ?? false
                    probed = isNext && transmit(credited) ? credited : nil
                case .again:
                    let place = Int(clamping: header.offset) / chunkBytes
                    troubled = (place, place == troubled.place ? troubled.repeats + 1 : 0)
                    guard troubled.repeats < repeatsMax else {
                        throw TransportError(
                            .system,
                            "byte \(header.offset) has not arrived whole at \(address) in "
                                + "\(repeatsMax) attempts; check the network between the two")
                    }
                    if place < sent { _ = transmit(place) }
                case .fetchFailed:
                    let why = frames.last?.text ?? "no reason given"
                    throw TransportError(.system, "\(address) refused the data: \(why)")
                default: continue
                }
            }
            if clock.now - heard > silence {
                throw TransportError(
                    .system, "\(address) has taken nothing for \(silence.components.seconds) s")
            }
            if credited == sent {
                heard = max(heard, clock.now - silence / 2)
            } else if clock.now - max(heard, probedAt) > patience, transmit(credited) {
                (probed, probedAt) = (credited, clock.now)
            }
        }
    }

    private static func chunks(_ bytes: Int) -> Int { (bytes + chunkBytes - 1) / chunkBytes }

    /// Fills a buffer with the bytes from an offset on, which may span segments.
    private static func read(
        _ segments: [UnsafeRawBufferPointer], from offset: Int,
        into target: UnsafeMutableRawBufferPointer
    ) {
        var skipped = 0
        var done = 0
        for segment in segments {
            let start = max(0, offset + done - skipped)
            skipped += segment.count
            guard start < segment.count else { continue }
            let piece = segment[start..<min(segment.count, start + target.count - done)]
            UnsafeMutableRawBufferPointer(rebasing: target[done..<done + piece.count]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: piece))
            done += piece.count
            if done == target.count { return }
        }
    }
}

/// Gets a stored file of a run from the coordinator, in pieces, several under way at once.
public enum FileFetcher {
    /// Bytes asked for at once.
    public static let pieceBytes = 1 << 20
    private static let window = 8
    /// How long nothing may come before a new connection asks for what is missing: at first, and at
    /// most, since a piece may take long on a narrow link.
    private static let patience: ClosedRange<Duration> = .seconds(1) ... .seconds(8)

    /// Fetches a file of known size, or its beginning; the file's own digests say whether it is whole.
    ///
    /// What is lost with a connection is asked for again; what has come stays.
    ///
    /// - Parameters:
    ///   - address: looked up for each connection: a coordinator that is started again may have another.
    ///   - file: path relative to the run's folder, as the coordinator named it.
    ///   - byteCount: the first bytes that are wanted, at most as many as the file has.
    ///   - silence: how long nothing at all may come; pauses of this process do not count.
    /// - Throws: ``TransportError`` with code `unanswered` when nobody answers, `system` when the
    ///   coordinator refuses or the fetch is cancelled.
    public static func fetch(
        _ context: Context, from address: @autoclosure () -> String, run: UInt64, file: String,
        byteCount: Int, silence: Duration = .seconds(20), isCancelled: () -> Bool = { false }
    ) throws(TransportError) -> Data {
        guard byteCount >= 0, byteCount <= 1 << 40 else {
            throw TransportError(.system, "fetch \(file): \(byteCount) bytes are no checkpoint")
        }
        func ask(_ piece: Int, _ socket: Socket) -> Bool {
            var header = WireDataHeader()
            header.kind = .fetch
            header.run = run
            header.file = file
            header.offset = UInt64(piece * pieceBytes)
            header.length = UInt64(min(pieceBytes, byteCount - piece * pieceBytes))
            return socket.send([WireCodec.encode(header), Data()])
        }
        var data = Data(count: byteCount)
        var missing = Set(0..<(byteCount + pieceBytes - 1) / pieceBytes)
        let clock = ContinuousClock()
        var lookedAt = clock.now
        // How long nothing has come, in all and over this connection.
        var (silent, waited) = (Duration.zero, Duration.zero)
        var patience = patience.lowerBound
        while !missing.isEmpty {
            let address = address()
            let socket = try Socket(context, .dealer, frameBytesMax: WireCodec.payloadBytesMax)
            try socket.connect(address)
            let wanted = missing.sorted()
            var (asked, answered) = (0, 0)
            waited = .zero
            while !missing.isEmpty, waited < patience {
                if isCancelled() { throw TransportError(.system, "fetching \(file) was cancelled") }
                while asked < wanted.count, asked - answered < window, ask(wanted[asked], socket) {
                    asked += 1
                }
                Poller.wait([socket], timeout: .milliseconds(100))
                let passed = min(clock.now - lookedAt, .milliseconds(250))
                lookedAt = clock.now
                silent += passed
                waited += passed
                while let frames = socket.receive() {
                    guard frames.count == 2,
                        let header = try? frames[0].withUnsafeBytes({
                            try WireCodec.decodeHeader($0)
                        })
                    else { continue }
                    if header.kind == .fetchFailed {
                        throw TransportError(
                            .system,
                            "fetch \(file) from \(address): \(frames[1].text ?? "refused")")
                    }
                    let offset = Int(clamping: header.offset)
                    guard header.kind == .fetched, offset % pieceBytes == 0, offset < byteCount,
                        frames[1].count == min(pieceBytes, byteCount - offset)
                    else { continue }
                    guard XXH64.digest(frames[1].bytes) == header.digest else {
                        _ = ask(offset / pieceBytes, socket)
                        continue
                    }
                    guard missing.remove(offset / pieceBytes) != nil else { continue }
                    frames[1].withUnsafeBytes { bytes in
                        data.withUnsafeMutableBytes { target in
                            UnsafeMutableRawBufferPointer(
                                rebasing: target[offset..<offset + bytes.count]
                            ).copyMemory(from: bytes)
                        }
                    }
                    answered += 1
                    (silent, waited) = (.zero, .zero)
                }
            }
            guard missing.isEmpty || silent <= silence else {
                throw TransportError(
                    .unanswered,
                    "fetch \(file): \(address) has not answered for "
                        + "\(silence.components.seconds) s")
            }
            patience = min(patience * 2, Self.patience.upperBound)
        }
        return data
    }
}

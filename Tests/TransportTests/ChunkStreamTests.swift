import Basics
import FaultRig
import Foundation
import Protocol
import Synchronization
import Testing
import Transport

/// Long streams over links that damage, cut and lose them.
@Suite struct ChunkStreamTests {
    /// Takes streams in.
    private final class Receiver {
        let socket: Socket
        let address: String
        private(set) var bytes: [UInt8] = []
        /// Chunks that came, also damaged ones and those that were there.
        private(set) var chunks = 0
        private var order = ChunkOrder()

        init() throws {
            socket = try Socket(Context(), .router, frameBytesMax: WireCodec.payloadBytesMax)
            address = try socket.bind("tcp://127.0.0.1:*")
        }

        var port: UInt16 { UInt16(address.split(separator: ":").last!)! }

        /// Takes what comes until `count` bytes are there and `isOver`, or nothing has come for so long.
        func take(
            _ count: Int, seconds: Double = 10, until isOver: () -> Bool = { true }
        ) throws {
            var deadline = ContinuousClock.now + .seconds(seconds)
            while bytes.count < count || !isOver(), ContinuousClock.now < deadline {
                Poller.wait([socket], timeout: .milliseconds(50))
                while bytes.count < count || !isOver(), let frames = socket.receive() {
                    guard frames.count == 3,
                        let header = try? frames[1].withUnsafeBytes({
                            try WireCodec.decodeHeader($0)
                        })
                    else { continue }
                    chunks += 1
                    deadline = ContinuousClock.now + .seconds(seconds)
                    let answers = order.add(header, frames[2]) { offset, piece, _ in
                        #expect(offset == bytes.count)
                        bytes += piece
                    }
                    for answer in answers {
                        socket.send([WireCodec.encode(answer)], to: frames[0].data)
                    }
                }
            }
        }
    }

    /// A stream on its way, on a thread of its own.
    private final class Sender: Sendable {
        private let isCancelled = Mutex(false)
        private let failure = Mutex<String?>(nil)
        private let end = DispatchSemaphore(value: 0)
        private let hasEnded = Mutex(false)

        init(_ bytes: [UInt8], to address: String, identity: String) {
            Thread.detachNewThread { [self] in
                defer {
                    hasEnded.withLock { $0 = true }
                    end.signal()
                }
                do {
                    try bytes.withUnsafeBytes { bytes in
                        var header = WireDataHeader()
                        header.kind = .state
                        try ChunkSender.send(
                            Context(), to: address, identity: identity, base: header,
                            segments: [
                                UnsafeRawBufferPointer(rebasing: bytes[..<100_001]),
                                UnsafeRawBufferPointer(rebasing: bytes[100_001...]),
                            ], isCancelled: { isCancelled.withLock { $0 } })
                    }
                } catch {
                    failure.withLock { $0 = "\(error)" }
                }
            }
        }

        func cancel() { isCancelled.withLock { $0 = true } }

        var isOver: Bool { hasEnded.withLock { $0 } }

        /// Why the stream broke off, nil where all has arrived.
        func outcome() -> String? {
            end.wait()
            return failure.withLock { $0 }
        }
    }

    private static let chunkCount = 64
    private static let stream = (0..<chunkCount * ChunkSender.chunkBytes - 77).map {
        UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13)
    }
    private let bytes = ChunkStreamTests.stream

    @Test func aFlippedBitCostsOneChunk() throws {
        let receiver = try Receiver()
        let proxy = ChaosProxy(seed: 5)
        let link = try proxy.open(to: receiver.port)
        proxy.set(.init(bytesPerFlip: bytes.count / 10), on: link)
        let sender = Sender(bytes, to: "tcp://127.0.0.1:\(link.port)", identity: "a")
        try receiver.take(bytes.count)
        #expect(receiver.bytes == bytes)
        #expect(sender.outcome() == nil)
        let counts = proxy.counts
        print("\(counts.flippedBits) flips, \(counts.bytes) bytes for \(bytes.count)")
        #expect(counts.flippedBits >= 3)
        #expect(receiver.chunks > Self.chunkCount && counts.bytes < bytes.count * 3 / 2)
    }

    @Test func aStreamGoesOnWhereItsConnectionWasCut() throws {
        let receiver = try Receiver()
        let proxy = ChaosProxy(seed: 6)
        let link = try proxy.open(to: receiver.port)
        let sender = Sender(bytes, to: "tcp://127.0.0.1:\(link.port)", identity: "a")
        for part in 1...3 {
            try receiver.take(bytes.count * part / 5)
            proxy.strike(.cut(afterBytes: 1_000_000), on: link)
        }
        try receiver.take(bytes.count)
        #expect(receiver.bytes == bytes)
        #expect(sender.outcome() == nil)
        #expect(proxy.counts.cuts >= 1)
    }

    @Test func aSecondStreamGoesOnWhereTheFirstEnded() throws {
        let receiver = try Receiver()
        let first = Sender(bytes, to: receiver.address, identity: "a-send-1")
        try receiver.take(bytes.count / 2)
        first.cancel()
        #expect(first.outcome()?.contains("cancelled") == true)
        let second = Sender(bytes, to: receiver.address, identity: "a-send-2")
        // What the first had under way may be the end, and the second waits for its answers all the same.
        try receiver.take(bytes.count, until: { second.isOver })
        #expect(second.outcome() == nil)
        #expect(receiver.bytes == bytes)
        // The second begins with a window that is there already.
        #expect(receiver.chunks <= Self.chunkCount + 2 * ChunkSender.windowChunks)
    }

    @Test func whatIsDamagedAgainAndAgainIsGivenUp() throws {
        let socket = try Socket(Context(), .router, frameBytesMax: WireCodec.payloadBytesMax)
        let address = try socket.bind("tcp://127.0.0.1:*")
        let sender = Sender(bytes, to: address, identity: "a")
        var order = ChunkOrder()
        let over = Mutex<String?>(nil)
        Thread.detachNewThread {
            let outcome = sender.outcome() ?? "no failure"
            over.withLock { $0 = outcome }
        }
        let deadline = ContinuousClock.now + .seconds(10)
        while over.withLock({ $0 }) == nil, ContinuousClock.now < deadline {
            Poller.wait([socket], timeout: .milliseconds(50))
            while let frames = socket.receive() {
                var header = try frames[1].withUnsafeBytes { try WireCodec.decodeHeader($0) }
                if header.offset == UInt64(3 * ChunkSender.chunkBytes) { header.digest ^= 1 }
                for answer in order.add(header, frames[2], take: { _, _, _ in }) {
                    socket.send([WireCodec.encode(answer)], to: frames[0].data)
                }
            }
        }
        #expect(over.withLock { $0 }?.contains("byte 786432 has not arrived whole") == true)
        #expect(order.received == 3 * ChunkSender.chunkBytes)
    }

    /// A piece of another length would leave a place that no sender begins a chunk at.
    @Test func whatIsNoWholeChunkIsNotTaken() throws {
        let link = Context()
        let socket = try Socket(link, .router, frameBytesMax: WireCodec.payloadBytesMax)
        let address = try socket.bind("tcp://127.0.0.1:*")
        let sender = try Socket(link, .dealer, frameBytesMax: WireCodec.headerBytesMax)
        try sender.connect(address)
        let total = 2 * ChunkSender.chunkBytes + 5
        var order = ChunkOrder()
        func add(_ offset: Int, count: Int) throws -> [WireDataHeader] {
            var header = WireDataHeader()
            header.offset = UInt64(offset)
            header.total = UInt64(total)
            let payload = Data(count: count)
            header.digest = payload.withUnsafeBytes { XXH64.digest($0) }
            sender.send([WireCodec.encode(header), payload])
            let deadline = ContinuousClock.now + .seconds(10)
            while ContinuousClock.now < deadline {
                if let frames = socket.receive() {
                    return order.add(header, frames[2], take: { _, _, _ in })
                }
                Poller.wait([socket], timeout: .milliseconds(50))
            }
            throw CancellationError()
        }
        #expect(try add(0, count: 100).isEmpty)
        #expect(try add(100, count: ChunkSender.chunkBytes).isEmpty)
        #expect(try add(2 * ChunkSender.chunkBytes, count: 6).isEmpty)
        #expect(order.received == 0)
        #expect(try add(0, count: ChunkSender.chunkBytes).map(\.kind) == [.credit])
        #expect(try add(2 * ChunkSender.chunkBytes, count: 5).map(\.kind) == [.again])
        #expect(try add(ChunkSender.chunkBytes, count: ChunkSender.chunkBytes).count == 1)
        #expect(order.received == total)
    }

    @Test func aFetchedPieceThatIsDamagedIsAskedForAlone() throws {
        let socket = try Socket(Context(), .router, frameBytesMax: WireCodec.headerBytesMax)
        let address = try socket.bind("tcp://127.0.0.1:*")
        let fetched = Mutex<Data?>(nil)
        let count = bytes.count
        Thread.detachNewThread {
            let data = try? FileFetcher.fetch(
                Context(), from: address, run: 1, file: "f", byteCount: count)
            fetched.withLock { $0 = data ?? Data() }
        }
        var asked: [UInt64: Int] = [:]
        let deadline = ContinuousClock.now + .seconds(10)
        while fetched.withLock({ $0 }) == nil, ContinuousClock.now < deadline {
            Poller.wait([socket], timeout: .milliseconds(50))
            while let frames = socket.receive() {
                var header = try frames[1].withUnsafeBytes { try WireCodec.decodeHeader($0) }
                asked[header.offset, default: 0] += 1
                let piece = bytes[Int(header.offset)..<Int(header.offset + header.length)]
                var data = Data(piece)
                header.kind = .fetched
                header.digest = data.withUnsafeBytes { XXH64.digest($0) }
                if header.offset == 5 << 20, asked[header.offset] == 1 { data[7] ^= 4 }
                socket.send([WireCodec.encode(header), data], to: frames[0].data)
            }
        }
        #expect(fetched.withLock { $0 } == Data(bytes))
        #expect(asked.filter { $0.value > 1 } == [5 << 20: 2])
        #expect(asked.count == (count + FileFetcher.pieceBytes - 1) / FileFetcher.pieceBytes)
    }
}

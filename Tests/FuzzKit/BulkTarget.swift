import Basics
import ClusterCore
import Coordinator
import Foundation
import Protocol
import Storage
import Synchronization
import Transport

/// The coordinator's channel for files, on a real socket, among peers that send it anything; a checkpoint
/// whose turn it is must be stored all the same.
struct BulkTarget: FuzzTarget {
    static let name = "bulk"
    static let share = 20
    static let episodeFrames = 40

    private static let run: UInt64 = 9
    private static let senders = ["t0", "t1"]

    let reached = Tally()
    private let channel: Channel

    init() throws { channel = try Channel() }

    /// The channel of a run in a folder of its own.
    private final class Channel {
        let folder: String
        let server: BulkServer
        private let stored = Stored()

        private final class Stored: Sendable {
            let digests = Mutex<[Int: UInt64]>([:])
            let refused = Mutex<Set<Int>>([])
        }

        init() throws {
            folder = NSTemporaryDirectory() + "lineup-fuzz-\(UInt64.random(in: .min ... .max))"
            let stored = stored
            server = try BulkServer(
                Context(), bind: "tcp://127.0.0.1:*", advertised: nil, host: "127.0.0.1",
                run: BulkTarget.run,
                folder: try RunFolder(
                    path: folder, intent: .startOrResume, overrides: ["data.root=/nowhere"]),
                admission: nil, refusals: Refusals(label: "fuzz"),
                report: { event in
                    switch event {
                    case .stored(let checkpoint, _):
                        stored.digests.withLock { $0[checkpoint.step] = checkpoint.digest }
                    case .refused(let step, _): _ = stored.refused.withLock { $0.insert(step) }
                    default: break
                    }
                })
        }

        deinit {
            server.stop()
            try? FileManager.default.removeItem(atPath: folder)
        }

        /// Digest of the state that was stored for a step since the last call.
        func taken(_ step: Int) -> UInt64? {
            stored.digests.withLock { $0.removeValue(forKey: step) }
        }

        /// Whether what came for a step since the last call was another state.
        func hasRefused(_ step: Int) -> Bool {
            stored.refused.withLock { $0.remove(step) != nil }
        }
    }

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let step = 1 + random.below(1 << 20)
        // Two chunks, of which the second is short.
        let values = (0..<70_000).map { Float($0 % 977 + step) }
        try values.withUnsafeBytes { bytes in
            let file = try SerialisedCheckpoint(
                [CheckpointTensor(name: "network/w", shape: [values.count], bytes: bytes)],
                metadata: CheckpointMetadata(
                    step: step, settingsDigest: 1, datasetDigest: 2, numericsClass: "c",
                    history: 3))
            let whole = Data(file.header) + Data(bytes)
            channel.server.expect(
                AwaitedCheckpoint(
                    step: step, isRecovery: false, senders: Self.senders,
                    state: .agreed(file.digests.state)), barred: [])
            let hostile = try Socket(Context(), .dealer, frameBytesMax: WireCodec.payloadBytesMax)
            try hostile.connect(channel.server.address)
            for _ in 0..<frames {
                let message = message(&random, step: step, whole)
                log.feed(message.joined())
                hostile.send(message)
            }
            try awaitAnswer(hostile)
            try send(whole, step: step)
            try FileManager.default.removeItem(
                atPath: channel.folder + "/checkpoints/" + CheckpointStore.fileName(step: step))
        }
    }

    /// A piece of the checkpoint or a request, with something wrong about it.
    private func message(
        _ random: inout FuzzRandom, step: Int, _ whole: Data
    ) -> [Data] {
        let chunk = ChunkSender.chunkBytes
        let offset = random.chance(700) ? 0 : chunk
        var payload = whole[offset..<min(whole.count, offset + chunk)]
        if random.chance(500) {
            payload = Data(
                Mutator.mutate(Array(payload), .bytes, others: [], using: &random))
        }
        var header = WireDataHeader()
        header.kind = random.chance(700) ? .checkpoint : random.pick([.fetch, .credit, .partial])
        header.run = Self.run
        header.step = random.chance(900) ? UInt64(step) : random.number()
        header.worker = random.pick(Self.senders + ["t9"])
        header.recovery = random.chance(50)
        header.offset = random.chance(900) ? UInt64(offset) : random.number()
        header.total = random.chance(800) ? UInt64(whole.count) : random.number()
        header.digest = payload.withUnsafeBytes { XXH64.digest($0) } ^ (random.chance(100) ? 1 : 0)
        if header.kind == .fetch {
            header.file = random.pick([
                "checkpoints/../settings.json", "checkpoints/\(CheckpointStore.fileName(step: 3))",
                "/etc/passwd", "checkpoints/recovery/../../lineup.sqlite", "",
            ])
            header.length = random.number()
        }
        var encoded = WireCodec.encode(header)
        if random.chance(200) {
            encoded = Data(
                Mutator.mutate(Array(encoded), .protobuf, others: [], using: &random))
        }
        switch random.below(30) {
        case 0: return [encoded]
        case 1: return [encoded, payload, payload]
        default: return [encoded, payload]
        }
    }

    /// Returns when everything that was sent before has been looked at.
    private func awaitAnswer(_ socket: Socket) throws {
        var last = WireDataHeader()
        last.kind = .fetch
        last.run = Self.run
        last.file = "the last one"
        socket.send([WireCodec.encode(last), Data()])
        let deadline = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < deadline {
            Poller.wait([socket], timeout: .milliseconds(50))
            while let frames = socket.receive() {
                guard let first = frames.first,
                    let header = try? first.withUnsafeBytes({ try WireCodec.decodeHeader($0) })
                else { continue }
                guard header.kind != .fetched else {
                    throw FuzzFailure("the channel gave out '\(header.file)'")
                }
                if header.kind == .fetchFailed, header.file == last.file { return }
                reached.count("\(header.kind)")
            }
        }
        throw FuzzFailure("the channel answers no more")
    }

    /// Brings the checkpoint as a trainer does; what others began may spoil it once.
    private func send(_ whole: Data, step: Int) throws {
        var base = WireDataHeader()
        base.kind = .checkpoint
        base.run = Self.run
        base.step = UInt64(step)
        base.worker = Self.senders[0]
        var failure = "nothing was stored"
        for _ in 0..<2 {
            _ = channel.hasRefused(step)
            do {
                try whole.withUnsafeBytes { bytes in
                    try ChunkSender.send(
                        Context(), to: channel.server.address, identity: "", base: base,
                        segments: [bytes])
                }
            } catch {
                reached.count("sent again")
                failure = "\(error)"
                continue
            }
            let deadline = ContinuousClock.now + .seconds(20)
            while ContinuousClock.now < deadline {
                if let digest = channel.taken(step) { return try check(digest, whole) }
                if channel.hasRefused(step) {
                    reached.count("refused")
                    break
                }
                usleep(2_000)
            }
        }
        throw FuzzFailure("a checkpoint that was awaited is not stored: \(failure)")
    }

    private func check(_ digest: UInt64, _ whole: Data) throws {
        let reader = try CheckpointReader(path: "sent", files: MemoryDisk(["sent": Array(whole)]))
        guard reader.digests.state == digest else {
            throw FuzzFailure("another checkpoint was stored than was sent")
        }
        reached.count("stored")
    }
}

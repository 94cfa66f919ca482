public import Basics
internal import Foundation
internal import Logging
public import Protocol
public import Transport

/// Carries blocks to other trainers: through memory on one machine, over sockets elsewhere.
///
/// A message always goes over ZeroMQ; on one machine it says where the block lies instead of holding
/// it, and the receiver copies it. Over a network ZeroMQ sends it from where it lies. What was copied
/// has the block's digest or is not used, so that a sender who goes on is as harmless as a bit that
/// flips: the block is missing, and is asked for like everything that is.
public final class BlockCarrier {
    private struct Peer {
        let addresses: String
        let socket: Socket
        /// What can be read of it, and it of this process; nil over a network.
        let memory: PeerMemory?
        var isBroken = false
        /// When it was last reported as there again.
        var reportedAt: ContinuousClock.Instant?
        /// The last step in which it was told where blocks lie.
        var referredAt = 0
        /// Up to this step it gets blocks themselves.
        var copiesUntil = 0
    }

    /// What a block belongs to.
    public struct Stamp {
        let run: UInt64
        let fold: Int

        /// Names the run and how often its step was folded before.
        public init(run: UInt64, fold: Int) {
            self.run = run
            self.fold = fold
        }
    }

    private let context: Context
    private let me: String
    private let logger = Logger(label: "lineup.exchange")
    private var peers: [String: Peer] = [:]
    private let probe = SharedMemory(byteCount: 1)
    /// Whether peers were told of the probe, and so may read.
    private var isNear = false
    private var copies = false
    private var lookedAt: ContinuousClock.Instant?
    /// Trainers turn their loop for every few messages; connections break rarely.
    private static let lookInterval = Duration.milliseconds(20)
    /// Whoever asks for what lies in memory may be unable to read it, and gets blocks for so many steps.
    private static let copySteps = 100

    /// Knows nobody yet.
    public init(_ context: Context, me: String) {
        self.context = context
        self.me = me
    }

    /// The addresses of this trainer's data socket, with what its neighbours need beside them.
    public func addresses(_ bound: String) -> String {
        guard let probe, let near = Address.adding(probe.name, to: bound) else { return bound }
        isNear = true
        return near
    }

    /// One DEALER to each peer's data socket; those who are not named are let go.
    public func connect(_ members: [WireMember]) throws(TransportError) {
        let wanted = members.filter { $0.worker != me }
        for (name, peer) in peers
        where !wanted.contains(where: { $0.worker == name && $0.dataAddress == peer.addresses }) {
            peers[name] = nil
        }
        for member in wanted where peers[member.worker] == nil {
            let socket = try Socket(
                context, .dealer, identity: me, frameBytesMax: WireCodec.headerBytesMax)
            do throws(TransportError) {
                try socket.watchConnections()
                try socket.connect(member.dataAddress)
            } catch {
                // That peer alone is unreachable; the coordinator sees that it gets nothing.
                logger.warning("a trainer names no usable address", metadata: ["why": "\(error)"])
                continue
            }
            peers[member.worker] = Peer(
                addresses: member.dataAddress, socket: socket,
                memory: isNear
                    ? Address.memory(in: member.dataAddress).flatMap { PeerMemory($0) } : nil)
        }
    }

    /// Peers whose connection has broken and is there again since the last call.
    ///
    /// What was under way is lost. Each peer is named at most once a second.
    public func reconnected() -> [String] {
        let now = ContinuousClock.now
        if let lookedAt, now - lookedAt < Self.lookInterval { return [] }
        lookedAt = now
        var found: [String] = []
        for (name, peer) in peers {
            for event in peer.socket.connectionEvents() {
                switch event {
                case .closed: peers[name]!.isBroken = true
                case .opened where peers[name]!.isBroken:
                    peers[name]!.isBroken = false
                    if let last = peer.reportedAt, now - last < .seconds(1) { continue }
                    peers[name]!.reportedAt = now
                    found.append(name)
                case .opened, .failed: break
                }
            }
        }
        return found.sorted()
    }

    /// A peer asks for blocks of a step.
    public func noteWant(from name: String, step: Int) {
        guard let peer = peers[name], peer.referredAt == step else { return }
        peers[name]!.copiesUntil = step + Self.copySteps
    }

    /// Sends copies of blocks while `body` runs, to whoever has asked for what it lacks.
    public func copying<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        copies = true
        defer { copies = false }
        try body()
    }

    // MARK: Out

    /// Sends a run's partial sum of a block.
    public func sendPartial(
        _ run: SlotRun, block: Int, of buffers: StepBuffers, _ stamp: Stamp, to name: String
    ) throws {
        guard peers[name] != nil else { return }
        var header = header(.partial, block: block, buffers, stamp)
        header.low = UInt32(run.low)
        header.high = UInt32(run.high)
        send(
            header, try buffers.outgoing(run, block: block, isChecked: copies), to: name,
            copied: copies)
    }

    /// Sends a finished block.
    ///
    /// - Parameter keeps: whether the peer may look at it only when this trainer has gone on.
    public func sendResult(
        _ block: Int, of buffers: StepBuffers, _ stamp: Stamp, to name: String, keeps: Bool
    ) {
        guard peers[name] != nil else { return }
        let header = header(.result, block: block, buffers, stamp)
        send(header, buffers.finished(block), to: name, copied: copies || keeps)
    }

    /// Sends the embeddings of a slot that was computed here.
    public func sendEmbeddings(
        ofSlot slot: Int, of buffers: StepBuffers, _ stamp: Stamp, to name: String
    ) throws {
        guard peers[name] != nil,
            let block = try buffers.outgoingEmbeddings(of: slot, isChecked: copies)
        else { return }
        var header = header(.embeddings, block: 0, buffers, stamp)
        header.low = UInt32(slot)
        header.high = UInt32(slot + 1)
        send(header, block, to: name, copied: copies)
    }

    /// - Parameter copied: whether the block goes out as it is now, or as it is when it is read or has
    ///   its turn on the network; that is the same while the step is not over.
    private func send(
        _ header: WireDataHeader, _ block: OutgoingBlock, to name: String, copied: Bool
    ) {
        guard let peer = peers[name] else { return }
        let step = Int(clamping: header.step)
        var header = header
        header.digest = block.digest
        if copied {
            peer.socket.send(payloadBytes: block.bytes.count) {
                $0.copyMemory(from: block.bytes)
                return WireCodec.encode(header)
            }
        } else if let memory = block.memory, peer.memory != nil, step > peer.copiesUntil {
            peers[name]!.referredAt = step
            header.memoryDescriptor = UInt32(memory.name.descriptor)
            header.memoryNonce = memory.name.nonce
            header.offset = UInt64(block.bytes.baseAddress! - UnsafeRawPointer(memory.base))
            peer.socket.send([WireCodec.encode(header), Data()])
        } else {
            peer.socket.send(WireCodec.encode(header), payload: block.bytes, of: block.owner)
        }
    }

    /// Asks a peer for blocks, or for embeddings of slots.
    public func sendWant(
        _ kind: WireDataHeader.Kind, _ blocks: [Int], of buffers: StepBuffers, _ stamp: Stamp,
        to name: String
    ) {
        guard let peer = peers[name] else { return }
        var payload = Data()
        for block in blocks {
            withUnsafeBytes(of: UInt32(block).littleEndian) { payload.append(contentsOf: $0) }
        }
        var header = header(kind, block: 0, buffers, stamp)
        header.digest = payload.withUnsafeBytes { XXH64.digest($0) }
        peer.socket.send([WireCodec.encode(header), payload])
    }

    private func header(
        _ kind: WireDataHeader.Kind, block: Int, _ buffers: StepBuffers, _ stamp: Stamp
    ) -> WireDataHeader {
        var header = WireDataHeader()
        header.kind = kind
        header.run = stamp.run
        header.history = buffers.history
        header.step = UInt64(buffers.step)
        header.fold = UInt32(stamp.fold)
        header.block = UInt32(block)
        return header
    }

    // MARK: In

    /// The payload of a block that came; nil where it has not the bytes of the block, or none that can
    /// be read.
    public func payload(
        _ header: WireDataHeader, _ frame: Frame, from name: String, byteCount: Int
    ) -> BlockPayload? {
        guard header.memoryNonce != 0 else {
            return frame.count == byteCount ? .frame(frame) : nil
        }
        guard frame.count == 0, let descriptor = Int32(exactly: header.memoryDescriptor) else {
            return nil
        }
        return peers[name]?.memory?.bytes(
            descriptor: descriptor, nonce: header.memoryNonce, offset: header.offset,
            count: byteCount
        ).map { .memory($0) }
    }

    /// Blocks that a request names; nil for what is no request.
    public static func blocks(
        wantedBy header: WireDataHeader, _ frame: Frame, blockCount: Int
    ) -> [Int]? {
        let bytes = frame.bytes
        guard bytes.count.isMultiple(of: 4), bytes.count / 4 <= blockCount,
            XXH64.digest(bytes) == header.digest
        else { return nil }
        return stride(from: 0, to: bytes.count, by: 4).map {
            Int(UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self)))
        }
    }
}

internal import Basics
internal import ClusterCore
internal import Foundation
internal import Logging
internal import Protocol
internal import Storage
internal import Synchronization
internal import Transport

/// The coordinator's data channel on a thread of its own: takes checkpoints in, gives files out.
///
/// Control messages never wait for bulk data, nor the training for a disk.
final class BulkServer: Sendable {
    /// What the coordinator has to know.
    enum Event: Sendable {
        case stored(DurableCheckpoint, StoredCheckpoint)
        case failed(step: Int, reason: String)
        /// A piece of a checkpoint has come; said once a second.
        case piece(step: Int)
    }

    private struct Key: Hashable {
        let step: Int
        let recovery: Bool
    }

    /// All addresses, separated by spaces.
    let address: String
    private let run: UInt64
    private let folder: RunFolder
    private let report: @Sendable (Event) -> Void
    private let isStopping = Mutex(false)
    private let awaited = Mutex<Key?>(nil)
    private let wakeup = Wakeup()
    private let clock = ContinuousClock()
    private let logger = Logger(label: "lineup.bulk")
    /// Nil where the cluster has no keys.
    private let admission: Admission?
    private let refusals: Refusals
    private static let fileBytesMax = 1 << 50
    private static let receiversMax = 4

    /// Binds the channel and starts its thread.
    init(
        _ context: Context, bind: String, advertised: String?, host: String, run: UInt64,
        folder: RunFolder, admission: Admission?, refusals: Refusals,
        report: @escaping @Sendable (Event) -> Void
    ) throws {
        self.run = run
        self.folder = folder
        self.admission = admission
        self.refusals = refusals
        self.report = report
        let bound = Mutex<Result<String, TransportError>?>(nil)
        let ready = DispatchSemaphore(value: 0)
        let box = ServerBox()
        Thread.detachNewThread {
            do throws(TransportError) {
                // Answers to the chunks and pieces that one peer may have under way.
                let socket = try Socket(
                    context, .server, frameBytesMax: WireCodec.payloadBytesMax,
                    receiveQueueMax: 64, sendQueueMax: 64)
                let address = try socket.bindForData(
                    bind, host: host, advertised: advertised)
                bound.withLock { $0 = .success(address) }
                ready.signal()
                box.wait()?.serve(socket)
            } catch {
                bound.withLock { $0 = .failure(error) }
                ready.signal()
            }
        }
        ready.wait()
        address = try bound.withLock { try $0!.get() }
        box.set(self)
    }

    /// Takes this checkpoint from now on, beside those that are on their way; nil takes no other.
    func expect(_ checkpoint: (step: Int, isRecovery: Bool)?) {
        awaited.withLock {
            $0 = checkpoint.map { Key(step: $0.step, recovery: $0.isRecovery) }
        }
    }

    /// Ends the thread.
    func stop() {
        isStopping.withLock { $0 = true }
        wakeup.signal()
    }

    private func serve(_ socket: Socket) {
        var receivers: [Key: CheckpointReceiver] = [:]
        var nextPieceReport = clock.now
        while !isStopping.withLock({ $0 }) {
            Poller.wait([socket], wakeup: wakeup, timeout: .milliseconds(500))
            while let frames = socket.receive() {
                guard frames.count == 3,
                    let header = try? frames[1].withUnsafeBytes({ bytes throws(ProtocolError) in
                        try WireCodec.decodeHeader(bytes)
                    }), header.run == run
                else {
                    refusals.note("what is no message")
                    continue
                }
                guard isAllowed(header.kind, frames[1]) else {
                    refusals.note(
                        "a bulk message that its key's role does not send",
                        frames[1].key?.hex ?? "no key")
                    continue
                }
                let peer = frames[0].data
                switch header.kind {
                case .fetch: answer(header, to: peer, on: socket)
                case .checkpoint:
                    take(
                        header, frames[2], from: peer, on: socket, &receivers, &nextPieceReport)
                default: continue
                }
            }
        }
    }

    /// Trainers bring checkpoints, and trainers and evaluators fetch them.
    private func isAllowed(_ kind: WireDataHeader.Kind, _ frame: Frame) -> Bool {
        guard let admission else { return true }
        guard let key = frame.key, let roles = admission.entry(for: key)?.roles else {
            return false
        }
        return roles.contains(.trainer) || kind == .fetch && roles.contains(.evaluator)
    }

    private func take(
        _ header: WireDataHeader, _ payload: Frame, from peer: Data, on socket: Socket,
        _ receivers: inout [Key: CheckpointReceiver],
        _ nextPieceReport: inout ContinuousClock.Instant
    ) {
        let key = Key(step: Int(clamping: header.step), recovery: header.recovery)
        do throws(StorageError) {
            let receiver: CheckpointReceiver
            if let known = receivers[key] {
                guard Int(clamping: header.total) == known.byteCount else {
                    throw StorageError(
                        .invalidValue,
                        "the state of step \(key.step) is \(header.total) bytes long at \(header.worker), "
                            + "\(known.byteCount) at who sent its beginning")
                }
                receiver = known
            } else if header.offset == 0, awaited.withLock({ $0 }) == key {
                // One checkpoint is under way at a time; a few more are those of lost senders.
                if receivers.count >= Self.receiversMax,
                    let oldest = receivers.keys.min(by: { $0.step < $1.step })
                {
                    receivers.removeValue(forKey: oldest)?.abandon()
                }
                let directory = key.recovery ? folder.recovery : folder.checkpoints
                receiver = try CheckpointReceiver(
                    store: CheckpointStore(directory: directory), step: key.step,
                    byteCount: Int(clamping: header.total))
                receivers[key] = receiver
            } else {
                // Nobody asked for it, or it is there already, and a second holder sends it again.
                credit(peer, on: socket)
                return
            }
            try payload.withUnsafeBytes { bytes throws(StorageError) in
                try receiver.append(bytes, at: Int(clamping: header.offset), digest: header.digest)
            }
            credit(peer, on: socket)
            guard receiver.received == receiver.byteCount else {
                if clock.now >= nextPieceReport {
                    nextPieceReport = clock.now + .seconds(1)
                    report(.piece(step: key.step))
                }
                return
            }
            receivers[key] = nil
            let stored = try receiver.finish()
            report(.stored(DurableCheckpoint(stored, isRecovery: key.recovery), stored))
        } catch {
            receivers[key]?.abandon()
            receivers[key] = nil
            var refusal = WireDataHeader()
            refusal.kind = .fetchFailed
            socket.send([WireCodec.encode(refusal), Data(error.message.utf8)], to: peer)
            // What is wrong with the bytes is the sender's matter: it or another holder sends again.
            guard [.io, .diskFull, .conflict].contains(error.code) else { return }
            report(.failed(step: key.step, reason: error.message))
        }
    }

    private func credit(_ peer: Data, on socket: Socket) {
        var header = WireDataHeader()
        header.kind = .credit
        header.length = 1
        socket.send([WireCodec.encode(header)], to: peer)
    }

    private func answer(_ request: WireDataHeader, to peer: Data, on socket: Socket) {
        var header = request
        do {
            let bytes = try piece(request)
            header.kind = .fetched
            socket.send([WireCodec.encode(header), bytes], to: peer)
        } catch {
            header.kind = .fetchFailed
            socket.send([WireCodec.encode(header), Data("\(error)".utf8)], to: peer)
        }
    }

    private func piece(_ request: WireDataHeader) throws -> Data {
        // Only checkpoints leave this folder, whatever a peer asks for.
        let parts = request.file.split(separator: "/", omittingEmptySubsequences: false)
        let isCheckpoint =
            (2...3).contains(parts.count) && parts[0] == "checkpoints"
            && (parts.count == 2 || parts[1] == "recovery")
            && CheckpointStore.step(fileName: String(parts[parts.count - 1])) != nil
        guard isCheckpoint, request.length <= UInt64(FileFetcher.pieceBytes),
            request.offset <= UInt64(Self.fileBytesMax)
        else {
            throw CoordinatorError(.failed, "'\(request.file)' is not a checkpoint of this run")
        }
        let handle = try FileHandle(
            forReadingFrom: URL(fileURLWithPath: folder.path + "/" + request.file))
        defer { try? handle.close() }
        try handle.seek(toOffset: request.offset)
        return try handle.read(upToCount: Int(request.length)) ?? Data()
    }
}

extension DurableCheckpoint {
    /// Describes a checkpoint that has just been stored.
    init(_ stored: StoredCheckpoint, isRecovery: Bool) {
        self.init(
            step: stored.step, history: stored.history,
            file: Self.file(step: stored.step, isRecovery: isRecovery),
            byteCount: stored.byteCount, digest: stored.digests.state, isRecovery: isRecovery)
    }

    /// Reads a stored checkpoint and verifies it.
    init(store: CheckpointStore, step: Int, isRecovery: Bool) throws(StorageError) {
        let reader = try store.open(step: step)
        self.init(
            step: step, history: reader.metadata.history,
            file: Self.file(step: step, isRecovery: isRecovery), byteCount: reader.byteCount,
            digest: reader.digests.state, isRecovery: isRecovery)
    }

    private static func file(step: Int, isRecovery: Bool) -> String {
        (isRecovery ? "checkpoints/recovery/" : "checkpoints/")
            + CheckpointStore.fileName(step: step)
    }
}

/// Hands an object to a thread that was started before the object was complete.
private final class ServerBox: Sendable {
    private let value = Mutex<BulkServer?>(nil)
    private let ready = DispatchSemaphore(value: 0)

    func set(_ server: BulkServer) {
        value.withLock { $0 = server }
        ready.signal()
    }

    func wait() -> BulkServer? {
        ready.wait()
        return value.withLock { $0 }
    }
}

internal import Basics
package import ClusterCore
internal import Foundation
internal import Logging
internal import Protocol
package import Storage
internal import Synchronization
package import Transport

/// The coordinator's data channel on a thread of its own: takes checkpoints in, gives files out.
///
/// Control messages never wait for bulk data, nor the training for a disk.
package final class BulkServer: Sendable {
    /// What the coordinator has to know.
    package enum Event: Sendable {
        case stored(DurableCheckpoint, StoredCheckpoint)
        /// What has come is not the state that members hold.
        case refused(step: Int, reason: String)
        case failed(step: Int, reason: String)
        /// A piece of a checkpoint has come; said once a second.
        case piece(step: Int)
    }

    private struct Key: Hashable {
        let step: Int
        let recovery: Bool
    }

    /// What is on its way, and whose bytes are refused.
    private struct Expectation: Equatable {
        var awaited: AwaitedCheckpoint?
        var barred: [String] = []

        /// What is awaited of a checkpoint; nil where it is not.
        func of(_ key: Key) -> AwaitedCheckpoint? {
            guard let awaited, key == Key(step: awaited.step, recovery: awaited.isRecovery) else {
                return nil
            }
            return awaited
        }
    }

    /// A checkpoint that arrives.
    private struct Arrival {
        let receiver: CheckpointReceiver
        var order = ChunkOrder()
        /// Everybody who was asked for it.
        var asked: Set<String> = []
        /// Whose bytes are in it.
        var givers: Set<String> = []
    }

    /// All addresses, separated by spaces.
    package let address: String
    private let run: UInt64
    private let folder: RunFolder
    private let report: @Sendable (Event) -> Void
    private let isStopping = Mutex(false)
    private let expectation = Mutex(Expectation())
    private let wakeup = Wakeup()
    private let clock = ContinuousClock()
    private let logger = Logger(label: "lineup.bulk")
    /// Nil where the cluster has no keys.
    private let admission: Admission?
    private let refusals: Refusals
    private static let fileBytesMax = 1 << 50
    private static let receiversMax = 4

    /// Binds the channel and starts its thread.
    package init(
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
    ///
    /// - Parameter barred: workers of which nothing is taken any more.
    package func expect(_ checkpoint: AwaitedCheckpoint?, barred: [String]) {
        let new = Expectation(awaited: checkpoint, barred: barred)
        let isNews = expectation.withLock { known in
            defer { known = new }
            return known != new
        }
        if isNews { wakeup.signal() }
    }

    /// Ends the thread.
    package func stop() {
        isStopping.withLock { $0 = true }
        wakeup.signal()
    }

    private func serve(_ socket: Socket) {
        var arrivals: [Key: Arrival] = [:]
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
                let expected = expectation.withLock { $0 }
                guard isAllowed(header.kind, frames[1]) else {
                    refusals.note(
                        "a bulk message that its key's role does not send",
                        frames[1].key?.hex ?? "no key")
                    continue
                }
                guard isTrusted(header, frames[1], expected) else {
                    refusals.note(
                        "a bulk message of a worker that is not used any more, or under another name",
                        frames[1].key?.hex ?? String(header.worker.prefix(64)))
                    continue
                }
                let peer = frames[0].data
                switch header.kind {
                case .fetch: answer(header, to: peer, on: socket)
                case .checkpoint:
                    forget(&arrivals, barred: expected.barred)
                    take(
                        header, frames[2], from: peer, on: socket, expected, &arrivals,
                        &nextPieceReport)
                default: continue
                }
            }
            settle(&arrivals)
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

    /// Whether a piece comes from whom it names, and from nobody who is quarantined.
    private func isTrusted(
        _ header: WireDataHeader, _ frame: Frame, _ expected: Expectation
    ) -> Bool {
        guard header.kind == .checkpoint else { return true }
        if let key = frame.key, WorkerName.key(of: header.worker) != key.fingerprint {
            return false
        }
        return !expected.barred.contains(header.worker)
    }

    /// Gives up what a worker has brought part of that is quarantined by now.
    private func forget(_ arrivals: inout [Key: Arrival], barred: [String]) {
        guard !barred.isEmpty else { return }
        for (key, arrival) in arrivals
        where !arrival.givers.isDisjoint(with: barred) {
            arrival.receiver.abandon()
            arrivals[key] = nil
        }
    }

    private func take(
        _ header: WireDataHeader, _ payload: Frame, from peer: Data, on socket: Socket,
        _ expected: Expectation, _ arrivals: inout [Key: Arrival],
        _ nextPieceReport: inout ContinuousClock.Instant
    ) {
        let key = Key(step: Int(clamping: header.step), recovery: header.recovery)
        do throws(StorageError) {
            let senders = expected.of(key)?.senders ?? []
            arrivals[key]?.asked.formUnion(senders)
            guard arrivals[key]?.asked.contains(header.worker) ?? senders.contains(header.worker),
                arrivals[key] != nil || header.offset == 0
            else {
                // Nobody asked for it, or it is there already, and a second holder sends it again.
                let answer = ChunkOrder.acknowledging(header, payload)
                socket.send([WireCodec.encode(answer)], to: peer)
                return
            }
            // Whoever begins with another length may be the one that is right.
            if header.offset == 0, let known = arrivals[key]?.receiver,
                known.byteCount != Int(clamping: header.total)
            {
                arrivals.removeValue(forKey: key)
                known.abandon()
            }
            if arrivals[key] == nil { try begin(key, header, &arrivals) }
            let receiver = arrivals[key]!.receiver
            guard Int(clamping: header.total) == receiver.byteCount else {
                throw StorageError(
                    .invalidValue,
                    "the state of step \(key.step) is \(header.total) bytes long at \(header.worker), "
                        + "\(receiver.byteCount) at who sent its beginning")
            }
            arrivals[key]!.asked.formUnion(senders)
            arrivals[key]!.givers.insert(header.worker)
            let answers = try arrivals[key]!.order.add(header, payload) {
                offset, bytes, digest throws(StorageError) in
                try receiver.append(bytes, at: offset, digest: digest)
            }
            for answer in answers { socket.send([WireCodec.encode(answer)], to: peer) }
            if receiver.received < receiver.byteCount, clock.now >= nextPieceReport {
                nextPieceReport = clock.now + .seconds(1)
                report(.piece(step: key.step))
            }
        } catch {
            // What is wrong with a piece says nothing of those before it.
            if error.code != .invalidValue {
                arrivals.removeValue(forKey: key)?.receiver.abandon()
            }
            var refusal = WireDataHeader()
            refusal.kind = .fetchFailed
            socket.send([WireCodec.encode(refusal), Data(error.message.utf8)], to: peer)
            // What is wrong with the bytes is the sender's matter: it or another holder sends again.
            guard [.io, .diskFull, .conflict].contains(error.code) else { return }
            report(.failed(step: key.step, reason: error.message))
        }
    }

    /// Makes durable what has come whole, where it is what members hold.
    private func settle(_ arrivals: inout [Key: Arrival]) {
        let expected = expectation.withLock { $0 }
        for (key, arrival) in arrivals
        where arrival.receiver.received == arrival.receiver.byteCount {
            let verdict = expected.of(key)?.state
            if verdict == .open || verdict == .split { continue }
            arrivals[key] = nil
            do throws(StorageError) {
                let stored: StoredCheckpoint
                switch verdict {
                case .agreed(let digest): stored = try arrival.receiver.finish(state: digest)
                case .any: stored = try arrival.receiver.finish()
                default:
                    arrival.receiver.abandon()
                    report(.refused(step: key.step, reason: "nobody can say what it has to be"))
                    continue
                }
                report(.stored(DurableCheckpoint(stored, isRecovery: key.recovery), stored))
            } catch {
                report(
                    error.code == .corrupt
                        ? .refused(step: key.step, reason: error.message)
                        : .failed(step: key.step, reason: error.message))
            }
        }
    }

    private func begin(
        _ key: Key, _ header: WireDataHeader, _ arrivals: inout [Key: Arrival]
    ) throws(StorageError) {
        // One checkpoint is under way at a time; a few more are those of lost senders.
        if arrivals.count >= Self.receiversMax,
            let oldest = arrivals.keys.min(by: { $0.step < $1.step })
        {
            arrivals.removeValue(forKey: oldest)?.receiver.abandon()
        }
        arrivals[key] = Arrival(
            receiver: try CheckpointReceiver(
                store: CheckpointStore(
                    directory: key.recovery ? folder.recovery : folder.checkpoints),
                step: key.step, byteCount: Int(clamping: header.total)))
    }

    private func answer(_ request: WireDataHeader, to peer: Data, on socket: Socket) {
        var header = request
        do {
            let bytes = try piece(request)
            header.kind = .fetched
            header.digest = bytes.withUnsafeBytes { XXH64.digest($0) }
            socket.send([WireCodec.encode(header), bytes], to: peer)
        } catch {
            header.kind = .fetchFailed
            socket.send([WireCodec.encode(header), Data("\(error)".utf8)], to: peer)
        }
    }

    private func piece(_ request: WireDataHeader) throws -> Data {
        // Only checkpoints and what the run started from leave this folder, whatever a peer asks for.
        let parts = request.file.split(separator: "/", omittingEmptySubsequences: false)
        let isCheckpoint =
            (2...3).contains(parts.count) && parts[0] == "checkpoints"
            && (parts.count == 2 || parts[1] == "recovery")
            && CheckpointStore.step(fileName: String(parts[parts.count - 1])) != nil
        guard isCheckpoint || request.file == StartingWeights.fileName,
            request.length <= UInt64(FileFetcher.pieceBytes),
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

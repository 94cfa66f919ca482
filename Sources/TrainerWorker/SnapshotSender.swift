internal import Basics
internal import ClusterCore
internal import Foundation
internal import Protocol
internal import Storage
internal import Training
internal import Transport

/// Copies the state aside between two applies and sends the copy, off the training path.
///
/// - Note: @unchecked: everything that changes is touched only under `condition`.
final class SnapshotSender: @unchecked Sendable {
    private final class Copy: Sendable {
        let snapshot: StateSnapshot
        let history: UInt64

        init(_ snapshot: StateSnapshot, history: UInt64) {
            self.snapshot = snapshot
            self.history = history
        }
    }

    private let context: Context
    private var coordinatorAddress: String
    private let worker: String
    private let run: UInt64
    private let metadata: @Sendable (Int, UInt64) -> CheckpointMetadata
    private let mailbox: Mailbox<TrainerShell.Input>
    private let condition = NSCondition()
    private var copies: [Int: Copy] = [:]
    /// Steps whose copy is for a checkpoint, until it is released.
    private var kept: Set<Int> = []
    /// Steps whose copy is for joiners, until it is released.
    private var keptForJoiners: Set<Int> = []
    /// Streams under way: step and address.
    private var streams: Set<String> = []
    /// Memory of a copy that nobody reads any more: fresh memory costs more than the copying.
    private var spare: StateSnapshot?
    /// Copies being made, and what waits for them.
    private var making: [Int: [@Sendable () -> Void]] = [:]
    /// Digests of the state being taken.
    private var digesting = 0
    /// Whoever reads the state holds it: each brings the host's values up to date where it is on a GPU.
    private let reading = NSLock()
    private var sends = 0
    private var isStopping = false

    init(
        context: Context, coordinator: String, worker: String, run: UInt64,
        metadata: @escaping @Sendable (Int, UInt64) -> CheckpointMetadata,
        mailbox: Mailbox<TrainerShell.Input>
    ) {
        self.context = context
        coordinatorAddress = coordinator
        self.worker = worker
        self.run = run
        self.metadata = metadata
        self.mailbox = mailbox
    }

    /// Where checkpoints go; streams to an earlier coordinator end.
    var coordinator: String {
        get { condition.withLock { coordinatorAddress } }
        set { condition.withLock { coordinatorAddress = newValue } }
    }

    /// Copies the state of a step; ``waitUntilCopied()`` returns when it may change again.
    func copy(
        _ state: TrainingState, step: Int, history: UInt64, recovery: Bool, send: Bool
    ) {
        condition.withLock { _ = kept.insert(step) }
        inBackground(state, step: step, history: history) { [self] in
            if send { self.send(step: step, recovery: recovery) }
        }
    }

    /// Copies the state of a step for joiners.
    func keepForJoiners(_ state: TrainingState, step: Int, history: UInt64) {
        condition.withLock { _ = keptForJoiners.insert(step) }
        inBackground(state, step: step, history: history) {}
    }

    /// Sends the copy of a step to a joiner, once it is made.
    func donate(step: Int, to address: String, joiner: String) {
        Thread.detachNewThread { [self] in
            condition.withLock {
                while copies[step] == nil && keptForJoiners.contains(step) && !isStopping {
                    condition.wait()
                }
            }
            stream(
                step: step, to: address, kind: .state, recovery: false,
                failed: { [mailbox] why in
                    mailbox.post(.note("state of step \(step) did not reach \(joiner): \(why)"))
                })
        }
    }

    /// Sends a copy to the coordinator.
    func send(step: Int, recovery: Bool) {
        stream(
            step: step, to: coordinator, kind: .checkpoint, recovery: recovery,
            failed: { [mailbox] why in mailbox.post(.sendFailed(step: step, why: why)) })
    }

    /// Forgets the checkpoint copy of a step, and older ones.
    func release(step: Int) {
        condition.withLock {
            kept = kept.filter { $0 > step }
            forgetUnkept()
        }
    }

    /// Forgets the joiners' copy of a step.
    func releaseForJoiners(step: Int) {
        condition.withLock {
            keptForJoiners.remove(step)
            forgetUnkept()
            condition.broadcast()
        }
    }

    /// Forgets every copy.
    func releaseAll() {
        condition.withLock {
            kept = []
            keptForJoiners = []
            forgetUnkept()
            condition.broadcast()
        }
    }

    private func forgetUnkept() {
        for step in copies.keys where !kept.contains(step) && !keptForJoiners.contains(step) {
            forget(step)
        }
    }

    /// Lets go of a copy, and keeps its memory where no sender holds it; called under the lock.
    private func forget(_ step: Int) {
        guard var copy = copies.removeValue(forKey: step), isKnownUniquelyReferenced(&copy)
        else { return }
        spare = copy.snapshot
    }

    /// Digests the whole state beside the step that reads it; ``waitUntilCopied()`` waits for that too.
    func digest(
        _ state: TrainingState, then: @escaping @Sendable (Result<UInt64, any Error>) -> Void
    ) {
        condition.withLock { digesting += 1 }
        Thread.detachNewThread { [self] in
            then(Result { try reading.withLock { try state.digest() } })
            condition.withLock {
                digesting -= 1
                condition.broadcast()
            }
        }
    }

    /// Returns when no copy is being made and no digest taken.
    func waitUntilCopied() {
        condition.withLock {
            while !making.isEmpty || digesting > 0 { condition.wait() }
        }
    }

    /// Ends sends under way.
    func stop() {
        condition.withLock {
            isStopping = true
            condition.broadcast()
        }
    }

    private func inBackground(
        _ state: TrainingState, step: Int, history: UInt64, then: @escaping @Sendable () -> Void
    ) {
        let isCopied = condition.withLock { () -> Bool? in
            if copies[step] != nil { return true }
            // One copy serves all that ask for it.
            making[step, default: []].append(then)
            return making[step]!.count > 1 ? nil : false
        }
        guard let isCopied else { return }
        guard !isCopied else { return then() }
        Thread.detachNewThread { [self] in
            do {
                let old = condition.withLock { () -> StateSnapshot? in
                    defer { spare = nil }
                    return spare
                }
                let snapshot = try reading.withLock { try state.copyAside(reusing: old) }
                let waiting = condition.withLock {
                    copies[step] = Copy(snapshot, history: history)
                    forgetUnkept()
                    condition.broadcast()
                    return making.removeValue(forKey: step) ?? []
                }
                for then in waiting { then() }
            } catch {
                condition.withLock {
                    kept.remove(step)
                    keptForJoiners.remove(step)
                    making[step] = nil
                    condition.broadcast()
                }
                mailbox.post(.sendFailed(step: step, why: "\(error)"))
            }
        }
    }

    private func stream(
        step: Int, to address: String, kind: WireDataHeader.Kind, recovery: Bool,
        failed: @escaping @Sendable (String) -> Void
    ) {
        let key = "\(step) \(address)"
        let (copy, number, isNew) = condition.withLock {
            let isNew = streams.insert(key).inserted
            sends += 1
            return (copies[step], sends, isNew)
        }
        // Asked for again while it is on its way.
        guard isNew else { return }
        guard let copy else {
            condition.withLock { _ = streams.remove(key) }
            return failed("no copy of step \(step) is held")
        }
        Thread.detachNewThread { [self] in
            defer { condition.withLock { _ = streams.remove(key) } }
            let isObsolete = { [self] in
                condition.withLock {
                    isStopping || kind == .checkpoint && coordinatorAddress != address
                }
            }
            do {
                let tensors = copy.snapshot.tensors.map { tensor in
                    CheckpointTensor(
                        name: tensor.name, shape: tensor.shape,
                        bytes: tensor.withUnsafeBytes { $0 }, owner: nil)
                }
                let file = try SerialisedCheckpoint(
                    tensors, metadata: metadata(step, copy.history))
                var header = WireDataHeader()
                header.kind = kind
                header.run = run
                header.step = UInt64(step)
                header.worker = worker
                header.recovery = recovery
                try file.header.withUnsafeBytes { start in
                    try ChunkSender.send(
                        context, to: address,
                        identity: kind == .state ? WorkerName.stream(number, of: worker) : "",
                        base: header,
                        segments: [start] + file.tensors.map(\.bytes), isCancelled: isObsolete)
                }
                withExtendedLifetime(copy) {}
            } catch {
                if !isObsolete() { failed("\(error)") }
            }
        }
    }
}

import Foundation
import Synchronization

/// Keeps evaluators that watch one run directory from doing the same work.
///
/// A claim is a file that names its holder; it appears by `link`, which only one can do. The holder
/// renews it by touching it. It is stale when its holder is a process of this host that has ended, or
/// when it was not touched for the lease: measured on the file system's own clock, so that hosts'
/// clocks need not agree. A claim guards nothing: results appear only once anyway, so two that score
/// the same set through an unlucky race do no harm.
package final class ClaimFolder: Sendable {
    /// What a claim file holds.
    private struct Claim: Codable {
        var holder: ProcessIdentity
        var nonce: String
        var claimed: Double
    }

    /// A claim of this object that has not been released.
    private struct Held {
        var path: String
        var nonce: String
    }

    private let folder: String
    private let identity: ProcessIdentity
    private let leaseSeconds: Double
    private let held = Mutex<[EvaluationTask: Held]>([:])

    package init(folder: String, identity: ProcessIdentity, leaseSeconds: Double) {
        self.folder = folder
        self.identity = identity
        self.leaseSeconds = leaseSeconds
    }

    /// Claims a task.
    ///
    /// - Returns: whether it is now this object's.
    package func take(_ task: EvaluationTask) throws(EvalWorkerError) -> Bool {
        try RunFiles.createFolder(folder)
        let path = path(task)
        let claim = Claim(
            holder: identity, nonce: UUID().uuidString, claimed: Date().timeIntervalSince1970)
        guard let contents = try? JSONEncoder().encode(claim) else { return false }
        var isMine = try RunFiles.linkIfAbsent(contents, as: path, durable: false) != nil
        if !isMine, try isStale(path) { isMine = try takeOver(path, contents) }
        if isMine { held.withLock { $0[task] = Held(path: path, nonce: claim.nonce) } }
        return isMine
    }

    /// Gives a claim back; one that another has taken over is left alone.
    package func release(_ task: EvaluationTask) {
        guard let mine = held.withLock({ $0.removeValue(forKey: task) }) else { return }
        if read(mine.path)?.nonce == mine.nonce { unlink(mine.path) }
    }

    /// Touches every claim held, so that it does not become stale.
    package func renew() {
        for claim in held.withLock({ Array($0.values) }) {
            guard read(claim.path)?.nonce == claim.nonce else { continue }
            // The times of the file system, not of this host.
            utimensat(AT_FDCWD, claim.path, nil, 0)
        }
    }

    /// Whether someone else's claim on the task is alive.
    package func isHeldElsewhere(_ task: EvaluationTask) -> Bool {
        held.withLock { $0[task] == nil } && RunFiles.stamp(path(task)) != nil
    }

    private func path(_ task: EvaluationTask) -> String { folder + "/\(task).claim" }

    /// Puts a claim in the place of one whose holder is gone.
    ///
    /// Several may find the same claim stale, and the slower must not remove what the faster has put
    /// in its place. So one at a time looks again, removes and claims, behind a file that only one
    /// can create.
    private func takeOver(_ path: String, _ contents: Data) throws(EvalWorkerError) -> Bool {
        let guardPath = path + ".takeover"
        guard try RunFiles.linkIfAbsent(Data(), as: guardPath, durable: false) != nil else {
            // Left by a process that was killed just here: out of the way for the next look.
            if let age = try age(guardPath), age > leaseSeconds { unlink(guardPath) }
            return false
        }
        defer { unlink(guardPath) }
        guard try isStale(path) else { return false }
        unlink(path)
        return try RunFiles.linkIfAbsent(contents, as: path, durable: false) != nil
    }

    private func isStale(_ path: String) throws(EvalWorkerError) -> Bool {
        guard let age = try age(path) else { return false }
        if age > leaseSeconds { return true }
        // A claim appears whole; one that cannot be read lives until its lease runs out.
        return read(path)?.holder.isDead(seenFrom: identity) ?? false
    }

    private func read(_ path: String) -> Claim? {
        FileManager.default.contents(atPath: path).flatMap {
            try? JSONDecoder().decode(Claim.self, from: $0)
        }
    }

    /// Seconds since a file was touched, by the clock that stamps this folder's files; nil where there
    /// is none.
    private func age(_ path: String) throws(EvalWorkerError) -> Double? {
        guard let stamp = RunFiles.stamp(path) else { return nil }
        let probe = folder + "/" + RunFiles.temporaryPrefix + UUID().uuidString
        guard let now = try RunFiles.linkIfAbsent(Data(), as: probe, durable: false) else {
            throw .system("create", probe)
        }
        unlink(probe)
        return now.modified - stamp.modified
    }
}

internal import Basics
internal import Foundation
internal import Protocol
internal import Transport

/// Who is at the other end of each connection of the control channel.
///
/// ZeroMQ names a connection, nobody else can; it is a worker's from its HELLO on. With keys the
/// worker's name must belong to the key that the connection was opened with, and the key must be
/// allowed for the worker's role: at every message, since the list may change.
struct Connections {
    private struct Peer {
        let worker: String
        let role: WireRole
        let key: PublicKey?
        let descriptor: Int32
    }

    /// Workers that may be known at once.
    static let workersMax = 16_384

    private let admission: Admission?
    private var peers: [Data: Peer] = [:]
    private var routes: [String: Data] = [:]
    private var descriptors: [Int32: Data] = [:]
    private var version = 0

    /// - Parameter admission: nil where the cluster has no keys.
    init(_ admission: Admission?) { self.admission = admission }

    /// The worker whose connection this is, nil before its HELLO.
    func worker(at route: Data) -> String? { peers[route]?.worker }

    /// Where a worker is reached.
    func route(to worker: String) -> Data? { routes[worker] }

    /// Whether a message may be looked at: its key is still allowed.
    func admits(_ frame: Frame) -> Bool {
        guard let admission else { return true }
        return frame.key.map { admission.entry(for: $0) != nil } ?? false
    }

    /// Makes a connection a worker's.
    ///
    /// - Returns: why it may not be, nil where it is.
    mutating func open(_ route: Data, _ hello: WireHello, frame: Frame) -> String? {
        // They are shown on terminals and kept in the ledger.
        guard WorkerName.isOne(hello.worker),
            [hello.host, hello.device].allSatisfy({ text in
                text.utf8.count <= 200 && text.utf8.allSatisfy { (0x20..<0x7f).contains($0) }
            })
        else { return "a worker's name, host or device that is none" }
        let key = admission == nil ? nil : frame.key
        if let admission {
            guard let key, let entry = admission.entry(for: key) else { return "key not allowed" }
            guard WorkerName.key(of: hello.worker) == key.fingerprint else {
                return "worker \(hello.worker) is named after another key than "
                    + "\(key.fingerprint) (\(entry.name)), which it has"
            }
            if let why = Self.refusal(hello.role, entry) { return why }
        }
        guard peers.count < Self.workersMax || routes[hello.worker] != nil else {
            return "\(Self.workersMax) workers are here already"
        }
        // An older connection of this worker may still be about to end: it is no loss.
        if let old = routes[hello.worker], old != route { forget(old) }
        let peer = Peer(
            worker: hello.worker, role: hello.role, key: key, descriptor: frame.sourceDescriptor)
        forget(route)
        peers[route] = peer
        routes[hello.worker] = route
        descriptors[peer.descriptor] = route
        return nil
    }

    private static func refusal(_ role: WireRole, _ entry: AllowList.Entry) -> String? {
        guard !entry.roles.contains(role) else { return nil }
        return
            "key \(entry.key.fingerprint) (\(entry.name)) is allowed as \(entry.rolesText), not as "
            + "\(role.word); on the coordinator's machine run: lineup keys allow \(entry.key.hex) "
            + "--role \(entry.rolesText),\(role.word) --name \(entry.name)"
    }

    /// A connection has ended; returns the worker that is lost by that, if one is.
    mutating func closed(descriptor: Int32) -> String? {
        guard let route = descriptors[descriptor], let worker = peers[route]?.worker else {
            return nil
        }
        forget(route)
        return worker
    }

    /// Lets go of the workers whose key is not allowed for their role any more.
    ///
    /// - Returns: each with its connection and why; empty unless the list has changed.
    mutating func closeDisallowed() -> [(worker: String, route: Data, why: String)] {
        guard let admission, admission.trainers.version != version else { return [] }
        version = admission.trainers.version
        var closed: [(worker: String, route: Data, why: String)] = []
        for (route, peer) in peers.sorted(by: { $0.value.worker < $1.value.worker }) {
            guard let key = peer.key else { continue }
            let why: String?
            if let entry = admission.entry(for: key) {
                why = Self.refusal(peer.role, entry)
            } else {
                why = "key \(key.fingerprint) is not allowed any more"
            }
            guard let why else { continue }
            forget(route)
            closed.append((peer.worker, route, why))
        }
        return closed
    }

    /// Trainers that are here.
    var trainers: [String] {
        peers.values.filter { $0.role == .trainer }.map(\.worker).sorted()
    }

    private mutating func forget(_ route: Data) {
        guard let peer = peers.removeValue(forKey: route) else { return }
        if routes[peer.worker] == route { routes[peer.worker] = nil }
        if descriptors[peer.descriptor] == route { descriptors[peer.descriptor] = nil }
    }
}

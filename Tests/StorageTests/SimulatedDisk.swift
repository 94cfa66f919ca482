import Storage
import Synchronization

/// A disk that loses power before a chosen operation and keeps what its rules allow.
///
/// What a running process sees is not what survives. A file's bytes survive for certain from its
/// `synchronise` on, a folder's entries from `synchroniseDirectory` on. Of everything later, any
/// part may survive: each entry change by itself, and of a file's unsynchronised bytes none, half,
/// all, or their length alone, filled with zeros.
final class SimulatedDisk: FileLayer {
    /// How much of unsynchronised bytes survives.
    enum Loss: CaseIterable { case none, half, all, zeros }

    private enum Change {
        case link(String, Int)
        case rename(String, String, Int)
        case unlink(String)
    }

    private struct State {
        var entries: [String: Int] = [:]
        var bytes: [[UInt8]] = []
        var synchronised: [[UInt8]] = []
        var durable: [String: Int] = [:]
        var pending: [Change] = []
        var operations = 0
        var crashAt = Int.max
        var fullAt = Int.max
        var failsAt = Int.max
        var trusted = true
    }

    private let state: Mutex<State>

    /// A disk with files that are durable.
    init(_ files: [String: [UInt8]] = [:]) {
        var initial = State()
        for name in files.keys.sorted() {
            initial.entries[name] = initial.bytes.count
            initial.bytes.append(files[name] ?? [])
        }
        initial.synchronised = initial.bytes
        initial.durable = initial.entries
        state = Mutex(initial)
    }

    /// Changing operations so far.
    var operations: Int { state.withLock { $0.operations } }

    /// Entry changes that a crash now could lose.
    var pendingChanges: Int { state.withLock { $0.pending.count } }

    /// Loses power before the operation of this number.
    func crash(at operation: Int) { state.withLock { $0.crashAt = operation } }

    /// Has no room from the operation of this number on.
    func fill(at operation: Int) { state.withLock { $0.fullAt = operation } }

    /// Fails the operation of this number, once, as a disk with a bad sector does.
    func fail(at operation: Int) { state.withLock { $0.failsAt = operation } }

    /// Says that it has synchronised, and has not.
    func lie() { state.withLock { $0.trusted = false } }

    /// The names that the process sees.
    var names: [String] { state.withLock { $0.entries.keys.sorted() } }

    /// The disk after the loss of power.
    ///
    /// - Parameters:
    ///   - kept: bit n says whether the n-th pending entry change survived.
    func survivor(kept: Int, loss: Loss) -> SimulatedDisk {
        let files = state.withLock { state in
            var entries = state.durable
            for (index, change) in state.pending.enumerated() where kept >> index & 1 == 1 {
                switch change {
                case .link(let name, let file): entries[name] = file
                case .rename(let old, let new, let file):
                    entries[old] = nil
                    entries[new] = file
                case .unlink(let name): entries[name] = nil
                }
            }
            return entries.mapValues { file -> [UInt8] in
                let all = state.bytes[file]
                let sure = state.synchronised[file]
                switch loss {
                case .none: return all
                case .all: return sure
                case .half: return Array(all[..<(sure.count + (all.count - sure.count) / 2)])
                case .zeros: return sure + Array(repeating: 0, count: all.count - sure.count)
                }
            }
        }
        return SimulatedDisk(files)
    }

    private func operate(
        _ body: (inout State) throws(StorageError) -> Void
    ) throws(StorageError) {
        var failure: StorageError?
        state.withLock { state in
            if state.operations >= state.crashAt {
                failure = StorageError(.io, "the power is gone")
                return
            }
            state.operations += 1
            if state.operations > state.failsAt {
                state.failsAt = .max
                failure = StorageError(.io, "Input/output error")
                return
            }
            do throws(StorageError) { try body(&state) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    func createDirectory(_ path: String) throws(StorageError) {}

    func create(_ path: String) throws(StorageError) -> any OutputFile {
        var file = 0
        try operate { state throws(StorageError) in
            guard state.entries[path] == nil else { throw StorageError(.io, "\(path) exists") }
            file = state.bytes.count
            state.bytes.append([])
            state.synchronised.append([])
            state.entries[path] = file
            state.pending.append(.link(path, file))
        }
        return SimulatedFile(disk: self, file: file)
    }

    func rename(_ path: String, to newPath: String) throws(StorageError) {
        try operate { state throws(StorageError) in
            guard let file = state.entries.removeValue(forKey: path) else {
                throw StorageError(.notFound, "no \(path)")
            }
            state.entries[newPath] = file
            state.pending.append(.rename(path, newPath, file))
        }
    }

    func remove(_ path: String) throws(StorageError) {
        try operate { state throws(StorageError) in
            if state.entries.removeValue(forKey: path) != nil {
                state.pending.append(.unlink(path))
            }
        }
    }

    func exists(_ path: String) -> Bool { state.withLock { $0.entries[path] != nil } }

    func list(_ directory: String) throws(StorageError) -> [String] {
        names.compactMap {
            $0.hasPrefix(directory + "/") ? String($0.dropFirst(directory.count + 1)) : nil
        }
    }

    func synchroniseDirectory(_ path: String) throws(StorageError) {
        try operate { state throws(StorageError) in
            guard state.trusted else { return }
            state.durable = state.entries
            state.pending = []
        }
    }

    func contents(of path: String) throws(StorageError) -> FileContents {
        let bytes = state.withLock { state in state.entries[path].map { state.bytes[$0] } }
        guard let bytes else { throw StorageError(.notFound, "no \(path)") }
        return FileContents(copying: bytes)
    }

    fileprivate func append(_ bytes: UnsafeRawBufferPointer, to file: Int) throws(StorageError) {
        let copy = Array(bytes)
        try operate { state throws(StorageError) in
            guard state.operations <= state.fullAt else {
                throw StorageError(.diskFull, "cannot write: No space left on device; make room")
            }
            state.bytes[file].append(contentsOf: copy)
        }
    }

    fileprivate func synchronise(_ file: Int) throws(StorageError) {
        try operate { state throws(StorageError) in
            guard state.operations <= state.fullAt else {
                throw StorageError(.diskFull, "cannot make durable: No space left on device")
            }
            if state.trusted { state.synchronised[file] = state.bytes[file] }
        }
    }
}

private final class SimulatedFile: OutputFile {
    let disk: SimulatedDisk
    let file: Int

    init(disk: SimulatedDisk, file: Int) {
        self.disk = disk
        self.file = file
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        try disk.append(bytes, to: file)
    }
    func synchronise() throws(StorageError) { try disk.synchronise(file) }
    func close() throws(StorageError) {}
}

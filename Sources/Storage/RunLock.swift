import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// The right to be the one coordinator of a run, held until the object goes away.
///
/// The kernel frees it when the process ends, however it ends, on any host that shares the folder
/// through NFS version 4 or a local disk.
public final class RunLock: Sendable {
    /// The file that carries the lock; it stays when the lock is free.
    public let path: String
    private let descriptor: Int32

    /// Takes the lock.
    ///
    /// - Throws: ``StorageError`` with code `locked`, naming the holder, or `io`.
    public init(path: String) throws(StorageError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw systemError("cannot open the lock file", path) }
        var result = flock(descriptor, LOCK_EX | LOCK_NB)
        while result != 0 && errno == EINTR { result = flock(descriptor, LOCK_EX | LOCK_NB) }
        if result != 0 {
            let error: StorageError
            if errno == EWOULDBLOCK {
                error = StorageError(
                    .locked,
                    "\(path) is held by \(Self.holder(path)); one run has one coordinator: "
                        + "wait until that one ends, or stop it with kill -TERM")
            } else {
                error = systemError("cannot lock", path)
            }
            _ = close(descriptor)
            throw error
        }
        self.path = path
        self.descriptor = descriptor
        let text =
            "process \(getpid()) on host \(ProcessInfo.processInfo.hostName) since "
            + "\(Date().ISO8601Format())\n"
        // Who holds it is told for people alone: a failure to write it down changes nothing.
        if ftruncate(descriptor, 0) == 0 {
            _ = text.utf8.withContiguousStorageIfAvailable {
                pwrite(descriptor, $0.baseAddress, $0.count, 0)
            }
        }
    }

    deinit { _ = close(descriptor) }

    /// Who wrote the lock file last, in words.
    private static func holder(_ path: String) -> String {
        let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
        let line = text.prefix(200).split(separator: "\n").first.map(String.init) ?? ""
        return line.isEmpty ? "another process" : line
    }
}

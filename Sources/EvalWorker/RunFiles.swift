import Foundation

/// Small files in a folder that several hosts may share.
///
/// A file appears whole and only if its name is free: it is written under a private name, made
/// durable, and linked to its name. `link` fails when the name is taken, on local and network file
/// systems alike, where exclusive creation would show an empty file for a moment.
enum RunFiles {
    /// What identifies one version of a file, and when it was last renewed.
    struct Stamp: Equatable {
        var device: UInt64
        var inode: UInt64
        var bytes: Int
        var modified: Double
    }

    /// Creates a folder and its parents.
    static func createFolder(_ path: String) throws(EvalWorkerError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw EvalWorkerError(
                .io,
                "cannot create folder \(path): \((error as NSError).localizedDescription); "
                    + "check the path and its permissions")
        }
    }

    /// Names in a folder, sorted; none where it does not exist.
    static func list(_ folder: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
    }

    /// The version of a file; nil where there is none.
    static func stamp(_ path: String) -> Stamp? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Stamp(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino), bytes: Int(status.st_size),
            modified: Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) * 1e-9)
    }

    /// Gives contents a name unless it is taken.
    ///
    /// - Returns: the new file's stamp, by the clock of the file system; nil when the name is
    ///   taken.
    static func linkIfAbsent(_ contents: Data, as path: String, durable: Bool)
        throws(EvalWorkerError) -> Stamp?
    {
        let folder = (path as NSString).deletingLastPathComponent
        let private_ = folder + "/" + temporaryPrefix + UUID().uuidString
        try write(contents, to: private_, durable: durable)
        defer { unlink(private_) }
        let stamp = stamp(private_)
        if link(private_, path) != 0 {
            if errno == EEXIST { return nil }
            throw .system("create", path)
        }
        if durable { try synchroniseFolder(folder) }
        return stamp
    }

    /// What private names begin with; no list of results or claims shows them.
    static let temporaryPrefix = ".tmp-"

    /// Removes private files that killed processes left.
    static func removeLeftovers(in folder: String, olderThan age: Double) {
        let old = list(folder).filter { $0.hasPrefix(temporaryPrefix) }
        for path in old.map({ folder + "/" + $0 }) {
            if let stamp = stamp(path), Date().timeIntervalSince1970 - stamp.modified > age {
                unlink(path)
            }
        }
    }

    private static func write(_ contents: Data, to path: String, durable: Bool)
        throws(EvalWorkerError)
    {
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw .system("create", path) }
        defer { close(file) }
        var done = 0
        while done < contents.count {
            let put = contents.withUnsafeBytes {
                Glibc.write(file, $0.baseAddress! + done, contents.count - done)
            }
            if put < 0 && errno == EINTR { continue }
            guard put > 0 else {
                let error = EvalWorkerError.system("write", path)
                unlink(path)
                throw error
            }
            done += put
        }
        guard !durable || fsync(file) == 0 else {
            let error = EvalWorkerError.system("make durable", path)
            unlink(path)
            throw error
        }
    }

    private static func synchroniseFolder(_ path: String) throws(EvalWorkerError) {
        let folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { throw .system("open folder", path) }
        defer { close(folder) }
        // Some network file systems have no fsync for folders and say EINVAL.
        guard fsync(folder) == 0 || errno == EINVAL else {
            throw .system("make durable the folder", path)
        }
    }
}

import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// The files of this machine.
public struct SystemFiles: FileLayer {
    /// How ``FileLayer/contents(of:)`` gives access.
    public enum Access: Sendable {
        /// Mapped where the file system is local, else copied.
        case automatic
        /// Mapped: pages are read when touched.
        case mapped
        /// Read into memory at once: a disk or a server that fails later cannot stop the process.
        case copied
    }

    private let access: Access

    /// O_DIRECT, which the C library shows only with its extensions.
    ///
    /// Its value differs between processors; where it is not known, files are written as usual.
    #if arch(x86_64)
        fileprivate static let directIO: Int32 = 0o40000
    #elseif arch(arm64)
        fileprivate static let directIO: Int32 = 0o200000
    #else
        fileprivate static let directIO: Int32 = 0
    #endif

    /// Makes an access to the files of this machine.
    public init(access: Access = .automatic) {
        self.access = access
    }

    /// Creates a folder and its parents; an existing one is no error.
    public func createDirectory(_ path: String) throws(StorageError) {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true)
        } catch {
            throw StorageError(
                .io,
                "folder \(path) cannot be created: \(reason(error)); "
                    + "check the path and its permissions",
                cause: "\(error)")
        }
    }

    /// Creates a file for writing; an existing one is an error.
    ///
    /// What is written goes past the page cache where the file system can do that.
    public func create(_ path: String) throws(StorageError) -> any OutputFile {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        let direct = open(path, flags | Self.directIO, 0o644)
        if direct >= 0 { return SystemOutputFile(descriptor: direct, path: path, isDirect: true) }
        // Some file systems create the file before they refuse the flag.
        if errno == EINVAL { unlink(path) }
        let descriptor = open(path, flags, 0o644)
        guard descriptor >= 0 else { throw systemError("cannot create", path) }
        return SystemOutputFile(descriptor: descriptor, path: path, isDirect: false)
    }

    /// Gives a file another name in the same folder, replacing what is there.
    public func rename(_ path: String, to newPath: String) throws(StorageError) {
        guard Glibc.rename(path, newPath) == 0 else {
            throw systemError("cannot rename", path, to: newPath)
        }
    }

    /// Removes a file; a missing one is no error.
    public func remove(_ path: String) throws(StorageError) {
        guard unlink(path) == 0 || errno == ENOENT else { throw systemError("cannot remove", path) }
    }

    /// Whether a file of this name exists.
    public func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: path)
    }

    /// The names of the files in a folder, sorted; none when the folder does not exist.
    public func list(_ directory: String) throws(StorageError) -> [String] {
        guard FileManager.default.fileExists(atPath: directory) else { return [] }
        do {
            return try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
        } catch {
            throw StorageError(
                .io, "folder \(directory) cannot be listed: \(reason(error))", cause: "\(error)")
        }
    }

    /// Makes creations, renames and removals in a folder durable.
    public func synchroniseDirectory(_ path: String) throws(StorageError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw systemError("cannot open folder", path) }
        defer { _ = Glibc.close(descriptor) }
        // Some network file systems have no fsync for folders and say EINVAL; they order the
        // operations themselves.
        guard fsync(descriptor) == 0 || errno == EINVAL else {
            throw systemError("cannot make durable the folder", path)
        }
    }

    /// Makes what a file holds durable, whoever wrote it.
    public func synchroniseFile(_ path: String) throws(StorageError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw systemError("cannot open", path) }
        defer { _ = Glibc.close(descriptor) }
        guard fsync(descriptor) == 0 else { throw systemError("cannot make durable", path) }
    }

    /// The bytes of a file.
    public func contents(of path: String) throws(StorageError) -> FileContents {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw systemError("cannot open", path) }
        defer { _ = Glibc.close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw systemError("cannot examine", path) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw StorageError(.corrupt, "\(path) is not a regular file; name a file")
        }
        let count = Int(status.st_size)
        guard count > 0 else { return FileContents(copying: []) }
        let mapped: Bool
        switch access {
        case .mapped: mapped = true
        case .copied: mapped = false
        case .automatic: mapped = FileSystemKind.of(path: path) == .local
        }
        return mapped
            ? try map(descriptor, count: count, path: path)
            : try read(descriptor, count: count, path: path)
    }

    private func map(
        _ descriptor: Int32, count: Int, path: String
    ) throws(StorageError) -> FileContents {
        guard let start = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0),
            start != MAP_FAILED
        else { throw systemError("cannot map", path) }
        return FileContents(UnsafeRawBufferPointer(start: start, count: count)) { bytes in
            munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress!), bytes.count)
        }
    }

    private func read(
        _ descriptor: Int32, count: Int, path: String
    ) throws(StorageError) -> FileContents {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
        var done = 0
        while done < count {
            let got = pread(descriptor, buffer.baseAddress! + done, count - done, off_t(done))
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else {
                let error =
                    got < 0
                    ? systemError("cannot read", path)
                    : StorageError(
                        .corrupt,
                        "\(path) shrank from \(count) to \(done) bytes while it was read; "
                            + "nobody may write to it in place")
                buffer.deallocate()
                throw error
            }
            done += got
        }
        return FileContents(UnsafeRawBufferPointer(buffer)) { $0.deallocate() }
    }
}

/// A file descriptor that is being written.
///
/// A checkpoint is written once and read rarely, so its pages would only push others out of the
/// page cache, at the price of a copy: whole pieces are written from one aligned buffer instead.
private final class SystemOutputFile: OutputFile {
    private var descriptor: Int32
    private let path: String
    private var isDirect: Bool
    private let piece: UnsafeMutableRawBufferPointer
    private var filled = 0
    private static let pieceBytes = 1 << 20
    /// No disk has larger blocks.
    private static let alignment = 4096

    init(descriptor: Int32, path: String, isDirect: Bool) {
        self.descriptor = descriptor
        self.path = path
        self.isDirect = isDirect
        piece = .allocate(byteCount: Self.pieceBytes, alignment: Self.alignment)
    }

    deinit {
        if descriptor >= 0 { _ = Glibc.close(descriptor) }
        piece.deallocate()
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        var rest = bytes
        while !rest.isEmpty {
            let take = min(rest.count, piece.count - filled)
            UnsafeMutableRawBufferPointer(rebasing: piece[filled..<filled + take]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: rest[..<take]))
            filled += take
            rest = UnsafeRawBufferPointer(rebasing: rest[take...])
            if filled == piece.count { try flush() }
        }
    }

    private func flush() throws(StorageError) {
        guard filled > 0 else { return }
        if filled < piece.count { try leaveDirect() }
        var done = 0
        while done < filled {
            let put = Glibc.write(descriptor, piece.baseAddress! + done, filled - done)
            if put < 0 && errno == EINTR { continue }
            if put < 0 && errno == EINVAL && isDirect {
                try leaveDirect()
                continue
            }
            guard put > 0 else { throw systemError("cannot write", path) }
            done += put
            // The rest of a short write is not aligned any more.
            if done < filled { try leaveDirect() }
        }
        filled = 0
    }

    /// Only whole blocks can be written past the page cache.
    private func leaveDirect() throws(StorageError) {
        guard isDirect else { return }
        isDirect = false
        let flags = fcntl(descriptor, F_GETFL)
        guard flags >= 0, fcntl(descriptor, F_SETFL, flags & ~SystemFiles.directIO) == 0 else {
            throw systemError("cannot write", path)
        }
    }

    func synchronise() throws(StorageError) {
        try flush()
        // A failed fsync may have dropped the pages: it is never tried again, the file is given up.
        guard fsync(descriptor) == 0 else { throw systemError("cannot make durable", path) }
    }

    func close() throws(StorageError) {
        guard descriptor >= 0 else { return }
        let closing = descriptor
        descriptor = -1
        guard Glibc.close(closing) == 0 || errno == EINTR else {
            throw systemError("cannot close", path)
        }
    }
}

/// The text of a Foundation error without its wrapping.
func reason(_ error: any Error) -> String {
    (error as NSError).localizedDescription
}

/// Makes an error of `errno` for one file.
func systemError(_ what: String, _ path: String, to other: String? = nil) -> StorageError {
    let number = errno
    let text = String(cString: strerror(number))
    let target = other.map { " to \($0)" } ?? ""
    let code: StorageError.Code
    let advice: String
    switch number {
    case ENOSPC, EDQUOT:
        code = .diskFull
        advice = "; make room on its file system"
    case ENOENT:
        code = .notFound
        advice = "; check the path"
    case EACCES, EPERM, EROFS:
        code = .io
        advice = "; check the permissions"
    case EIO, ESTALE:
        code = .io
        advice = "; check the disk or the file server"
    default:
        code = .io
        advice = ""
    }
    return StorageError(
        code, "\(what) \(path)\(target): \(text)\(advice)", cause: "errno \(number)")
}

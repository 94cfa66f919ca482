#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Reading and writing whole files with the system's own calls.
package enum FileBytes {
    /// Largest file read whole, in bytes.
    package static let bytesMax = 1 << 32

    /// Replaces the contents of `buffer` with a file's bytes; its capacity is kept.
    package static func read(_ path: String, into buffer: inout [UInt8]) throws(ImageError) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw openFailure(path) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw failure(.unreadable, path, "read") }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw ImageError(.unreadable, "\(path) is not a file; expected a regular file")
        }
        let size = Int(status.st_size)
        guard size <= bytesMax else {
            throw ImageError(
                .unsupported, "\(path) has \(size) bytes; at most \(bytesMax) are read")
        }
        if buffer.count > size {
            buffer.removeLast(buffer.count - size)
        } else if buffer.count < size {
            buffer.append(contentsOf: repeatElement(0, count: size - buffer.count))
        }
        var done = 0
        while done < size {
            let got = buffer.withUnsafeMutableBytes {
                posixRead(file, $0.baseAddress! + done, size - done)
            }
            if got < 0 {
                if errno == EINTR { continue }
                throw failure(.unreadable, path, "read")
            }
            guard got > 0 else {
                throw ImageError(
                    .unreadable, "\(path) ended after \(done) of \(size) bytes while being read")
            }
            done += got
        }
    }

    /// A file's bytes.
    package static func read(_ path: String) throws(ImageError) -> [UInt8] {
        var bytes: [UInt8] = []
        try read(path, into: &bytes)
        return bytes
    }

    /// A regular file's size in bytes, or nil where there is none.
    package static func size(_ path: String) -> Int? {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        return Int(status.st_size)
    }

    /// Writes a file so that it is either there completely or not at all.
    ///
    /// The bytes go to `.<name>.partial` beside it, which is then renamed. With `durable` they are
    /// on the disk before the rename.
    package static func writeAtomically(
        _ bytes: UnsafeRawBufferPointer, to path: String, durable: Bool = false
    ) throws(ImageError) {
        let slash = path.lastIndex(of: "/")
        let folder = slash.map { String(path[...$0]) } ?? ""
        let name = slash.map { String(path[path.index(after: $0)...]) } ?? path
        let partial = "\(folder).\(name).partial"
        let file = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard file >= 0 else { throw failure(.unwritable, path, "written") }
        var done = 0
        while done < bytes.count {
            let put = write(file, bytes.baseAddress! + done, bytes.count - done)
            if put < 0 {
                if errno == EINTR { continue }
                let error = failure(.unwritable, path, "written")
                close(file)
                unlink(partial)
                throw error
            }
            done += put
        }
        let synced = !durable || fsync(file) == 0
        guard close(file) == 0, synced, rename(partial, path) == 0 else {
            let error = failure(.unwritable, path, "written")
            unlink(partial)
            throw error
        }
    }

    /// Writes bytes so that they are either there completely or not at all.
    package static func writeAtomically(
        _ bytes: [UInt8], to path: String, durable: Bool = false
    ) throws(ImageError) {
        let result: Result<Void, ImageError> = bytes.withUnsafeBytes { raw in
            do throws(ImageError) {
                return .success(try writeAtomically(raw, to: path, durable: durable))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }

    /// Writes text so that it is either there completely or not at all, and durably.
    package static func writeAtomically(_ text: String, to path: String) throws(ImageError) {
        try writeAtomically(Array(text.utf8), to: path, durable: true)
    }

    private static func openFailure(_ path: String) -> ImageError {
        errno == ENOENT || errno == ENOTDIR
            ? ImageError(.missing, "\(path) is missing")
            : failure(.unreadable, path, "read")
    }

    private static func failure(_ code: ImageError.Code, _ path: String, _ verb: String)
        -> ImageError
    {
        let advice =
            errno == ENOSPC || errno == EDQUOT
            ? "; make room and start again, what is complete is kept" : ""
        return ImageError(
            code, "\(path) cannot be \(verb): \(String(cString: strerror(errno)))\(advice)")
    }
}

/// The system call, under a name that ``FileBytes/read(_:)`` does not hide.
private func posixRead(_ file: Int32, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int {
    read(file, buffer, count)
}

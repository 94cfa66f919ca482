import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Whether other hosts can reach the same files.
public enum FileSystemKind: String, Sendable {
    /// One host's own disk or memory.
    case local
    /// Shared between hosts: SQLite's write-ahead log does not work between them.
    case network

    /// The kind of the file system that holds a path; a path that does not exist takes its folder's.
    public static func of(path: String) -> FileSystemKind {
        var candidate = path.isEmpty ? "." : path
        while true {
            if let magic = magic(of: candidate) { return of(magic: magic) }
            let parent = (candidate as NSString).deletingLastPathComponent
            guard parent != candidate else { return .local }
            candidate = parent.isEmpty ? "." : parent
        }
    }

    /// The `f_type` of `statfs(2)`; nil when the path does not exist.
    ///
    /// Swift's Glibc module leaves `sys/vfs.h` out, so the function is looked up by name. On every
    /// 64-bit Linux `f_type` is the first word of a structure of at most 120 bytes.
    private static func magic(of path: String) -> UInt32? {
        typealias Function = @convention(c) (UnsafePointer<CChar>, UnsafeMutableRawPointer) -> CInt
        guard let symbol = dlsym(nil, "statfs") else { return nil }
        let function = unsafeBitCast(symbol, to: Function.self)
        var words = [Int](repeating: 0, count: 64)
        let result = words.withUnsafeMutableBytes { function(path, $0.baseAddress!) }
        return result == 0 ? UInt32(truncatingIfNeeded: words[0]) : nil
    }

    /// The kind that a `statfs` type number stands for.
    ///
    /// FUSE may be local or not; it is taken for a network, which is always safe.
    public static func of(magic: UInt32) -> FileSystemKind {
        switch magic {
        case 0x0000_6969,  // NFS
            0x0000_517B, 0xFF53_4D42, 0xFE53_4D42,  // SMB, CIFS, SMB2
            0x0BD0_0BD0,  // Lustre
            0x4750_4653,  // GPFS
            0x00C3_6400,  // Ceph
            0x5346_414F, 0x6B41_4653,  // AFS
            0x7375_7245,  // Coda
            0x2003_0528,  // PVFS2, OrangeFS
            0x1983_0326,  // BeeGFS
            0x0102_1997,  // 9P
            0x6573_5546,  // FUSE: sshfs, glusterfs, s3fs
            0x7461_636F,  // OCFS2
            0x0116_1970:  // GFS2
            return .network
        default:
            return .local
        }
    }
}

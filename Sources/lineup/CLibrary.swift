import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// A C library that Lineup uses, asked for its version at run time.
///
/// Opened by name, so that a missing one is a finding and not a failure to start.
struct CLibrary: Sendable {
    let name: String
    /// Names of the shared object, best first.
    let files: [String]
    let package: String
    /// Whether Lineup itself needs it; HDF5 is for exported embeddings alone.
    let isNeeded: Bool
    private let version: @Sendable (UnsafeMutableRawPointer) -> String?

    /// All of them.
    static let all = [
        CLibrary(
            name: "libzmq", files: ["libzmq.so.5"], package: "libzmq3-dev", isNeeded: true
        ) { library in
            typealias Version =
                @convention(c) (
                    UnsafeMutablePointer<CInt>, UnsafeMutablePointer<CInt>,
                    UnsafeMutablePointer<CInt>
                ) -> Void
            guard let version = dlsym(library, "zmq_version") else { return nil }
            var (major, minor, patch): (CInt, CInt, CInt) = (0, 0, 0)
            unsafeBitCast(version, to: Version.self)(&major, &minor, &patch)
            return "\(major).\(minor).\(patch)"
        },
        CLibrary(
            name: "openblas", files: ["libopenblas.so.0"], package: "libopenblas-dev",
            isNeeded: true
        ) { library in
            let configuration = text(library, "openblas_get_config") ?? ""
            let core = text(library, "openblas_get_corename") ?? ""
            let words = configuration.split(separator: " ").prefix(2).joined(separator: " ")
            return [words, core].filter { !$0.isEmpty }.joined(separator: ", kernels for ")
        },
        CLibrary(
            name: "sqlite", files: ["libsqlite3.so.0"], package: "libsqlite3-dev", isNeeded: true
        ) { text($0, "sqlite3_libversion") },
        CLibrary(
            name: "turbojpeg", files: ["libturbojpeg.so.0"], package: "libturbojpeg0-dev",
            isNeeded: true
        ) { _ in resolvedFile(of: "libturbojpeg.so") },
        CLibrary(
            name: "hdf5",
            files: [
                "libhdf5_serial.so.103", "libhdf5.so.103", "libhdf5_serial.so.310",
                "libhdf5.so.310",
            ],
            package: "libhdf5-dev", isNeeded: false
        ) { library in
            typealias Version =
                @convention(c) (
                    UnsafeMutablePointer<CUnsignedInt>, UnsafeMutablePointer<CUnsignedInt>,
                    UnsafeMutablePointer<CUnsignedInt>
                ) -> CInt
            guard let version = dlsym(library, "H5get_libversion") else { return nil }
            var (major, minor, patch): (CUnsignedInt, CUnsignedInt, CUnsignedInt) = (0, 0, 0)
            guard unsafeBitCast(version, to: Version.self)(&major, &minor, &patch) >= 0 else {
                return nil
            }
            return "\(major).\(minor).\(patch)"
        },
    ]

    /// What the library says of itself, or nil when it is not here.
    func find() -> String? {
        for file in files {
            guard let library = dlopen(file, RTLD_LAZY | RTLD_LOCAL) else { continue }
            return version(library) ?? file
        }
        return nil
    }

    /// The result of a function without arguments that returns a C string.
    private static func text(_ library: UnsafeMutableRawPointer, _ function: String) -> String? {
        typealias Text = @convention(c) () -> UnsafePointer<CChar>?
        guard let symbol = dlsym(library, function) else { return nil }
        return unsafeBitCast(symbol, to: Text.self)().map { String(cString: $0) }
    }

    /// The real file behind a loaded library's name; libturbojpeg states its version nowhere else.
    private static func resolvedFile(of name: String) -> String? {
        let maps = FileManager.default.contents(atPath: "/proc/self/maps") ?? Data()
        let lines = String(decoding: maps, as: UTF8.self).split(separator: "\n")
        guard let line = lines.first(where: { $0.contains("/" + name) }),
            let start = line.firstIndex(of: "/")
        else { return nil }
        return URL(filePath: String(line[start...])).resolvingSymlinksInPath().lastPathComponent
    }
}

/// The file system as checkpoints need it, so that a test can lose power between any two calls.
///
/// Every call either does what it says or throws; none of them is durable before the matching
/// ``OutputFile/synchronise()`` or ``synchroniseDirectory(_:)`` has returned.
public protocol FileLayer: Sendable {
    /// Creates a folder and its parents; an existing one is no error.
    func createDirectory(_ path: String) throws(StorageError)

    /// Creates a file for writing; an existing one is an error.
    func create(_ path: String) throws(StorageError) -> any OutputFile

    /// Gives a file another name in the same folder, replacing what is there.
    func rename(_ path: String, to newPath: String) throws(StorageError)

    /// Removes a file; a missing one is no error.
    func remove(_ path: String) throws(StorageError)

    /// Whether a file of this name exists.
    func exists(_ path: String) -> Bool

    /// The names of the files in a folder, sorted; none when the folder does not exist.
    func list(_ directory: String) throws(StorageError) -> [String]

    /// Makes creations, renames and removals in a folder durable.
    func synchroniseDirectory(_ path: String) throws(StorageError)

    /// The bytes of a file.
    func contents(of path: String) throws(StorageError) -> FileContents
}

extension FileLayer {
    /// A name for a damaged file beside it, which no file has: `FILE.damaged-1`, or a later number.
    ///
    /// Whoever wants to know what happened to the disk finds every one of them; no list shows them.
    func nameAside(_ path: String) -> String {
        var number = 1
        while exists("\(path).damaged-\(number)") { number += 1 }
        return "\(path).damaged-\(number)"
    }
}

/// A file that is being written from start to end.
public protocol OutputFile: AnyObject {
    /// Appends bytes.
    func write(_ bytes: UnsafeRawBufferPointer) throws(StorageError)

    /// Returns once everything written so far survives a loss of power.
    func synchronise() throws(StorageError)

    /// Ends writing; what was written since ``synchronise()`` may be lost. A second call does nothing.
    func close() throws(StorageError)
}

/// The bytes of a file, readable as long as the object lives.
public final class FileContents: @unchecked Sendable {
    // @unchecked: the bytes are never written after init, and released only in deinit.

    /// The bytes; valid while the object lives.
    public let bytes: UnsafeRawBufferPointer
    private let release: @Sendable (UnsafeRawBufferPointer) -> Void

    /// Takes over bytes that `release` frees.
    public init(
        _ bytes: UnsafeRawBufferPointer,
        release: @escaping @Sendable (UnsafeRawBufferPointer) -> Void
    ) {
        self.bytes = bytes
        self.release = release
    }

    /// Copies bytes.
    public convenience init(copying source: [UInt8]) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: source.count, alignment: 64)
        copy.copyBytes(from: source)
        self.init(UnsafeRawBufferPointer(copy)) { $0.deallocate() }
    }

    deinit { release(bytes) }
}

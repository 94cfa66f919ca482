internal import CLinux
internal import Foundation

#if canImport(Glibc)
    internal import Glibc
#endif

/// Memory that other processes of this user on this machine can read.
///
/// A memfd(2): it has no name that could be left behind, does not count against `/dev/shm`, and is
/// sealed so that no page of it can go while others read. Behind it lies a random number, by which a
/// reader knows that it has found the right memory.
///
/// - Note: @unchecked: whoever hands a part to readers stops writing it until they are done.
public final class SharedMemory: @unchecked Sendable {
    /// How readers find the memory.
    public struct Name: Sendable, Hashable {
        /// The owner's process.
        public let process: Int32
        /// The owner's descriptor.
        public let descriptor: Int32
        /// The random number behind the memory; never 0.
        public let nonce: UInt64

        /// Names memory of some process.
        public init(process: Int32, descriptor: Int32, nonce: UInt64) {
            self.process = process
            self.descriptor = descriptor
            self.nonce = nonce
        }
    }

    /// How readers find it.
    public let name: Name
    /// The first byte, at the beginning of a page; zeros at first.
    public let base: UnsafeMutableRawPointer
    private let byteCount: Int

    static let label = "lineup"
    static let pageBytes = 4_096

    /// Reserves memory; nil where the system gives none.
    public init?(byteCount: Int) {
        let size = (byteCount + Self.pageBytes - 1) / Self.pageBytes * Self.pageBytes
        let descriptor = lineup_memfd_create(Self.label)
        guard descriptor >= 0 else { return nil }
        guard ftruncate(descriptor, size + Self.pageBytes) == 0,
            lineup_memfd_seal_size(descriptor) == 0,
            let base = mmap(
                nil, size + Self.pageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
            base != MAP_FAILED
        else {
            close(descriptor)
            return nil
        }
        let nonce = UInt64.random(in: 1 ... .max)
        (base + size).storeBytes(of: nonce, as: UInt64.self)
        self.base = base
        self.byteCount = size
        name = Name(process: getpid(), descriptor: descriptor, nonce: nonce)
    }

    deinit {
        munmap(base, byteCount + Self.pageBytes)
        close(name.descriptor)
    }
}

/// What this process reads of one other process's memory.
public final class PeerMemory {
    private let process: Int32
    private var mappings: [Int32: Mapping] = [:]

    /// Most parts kept mapped; an honest peer has a few.
    private static let mappingsMax = 256

    /// Reads the memory that a process names; nil where that is not what was named, or belongs to
    /// another user, process space or machine.
    public init?(_ name: SharedMemory.Name) {
        process = name.process
        guard mapping(name.descriptor, nonce: name.nonce) != nil else { return nil }
    }

    /// Bytes of a part, valid until the next call; nil where there are none such.
    public func bytes(
        descriptor: Int32, nonce: UInt64, offset: UInt64, count: Int
    ) -> UnsafeRawBufferPointer? {
        guard let whole = mapping(descriptor, nonce: nonce)?.bytes, count >= 0,
            count <= whole.count, offset <= UInt64(whole.count - count)
        else { return nil }
        return UnsafeRawBufferPointer(rebasing: whole[Int(offset)..<Int(offset) + count])
    }

    private func mapping(_ descriptor: Int32, nonce: UInt64) -> Mapping? {
        if let known = mappings[descriptor], known.nonce == nonce { return known }
        // What its owner had under this number before is gone.
        mappings[descriptor] = nil
        if mappings.count >= Self.mappingsMax { mappings = [:] }
        guard let found = Mapping(process: process, descriptor: descriptor), found.nonce == nonce
        else { return nil }
        mappings[descriptor] = found
        return found
    }
}

/// A part of another process's memory, mapped for reading.
private final class Mapping {
    let bytes: UnsafeRawBufferPointer
    let nonce: UInt64

    init?(process: Int32, descriptor: Int32) {
        let path = "/proc/\(process)/fd/\(descriptor)"
        // Nothing but such memory is opened: opening a device or a pipe may do something.
        guard Self.target(of: path)?.hasPrefix("/memfd:\(SharedMemory.label)") == true else {
            return nil
        }
        let own = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard own >= 0 else { return nil }
        defer { close(own) }
        var status = stat()
        guard fstat(own, &status) == 0, status.st_uid == geteuid(),
            lineup_memfd_is_sound(own) == 1, status.st_size > SharedMemory.pageBytes
        else { return nil }
        let size = Int(status.st_size)
        guard let base = mmap(nil, size, PROT_READ, MAP_SHARED, own, 0), base != MAP_FAILED else {
            return nil
        }
        bytes = UnsafeRawBufferPointer(start: base, count: size - SharedMemory.pageBytes)
        nonce = (base + bytes.count).loadUnaligned(as: UInt64.self)
    }

    deinit {
        munmap(
            UnsafeMutableRawPointer(mutating: bytes.baseAddress!),
            bytes.count + SharedMemory.pageBytes)
    }

    private static func target(of link: String) -> String? {
        var text = [UInt8](repeating: 0, count: 256)
        let count = text.withUnsafeMutableBytes {
            readlink(link, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return count > 0 ? String(decoding: text.prefix(count), as: UTF8.self) : nil
    }
}

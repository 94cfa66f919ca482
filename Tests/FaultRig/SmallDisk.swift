import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// A file system in memory with little room.
package final class SmallDisk {
    package let path: String

    /// Why this process cannot mount one; nil where it can.
    package static let obstacle: String? = {
        guard geteuid() == 0 else { return "needs root" }
        let path = FileManager.default.temporaryDirectory.path + "/lineup-rig-disk-\(getpid())"
        guard let disk = try? SmallDisk(path, kilobytes: 100) else { return "mount is refused" }
        disk.remove()
        return nil
    }()

    package init(_ path: String, kilobytes: Int) throws {
        self.path = path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        try Self.check(["mount", "-t", "tmpfs", "-o", "size=\(kilobytes)k", "none", path])
        Janitor.atTheEnd("umount -l \(path) 2>/dev/null")
    }

    package func grow(kilobytes: Int) throws {
        try Self.check(["mount", "-o", "remount,size=\(kilobytes)k", path])
    }

    private var filler: String { path + "/filler" }

    /// Takes all the room that is left.
    package func fill() {
        let descriptor = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        let zeros = [UInt8](repeating: 0, count: 4_096)
        while write(descriptor, zeros, zeros.count) > 0 {}
        close(descriptor)
    }

    /// Gives back what ``fill()`` took.
    package func relieve() { unlink(filler) }

    package func remove() {
        LineupProcess.run(["umount", "-l", path])
        try? FileManager.default.removeItem(atPath: path)
    }

    private static func check(_ command: [String]) throws {
        guard LineupProcess.run(command) == 0 else {
            throw RigError("'\(command.joined(separator: " "))' is refused")
        }
    }
}

import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A control group of Linux, version 1 or 2: freezes processes and limits their processor time.
package final class ControlGroup: Sendable {
    /// Controllers that the rig uses.
    package enum Controller: String, Sendable {
        case freezer
        case cpu
    }

    private enum Version { case one, two }

    private struct Place: Sendable {
        let folder: String
        let version: Version
    }

    private static let count = Mutex(0)
    private let freezer: Place?
    private let processor: Place?

    /// Makes a group.
    ///
    /// - Parameters:
    ///   - cores: processor time in cores; without limit where nil.
    ///   - freezes: whether ``freeze(_:)`` is wanted.
    /// - Throws: ``RigError`` where this machine has no such controller, or none for this user.
    package init(cores: Double? = nil, freezes: Bool = false) throws {
        let number = Self.count.withLock { count in
            count += 1
            return count
        }
        let name = "lineup-rig-\(getpid())-\(number)"
        freezer = freezes ? try Self.make(.freezer, name) : nil
        if cores != nil {
            // Version 2 has one folder for both.
            if let freezer, freezer.version == .two, (try? Self.check(.cpu, freezer)) != nil {
                processor = freezer
            } else {
                processor = try Self.make(.cpu, name)
            }
        } else {
            processor = nil
        }
        try limit(cores: cores)
    }

    deinit { remove() }

    /// Why this machine lacks a controller; nil where it has it.
    package static func obstacle(_ controller: Controller) -> String? {
        do {
            let group = try ControlGroup(
                cores: controller == .cpu ? 1 : nil, freezes: controller == .freezer)
            group.remove()
            return nil
        } catch {
            return "\(error)"
        }
    }

    private static func make(_ controller: Controller, _ name: String) throws -> Place {
        let mounts = (try? String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)) ?? ""
        let fields = mounts.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        let one = fields.first {
            $0.count > 3 && $0[2] == "cgroup"
                && $0[3].split(separator: ",").contains(Substring(controller.rawValue))
        }
        let two = fields.first { $0.count > 3 && $0[2] == "cgroup2" }
        guard let mount = one ?? two else {
            throw RigError("no control groups are mounted (\(controller.rawValue))")
        }
        let version: Version = one == nil ? .two : .one
        let place = Place(
            folder: mount[1] + own(controller, version) + "/" + name, version: version)
        guard mkdir(place.folder, 0o755) == 0 || errno == EEXIST else {
            throw RigError("\(place.folder) cannot be made: \(String(cString: strerror(errno)))")
        }
        Janitor.atTheEnd(cleanUp(place.folder))
        do { try check(controller, place) } catch {
            rmdir(place.folder)
            throw error
        }
        return place
    }

    private static func cleanUp(_ folder: String) -> String {
        "for t in 1 2 3 4 5 6 7 8 9 10; do [ -d \(folder) ] || break; "
            + "echo THAWED 2>/dev/null >\(folder)/freezer.state; "
            + "echo 0 2>/dev/null >\(folder)/cgroup.freeze; "
            + "rmdir \(folder) 2>/dev/null || sleep 0.2; done"
    }

    /// This process's own group, below which it may make others.
    private static func own(_ controller: Controller, _ version: Version) -> String {
        let text = (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) ?? ""
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isIt =
                version == .two
                ? parts[1].isEmpty
                : parts[1].split(separator: ",").contains(Substring(controller.rawValue))
            if isIt { return parts[2] == "/" ? "" : String(parts[2]) }
        }
        return ""
    }

    private static func check(_ controller: Controller, _ place: Place) throws {
        let file =
            switch (controller, place.version) {
            case (.freezer, .one): "freezer.state"
            case (.freezer, .two): "cgroup.freeze"
            case (.cpu, .one): "cpu.cfs_quota_us"
            case (.cpu, .two): "cpu.max"
            }
        guard access(place.folder + "/" + file, W_OK) == 0 else {
            throw RigError("\(place.folder) has no \(file) that may be written")
        }
    }

    /// Where a process writes its number to enter.
    var entryFiles: [String] {
        var folders: [String] = []
        for place in [freezer, processor].compactMap(\.self)
        where !folders.contains(place.folder) { folders.append(place.folder) }
        return folders.map { $0 + "/cgroup.procs" }
    }

    /// Limits the processor time of all its processes together; without limit where nil.
    package func limit(cores: Double?) throws {
        guard let processor else { return }
        // Short periods, so that a limited process is slow rather than halted.
        let period = 20_000
        let quota = cores.map { max(1_000, Int($0 * Double(period))) }
        switch processor.version {
        case .one:
            try Self.write("\(period)", to: processor.folder + "/cpu.cfs_period_us")
            try Self.write("\(quota ?? -1)", to: processor.folder + "/cpu.cfs_quota_us")
        case .two:
            let text = quota.map(String.init) ?? "max"
            try Self.write("\(text) \(period)", to: processor.folder + "/cpu.max")
        }
    }

    /// Halts all its processes where they are, or lets them go on.
    package func freeze(_ isFrozen: Bool) {
        guard let freezer else { return }
        switch freezer.version {
        case .one:
            try? Self.write(isFrozen ? "FROZEN" : "THAWED", to: freezer.folder + "/freezer.state")
        case .two: try? Self.write(isFrozen ? "1" : "0", to: freezer.folder + "/cgroup.freeze")
        }
    }

    /// Removes the group, once its processes have gone.
    package func remove() {
        freeze(false)
        for place in [freezer, processor].compactMap(\.self) {
            for _ in 0..<20 where rmdir(place.folder) != 0 && errno == EBUSY { usleep(10_000) }
        }
    }

    private static func write(_ text: String, to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw RigError("\(path) cannot be opened") }
        defer { close(descriptor) }
        guard Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count else {
            throw RigError("\(path) takes no '\(text)': \(String(cString: strerror(errno)))")
        }
    }
}

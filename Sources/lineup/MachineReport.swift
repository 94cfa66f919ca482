import Foundation
import Settings
import Storage
import Tensors
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// What a machine has: processor, memory, LibTorch, C libraries, disk.
struct MachineReport {
    /// One fact with a short name.
    struct Fact {
        let name: String
        let value: JSONValue
        /// For people, with units.
        let text: String
    }

    private(set) var facts: [Fact] = []
    /// What keeps this machine from training, each with what to do.
    private(set) var problems: [String] = []
    /// What works but not well.
    private(set) var warnings: [String] = []

    /// Looks at this machine.
    ///
    /// - Parameter runs: folder that runs will be written to.
    init(runs: String) {
        addProcessor()
        addLibTorch()
        addLibraries()
        addDisk(runs)
    }

    /// One line a fact, then problems and warnings.
    var lines: [String] {
        let width = (facts.map(\.name.count).max() ?? 0) + 2
        var lines = facts.map { fact in
            fact.name + String(repeating: " ", count: width - fact.name.count) + fact.text
        }
        lines += warnings.map { "warning: " + $0 }
        lines += problems.map { "missing: " + $0 }
        lines.append(problems.isEmpty ? "this machine can train" : "this machine cannot train yet")
        return lines
    }

    /// The same for scripts.
    var json: JSONValue {
        var object = Dictionary(
            facts.map { ($0.name.replacing(" ", with: "_"), $0.value) }, uniquingKeysWith: { $1 })
        object["problems"] = .array(problems.map { .string($0) })
        object["warnings"] = .array(warnings.map { .string($0) })
        object["can_train"] = .bool(problems.isEmpty)
        return .object(object)
    }

    private mutating func add(_ name: String, _ value: JSONValue, _ text: String? = nil) {
        facts.append(Fact(name: name, value: value, text: text ?? value.settingText))
    }

    private mutating func addProcessor() {
        let info = Self.text(of: "/proc/cpuinfo")
        let model = Self.field("model name", in: info) ?? "unknown"
        add("processor", .string(model))
        let cores = ProcessInfo.processInfo.activeProcessorCount
        add("cores", .integer(cores))
        let flags = Set(
            (Self.field("flags", in: info) ?? "").split(separator: " ").map(String.init))
        let wanted = [
            "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16",
            "amx_bf16",
        ]
        let found = wanted.filter(flags.contains)
        add("isa", .array(found.map { .string($0) }), found.joined(separator: " "))
        let memory = Self.text(of: "/proc/meminfo")
        let total = Self.kilobytes(Self.field("MemTotal", in: memory))
        let free = Self.kilobytes(Self.field("MemAvailable", in: memory))
        add(
            "memory bytes", .integer(total),
            "\(Self.gigabytes(total)), \(Self.gigabytes(free)) free")
    }

    private mutating func addLibTorch() {
        do throws(TensorError) {
            let version = try Engine.version()
            add("libtorch", .string(version))
            add("shim", .string(try Engine.libraryPath()))
            add("kernels", .string(try Engine.cpuCapability()))
            let devices = try Engine.devices().map(\.description)
            add(
                "devices", .array(devices.map { .string($0) }), devices.joined(separator: " "))
        } catch {
            add("libtorch", .null, "not found")
            problems.append("LibTorch, for trainers and evaluators: \(error.message)")
        }
        let driver = Self.nvidiaDriver()
        add("nvidia driver", driver.map { .string($0) } ?? .null, driver ?? "none")
    }

    private mutating func addLibraries() {
        for library in CLibrary.all {
            guard let found = library.find() else {
                add(library.name, .null, "not found")
                if library.isNeeded {
                    problems.append("\(library.name); 'make setup' installs \(library.package)")
                }
                continue
            }
            add(library.name, .string(found))
        }
        add("curve", .bool(hasCurve), hasCurve ? "in libzmq" : "not in libzmq")
        if !hasCurve {
            warnings.append(
                "this libzmq was built without CURVE, so that 'lineup keys' cannot work; install one "
                    + "that is built with libsodium")
        }
    }

    private mutating func addDisk(_ runs: String) {
        var folder = runs
        while !FileManager.default.fileExists(atPath: folder) {
            let parent = (folder as NSString).deletingLastPathComponent
            folder = parent.isEmpty ? "." : parent
        }
        let kind = FileSystemKind.of(path: folder)
        let type = Self.fileSystemType(of: folder) ?? "unknown"
        add("runs", .string(folder))
        add("file system", .string(type), "\(type), \(kind.rawValue)")
        if kind == .network {
            warnings.append(
                "'\(folder)' is on a network file system (\(type)): SQLite's write-ahead log does not "
                    + "work between hosts there; --set ledger.path=FILE puts the ledger on a local disk"
            )
        }
        let attributes = try? FileManager.default.attributesOfFileSystem(forPath: folder)
        let free = (attributes?[.systemFreeSize] as? NSNumber)?.intValue ?? 0
        add("free disk bytes", .integer(free), Self.gigabytes(free))
        if free < 100_000_000 {
            problems.append(
                "only \(Self.gigabytes(free)) are free in '\(folder)'; free some, or name another "
                    + "folder with --runs")
        } else if free < 1_000_000_000 {
            warnings.append(
                "only \(Self.gigabytes(free)) are free in '\(folder)'; a ResNet-50 checkpoint takes "
                    + "0.3 GB")
        }
        if !FileManager.default.isWritableFile(atPath: folder) {
            problems.append("'\(folder)' cannot be written to; name another folder with --runs")
        }
    }

    private static func text(of file: String) -> String {
        FileManager.default.contents(atPath: file).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    /// The value of the first `name : value` line.
    private static func field(_ name: String, in text: String) -> String? {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard parts.count == 2, parts[0].trimmingCharacters(in: .whitespaces) == name else {
                continue
            }
            return parts[1].trimmingCharacters(in: .whitespaces)
        }
        return nil
    }

    /// Bytes of a field such as `16384 kB`.
    private static func kilobytes(_ field: String?) -> Int {
        (field?.split(separator: " ").first.flatMap { Int($0) } ?? 0) * 1024
    }

    private static func gigabytes(_ bytes: Int) -> String {
        String(format: "%.1f GB", Double(bytes) / 1e9)
    }

    private static func nvidiaDriver() -> String? {
        text(of: "/proc/driver/nvidia/version").split(separator: " ").first { word in
            word.contains(".") && word.allSatisfy { $0.isNumber || $0 == "." }
        }.map(String.init)
    }

    /// The type of the mount that holds a folder, such as `ext4`: the longest mount point wins.
    private static func fileSystemType(of folder: String) -> String? {
        let path = URL(filePath: folder).resolvingSymlinksInPath().path + "/"
        var best: (length: Int, type: String)?
        for line in text(of: "/proc/self/mounts").split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 2 else { continue }
            let point = fields[1] == "/" ? "/" : fields[1] + "/"
            if path.hasPrefix(point), point.count >= best?.length ?? 0 {
                best = (point.count, String(fields[2]))
            }
        }
        return best?.type
    }
}

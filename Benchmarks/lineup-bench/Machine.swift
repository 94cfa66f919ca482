import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Where numbers come from.
struct Machine: Codable {
    let processor: String
    /// Cores that this process may use.
    let cores: [Int]
    let memoryBytes: UInt64
    let kernel: String
    let libTorch: String
    /// Whether the processor multiplies bfloat16 numbers itself.
    let hasBFloat16: Bool
    let commit: String
    let date: String
    /// Mean number of processes that wanted a core in the minute before.
    let loadBefore: Double

    /// Looks at this machine.
    init(libTorch: String) {
        let info = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        processor = Self.value("model name", in: info) ?? "unknown"
        let flags = Set((Self.value("flags", in: info) ?? "").split(separator: " "))
        hasBFloat16 = flags.contains("avx512_bf16") || flags.contains("amx_bf16")
        cores = Self.allowedCores()
        memoryBytes = ProcessInfo.processInfo.physicalMemory
        kernel = ProcessInfo.processInfo.operatingSystemVersionString
        self.libTorch = libTorch
        commit = Self.commit()
        date = Date().formatted(.iso8601)
        let load = (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8)) ?? ""
        loadBefore = Double(load.split(separator: " ").first ?? "") ?? -1
    }

    /// The line that stands over every result.
    var text: String {
        "\(processor), \(cores.count) cores\(hasBFloat16 ? "" : " without bfloat16 instructions"), "
            + "\(memoryBytes >> 30) GiB; LibTorch \(libTorch); commit \(commit); \(date); "
            + "load before \(loadBefore)"
    }

    private static func value(_ key: String, in info: String) -> String? {
        for line in info.split(separator: "\n") where line.hasPrefix(key) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            return line[line.index(after: colon)...].trimmingCharacters(in: .whitespaces)
        }
        return nil
    }

    private static func allowedCores() -> [Int] {
        let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
        let list = value("Cpus_allowed_list", in: status) ?? ""
        let cores = list.split(separator: ",").flatMap { part -> [Int] in
            let ends = part.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, first <= last else { return [] }
            return Array(first...last)
        }
        return cores.isEmpty ? Array(0..<ProcessInfo.processInfo.activeProcessorCount) : cores
    }

    private static func commit() -> String {
        guard let hash = output(of: ["git", "rev-parse", "--short", "HEAD"]), !hash.isEmpty else {
            return "unknown"
        }
        let changes = output(of: ["git", "status", "--porcelain", "--untracked-files=no"]) ?? ""
        return hash + (changes.isEmpty ? "" : " with changes")
    }

    private static func output(of command: [String]) -> String? {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = command
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return nil }
        let data = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { return nil }
        return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

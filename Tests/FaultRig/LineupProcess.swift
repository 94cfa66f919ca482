import Basics
package import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// Where a process runs, beside the plain place.
package struct Placement {
    /// A network of its own.
    package var node: VirtualNetwork.Node?
    /// Limits on its processor time, and the means to freeze it.
    package var group: ControlGroup?
    /// A folder in whose place it sees an empty one.
    package var hidden: String?

    package init(
        node: VirtualNetwork.Node? = nil, group: ControlGroup? = nil, hidden: String? = nil
    ) {
        self.node = node
        self.group = group
        self.hidden = hidden
    }
}

/// One process of `lineup` or another program; it ends with this object, and with this process
/// however that ends.
package final class LineupProcess {
    private let process: ChildProcess
    private let output = Pipe()
    private let errorFile: URL
    private let group: ControlGroup?
    /// What it was started with.
    package let arguments: [String]

    deinit {
        killTree()
        try? FileManager.default.removeItem(at: errorFile)
    }

    /// Starts `lineup`, or the executable named.
    package init(
        _ arguments: [String], executable: URL? = nil, in placement: Placement = Placement()
    ) throws {
        self.arguments = arguments
        group = placement.group
        errorFile = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lineup-rig-\(UInt64.random(in: .min ... .max).hex).log")
        _ = FileManager.default.createFile(atPath: errorFile.path, contents: nil)
        let program = try executable ?? Self.executable()
        // The keys of whoever runs this have no part in it.
        let environment = ProcessInfo.processInfo.environment.merging(
            ["XDG_CONFIG_HOME": errorFile.path + ".config"]) { $1 }
        let errors = try FileHandle(forWritingTo: errorFile)
        let command = Self.deathSignal + Self.entrance(to: placement) + [program.path] + arguments
        process = try Spawner.shared.run { [writing = output.fileHandleForWriting] in
            try ChildProcess(
                command, environment: environment, output: writing.fileDescriptor,
                error: errors.fileDescriptor)
        }
        try output.fileHandleForWriting.close()
    }

    /// The binary beside the tests; `make test` builds both.
    package static func executable() throws -> URL {
        let here = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
        let places = [
            ProcessInfo.processInfo.environment["LINEUP_BINARY"].map { URL(fileURLWithPath: $0) },
            here.appendingPathComponent("lineup"),
            URL(fileURLWithPath: #filePath).deletingLastPathComponent()
                .appendingPathComponent("../../.build/release/lineup").standardizedFileURL,
        ].compactMap { $0 }
        let found = places.first { FileManager.default.isExecutableFile(atPath: $0.path) }
        guard let found else {
            throw RigError(
                "no lineup binary at \(places.map(\.path)); run 'make test', which builds it")
        }
        return found
    }

    /// Sends SIGKILL to the child when the thread that started it ends; empty where it cannot.
    package static let deathSignal: [String] =
        run(["setpriv", "--pdeathsig", "KILL", "true"]) == 0
        ? ["setpriv", "--pdeathsig", "KILL"] : []

    private static func entrance(to placement: Placement) -> [String] {
        var words = placement.node.map { $0.entrance } ?? []
        if let group = placement.group {
            // The process writes itself into the groups before it becomes the program.
            let files = group.entryFiles
            let writes = files.indices.map { "echo $$ >\"$\($0 + 1)\"" }.joined(separator: " && ")
            words += ["sh", "-c", "\(writes) && shift \(files.count) && exec \"$@\"", "sh"] + files
        }
        if let hidden = placement.hidden {
            words += [
                "unshare", "--mount", "--propagation", "private", "sh", "-c",
                "mount -t tmpfs none \"$1\" && shift && exec \"$@\"", "sh", hidden,
            ]
        }
        return words
    }

    /// Runs another program quietly and returns its exit status, -1 where it cannot be started.
    @discardableResult
    package static func run(_ command: [String]) -> Int32 {
        (try? ChildProcess(command))?.wait() ?? -1
    }

    package var identifier: Int32 { process.identifier }
    package var isRunning: Bool { process.isRunning }

    package func send(_ signal: Int32) { process.send(signal) }

    /// Children of a process, from /proc.
    package static func children(of parent: Int32) -> [Int32] {
        let tasks = "/proc/\(parent)/task"
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
        return threads.flatMap { thread in
            let text = try? String(contentsOfFile: "\(tasks)/\(thread)/children", encoding: .utf8)
            return (text ?? "").split(separator: " ").compactMap { Int32($0) }
        }
    }

    /// kill -9 of the process and everything that it started.
    package func killTree() {
        guard process.isRunning else { return }
        let children = Self.children(of: identifier)
        for child in [identifier] + children { kill(child, SIGKILL) }
        // A frozen process dies when it is thawed.
        group?.freeze(false)
        process.wait()
    }

    /// Waits for the end.
    ///
    /// - Throws: ``RigError`` with the log where it takes longer than `seconds`; it is killed then.
    @discardableResult
    package func wait(seconds: Double = 120) throws -> Int32 {
        let deadline = Date().addingTimeInterval(seconds)
        while process.isRunning {
            if Date() > deadline {
                let log = errors
                killTree()
                throw RigError("lineup did not end within \(seconds) s:\n\(log.suffix(4_000))")
            }
            usleep(20_000)
        }
        return process.wait()
    }

    /// What it has said on standard error.
    package var errors: String { (try? String(contentsOf: errorFile, encoding: .utf8)) ?? "" }

    package func standardOutput() -> String {
        String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }
}

/// The one thread that starts processes: it never ends, and with it no child's death signal fires
/// before this process is gone.
private final class Spawner: Sendable {
    static let shared = Spawner()

    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let wakeup = DispatchSemaphore(value: 0)

    private init() {
        Thread.detachNewThread { [self] in
            while true {
                wakeup.wait()
                for job in jobs.withLock({ jobs in
                    defer { jobs = [] }
                    return jobs
                }) { job() }
            }
        }
    }

    func run(_ start: @escaping @Sendable () throws -> ChildProcess) throws -> ChildProcess {
        let outcome = Outcome()
        let done = DispatchSemaphore(value: 0)
        jobs.withLock {
            $0.append {
                outcome.value.withLock { $0 = Result { try start() } }
                done.signal()
            }
        }
        wakeup.signal()
        done.wait()
        return try outcome.value.withLock { try $0!.get() }
    }
}

private final class Outcome: Sendable {
    let value = Mutex<Result<ChildProcess, any Error>?>(nil)
}

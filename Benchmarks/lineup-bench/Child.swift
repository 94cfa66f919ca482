import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// A process that the benchmark starts; it leaves when its standard input ends, so that nothing
/// outlives the benchmark.
final class Child {
    let name: String
    private let process = Process()
    private let input = Pipe()
    private let output: Pipe?
    private let log: String
    private var unread: [UInt8] = []

    /// Starts a process.
    ///
    /// - Parameters:
    ///   - cores: those it may use; all where nil.
    ///   - log: receives what it says on standard error, and on standard output unless
    ///     `answers` is set.
    ///   - answers: whether ``line(within:)`` reads its standard output.
    init(
        _ name: String, executable: String, arguments: [String],
        environment: [String: String] = [:], cores: [Int]? = nil, log: String, answers: Bool
    ) throws {
        self.name = name
        self.log = log
        if let cores {
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            let list = cores.map(String.init).joined(separator: ",")
            process.arguments = ["taskset", "-c", list, executable] + arguments
        } else {
            process.executableURL = URL(fileURLWithPath: executable)
            process.arguments = arguments
        }
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        process.standardInput = input
        _ = FileManager.default.createFile(atPath: log, contents: nil)
        let messages = try FileHandle(forWritingTo: URL(fileURLWithPath: log))
        process.standardError = messages
        output = answers ? Pipe() : nil
        process.standardOutput = output ?? messages
        do {
            try process.run()
        } catch {
            throw BenchFailure("cannot start \(executable): \(error.localizedDescription)")
        }
        try? messages.close()
        try? output?.fileHandleForWriting.close()
    }

    deinit { end() }

    var isRunning: Bool { process.isRunning }
    /// `env` and `taskset` hand their process over to what they start.
    var identifier: Int32 { process.processIdentifier }

    /// Writes a line to its standard input.
    func send(_ line: String) throws {
        do {
            try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
        } catch {
            throw BenchFailure("\(name) has gone: \(lastWords)")
        }
    }

    /// The next line of its standard output.
    func line(within seconds: Double) throws -> String {
        let deadline = ContinuousClock.now + .seconds(seconds)
        let descriptor = output!.fileHandleForReading.fileDescriptor
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            if let end = unread.firstIndex(of: 10) {
                let line = String(decoding: unread[..<end], as: UTF8.self)
                unread.removeSubrange(...end)
                return line
            }
            guard ContinuousClock.now < deadline else {
                throw BenchFailure("\(name) has not answered within \(seconds) s; see \(log)")
            }
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, 200) > 0 else { continue }
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { throw BenchFailure("\(name) has gone: \(lastWords)") }
            unread += buffer[..<count]
        }
    }

    /// Waits for its end and checks that it is a good one.
    func waitForEnd(within seconds: Double) throws {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while process.isRunning {
            guard ContinuousClock.now < deadline else {
                throw BenchFailure("\(name) has not ended within \(seconds) s; see \(log)")
            }
            usleep(20_000)
        }
        guard process.terminationReason == .exit, process.terminationStatus == 0 else {
            throw BenchFailure("\(name) ended with \(process.terminationStatus): \(lastWords)")
        }
    }

    /// Asks it to leave.
    func leave() { try? input.fileHandleForWriting.close() }

    /// Waits for its end, whatever that is.
    func wait(atMost seconds: Double) {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while process.isRunning, ContinuousClock.now < deadline { usleep(20_000) }
    }

    /// Ends it, kindly at first.
    func end() {
        leave()
        for number in [SIGTERM, SIGKILL] {
            for _ in 0..<250 where process.isRunning { usleep(20_000) }
            if process.isRunning { kill(process.processIdentifier, number) }
        }
    }

    /// The last line that it wrote.
    var lastWords: String {
        let text = (try? String(contentsOfFile: log, encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").last.map(String.init) ?? "it said nothing"
        return "\(line) (log: \(log))"
    }
}

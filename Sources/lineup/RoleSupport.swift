import ArgumentParser
import Foundation
import Logging
import Synchronization
import Tensors

#if canImport(Glibc)
    import Glibc
#endif

/// This Lineup's version, compared between the processes of a cluster.
let lineupVersion = "0.1.0"

/// What `--accept-numerics` does, for two commands.
let acceptNumericsHelp: ArgumentHelp =
    """
    Given once, where LibTorch, the processor or the device is another than before: goes on from the \
    last checkpoint in the numerics class of whoever trains first.
    """

/// This machine's name.
func hostName() -> String {
    ProcessInfo.processInfo.hostName
}

/// Writes to standard error; a reader that went away or a full disk must not end a run.
func writeError(_ text: String) {
    try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
}

/// One line on standard error for each log message.
struct StandardErrorLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    private let label: String

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let values = self.metadata.merging(event.metadata ?? [:]) { _, new in new }
        let tail = values.keys.sorted().map { " \($0)=\(values[$0]!)" }.joined()
        let time = Date().formatted(.iso8601.time(includingFractionalSeconds: true))
        writeError("\(time) \(event.level) \(event.message)\(tail)\n")
    }

    /// Sends every logger's messages to standard error.
    static func bootstrap() {
        LoggingSystem.bootstrap { StandardErrorLog(label: $0) }
    }
}

/// Asks for an orderly end at the first SIGINT, SIGTERM or SIGUSR1, and ends at once at a second.
final class DrainSignals: Sendable {
    private let sources: Mutex<[any DispatchSourceSignal]>

    init(drain: @escaping @Sendable () -> Void) {
        let count = Mutex(0)
        var made: [any DispatchSourceSignal] = []
        for number in [SIGINT, SIGTERM, SIGUSR1] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
            source.setEventHandler {
                let isFirst = count.withLock { count in
                    count += 1
                    return count == 1
                }
                if isFirst { drain() } else { _exit(128 + number) }
            }
            source.resume()
            made.append(source)
        }
        sources = Mutex(made)
    }
}

/// Raises the limit on open files to what the system grants: every worker is a connection or two, and
/// every gradient lies in memory that has a descriptor.
func raiseOpenFileLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}

/// Copies a flight record aside at each SIGUSR2.
final class RecordSignal: Sendable {
    private let source: Mutex<any DispatchSourceSignal>

    init(copy: @escaping @Sendable () -> Void) {
        signal(SIGUSR2, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGUSR2, queue: .global())
        source.setEventHandler(handler: copy)
        source.resume()
        self.source = Mutex(source)
    }
}

/// Calls back when standard input ends: the process that started this one is gone.
func watchStandardInput(_ ended: @escaping @Sendable () -> Void) {
    Thread.detachNewThread {
        var byte: UInt8 = 0
        while read(0, &byte, 1) > 0 {}
        ended()
    }
}

/// Reads `--device`.
func parseDevice(_ text: String) throws -> Device {
    try Device(parsing: text)
}

/// Runs blocking work on a thread of its own, so that Swift's shared threads stay free.
func onOwnThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        let thread = Thread {
            continuation.resume(with: Result { try body() })
        }
        thread.stackSize = 16 << 20
        thread.start()
    }
}

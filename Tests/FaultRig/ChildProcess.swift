import Basics
import CLinux
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// A child of this process, started with posix_spawn(3) and asked for its end with waitpid(2).
///
/// Foundation's `Process` keeps descriptors and a socket pair for each child, watched through
/// select(2); a rig that starts thousands in one process came past its 1,024 descriptors.
package final class ChildProcess: Sendable {
    package let identifier: Int32
    /// As waitpid(2) gives it; nil while it runs.
    private let ended = Mutex<Int32?>(nil)

    /// Starts a program; descriptors above standard error are not passed on.
    ///
    /// - Parameters:
    ///   - command: the program, looked for in PATH, and its arguments.
    ///   - input: descriptor that becomes standard input; /dev/null where nil, as below.
    /// - Throws: ``RigError`` where it cannot be started.
    package init(
        _ command: [String], environment: [String: String] = ProcessInfo.processInfo.environment,
        input: Int32? = nil, output: Int32? = nil, error: Int32? = nil
    ) throws {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        for (number, given) in [input, output, error].enumerated() {
            let place = Int32(number)
            if let given {
                posix_spawn_file_actions_adddup2(&actions, given, place)
            } else {
                posix_spawn_file_actions_addopen(
                    &actions, place, "/dev/null", number == 0 ? O_RDONLY : O_WRONLY, 0)
            }
        }
        posix_spawn_file_actions_addclosefrom_np(&actions, 3)
        // Ctrl+C is for this process; what becomes of its children is for it to say.
        var mask = sigset_t()
        sigemptyset(&mask)
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP) | Int16(POSIX_SPAWN_SETSIGMASK))

        var words = command.map { strdup($0) } + [nil]
        var settings = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for word in words + settings { free(word) } }
        var process: pid_t = 0
        let code = posix_spawnp(&process, command[0], &actions, &attributes, &words, &settings)
        guard code == 0 else {
            throw RigError("cannot start \(command[0]): \(String(cString: strerror(code)))")
        }
        identifier = process
    }

    /// Waits for the end, or only looks whether it has come.
    private func status(options: Int32) -> Int32? {
        ended.withLock { ended in
            if ended == nil {
                var status: Int32 = 0
                var found: pid_t
                repeat {
                    found = waitpid(identifier, &status, options)
                } while found == -1 && errno == EINTR
                // Whoever else reaped it: it is gone, and nobody can say how.
                if found != 0 { ended = found == identifier ? status : 0xff00 }
            }
            return ended
        }
    }

    package var isRunning: Bool { status(options: WNOHANG) == nil }

    /// Exit code, or the number of the signal that ended it; waits for the end.
    @discardableResult
    package func wait() -> Int32 {
        let status = status(options: 0) ?? 0
        return status & 0x7f == 0 ? (status >> 8) & 0xff : status & 0x7f
    }

    /// Sends a signal, unless it has ended.
    package func send(_ signal: Int32) {
        ended.withLock { ended in
            if ended == nil { kill(identifier, signal) }
        }
    }
}

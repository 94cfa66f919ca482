import Foundation
import Synchronization

/// Cleans up what outlives processes — control groups, mounts — when this process is gone,
/// however it ended.
///
/// A shell keeps the commands that it is told and carries them out when its standard input ends.
package enum Janitor {
    private static let input = Mutex<FileHandle?>(nil)

    /// Has a shell command carried out after this process's end; it must do no harm when there is
    /// nothing left to clean up.
    package static func atTheEnd(_ command: String) {
        input.withLock { input in
            if input == nil { input = start() }
            try? input?.write(contentsOf: Data((command + "\n").utf8))
        }
    }

    private static func start() -> FileHandle? {
        let pipe = Pipe()
        // A session of its own, so that Ctrl+C does not end it before its time.
        let command = [
            "setsid", "sh", "-c",
            "while IFS= read -r line; do all=\"$line; $all\"; done; sleep 0.5; eval \"$all\"",
        ]
        guard (try? ChildProcess(command, input: pipe.fileHandleForReading.fileDescriptor)) != nil
        else { return nil }
        return pipe.fileHandleForWriting
    }
}

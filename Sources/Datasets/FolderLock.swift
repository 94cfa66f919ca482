import Foundation

/// Keeps two processes from writing the same folder at once; released with the object or the
/// process.
package final class FolderLock {
    private let file: Int32

    /// Takes the folder, which is made if it is not there.
    package init(_ folder: String) throws(DatasetError) {
        try Self.makeFolder(folder)
        let path = "\(folder)/.lineup.lock"
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard file >= 0 else {
            throw DatasetError(
                .inputOutput, "\(path) cannot be written: \(String(cString: strerror(errno)))")
        }
        guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
            close(file)
            throw DatasetError(
                .occupied,
                "another lineup process is writing \(folder); wait for it or name another folder")
        }
    }

    deinit { close(file) }

    /// Makes a folder and those above it.
    static func makeFolder(_ folder: String) throws(DatasetError) {
        do {
            try FileManager.default.createDirectory(
                atPath: folder, withIntermediateDirectories: true)
        } catch {
            throw DatasetError(
                .inputOutput, "folder \(folder) cannot be made: \(error.localizedDescription)")
        }
    }

    /// The names in a folder, sorted; without hidden ones.
    static func names(in folder: String) throws(DatasetError) -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder)
                .filter { !$0.hasPrefix(".") }.sorted()
        } catch {
            guard FileManager.default.fileExists(atPath: folder) else {
                throw DatasetError(.missing, "folder \(folder) is missing")
            }
            throw DatasetError(
                .inputOutput, "folder \(folder) cannot be read: \(error.localizedDescription)")
        }
    }
}

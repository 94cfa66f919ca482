import Foundation
import Storage
import Testing

/// What becomes of a ledger that the disk, or somebody, has damaged: it is named and kept, never written.
@Suite struct DamagedLedgerTests {
    /// Files of a ledger that is closed, or was left by a process that died, by what follows its name.
    private static func files(of path: String) -> [String: Data] {
        ["", "-wal"].reduce(into: [:]) { files, part in
            files[part] = FileManager.default.contents(atPath: path + part)
        }
    }

    /// A ledger of many pages, of which some are in its log alone, as after `kill -9`.
    private static func killed(_ folder: TemporaryFolder) throws -> String {
        let path = folder("ledger.sqlite")
        do {
            let ledger = try started(folder)
            for step in 1...400 {
                try ledger.commitStep(stepRecord(step), miniBatches: miniBatches(step))
            }
            try ledger.close()
        }
        let ledger = try Ledger(path: path)
        try ledger.beginTerm()
        try ledger.commitStep(stepRecord(401), miniBatches: miniBatches(401))
        let copy = folder("run") + "/ledger.sqlite"
        try FileManager.default.createDirectory(
            atPath: folder("run"), withIntermediateDirectories: true)
        for part in ["", "-wal"] {
            try FileManager.default.copyItem(atPath: path + part, toPath: copy + part)
        }
        try ledger.close()
        return copy
    }

    private static func overwrite(_ path: String, at offset: UInt64, with bytes: Data) throws {
        let handle = try #require(FileHandle(forWritingAtPath: path))
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: bytes)
        try handle.close()
    }

    /// Opens a damaged ledger of a run that has begun, which must fail and keep every byte.
    private static func expectSetAside(
        _ path: String, as name: String = ".damaged-1", saying texts: String...,
        at location: SourceLocation = #_sourceLocation
    ) throws {
        let before = files(of: path)
        let error = storageError { _ = try Ledger(path: path, isBegun: true) }
        let message = error?.message ?? "nothing was thrown"
        #expect(error?.code == .corrupt && error?.isBadInput == true, sourceLocation: location)
        for text in [path, path + name] + texts {
            #expect(message.contains(text), "\(message)", sourceLocation: location)
        }
        #expect(!message.contains("\n"), sourceLocation: location)
        #expect(files(of: path).isEmpty, sourceLocation: location)
        #expect(files(of: path + name) == before, sourceLocation: location)
        expectError(.notFound, path, "checkpoints", at: location) {
            _ = try Ledger(path: path, isBegun: true)
        }
        #expect(files(of: path).isEmpty, sourceLocation: location)
    }

    @Test func aDamagedInnerPageIsFound() throws {
        let folder = try TemporaryFolder()
        let path = try Self.killed(folder)
        let bytes = try #require(Self.files(of: path)[""]?.count)
        #expect(bytes > 20 * 4096)
        // In the middle, so that neither opening nor reading the run's row would touch it.
        for page in bytes / 4096 / 2..<bytes / 4096 / 2 + 4 {
            try Self.overwrite(
                path, at: UInt64(page * 4096), with: Data(repeating: 0xA5, count: 512))
        }
        let reader = try LedgerReader(path: path)
        #expect(try reader.run()?.lastStep == 401)
        try reader.close()
        try Self.expectSetAside(path, saying: "Page")
    }

    @Test func aDamagedHeaderAndATruncatedFileAreFound() throws {
        let folder = try TemporaryFolder()
        let path = try Self.killed(folder)
        let sound = Self.files(of: path)
        try Self.overwrite(path, at: 0, with: Data(repeating: 0x5A, count: 100))
        try Self.expectSetAside(path)
        for (part, bytes) in sound { try bytes.write(to: URL(fileURLWithPath: path + part)) }
        let file = try #require(FileHandle(forWritingAtPath: path))
        try file.truncate(atOffset: 40_000)
        try file.close()
        try Data().write(to: URL(fileURLWithPath: path + "-wal"))
        try Self.expectSetAside(path, as: ".damaged-2")
        // A sound copy in its place is all that is needed.
        for (part, bytes) in sound { try bytes.write(to: URL(fileURLWithPath: path + part)) }
        let ledger = try Ledger(path: path, isBegun: true)
        #expect(try ledger.reader.run()?.lastStep == 401)
    }

    @Test func anEmptyFileIsANewLedgerOfANewRunAlone() throws {
        let folder = try TemporaryFolder()
        let path = try Self.killed(folder)
        try Data().write(to: URL(fileURLWithPath: path))
        // SQLite itself would delete the log, and with it the only steps that are left.
        expectError(.corrupt, path, "empty") { _ = try Ledger(path: path) }
        #expect(Self.files(of: path).isEmpty)
        try Data().write(to: URL(fileURLWithPath: path))
        try Self.expectSetAside(path, as: ".damaged-2", saying: "empty")
        try Data().write(to: URL(fileURLWithPath: path))
        let ledger = try Ledger(path: path)
        #expect(try ledger.reader.run() == nil)
    }

    @Test func whatIsNoLedgerOfABegunRunStaysWhereItIs() throws {
        let folder = try TemporaryFolder()
        let path = folder("notes.txt")
        try Data("no ledger at all, but somebody's text".utf8).write(
            to: URL(fileURLWithPath: path))
        expectError(.corrupt, path) { _ = try Ledger(path: path) }
        #expect(try folder.names() == ["coordinator.lock", "notes.txt"])
    }
}

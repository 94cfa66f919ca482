internal import ClusterCore
internal import Foundation
internal import HDF5
public import Settings
public import Storage

/// Embeddings, losses and file names of every committed step, in HDF5 files in `RUN/detailed`.
///
/// A step's rows lie in the ledger from the transaction that commits the step until they are in a file.
/// A file holds up to 100 consecutive steps. It is written beside its place, flushed to the disk and
/// renamed within the transaction in which the ledger forgets its rows: after a crash in between, the
/// file is written again from itself and the ledger, to the same contents.
///
/// One thread at a time.
public final class DetailedLog {
    /// The folder.
    public let directory: String
    /// Whether steps are logged.
    public let isOn: Bool
    private let shapes: [Shape]
    private let ledger: Ledger
    private let files = SystemFiles()

    /// What steps look like from some step on.
    private struct Shape {
        let updatesBefore: Int
        let rows: Int
        /// Of embeddings and losses.
        let bytes: Int
    }

    /// Steps in a file, at most.
    static let stepsMax = 100
    /// Bytes of a file and of what the ledger keeps for it, about at most; one step is always written.
    static let fileBytesMax = 32 << 20
    /// Bytes of a step, at most: they are one row of the ledger.
    static let stepBytesMax = 256 << 20

    /// Names where rows come from and where they go; nothing is written.
    ///
    /// - Throws: ``CoordinatorError`` with code `badSetting` where a step is too large to be kept.
    public init(run: String, settings: Settings, ledger: Ledger) throws {
        directory = run + "/detailed"
        isOn = settings.logging.detailed
        self.ledger = ledger
        shapes = try Self.shapes(settings)
        let largest = shapes.max { $0.bytes < $1.bytes }!
        guard !isOn || largest.bytes <= Self.stepBytesMax else {
            throw CoordinatorError(
                .badSetting,
                "logging.detailed would keep \(largest.bytes >> 20) MiB of every step (\(largest.rows) images, "
                    + "\(settings.network.embeddingDim) numbers each), and at most "
                    + "\(Self.stepBytesMax >> 20) MiB are kept: leave it off, or take smaller steps or "
                    + "embeddings")
        }
    }

    // MARK: Which file

    /// From the start of the run on.
    private static func shapes(_ settings: Settings) throws -> [Shape] {
        let batch = settings.batch
        func shape(from updatesBefore: Int, _ images: Int) -> Shape {
            let rows = images * batch.miniBatchesPerStep
            return Shape(
                updatesBefore: updatesBefore, rows: rows,
                bytes: rows * (settings.network.embeddingDim + 1) * 4)
        }
        guard batch.images == 0, !batch.isOfTriplets else {
            return [shape(from: 0, batch.imagesPerSlot)]
        }
        return try BatchPhase.all(of: batch).map {
            shape(from: $0.updatesBefore, $0.identities * $0.imagesPerIdentity)
        }
    }

    /// The steps that share a file with a step: all have as many images.
    public func steps(with step: Int) -> ClosedRange<Int> {
        let place = shapes.lastIndex { $0.updatesBefore < step }!
        let count = min(Self.stepsMax, max(1, Self.fileBytesMax / max(1, shapes[place].bytes)))
        let begin = shapes[place].updatesBefore + 1
        let first = begin + (step - begin) / count * count
        let next = place + 1 < shapes.count ? shapes[place + 1].updatesBefore : .max
        return first...min(first + count - 1, next)
    }

    private func path(_ steps: ClosedRange<Int>) -> String {
        func digits(_ step: Int) -> String {
            String(repeating: "0", count: max(0, 9 - "\(step)".count)) + "\(step)"
        }
        return directory + "/steps-\(digits(steps.lowerBound))-\(digits(steps.upperBound)).h5"
    }

    /// The last step that a file may hold, by its name; nil for what is no file of ours.
    private static func lastStep(inFile name: String) -> Int? {
        guard name.hasPrefix("steps-"), name.hasSuffix(".h5") else { return nil }
        return name.dropLast(3).split(separator: "-").last.flatMap { Int($0) }
    }

    // MARK: Into files

    /// Writes the files whose last step is committed.
    ///
    /// - Parameter lastStep: the last committed step.
    /// - Throws: `StorageError`, `HDF5Error`; the rows of files that cannot be written stay in the ledger,
    ///   the others are written all the same.
    public func writeFull(lastStep: Int) throws {
        guard isOn, steps(with: lastStep).upperBound == lastStep else { return }
        try writeAll { $0.upperBound <= lastStep }
    }

    /// Writes everything that the ledger keeps, as at the end of a run.
    ///
    /// - Throws: as ``writeFull(lastStep:)``.
    public func writeAll() throws { try writeAll { _ in true } }

    private func writeAll(where isDue: (ClosedRange<Int>) -> Bool) throws {
        var due: [ClosedRange<Int>] = []
        for step in try ledger.reader.detailedSteps() where due.last?.contains(step) != true {
            due.append(steps(with: step))
        }
        var failure: (any Error)?
        for steps in due where isDue(steps) {
            do {
                try write(steps)
            } catch {
                if (error as? StorageError)?.code == .staleTerm { throw error }
                failure = failure ?? error
            }
        }
        if let failure { throw failure }
    }

    /// Writes one file from what is in it and what the ledger keeps for it.
    private func write(_ steps: ClosedRange<Int>) throws {
        let path = path(steps)
        var records: [Int: DetailedRecord] = [:]
        if files.exists(path) {
            for record in try DetailedFile.read(path) { records[record.step] = record }
        }
        for record in try ledger.reader.detailed(in: steps) { records[record.step] = record }
        try files.createDirectory(directory)
        let part = path + ".part"
        try files.remove(part)
        try DetailedFile.write(records.keys.sorted().map { records[$0]! }, to: part)
        try files.synchroniseFile(part)
        try ledger.removeDetailed(steps) {
            try files.rename(part, to: path)
            try files.synchroniseDirectory(directory)
        }
    }

    // MARK: Out of files

    /// Brings files into agreement with a ledger that may have gone back: rows of steps that are not
    /// committed any more are set aside with their file, and the others in it go back to the ledger.
    ///
    /// Then writes what a crash kept from being written.
    ///
    /// - Parameter lastStep: the last committed step.
    /// - Returns: files that were set aside.
    /// - Throws: `StorageError`, `HDF5Error`.
    public func takeUp(lastStep: Int) throws -> [String] {
        var aside: [String] = []
        for name in try files.list(directory) where (Self.lastStep(inFile: name) ?? 0) > lastStep {
            let path = directory + "/" + name
            guard try DetailedFile.steps(path).contains(where: { $0 > lastStep }) else { continue }
            try ledger.putBack(try DetailedFile.read(path).filter { $0.step <= lastStep })
            var number = 1
            while files.exists("\(path).superseded-\(number)") { number += 1 }
            try files.rename(path, to: "\(path).superseded-\(number)")
            try files.synchroniseDirectory(directory)
            aside.append("\(name).superseded-\(number)")
        }
        if lastStep > 0 { try writeAll { $0.upperBound <= lastStep } }
        return aside
    }
}

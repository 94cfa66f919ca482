import Basics
import Foundation

/// Embeddings in a file that grows batch by batch, so that what is computed once is not computed again.
///
/// Sixteen bytes of what the embeddings are of and their dimension, then whole batches of rows, each followed
/// by its digest; a batch that was not written to its end is forgotten when the file is opened again.
package final class EmbeddingStore {
    /// Where the file is.
    package let path: String
    /// Rows that there are to be.
    package let count: Int
    /// Numbers of a row.
    package let dimension: Int
    /// Rows of a batch; the last one has what is left.
    package let batchSize: Int
    /// Batches that are there.
    package private(set) var batches: Int
    private let file: FileHandle

    private static let headerBytes = 16

    /// Rows that are there.
    package var rows: Int { min(batches * batchSize, count) }
    private var batchBytes: Int { batchSize * dimension * 4 + 8 }

    /// Opens a file, or begins one.
    ///
    /// - Parameter key: of what the embeddings are a function; a file of another key is begun anew.
    /// - Throws: ``EvalWorkerError`` with code `io`.
    package init(path: String, key: UInt64, count: Int, dimension: Int, batchSize: Int) throws {
        self.path = path
        self.count = count
        self.dimension = dimension
        self.batchSize = batchSize
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw EvalWorkerError.system("open", path) }
        file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        batches = 0
        let header = [key, UInt64(dimension)].withUnsafeBytes { Data($0) }
        if try file.read(upToCount: Self.headerBytes) == header {
            while try isWhole(batches) { batches += 1 }
        } else {
            try file.truncate(atOffset: 0)
            try file.seek(toOffset: 0)
            try file.write(contentsOf: header)
        }
        try file.truncate(atOffset: UInt64(end))
    }

    /// Rows of a batch.
    private func rowCount(_ batch: Int) -> Int { min(batchSize, count - batch * batchSize) }

    private var end: Int {
        Self.headerBytes + rows * dimension * 4 + batches * 8
    }

    private func isWhole(_ batch: Int) throws -> Bool {
        guard batch * batchSize < count else { return false }
        let bytes = rowCount(batch) * dimension * 4
        guard let data = try file.read(upToCount: bytes + 8), data.count == bytes + 8 else {
            return false
        }
        let digest = data.prefix(bytes).withUnsafeBytes { XXH64.digest($0) }
        return withUnsafeBytes(of: digest) { Data($0) } == data.suffix(8)
    }

    /// Adds the next batch.
    package func append(_ values: [Float]) throws {
        precondition(
            values.count == rowCount(batches) * dimension,
            "\(values.count) values for batch \(batches) of \(count) rows of \(dimension)")
        var data = values.withUnsafeBytes { Data($0) }
        withUnsafeBytes(of: values.withUnsafeBytes { XXH64.digest($0) }) {
            data.append(contentsOf: $0)
        }
        do {
            try file.seek(toOffset: UInt64(end))
            try file.write(contentsOf: data)
        } catch {
            throw EvalWorkerError(
                .io,
                "\(path) cannot be written: \(error.localizedDescription); make room and start "
                    + "again, what is complete is kept")
        }
        batches += 1
    }

    /// Lends all rows, which are read from the file as they are needed.
    package func withRows<Result>(
        _ body: (_ row: (Int) -> UnsafeBufferPointer<Float>) throws -> Result
    ) throws -> Result {
        precondition(rows == count, "\(rows) of \(count) embeddings are there")
        let data = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
        return try data.withUnsafeBytes { bytes in
            try body { row in
                let start =
                    Self.headerBytes + row / self.batchSize * self.batchBytes
                    + row % self.batchSize * self.dimension * 4
                return UnsafeRawBufferPointer(rebasing: bytes[start..<start + self.dimension * 4])
                    .bindMemory(to: Float.self)
            }
        }
    }

    /// Deletes the file: nothing is left to go on with.
    package func remove() { unlink(path) }
}

internal import HDF5
internal import Storage

/// One HDF5 file of ``DetailedLog``.
///
/// `embeddings` float32 [steps, rows, dimension], `losses` float32 [steps, rows] and `fids` text [steps,
/// rows] are named and shaped as triplet-reid's memory maps; `steps` int64 [steps] says which steps
/// they are, ascending.
enum DetailedFile {
    /// Writes a file that does not exist yet.
    ///
    /// - Parameter records: at least one, by step, with equal numbers of rows.
    /// - Throws: `HDF5Error`; ``CoordinatorError`` where the numbers of rows differ.
    static func write(_ records: [DetailedRecord], to path: String) throws {
        let rows = records[0].names.count
        let dimension = records[0].embeddings.count / rows
        if let other = records.first(where: {
            $0.names.count != rows || $0.embeddings.count != rows * dimension
        }) {
            throw CoordinatorError(
                .failed,
                "\(path) is not written: step \(other.step) has \(other.names.count) rows of "
                    + "\(other.embeddings.count / other.names.count) numbers, step "
                    + "\(records[0].step) has \(rows) of \(dimension)")
        }
        let file = try HDF5File(creating: path)
        try file.write(records.map(\.step), shape: [records.count], as: "steps")
        try file.create("embeddings", of: .float, shape: [records.count, rows, dimension])
        try file.create("losses", of: .float, shape: [records.count, rows])
        for (place, record) in records.enumerated() {
            try record.embeddings.withUnsafeBufferPointer {
                try file.write($0, rows: place..<place + 1, of: "embeddings")
            }
            try record.losses.withUnsafeBufferPointer {
                try file.write($0, rows: place..<place + 1, of: "losses")
            }
        }
        try file.write(records.flatMap(\.names), shape: [records.count, rows], as: "fids")
        try file.close()
    }

    /// The steps of a file, ascending.
    static func steps(_ path: String) throws -> [Int] {
        try HDF5File(reading: path).integers(of: "steps")
    }

    /// Everything in a file, by step.
    static func read(_ path: String) throws -> [DetailedRecord] {
        let file = try HDF5File(reading: path)
        let steps = try file.integers(of: "steps")
        let names = try file.texts(of: "fids")
        let shape = try file.shape(of: "embeddings")
        guard shape.count == 3, shape[0] == steps.count, names.count == shape[0] * shape[1],
            try file.shape(of: "losses") == Array(shape[..<2])
        else {
            throw CoordinatorError(
                .failed,
                "\(path) holds \(steps.count) steps, \(names.count) names and embeddings of sizes "
                    + "\(shape), which do not go together; move it out of the folder")
        }
        return try steps.indices.map { place in
            DetailedRecord(
                step: steps[place],
                names: Array(names[place * shape[1]..<(place + 1) * shape[1]]),
                embeddings: try file.floats(of: "embeddings", rows: place..<place + 1),
                losses: try file.floats(of: "losses", rows: place..<place + 1))
        }
    }
}

import Foundation
import HDF5
import Testing

@Suite struct HDF5FileTests {
    private static let fixture = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Fixtures/by_h5py.h5").path
    private let path =
        NSTemporaryDirectory() + "lineup-hdf5-\(UInt64.random(in: .min ... .max)).h5"

    /// That an error has a code, and a text that names all parts.
    private func expect(
        _ code: HDF5Error.Code, _ parts: String..., at location: SourceLocation = #_sourceLocation,
        _ body: () throws -> Void
    ) {
        let error = #expect(throws: HDF5Error.self, sourceLocation: location) { try body() }
        #expect(error?.code == code, sourceLocation: location)
        for part in parts {
            #expect(error?.message.contains(part) == true, "\(error!)", sourceLocation: location)
        }
    }

    @Test func whatH5pyWroteIsRead() throws {
        let file = try HDF5File(reading: Self.fixture)
        #expect(
            try file.names == [
                "bytes", "double", "emb", "empty", "group", "identities", "one", "packed", "texts",
            ])
        let numbers = (0..<12).map { Float($0) / 8 }
        for name in ["emb", "double", "packed"] {
            #expect(try file.shape(of: name) == [4, 3])
            #expect(try file.floats(of: name) == numbers)
            #expect(try file.floats(of: name, rows: 1..<3) == Array(numbers[3..<9]))
        }
        #expect(try file.integers(of: "identities") == [3, -1, 1 << 40])
        #expect(try file.texts(of: "bytes") == ["a.jpg", "longer/b.jpg", ""])
        #expect(try file.texts(of: "texts") == ["é.jpg", "b", ""])
        #expect(try file.shape(of: "one") == [] && file.floats(of: "one") == [2.5])
        #expect(try file.shape(of: "empty") == [0, 3] && file.floats(of: "empty") == [])
    }

    @Test func whatIsWrittenIsRead() throws {
        defer { try? FileManager.default.removeItem(atPath: path) }
        let file = try HDF5File(creating: path)
        try file.create("rows", of: .float, shape: [5, 2])
        let values = (0..<10).map { Float($0) }
        for start in [2, 0, 4] {
            let rows = start..<min(5, start + 2)
            try values[2 * rows.lowerBound..<2 * rows.upperBound].withUnsafeBufferPointer {
                try file.write($0, rows: rows, of: "rows")
            }
        }
        try file.write([.nan, -0.0, .infinity], shape: [3, 1], as: "odd")
        try file.write([Int.min, 7], shape: [2], as: "integers")
        try file.write(["é", "", "a b"], shape: [3], as: "texts")
        try file.write([Float](), shape: [0, 4], as: "empty")
        try file.close()
        let again = try HDF5File(reading: path)
        #expect(try again.floats(of: "rows") == values)
        #expect(
            try again.floats(of: "odd").map(\.bitPattern)
                == [Float.nan, -0.0, .infinity].map(\.bitPattern))
        #expect(try again.integers(of: "integers") == [.min, 7])
        #expect(try again.texts(of: "texts") == ["é", "", "a b"])
        #expect(try again.shape(of: "empty") == [0, 4])
    }

    @Test func whatIsWrongIsNamed() throws {
        defer { try? FileManager.default.removeItem(atPath: path) }
        expect(.notFound, path) { _ = try HDF5File(reading: path) }
        try Data("no HDF5 at all".utf8).write(to: URL(fileURLWithPath: path))
        expect(.corrupt, path, "no whole HDF5 file") { _ = try HDF5File(reading: path) }
        expect(.exists, path) { _ = try HDF5File(creating: path) }
        let file = try HDF5File(reading: Self.fixture)
        expect(.notFound, "'embs'") { _ = try file.floats(of: "embs") }
        expect(.mismatch, "'group'", "is no data set") { _ = try file.floats(of: "group") }
        expect(.mismatch, "'texts'", "no numbers") { _ = try file.floats(of: "texts") }
        expect(.mismatch, "'emb'", "no texts") { _ = try file.texts(of: "emb") }
        expect(.mismatch, "'emb'", "has 4 rows") { _ = try file.floats(of: "emb", rows: 2..<5) }
        try file.close()
        expect(.io, "is closed") { _ = try file.names }
    }

    /// A file that was copied half.
    @Test(arguments: [1, 7, 100, 2048, 6000])
    func aTruncatedFileIsNoFile(bytesMissing: Int) throws {
        defer { try? FileManager.default.removeItem(atPath: path) }
        let whole = try Data(contentsOf: URL(fileURLWithPath: Self.fixture))
        try whole.dropLast(bytesMissing).write(to: URL(fileURLWithPath: path))
        expect(.corrupt, path, "truncated") { _ = try HDF5File(reading: path) }
    }

    @Test func manyThreadsReadAtOnce() throws {
        let file = try HDF5File(reading: Self.fixture)
        DispatchQueue.concurrentPerform(iterations: 200) { number in
            let rows = number % 4..<number % 4 + 1
            let found = try? file.floats(of: "packed", rows: rows)
            #expect(found == (0..<3).map { Float(3 * rows.lowerBound + $0) / 8 })
        }
    }
}

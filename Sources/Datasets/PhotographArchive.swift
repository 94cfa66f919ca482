import CZlib
import Foundation

/// The grey 28 x 28 photographs of one part of Fashion-MNIST with their categories.
struct PhotographArchive: Sendable {
    /// Pixels along a photograph's side.
    static let side = 28
    /// Names of the categories, by label.
    static let categories = [
        "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
        "ankle_boot",
    ]

    let labels: [UInt8]
    private let pixels: [UInt8]

    /// Photographs in the archive.
    var count: Int { labels.count }

    /// The bytes of one photograph, row by row; 0 is the background.
    func photograph(_ index: Int) -> ArraySlice<UInt8> {
        let size = Self.side * Self.side
        return pixels[index * size..<(index + 1) * size]
    }

    /// Throws unless there are `least` photographs of every category.
    func checkEveryCategory(has least: Int, folder: String) throws(DatasetError) {
        for (label, name) in Self.categories.enumerated() {
            let found = labels.count { $0 == label }
            guard found >= least else {
                throw DatasetError(
                    .notEnough,
                    "\(folder) has \(found) photographs of category \(name); expected at least "
                        + "\(least)")
            }
        }
    }

    /// Reads `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte`, each with or without
    /// `.gz`.
    init(folder: String, prefix: String) throws(DatasetError) {
        let imagePath = try Self.find(folder, "\(prefix)-images-idx3-ubyte")
        let labelPath = try Self.find(folder, "\(prefix)-labels-idx1-ubyte")
        let images = try Self.read(imagePath, magic: 2051, dimensions: 3)
        let listed = try Self.read(labelPath, magic: 2049, dimensions: 1)
        guard images.sizes[1] == Self.side, images.sizes[2] == Self.side else {
            throw DatasetError(
                .malformed,
                "\(imagePath) holds \(images.sizes[2])x\(images.sizes[1]) images; expected 28x28")
        }
        guard images.sizes[0] == listed.sizes[0] else {
            throw DatasetError(
                .inconsistent,
                "\(imagePath) has \(images.sizes[0]) images, \(labelPath) has \(listed.sizes[0]) "
                    + "labels")
        }
        if let wrong = listed.body.first(where: { $0 >= Self.categories.count }) {
            throw DatasetError(.malformed, "\(labelPath) has label \(wrong); expected 0 to 9")
        }
        pixels = images.body
        labels = listed.body
    }

    /// The first folder of the search list that holds the photographs.
    ///
    /// - Parameter source: a folder that the user named; it is then the only one.
    static func locate(source: String?) throws(DatasetError) -> String {
        let places =
            source.map { [$0] } ?? [
                "/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist",
                NSHomeDirectory() + "/.local/share/datasets/fashion-mnist",
            ]
        for place in places
        where (try? find(place, "train-images-idx3-ubyte")) != nil { return place }
        throw DatasetError(
            .missing,
            "the photographs (train-images-idx3-ubyte.gz and three more) are not in "
                + "\(places.joined(separator: ", ")); install them with 'apt install "
                + "dataset-fashion-mnist' or name their folder with --source")
    }

    private static func find(_ folder: String, _ name: String) throws(DatasetError) -> String {
        for path in ["\(folder)/\(name).gz", "\(folder)/\(name)"]
        where FileManager.default.fileExists(atPath: path) { return path }
        throw DatasetError(.missing, "\(folder)/\(name).gz is missing")
    }

    private static func read(
        _ path: String, magic: Int, dimensions: Int
    ) throws(DatasetError) -> (sizes: [Int], body: [UInt8]) {
        let bytes = try inflate(path)
        func word(_ index: Int) -> Int {
            bytes[index * 4..<index * 4 + 4].reduce(0) { $0 << 8 | Int($1) }
        }
        let header = 4 * (dimensions + 1)
        guard bytes.count >= header, word(0) == magic else {
            throw DatasetError(
                .malformed,
                "\(path) is no IDX file of \(dimensions) dimensions: expected the magic number "
                    + "\(magic)\(bytes.count >= 4 ? ", found \(word(0))" : "")")
        }
        let sizes = (1...dimensions).map(word)
        let expected = sizes.reduce(1) { $0.multipliedReportingOverflow(by: $1).partialValue }
        guard bytes.count - header == expected else {
            throw DatasetError(
                .malformed,
                "\(path) has \(bytes.count - header) bytes of data; its header says \(expected)")
        }
        return (sizes, Array(bytes[header...]))
    }

    /// A file's bytes, unpacked when it is a gzip file.
    private static func inflate(_ path: String) throws(DatasetError) -> [UInt8] {
        guard let file = gzopen(path, "rb") else {
            throw DatasetError(
                .inputOutput, "\(path) cannot be read: \(String(cString: strerror(errno)))")
        }
        gzbuffer(file, 1 << 18)
        let bytesMax = 1 << 28
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        var problem: String?
        while problem == nil {
            let got = gzread(file, &chunk, UInt32(chunk.count))
            if got > 0 { bytes += chunk[..<Int(got)] }
            if bytes.count > bytesMax { problem = "it unpacks to more than \(bytesMax) bytes" }
            if got < Int32(chunk.count) {
                var code: Int32 = 0
                let text = gzerror(file, &code)
                if got < 0 || (code != Z_OK && code != Z_STREAM_END) {
                    problem = text.map { String(cString: $0) } ?? "damaged"
                }
                if got <= 0 { break }
            }
        }
        // A stream that ends early is only reported when the file is closed.
        if gzclose_r(file) == Z_BUF_ERROR { problem = problem ?? "it ends early" }
        if let problem {
            throw DatasetError(.malformed, "\(path) is a damaged gzip file: \(problem)")
        }
        return bytes
    }
}

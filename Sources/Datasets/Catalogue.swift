import Basics
import Images

/// Every image of a data set, in a fixed order.
///
/// Stored as `catalogue.csv` in the data set's folder. The columns are `path, identity, split,
/// camera, sequence, frame, track, category, box, role, occluded, bytes, digest`; `box` holds
/// `xmin ymin xmax ymax`, `digest` sixteen hexadecimal digits.
public struct Catalogue: Sendable {
    /// The file's name in a data set's folder.
    public static let fileName = "catalogue.csv"

    /// Folder that the samples' paths start from.
    public let root: String
    /// The images, in the order of the file.
    public let samples: [Sample]
    /// XXH64 of the file; it covers every image's size and digest.
    public let digest: UInt64

    private let indices: [String: Int]

    /// One thing that images show, with its images.
    public struct Identity: Sendable, Equatable {
        /// The catalogue's name for it.
        public let name: String
        /// Indices of its images in ``Catalogue/samples``, in order.
        public let samples: [Int]

        /// Pairs a name with its images.
        public init(name: String, samples: [Int]) {
            self.name = name
            self.samples = samples
        }
    }

    /// Makes a catalogue of samples that are in memory.
    ///
    /// - Throws: ``DatasetError`` for a path that is absolute, climbs out or is there twice.
    public init(root: String, samples: [Sample]) throws(DatasetError) {
        let text = Self.text(samples)
        try self.init(
            root: root, samples: samples, digest: text.withUnsafeBytes { XXH64.digest($0) },
            name: Self.fileName)
    }

    /// Reads `catalogue.csv` of a folder.
    ///
    /// - Throws: ``DatasetError`` naming the file and the line.
    public init(loading directory: String) throws(DatasetError) {
        let path = "\(directory)/\(Self.fileName)"
        let bytes = try imaging { () throws(ImageError) in try FileBytes.read(path) }
        let samples = try Self.parse(bytes, name: path)
        try self.init(
            root: directory, samples: samples,
            digest: bytes.withUnsafeBytes { XXH64.digest($0) }, name: path)
    }

    private init(
        root: String, samples: [Sample], digest: UInt64, name: String
    ) throws(DatasetError) {
        self.root = root
        self.samples = samples
        self.digest = digest
        var indices: [String: Int] = [:]
        indices.reserveCapacity(samples.count)
        for (index, sample) in samples.enumerated() {
            try Self.check(path: sample.path, name: name, line: index + 2)
            if let first = indices.updateValue(index, forKey: sample.path) {
                throw DatasetError(
                    .malformed,
                    "\(name):\(index + 2): path '\(sample.path)' is already on line \(first + 2); "
                        + "every image is listed once")
            }
        }
        self.indices = indices
    }

    /// Where a path is in ``samples``; nil when it is not listed.
    public func index(of path: String) -> Int? { indices[path] }

    /// The identities of a split in order of first appearance, with their images.
    ///
    /// Images without an identity are left out.
    ///
    /// - Parameter includingOccluded: whether images of covered objects count.
    public func identities(split: String, includingOccluded: Bool = false) -> [Identity] {
        var order: [String] = []
        var members: [String: [Int]] = [:]
        for (index, sample) in samples.enumerated()
        where sample.split == split && !sample.identity.isEmpty
            && (includingOccluded || sample.occluded != true)
        {
            if members[sample.identity] == nil { order.append(sample.identity) }
            members[sample.identity, default: []].append(index)
        }
        return order.map { Identity(name: $0, samples: members[$0] ?? []) }
    }

    /// Writes `catalogue.csv` into a folder: completely or not at all.
    ///
    /// - Throws: ``DatasetError`` when the folder cannot be written.
    public func write(to directory: String) throws(DatasetError) {
        let text = Self.text(samples)
        try imaging { () throws(ImageError) in
            try FileBytes.writeAtomically(
                text, to: "\(directory)/\(Self.fileName)", durable: true)
        }
    }

    // MARK: - The file's form

    static let columns = [
        "path", "identity", "split", "camera", "sequence", "frame", "track", "category", "box",
        "role", "occluded", "bytes", "digest",
    ]

    package static func text(_ samples: [Sample]) -> [UInt8] {
        var text = Array((columns.joined(separator: ",") + "\n").utf8)
        text.reserveCapacity(samples.count * 160)
        for sample in samples { append(sample, to: &text) }
        return text
    }

    private static func append(_ sample: Sample, to text: inout [UInt8]) {
        func put(_ value: String) {
            text += CSVTable.field(value).utf8
            text.append(UInt8(ascii: ","))
        }
        put(sample.path)
        put(sample.identity)
        put(sample.split)
        put(sample.camera)
        put(sample.sequence)
        put(sample.frame.map { String($0) } ?? "")
        put(sample.track.map { String($0) } ?? "")
        put(sample.category)
        put(sample.box.map { "\($0.xmin) \($0.ymin) \($0.xmax) \($0.ymax)" } ?? "")
        put(sample.role)
        put(sample.occluded.map { $0 ? "1" : "0" } ?? "")
        put(String(sample.byteCount))
        text += sample.digest.hex.utf8
        text.append(UInt8(ascii: "\n"))
    }

    package static func parse(_ bytes: [UInt8], name: String) throws(DatasetError) -> [Sample] {
        let table = try CSVTable(bytes: bytes, name: name)
        let places = try table.places(
            known: columns, required: ["path", "identity", "split", "bytes", "digest"])
        var samples: [Sample] = []
        var shared: [String: String] = [:]
        try table.forEachRow { (row) throws(DatasetError) in
            func text(_ column: Int) -> String { places[column].map { row[$0] } ?? "" }
            // Equal names share one string: a large catalogue repeats them by the million.
            func common(_ column: Int) -> String {
                guard let place = places[column], !row.isEmpty(place) else { return "" }
                let value = row[place]
                if value.utf8.count <= 15 { return value }
                if let known = shared[value] { return known }
                shared[value] = value
                return value
            }
            func wrong(_ column: Int, _ expected: String) -> DatasetError {
                DatasetError(
                    .malformed,
                    "\(name):\(row.line): \(columns[column]) is '\(text(column))'; "
                        + "expected \(expected)")
            }
            func number(_ column: Int) throws(DatasetError) -> Int? {
                guard let place = places[column], !row.isEmpty(place) else { return nil }
                guard let value = row.integer(place) else { throw wrong(column, "a whole number") }
                return value
            }
            guard let byteCount = try number(11), byteCount >= 0 else {
                throw wrong(11, "the file's size in bytes")
            }
            guard let digest = UInt64(hex: text(12)) else {
                throw wrong(12, "sixteen hexadecimal digits")
            }
            var occluded: Bool?
            switch text(10) {
            case "": occluded = nil
            case "0": occluded = false
            case "1": occluded = true
            default: throw wrong(10, "0, 1 or nothing")
            }
            guard let box = parseBox(text(8)) else {
                throw wrong(8, "'xmin ymin xmax ymax' or nothing")
            }
            samples.append(
                Sample(
                    path: text(0), identity: common(1), split: common(2), camera: common(3),
                    sequence: common(4), frame: try number(5), track: try number(6),
                    category: common(7), box: box.value, role: common(9), occluded: occluded,
                    byteCount: byteCount, digest: digest))
        }
        return samples
    }

    /// Nil for text that is neither empty nor a box.
    private static func parseBox(_ text: String) -> (value: Box?, Void)? {
        if text.isEmpty { return (nil, ()) }
        let numbers = text.utf8.split(
            separator: UInt8(ascii: " "), omittingEmptySubsequences: false
        )
        .map { Int(Substring($0)) }
        guard numbers.count == 4, let xmin = numbers[0], let ymin = numbers[1],
            let xmax = numbers[2], let ymax = numbers[3], xmin <= xmax, ymin <= ymax
        else { return nil }
        return (Box(xmin: xmin, ymin: ymin, xmax: xmax, ymax: ymax), ())
    }

    private static func check(path: String, name: String, line: Int) throws(DatasetError) {
        // Paths with two dots side by side are rare; only they are taken apart.
        var last: UInt8 = 0
        var hasDots = false
        for byte in path.utf8 {
            hasDots = hasDots || (byte == UInt8(ascii: ".") && last == byte)
            last = byte
        }
        guard let first = path.utf8.first, first != UInt8(ascii: "/"),
            !hasDots || !path.split(separator: "/").contains("..")
        else {
            throw DatasetError(
                .malformed,
                "\(name):\(line): path '\(path)' must be relative to the data set's folder and "
                    + "stay inside it")
        }
    }
}

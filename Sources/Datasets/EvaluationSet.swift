import Basics
import Images

/// One question to a network, which of these images shows what the anchor shows.
public struct EvaluationTuple: Sendable, Hashable {
    /// Index of the anchor in ``EvaluationSet/images``.
    public let anchor: Int
    /// Index of the image that shows the same thing.
    public let positive: Int
    /// Indices of images that show something else; at least one.
    public let negatives: [Int]

    /// Names the three parts.
    public init(anchor: Int, positive: Int, negatives: [Int]) {
        self.anchor = anchor
        self.positive = positive
        self.negatives = negatives
    }
}

/// A named list of tuples over a data set's images, stored as `sets/<name>.csv`.
///
/// The columns are `tuple, position, role, path`. Tuples count from 0, positions too; position 0
/// is the anchor, exactly one other has the role `positive`, the rest are `negative`.
public struct EvaluationSet: Sendable {
    /// The sets that curation makes.
    public static let standardNames = ["train_eval", "val_eval", "easy_val_eval"]

    /// The set's name.
    public let name: String
    /// The tuples, in the order of the file.
    public let tuples: [EvaluationTuple]
    /// Distinct paths, relative to the data set's folder, in catalogue order.
    public let images: [String]
    /// For each image its index in the catalogue.
    public let catalogueIndices: [Int]
    /// XXH64 of the file.
    public let digest: UInt64

    /// Images of all tuples together, repeats counted.
    public var memberCount: Int { tuples.reduce(0) { $0 + 2 + $1.negatives.count } }

    /// Reads a set of a data set.
    ///
    /// - Throws: ``DatasetError`` naming the file and the line of the first thing that is wrong: a
    ///   number out of turn, a role, a path that the catalogue does not list or the tuple repeats.
    public init(loading directory: String, name: String, catalogue: Catalogue) throws(DatasetError)
    {
        let path = Self.path(directory, name)
        let bytes: [UInt8]
        do throws(ImageError) {
            bytes = try FileBytes.read(path)
        } catch  where error.code == .missing {
            throw DatasetError(
                .missing, "\(path) is missing; make the sets with 'lineup curate \(directory)'")
        } catch {
            throw DatasetError(error)
        }
        try self.init(parsing: bytes, name: name, path: path, catalogue: catalogue)
    }

    /// Reads the text of a set; `path` names it in errors.
    package init(
        parsing bytes: [UInt8], name: String, path: String, catalogue: Catalogue
    ) throws(DatasetError) {
        let rows = try Self.parse(bytes, name: path, catalogue: catalogue)
        self.init(
            name: name, rows: rows, catalogue: catalogue,
            digest: bytes.withUnsafeBytes { XXH64.digest($0) })
    }

    /// Reads a set of a data set.
    ///
    /// - Throws: ``DatasetError`` naming the file and the line.
    public static func load(
        _ directory: String, name: String, catalogue: Catalogue
    ) throws(DatasetError) -> EvaluationSet {
        try EvaluationSet(loading: directory, name: name, catalogue: catalogue)
    }

    /// Catalogue indices of one tuple's images: anchor, then the others in their order.
    struct Row {
        var members: [Int]
        /// Place of the positive among the members; at least 1.
        var positive: Int
    }

    private init(name: String, rows: [Row], catalogue: Catalogue, digest: UInt64) {
        self.name = name
        self.digest = digest
        let used = Set(rows.lazy.flatMap(\.members)).sorted()
        var place = [Int: Int](minimumCapacity: used.count)
        for (index, member) in used.enumerated() { place[member] = index }
        catalogueIndices = used
        images = used.map { catalogue.samples[$0].path }
        tuples = rows.map { row in
            let members = row.members.map { place[$0] ?? 0 }
            return EvaluationTuple(
                anchor: members[0], positive: members[row.positive],
                negatives: members.indices.dropFirst().filter { $0 != row.positive }
                    .map { members[$0] })
        }
    }

    // MARK: - The file's form

    static func path(_ directory: String, _ name: String) -> String {
        "\(directory)/sets/\(name).csv"
    }

    static func text(_ rows: [Row], paths: (Int) -> String) -> String {
        var text = "tuple,position,role,path\n"
        for (tuple, row) in rows.enumerated() {
            for (position, member) in row.members.enumerated() {
                let role =
                    position == 0 ? "anchor" : position == row.positive ? "positive" : "negative"
                text += "\(tuple),\(position),\(role),\(CSVTable.field(paths(member)))\n"
            }
        }
        return text
    }

    private static func parse(
        _ bytes: [UInt8], name: String, catalogue: Catalogue
    ) throws(DatasetError) -> [Row] {
        let table = try CSVTable(bytes: bytes, name: name)
        let columns = ["tuple", "position", "role", "path"]
        let places = try table.places(known: columns, required: Set(columns)).map { $0 ?? 0 }
        var rows: [Row] = []
        var lastLine = 1
        func close(_ line: Int) throws(DatasetError) {
            guard let row = rows.last else { return }
            guard row.positive > 0, row.members.count >= 3 else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(line): tuple \(rows.count - 1) ends with \(row.members.count) "
                        + "images and \(row.positive > 0 ? "a" : "no") positive; expected an "
                        + "anchor, one positive and at least one negative")
            }
        }
        try table.forEachRow { (row) throws(DatasetError) in
            let (tuple, position) = (row[places[0]], row[places[1]])
            let (role, path) = (row[places[2]], row[places[3]])
            let line = row.line
            if position == "0" {
                try close(lastLine)
                rows.append(Row(members: [], positive: 0))
            }
            guard let last = rows.last, tuple == String(rows.count - 1),
                position == String(last.members.count)
            else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(line): tuple '\(tuple)' position '\(position)' is out of turn; "
                        + "both count from 0 without gaps")
            }
            let fits =
                switch role {
                case "anchor": position == "0"
                case "positive": position != "0" && last.positive == 0
                case "negative": position != "0"
                default: false
                }
            guard fits else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(line): role '\(role)' at position \(position); expected anchor at "
                        + "position 0, then one positive and negatives")
            }
            guard let member = catalogue.index(of: path) else {
                throw DatasetError(
                    .inconsistent,
                    "\(name):\(line): '\(path)' is not in \(Catalogue.fileName); make the sets "
                        + "again with 'lineup curate'")
            }
            guard !last.members.contains(member) else {
                throw DatasetError(
                    .malformed, "\(name):\(line): '\(path)' is in tuple \(tuple) twice")
            }
            if role == "positive" { rows[rows.count - 1].positive = last.members.count }
            rows[rows.count - 1].members.append(member)
            lastLine = line
        }
        try close(lastLine)
        guard !rows.isEmpty else {
            throw DatasetError(
                .malformed, "\(name) has no tuples; make the sets with 'lineup curate'")
        }
        return rows
    }
}

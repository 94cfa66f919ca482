import Basics
import Foundation

/// One snippet of a data set in the layout of ILSVRC2015 VID.
struct VIDSnippet: Sendable, Equatable {
    /// `train` or `val`.
    var split: String
    /// `a` to `d` for the four training folders, `e` for validation.
    var letter: String
    /// The snippet's own folder name.
    var name: String
    /// Folder of its frames.
    var data: String
    /// Folder of its annotations.
    var annotations: String

    /// What catalogues call the snippet; unique in a data set.
    var sequence: String { "\(letter)/\(name)" }
}

/// A data set of videos in the layout of ILSVRC2015 VID.
///
/// `Data/VID/train/ILSVRC2015_VID_train_000{0..3}/<snippet>/NNNNNN.JPEG`, `Data/VID/val/<snippet>/`
/// and the same below `Annotations/VID` with `.xml`.
struct VIDLayout: Sendable {
    static let trainingFolders = (0..<4).map { "ILSVRC2015_VID_train_000\($0)" }
    private static let letters = ["a", "b", "c", "d"]

    let root: String
    let snippets: [VIDSnippet]

    /// Lists the snippets in order of their sequence names.
    init(_ root: String) throws(DatasetError) {
        self.root = root
        let data = "\(root)/Data/VID"
        let annotations = "\(root)/Annotations/VID"
        for folder in [data, annotations] where !FileManager.default.fileExists(atPath: folder) {
            throw DatasetError(
                .missing,
                "folder \(folder) is missing; expected the layout of ILSVRC2015 VID: "
                    + "Data/VID and Annotations/VID below \(root)")
        }
        var found: [VIDSnippet] = []
        func list(_ split: String, _ letter: String, _ below: String) throws(DatasetError) {
            for name in try FolderLock.names(in: "\(data)/\(below)") {
                found.append(
                    VIDSnippet(
                        split: split, letter: letter, name: name, data: "\(data)/\(below)/\(name)",
                        annotations: "\(annotations)/\(below)/\(name)"))
            }
        }
        if FileManager.default.fileExists(atPath: "\(data)/train") {
            for folder in try FolderLock.names(in: "\(data)/train") {
                guard let index = Self.trainingFolders.firstIndex(of: folder) else {
                    throw DatasetError(
                        .malformed,
                        "\(data)/train/\(folder) is not one of the training folders "
                            + "\(Self.trainingFolders[0]) to \(Self.trainingFolders[3])")
                }
                try list("train", Self.letters[index], "train/\(folder)")
            }
        }
        if FileManager.default.fileExists(atPath: "\(data)/val") { try list("val", "e", "val") }
        guard !found.isEmpty else {
            throw DatasetError(
                .missing, "\(data) has no snippets below train or val; nothing to do")
        }
        snippets = found
    }

    /// The frames' folder of a sequence as catalogues call it.
    static func dataFolder(root: String, sequence: String) -> String? {
        let parts = sequence.split(separator: "/", maxSplits: 1)
        guard parts.count == 2 else { return nil }
        if parts[0] == "e" { return "\(root)/Data/VID/val/\(parts[1])" }
        guard let index = letters.firstIndex(of: String(parts[0])) else { return nil }
        return "\(root)/Data/VID/train/\(trainingFolders[index])/\(parts[1])"
    }
}

/// What a sequence's frames hold, as the row of `sequences.csv`.
struct SequenceSummary: Sendable, Equatable {
    /// What most frames of a snippet show.
    enum Class: String, Sendable {
        case missing
        case single
        case multiple
    }

    static let fileName = "sequences.csv"
    static let columns = [
        "sequence", "split", "frames", "missing", "single", "multiple", "class", "fingerprint",
    ]

    var sequence: String
    var split: String
    /// Frames with no object, with one and with several.
    var missing: Int
    var single: Int
    var multiple: Int
    /// Covers the names and sizes of the source's files and how crops are cut.
    var fingerprint: UInt64

    var frames: Int { missing + single + multiple }

    /// `missing` or `multiple` where these are the strict majority, else `single`.
    var kind: Class {
        if missing * 2 > frames { return .missing }
        return multiple * 2 > frames ? .multiple : .single
    }

    static func text(_ rows: [SequenceSummary]) -> String {
        rows.reduce(into: columns.joined(separator: ",") + "\n") { text, row in
            text +=
                "\(CSVTable.field(row.sequence)),\(row.split),\(row.frames),\(row.missing),"
                + "\(row.single),\(row.multiple),\(row.kind.rawValue),\(row.fingerprint.hex)\n"
        }
    }

    static func parse(_ bytes: [UInt8], name: String) throws(DatasetError) -> [SequenceSummary] {
        let table = try CSVTable(bytes: bytes, name: name)
        let places = try table.places(known: columns, required: Set(columns)).map { $0 ?? 0 }
        var rows: [SequenceSummary] = []
        try table.forEachRow { (row) throws(DatasetError) in
            let numbers = places[2...5].compactMap { row.integer($0) }.filter { $0 >= 0 }
            guard numbers.count == 4, numbers[0] == numbers[1] + numbers[2] + numbers[3],
                let fingerprint = UInt64(hex: row[places[7]])
            else {
                throw DatasetError(
                    .malformed,
                    "\(name):\(row.line): expected counts that add up and a digest; run 'lineup crop' "
                        + "again")
            }
            rows.append(
                SequenceSummary(
                    sequence: row[places[0]], split: row[places[1]], missing: numbers[1],
                    single: numbers[2], multiple: numbers[3], fingerprint: fingerprint))
        }
        return rows
    }
}

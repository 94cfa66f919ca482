import Basics
import Images

/// Three training images: the second shows what the first shows, the third shows something else.
public struct Triplet: Sendable, Hashable {
    /// Index of the anchor in ``Catalogue/samples``.
    public let anchor: Int
    /// Index of another image of the anchor's identity.
    public let positive: Int
    /// Index of an image of another identity.
    public let negative: Int

    /// Names the three images.
    public init(anchor: Int, positive: Int, negative: Int) {
        self.anchor = anchor
        self.positive = positive
        self.negative = negative
    }

    var images: [Int] { [anchor, positive, negative] }
}

/// Triplets to train on, stored as CSV with the columns `anchor, positive, negative`: paths of the
/// catalogue.
public struct TripletList: Sendable, Equatable {
    static let columns = ["anchor", "positive", "negative"]

    /// The triplets, in the order of the file; at least one.
    public let triplets: [Triplet]
    /// XXH64 of the file.
    public let digest: UInt64

    /// Reads a file.
    ///
    /// - Parameter split: the images that are trained on, to which every image must belong.
    /// - Throws: ``DatasetError`` naming file, line, value and what was expected.
    public init(
        loading path: String, catalogue: Catalogue, split: ImageSplit
    ) throws(DatasetError) {
        let bytes: [UInt8]
        do throws(ImageError) {
            bytes = try FileBytes.read(path)
        } catch  where error.code == .missing {
            throw DatasetError(
                .missing,
                "\(path) is missing, from which triplets are to be read; 'lineup mine' writes one")
        } catch {
            throw DatasetError(error)
        }
        try self.init(parsing: bytes, name: path, catalogue: catalogue, split: split)
    }

    /// Reads a file's text; `name` is what errors call it.
    public init(
        parsing bytes: [UInt8], name: String, catalogue: Catalogue, split: ImageSplit
    ) throws(DatasetError) {
        let table = try CSVTable(bytes: bytes, name: name)
        let places = try table.places(known: Self.columns, required: Set(Self.columns))
            .map { $0 ?? 0 }
        let images = TrainedImages(catalogue, split)
        var triplets: [Triplet] = []
        try table.forEachRow { (row) throws(DatasetError) in
            let paths = places.map { row[$0] }
            var found: [Int] = []
            for (column, path) in zip(Self.columns, paths) {
                if let why = images.obstacle(path) {
                    throw DatasetError(
                        .inconsistent, "\(name):\(row.line): \(column) is '\(path)', \(why)")
                }
                found.append(catalogue.index(of: path) ?? 0)
            }
            let triplet = Triplet(anchor: found[0], positive: found[1], negative: found[2])
            if let why = images.obstacle(triplet) {
                throw DatasetError(.inconsistent, "\(name):\(row.line): \(why)")
            }
            triplets.append(triplet)
        }
        guard !triplets.isEmpty else {
            throw DatasetError(
                .notEnough, "\(name) has no triplets; expected at least one line after the header")
        }
        self.triplets = triplets
        digest = bytes.withUnsafeBytes { XXH64.digest($0) }
    }

    /// The file's text.
    public static func text(_ triplets: [Triplet], of catalogue: Catalogue) -> String {
        var text = columns.joined(separator: ",") + "\n"
        for triplet in triplets {
            text += triplet.images.map { CSVTable.field(catalogue.samples[$0].path) }
                .joined(separator: ",")
            text += "\n"
        }
        return text
    }

    /// Writes a file: completely and durably, or not at all.
    ///
    /// - Throws: ``DatasetError`` when it cannot be written.
    public static func write(
        _ triplets: [Triplet], of catalogue: Catalogue, to path: String
    ) throws(DatasetError) {
        try imaging { () throws(ImageError) in
            try FileBytes.writeAtomically(text(triplets, of: catalogue), to: path)
        }
    }
}

/// Which images are trained on, and why others are not.
private struct TrainedImages {
    private let catalogue: Catalogue
    private let trained: Set<Int>
    private let heldOut: Set<Int>

    init(_ catalogue: Catalogue, _ split: ImageSplit) {
        self.catalogue = catalogue
        trained = Set(split.trained.lazy.flatMap(\.samples))
        heldOut = Set(split.heldOut.lazy.flatMap(\.samples))
    }

    /// Why an image can be no part of a triplet; nil where it can.
    func obstacle(_ path: String) -> String? {
        guard let index = catalogue.index(of: path) else {
            return
                "which \(Catalogue.fileName) of \(catalogue.root) does not list; expected a path as "
                + "it is written there"
        }
        if trained.contains(index) { return nil }
        if heldOut.contains(index) {
            return "which data.validation_share holds out of training; mine the triplets with the "
                + "run's settings"
        }
        let sample = catalogue.samples[index]
        if sample.occluded == true { return "a covered object; expected an image to train on" }
        if sample.identity.isEmpty { return "of no identity; expected an image to train on" }
        return "of split '\(sample.split)'; expected an image to train on, of split 'train'"
    }

    /// Why three images are no triplet; nil where they are one.
    func obstacle(_ triplet: Triplet) -> String? {
        let (anchor, positive, negative) = (
            catalogue.samples[triplet.anchor], catalogue.samples[triplet.positive],
            catalogue.samples[triplet.negative]
        )
        if anchor.path == positive.path {
            return
                "anchor and positive are both '\(anchor.path)'; expected two images of one identity"
        }
        if anchor.identity != positive.identity {
            return
                "positive '\(positive.path)' shows '\(positive.identity)', anchor '\(anchor.path)' "
                + "'\(anchor.identity)'; expected another image of the anchor's identity"
        }
        if anchor.identity == negative.identity {
            return "negative '\(negative.path)' shows '\(negative.identity)', as the anchor does; "
                + "expected an image of another identity"
        }
        return nil
    }
}

import Basics
import Foundation
import Images

/// What `dataset.json` says of a data set.
public struct DataSetManifest: Sendable, Codable, Equatable {
    /// The file's name in a data set's folder.
    public static let fileName = "dataset.json"
    /// The version that this program writes and reads.
    public static let currentVersion = 1

    /// How crops were cut.
    public struct Crop: Sendable, Codable, Equatable {
        /// Margin around a box as a share of its half perimeter.
        public var context: Double
        /// Pixels along a crop's side.
        public var side: Int
        /// JPEG quality.
        public var quality: Int
    }

    /// How the evaluation sets were drawn.
    public struct Curation: Sendable, Codable, Equatable {
        /// Seed of every choice.
        public var seed: UInt64
        /// Images wanted in each set.
        public var imagesPerSet: Int
        /// Random crops wanted in a tuple of `easy_val_eval`.
        public var randomCrops: Int
        /// A random crop overlaps the positive by less than this.
        public var maxIou: Double
        /// Objects that a tuple's second frame has at least.
        public var minObjects: Int
        /// `keep` or `drop`.
        public var occludedNegatives: String
    }

    /// One evaluation set.
    public struct SetEntry: Sendable, Codable, Equatable {
        /// Tuples in the set.
        public var tuples: Int
        /// Images of all tuples together, repeats counted.
        public var images: Int
        /// Snippets that the tuples come from.
        public var snippets: Int
        /// XXH64 of the set's file, in hexadecimal.
        public var digest: String
    }

    /// Version of the format.
    public var version: Int
    /// What made the data set, such as `vid-crops`.
    public var kind: String
    /// Absolute path of the frames that the crops were cut from; not part of the digest.
    public var source: String
    /// The seed of the curation, once there is one.
    public var seed: UInt64?
    /// Images, identities and snippets by split, such as `train_images`.
    public var counts: [String: Int]
    /// How the crops were cut.
    public var crop: Crop?
    /// How the sets were drawn.
    public var curation: Curation?
    /// The sets by name.
    public var sets: [String: SetEntry]
    /// XXH64 of the catalogue's file, in hexadecimal.
    public var catalogueDigest: String
    /// The data set's digest: catalogue and sets, in hexadecimal.
    public var digest: String

    /// Digest over a catalogue's and sets' digests, the latter in order of their names.
    static func digest(catalogue: UInt64, sets: [String: UInt64]) -> UInt64 {
        var hash = XXH64()
        hash.update("lineup data set 1\n")
        hash.update(catalogue)
        for (name, digest) in sets.sorted(by: { $0.key < $1.key }) {
            hash.update("\(name)\n")
            hash.update(digest)
        }
        return hash.finish()
    }

    /// Reads `dataset.json` of a folder.
    ///
    /// - Throws: ``DatasetError`` when it is missing, malformed or of another version.
    public init(loading directory: String) throws(DatasetError) {
        let path = "\(directory)/\(Self.fileName)"
        let bytes: [UInt8]
        do throws(ImageError) {
            bytes = try FileBytes.read(path)
        } catch  where error.code == .missing {
            throw DatasetError(
                .missing,
                "\(path) is missing: \(directory) is no data set, or its making did not end; "
                    + "run 'lineup crop' again")
        } catch {
            throw DatasetError(error)
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        struct Version: Decodable { var version: Int }
        do {
            let version = try decoder.decode(Version.self, from: Data(bytes)).version
            guard version == Self.currentVersion else {
                throw DatasetError(
                    .malformed,
                    "\(path) has version \(version), this program reads \(Self.currentVersion)")
            }
            self = try decoder.decode(Self.self, from: Data(bytes))
        } catch let error as DatasetError {
            throw error
        } catch {
            throw DatasetError(.malformed, "\(path) is malformed: \(Self.reason(error))")
        }
    }

    init(
        kind: String, source: String, counts: [String: Int], crop: Crop?, catalogueDigest: UInt64
    ) {
        version = Self.currentVersion
        self.kind = kind
        self.source = source
        self.counts = counts
        self.crop = crop
        sets = [:]
        self.catalogueDigest = catalogueDigest.hex
        digest = Self.digest(catalogue: catalogueDigest, sets: [:]).hex
    }

    func write(to directory: String) throws(DatasetError) {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let data: Data
        do {
            data = try encoder.encode(self)
        } catch {
            throw DatasetError(.inputOutput, "dataset.json cannot be written: \(error)")
        }
        let text = String(decoding: data, as: UTF8.self) + "\n"
        try imaging { () throws(ImageError) in
            try FileBytes.writeAtomically(text, to: "\(directory)/\(Self.fileName)")
        }
    }

    private static func reason(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return error.localizedDescription }
        switch error {
        case .keyNotFound(let key, _): return "'\(key.stringValue)' is missing"
        case .typeMismatch(_, let context), .valueNotFound(_, let context):
            return "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' has the "
                + "wrong type"
        case .dataCorrupted(let context): return context.debugDescription
        @unknown default: return error.localizedDescription
        }
    }
}

/// A data set on disk: manifest, catalogue and evaluation sets that agree with one another.
public struct DataSet: Sendable {
    /// The folder.
    public let root: String
    /// What `dataset.json` says.
    public let manifest: DataSetManifest
    /// Every image.
    public let catalogue: Catalogue
    /// The sets that were asked for, in that order.
    public let sets: [EvaluationSet]
    /// Covers the catalogue, the sets and the images' sizes and digests.
    public let digest: UInt64

    /// Identities that are trained on; their numbers are those of ``PKSampler/identities``.
    public var trainingIdentityCount: Int { catalogue.identities(split: "train").count }

    /// Reads a data set and checks that its files belong together.
    ///
    /// - Parameters:
    ///   - setNames: sets that must be there; nil takes all that the manifest lists.
    /// - Throws: ``DatasetError`` naming the file that is missing, malformed or does not agree.
    public init(loading directory: String, sets setNames: [String]? = nil) throws(DatasetError) {
        let root =
            directory.count > 1 && directory.hasSuffix("/")
            ? String(directory.dropLast()) : directory
        let manifest = try DataSetManifest(loading: root)
        let catalogue = try Catalogue(loading: root)
        guard catalogue.digest.hex == manifest.catalogueDigest else {
            throw DatasetError(
                .inconsistent,
                "\(root)/\(Catalogue.fileName) has digest \(catalogue.digest.hex), dataset.json "
                    + "says \(manifest.catalogueDigest): it was changed by hand or its making did "
                    + "not end; run 'lineup crop' and 'lineup curate' again")
        }
        let listed = manifest.sets.keys.sorted()
        var loaded: [String: EvaluationSet] = [:]
        for name in listed {
            let set = try EvaluationSet(loading: root, name: name, catalogue: catalogue)
            guard set.digest.hex == manifest.sets[name]?.digest else {
                throw DatasetError(
                    .inconsistent,
                    "\(EvaluationSet.path(root, name)) has digest \(set.digest.hex), dataset.json "
                        + "says \(manifest.sets[name]?.digest ?? "nothing"); run 'lineup curate' "
                        + "again")
            }
            loaded[name] = set
        }
        var chosen: [EvaluationSet] = []
        for name in setNames ?? listed {
            guard let set = loaded[name] else {
                throw DatasetError(
                    .missing,
                    "\(root) has no evaluation set '\(name)'; it has "
                        + (listed.isEmpty
                            ? "none: run 'lineup curate \(root)'"
                            : listed.joined(separator: ", ")))
            }
            chosen.append(set)
        }
        self.root = root
        self.manifest = manifest
        self.catalogue = catalogue
        sets = chosen
        digest = DataSetManifest.digest(
            catalogue: catalogue.digest, sets: loaded.mapValues(\.digest))
        guard digest.hex == manifest.digest else {
            throw DatasetError(
                .inconsistent,
                "\(root)/dataset.json says digest \(manifest.digest), its files make "
                    + "\(digest.hex); run 'lineup curate' again")
        }
    }
}

internal import Basics
internal import Datasets
internal import Foundation
internal import Settings
internal import Storage

/// The file of triplets that a run trains on, which it keeps a copy of.
///
/// The run has the same triplets then, whatever becomes of the file.
struct GivenTriplets: Sendable {
    /// The copy's name in the run's folder.
    static let fileName = "triplets.csv"

    /// What messages call the file.
    private let name: String
    private let bytes: Data
    let digest: UInt64

    /// Reads what `data.triplets` names; nil where it names nothing.
    ///
    /// - Throws: ``CoordinatorError`` for a file that cannot be read or is not the one that is meant.
    init?(_ settings: Settings) throws {
        guard let file = settings.data.triplets else { return nil }
        guard let bytes = FileManager.default.contents(atPath: file) else {
            throw CoordinatorError(
                .badSetting,
                "data.triplets is '\(file)', which is missing or cannot be read; name a CSV file of "
                    + "anchor,positive,negative, such as 'lineup mine' writes")
        }
        self.init(name: file, bytes: bytes)
        if let expected = settings.data.tripletsDigest, expected != digest.hex {
            throw CoordinatorError(
                .differs,
                "data.triplets_digest is \(expected), but \(file) has \(digest.hex): it is another "
                    + "file, or was changed; name the one that is meant, or leave the digest out")
        }
    }

    /// Reads the copy of a run; nil where it has none.
    ///
    /// - Throws: ``CoordinatorError`` where it is missing, or not what the run began with.
    init?(copyOf folder: RunFolder) throws {
        guard let digest = folder.settings.data.tripletsDigest else { return nil }
        let path = folder.tripletsFile
        guard let bytes = FileManager.default.contents(atPath: path) else {
            throw CoordinatorError(
                .differs,
                "\(path) is missing, which the run trains on (digest \(digest)); put it back, or start "
                    + "a new run")
        }
        self.init(name: path, bytes: bytes)
        guard self.digest.hex == digest else {
            throw CoordinatorError(
                .differs,
                "\(path) has digest \(self.digest.hex), the run trains on \(digest); put the run's own "
                    + "back, or start a new run")
        }
    }

    private init(name: String, bytes: Data) {
        self.name = name
        self.bytes = bytes
        digest = bytes.withUnsafeBytes { XXH64.digest($0) }
    }

    /// The triplets, checked against the data.
    ///
    /// - Throws: ``DatasetError`` naming file, line and value.
    func list(of dataSet: DataSet, _ settings: Settings) throws -> TripletList {
        try TripletList(
            parsing: Array(bytes), name: name, catalogue: dataSet.catalogue,
            split: ImageSplit(
                dataSet.catalogue, validationShare: settings.data.validationShare,
                seed: settings.seed))
    }

    /// Writes the run's copy.
    func write(to path: String) throws {
        do {
            try bytes.write(to: URL(fileURLWithPath: path), options: .atomic)
            try SystemFiles().synchroniseFile(path)
        } catch {
            throw CoordinatorError(
                .failed, "\(path) cannot be written: \(error.localizedDescription)")
        }
    }
}

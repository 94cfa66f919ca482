import Datasets
import Foundation
import Images

/// A folder of its own that goes with the object.
final class TemporaryFolder {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "lineup-datasets-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func write(_ text: String, _ name: String) throws {
        let file = URL(fileURLWithPath: "\(path)/\(name)")
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
    }

    func write(_ bytes: [UInt8], _ name: String) throws {
        let file = URL(fileURLWithPath: "\(path)/\(name)")
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: file)
    }

    func read(_ name: String) throws -> String {
        try String(contentsOfFile: "\(path)/\(name)", encoding: .utf8)
    }

    func remove(_ name: String) throws {
        try FileManager.default.removeItem(atPath: "\(path)/\(name)")
    }

    /// Every file below the folder with its bytes.
    func contents(below: String = "") throws -> [String: Data] {
        let base = below.isEmpty ? path : "\(path)/\(below)"
        var found: [String: Data] = [:]
        for name in try FileManager.default.subpathsOfDirectory(atPath: base) {
            var isFolder: ObjCBool = false
            let file = "\(base)/\(name)"
            guard FileManager.default.fileExists(atPath: file, isDirectory: &isFolder),
                !isFolder.boolValue
            else { continue }
            found[name] = try Data(contentsOf: URL(fileURLWithPath: file))
        }
        return found
    }
}

/// An object of a hand-written annotation.
struct Annotated {
    var track: Int
    var box: Box
    var occluded = false
    var category = "bag"

    init(_ track: Int, _ xmin: Int, _ ymin: Int, _ xmax: Int, _ ymax: Int, occluded: Bool = false) {
        self.track = track
        box = Box(xmin: xmin, ymin: ymin, xmax: xmax, ymax: ymax)
        self.occluded = occluded
    }
}

/// The text of an annotation.
func annotationText(_ frame: String, _ objects: [Annotated], folder: String = "f") -> String {
    var text = "<annotation>\n<folder>\(folder)</folder>\n<filename>\(frame)</filename>\n"
    for object in objects {
        text += """
            <object><trackid>\(object.track)</trackid><name>\(object.category)</name>
            <bndbox><xmax>\(object.box.xmax)</xmax><xmin>\(object.box.xmin)</xmin>
            <ymax>\(object.box.ymax)</ymax><ymin>\(object.box.ymin)</ymin></bndbox>
            <occluded>\(object.occluded ? 1 : 0)</occluded><generated>0</generated></object>

            """
    }
    return text + "</annotation>\n"
}

extension TemporaryFolder {
    /// Adds a frame and its annotation below `source`.
    func addFrame(
        _ snippet: String, _ frame: Int, _ objects: [Annotated], width: Int = 300,
        height: Int = 280, source: String = "source"
    ) throws {
        let name = String(format: "%06d", frame)
        let image = PixelImage(
            width: width, height: height, red: UInt8(20 + frame % 200), green: 90, blue: 160)
        try write(JPEG.encode(image), "\(source)/Data/VID/\(snippet)/\(name).JPEG")
        try write(
            annotationText(name, objects), "\(source)/Annotations/VID/\(snippet)/\(name).xml")
    }

    /// A small data set: one training and one validation snippet of four frames with three objects.
    func addStandardSource() throws {
        for snippet in ["train/ILSVRC2015_VID_train_0000/one", "val/two"] {
            for frame in 0..<4 {
                try addFrame(
                    snippet, frame,
                    [
                        Annotated(0, 10 + frame, 10, 60, 70), Annotated(1, 80, 20, 140, 60),
                        Annotated(2, 200, 100, 260, 200, occluded: frame == 1),
                    ])
            }
        }
    }

    func crop(threads: Int = 2, side: Int = 32) throws -> Cropper.Report {
        try Cropper(
            .init(
                source: "\(path)/source", output: "\(path)/crops", side: side, threads: threads,
                isQuiet: true)
        ).run()
    }

    func curate(
        images: Int = 60, seed: UInt64 = 1, negatives: Curator.OccludedNegatives = .keep,
        force: Bool = false, threads: Int = 2
    ) throws -> Curator.Report {
        try Curator(
            .init(
                crops: "\(path)/crops", seed: seed, imagesPerSet: images,
                occludedNegatives: negatives, force: force, threads: threads, isQuiet: true)
        ).run()
    }
}

/// A catalogue of made-up samples: identity i has counts[i] images.
func catalogue(_ counts: [Int], split: String = "train") throws -> Catalogue {
    var samples: [Sample] = []
    for (identity, count) in counts.enumerated() {
        for image in 0..<count {
            samples.append(
                Sample(
                    path: "\(identity)/\(image).jpg", identity: "id\(identity)", split: split,
                    byteCount: 10, digest: UInt64(identity * 1000 + image)))
        }
    }
    return try Catalogue(root: "/data", samples: samples)
}

/// A line of the file that `ImagesTests/Fixtures/make_expected.py` wrote, without its kind.
struct Expected {
    let fields: [Substring]

    static func lines(_ kind: String) throws -> [Expected] {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent()
            .appendingPathComponent("ImagesTests/Fixtures/expected.txt")
        return try String(contentsOf: path, encoding: .utf8).split(separator: "\n")
            .map { $0.split(separator: " ") }
            .filter { $0.first == kind[...] }
            .map { Expected(fields: Array($0.dropFirst())) }
    }

    func integer(_ place: Int) -> Int { Int(fields[place]) ?? .min }

    func bytes(from place: Int) -> [UInt8] { fields[place...].compactMap { UInt8($0) } }
}

import Datasets
import Foundation
import Images
import Testing

@Suite struct CropperTests {
    private func failure(
        _ change: (TemporaryFolder) throws -> Void
    ) throws -> DatasetError {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        try change(folder)
        let error = try #require(#expect(throws: DatasetError.self) { try folder.crop() })
        return DatasetError(error.code, error.message.replacing(folder.path, with: "D"))
    }

    private static let image =
        "source/Data/VID/train/ILSVRC2015_VID_train_0000/one/000002.JPEG"
    private static let text =
        "source/Annotations/VID/train/ILSVRC2015_VID_train_0000/one/000002.xml"

    @Test func catalogueListsEveryObject() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        let report = try folder.crop()
        #expect(report.crops == 24 && report.frames == 8 && report.snippets == 2)
        let data = try DataSet(loading: "\(folder.path)/crops")
        #expect(data.catalogue.samples.count == 24)
        let sample = data.catalogue.samples[5]
        #expect(sample.path == "Data/VID/train/a/one/000001.02.crop.x.jpg")
        #expect(sample.identity == "a/one/02" && sample.sequence == "a/one")
        #expect(sample.frame == 1 && sample.track == 2 && sample.occluded == true)
        #expect(sample.category == "bag" && sample.split == "train" && sample.role == "object")
        #expect(sample.box == Box(xmin: 200, ymin: 100, xmax: 260, ymax: 200))
        #expect(data.catalogue.samples[12].path == "Data/VID/val/e/two/000000.00.crop.x.jpg")
        for sample in data.catalogue.samples {
            let file = "\(data.root)/\(sample.path)"
            let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: file)))
            #expect(ImageFingerprint(of: bytes) == sample.fingerprint)
            #expect(try JPEG.size(bytes, name: file) == (32, 32))
        }
        let sequences = try folder.read("crops/sequences.csv")
        #expect(sequences.contains("\na/one,train,4,0,0,4,multiple,"))
        #expect(data.manifest.counts["train_identities"] == 3)
    }

    @Test func cropsEqualTheReference() throws {
        let lines = try Expected.lines("crop")
        var pixels: [UInt8] = []
        for y in 0..<45 {
            for x in 0..<60 {
                for c in 0..<3 {
                    let value =
                        x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5 + (x * x * 3 + y * c) % 17 * 4
                    pixels.append(UInt8(value % 256))
                }
            }
        }
        let image = PixelImage(width: 60, height: 45, pixels: pixels)
        for line in lines {
            let box = Box(
                xmin: line.integer(0), ymin: line.integer(1), xmax: line.integer(2),
                ymax: line.integer(3))
            let crop = Cropper.crop(box, of: image, context: 0.01, side: 16)
            let expected = line.bytes(from: 7)
            let differences = zip(crop.pixels, expected).map { abs(Int($0) - Int($1)) }
            #expect(differences.count == 768 && (differences.max() ?? 9) <= 1)
            // OpenCV's vector code rounds a few bytes at a row's end the other way.
            #expect(differences.count { $0 > 0 } <= 16)
        }
    }

    @Test func secondRunKeepsEverything() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop()
        let before = try folder.contents(below: "crops")
        let report = try folder.crop()
        #expect(report.wasComplete && report.keptCrops == 24)
        #expect(try folder.contents(below: "crops") == before)
    }

    @Test(arguments: [1, 3])
    func filesDoNotDependOnThreads(threads: Int) throws {
        let first = try TemporaryFolder()
        let second = try TemporaryFolder()
        for folder in [first, second] { try folder.addStandardSource() }
        _ = try first.crop(threads: 2)
        _ = try second.crop(threads: threads)
        var one = try first.contents(below: "crops")
        var other = try second.contents(below: "crops")
        one["dataset.json"] = nil
        other["dataset.json"] = nil
        #expect(one == other)
    }

    @Test func lostAndDamagedCropsAreMadeAgain() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop()
        let before = try folder.contents(below: "crops")
        try folder.remove("crops/Data/VID/val/e/two/000000.00.crop.x.jpg")
        try folder.write("", "crops/Data/VID/val/e/two/000000.01.crop.x.jpg")
        let report = try folder.crop()
        #expect(report.keptCrops == 12 && !report.wasComplete)
        #expect(try folder.contents(below: "crops") == before)
    }

    @Test func interruptedRunGoesOnWhereItStopped() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        let good = try folder.contents()["\(Self.valImage)"]
        try folder.write("broken", Self.valImage)
        #expect(throws: DatasetError.self) { try folder.crop(threads: 1) }
        try folder.write([UInt8](try #require(good)), Self.valImage)
        let report = try folder.crop(threads: 1)
        #expect(report.keptCrops == 12 && report.crops == 24)
        #expect(!FileManager.default.fileExists(atPath: "\(folder.path)/crops/.parts"))
    }
    private static let valImage = "source/Data/VID/val/two/000003.JPEG"

    @Test func changedSourceIsCutAgainAndDropsTheSets() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop()
        _ = try folder.curate(images: 20)
        try folder.addFrame(
            "val/two", 2, [Annotated(0, 10, 10, 60, 70), Annotated(1, 80, 20, 140, 60)])
        let report = try folder.crop()
        #expect(report.crops == 23 && report.keptCrops == 12 && report.droppedSets)
        #expect(try DataSet(loading: "\(folder.path)/crops").sets.isEmpty)
    }

    @Test func otherSettingsCutAgain() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop(side: 32)
        let report = try folder.crop(side: 24)
        #expect(report.keptCrops == 0)
    }

    @Test func missingFrameIsNamed() throws {
        let error = try failure { try $0.remove(Self.image) }
        #expect(error.code == .missing)
        #expect(error.message.hasPrefix("D/\(Self.image) is missing; D/\(Self.text) annotates it"))
    }

    @Test func missingAnnotationIsNamed() throws {
        let error = try failure { try $0.remove(Self.text) }
        #expect(error.message.hasPrefix("D/\(Self.image) has no annotation"))
    }

    @Test func truncatedFrameIsNamed() throws {
        let error = try failure { folder in
            let bytes = try #require(try folder.contents()[Self.image])
            try folder.write([UInt8](bytes.prefix(bytes.count / 2)), Self.image)
        }
        #expect(error.code == .malformed)
        #expect(error.message.hasPrefix("D/\(Self.image) is a damaged JPEG"))
    }

    @Test func frameThatIsNoJPEGIsNamed() throws {
        let error = try failure { try $0.write("GIF89a", Self.image) }
        #expect(error.message.hasPrefix("D/\(Self.image) is not a JPEG"))
    }

    @Test func emptyAnnotationIsNamed() throws {
        let error = try failure { try $0.write("", Self.text) }
        #expect(error.message == "D/\(Self.text):1: the file is empty; expected <annotation>")
    }

    @Test func annotationOfAnotherFrameIsNamed() throws {
        let error = try failure { try $0.write(annotationText("000009", []), Self.text) }
        #expect(error.message == "D/\(Self.text): <filename> is '000009'; expected '000002'")
    }

    @Test func repeatedTrackIsNamed() throws {
        let error = try failure {
            try $0.write(
                annotationText("000002", [Annotated(7, 1, 1, 5, 5), Annotated(7, 9, 9, 12, 12)]),
                Self.text)
        }
        #expect(error.message.contains("<trackid> 7 is there twice"))
    }

    @Test func hugeBoxIsRefused() throws {
        let error = try failure {
            try $0.write(
                annotationText("000002", [Annotated(0, -90_000, -90_000, 90_000, 90_000)]),
                Self.text)
        }
        #expect(error.message.contains("far larger than the frame of 300x280"))
    }

    @Test func strangeFilesAreNamed() throws {
        let error = try failure {
            try $0.write("x", "source/Data/VID/train/notes/readme.txt")
        }
        #expect(error.message.contains("D/source/Data/VID/train/notes is not one of the training"))
    }

    @Test func missingLayoutIsNamed() throws {
        let error = try failure { try $0.remove("source/Annotations") }
        #expect(error.message.hasPrefix("folder D/source/Annotations/VID is missing"))
    }

    @Test func folderInUseIsRefused() throws {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop()
        let held = try FolderLock("\(folder.path)/crops")
        let error = #expect(throws: DatasetError.self) { try folder.crop() }
        #expect(error?.code == .occupied)
        withExtendedLifetime(held) {}
    }
}

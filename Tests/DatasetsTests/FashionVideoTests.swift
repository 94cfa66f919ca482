import Basics
import Datasets
import Foundation
import Images
import Testing

@Suite struct FashionVideoTests {
    static let source = "/usr/share/datasets/fashion-mnist"

    private func make(
        _ folder: TemporaryFolder, train: Int = 2, val: Int = 2, frames: Int = 4, seed: UInt64 = 1,
        threads: Int = 2, source: String? = nil
    ) throws -> FashionVideo.Report {
        try FashionVideo(
            .init(
                trainSnippets: train, valSnippets: val, frames: frames, seed: seed, source: source,
                threads: threads, isQuiet: true)
        ).make(in: "\(folder.path)/out")
    }

    @Test func layoutIsThatOfTheRealDataSet() throws {
        let folder = try TemporaryFolder()
        let report = try make(folder)
        #expect(report.snippets == 4 && report.frames == 16 && report.keptFrames == 0)
        let names = Set(try folder.contents(below: "out").keys)
        for snippet in [
            "train/ILSVRC2015_VID_train_0000/fashion_train_00000000",
            "train/ILSVRC2015_VID_train_0001/fashion_train_00000001",
            "val/fashion_val_00000000", "val/fashion_val_00000001",
        ] {
            for frame in 0..<4 {
                #expect(names.contains("Data/VID/\(snippet)/00000\(frame).JPEG"))
                #expect(names.contains("Annotations/VID/\(snippet)/00000\(frame).xml"))
            }
        }
        #expect(names.count == 2 * 16 + 2)
    }

    @Test func annotationsDescribeTheFrames() throws {
        let folder = try TemporaryFolder()
        _ = try make(folder, train: 6, val: 6, frames: 8)
        var objects = 0
        var covered = 0
        for (name, data) in try folder.contents(below: "out") where name.hasSuffix(".xml") {
            let annotation = try FrameAnnotation(parsing: [UInt8](data), name: name)
            #expect(annotation.width == 400 && annotation.height == 300)
            #expect((3...6).contains(annotation.objects.count))
            for object in annotation.objects {
                objects += 1
                covered += object.occluded ? 1 : 0
                #expect(object.box.xmin >= 0 && object.box.xmax < 400)
                #expect(object.box.ymin >= 0 && object.box.ymax < 300)
                let twins = annotation.objects.count { $0.category == object.category }
                #expect(twins >= 2)
            }
        }
        #expect(covered > 0 && covered * 2 < objects)
    }

    @Test func filesAreAFunctionOfTheSeedAlone() throws {
        let folders = try (0..<3).map { _ in try TemporaryFolder() }
        _ = try make(folders[0], threads: 1)
        _ = try make(folders[1], threads: 3)
        _ = try make(folders[2], seed: 2)
        let first = try folders[0].contents(below: "out")
        #expect(try folders[1].contents(below: "out") == first)
        let other = try folders[2].contents(below: "out")
        let frame = "Data/VID/val/fashion_val_00000000/000000.JPEG"
        #expect(other[frame] != first[frame])
    }

    @Test func secondRunCompletesTheFirst() throws {
        let folder = try TemporaryFolder()
        _ = try make(folder)
        let before = try folder.contents(below: "out")
        let snippet = "VID/val/fashion_val_00000001"
        try folder.remove("out/Data/\(snippet)/000001.JPEG")
        try folder.write("", "out/Annotations/\(snippet)/000002.xml")
        let image = try #require(before["Data/\(snippet)/000003.JPEG"])
        try folder.write([UInt8](image.prefix(2000)), "out/Data/\(snippet)/000003.JPEG")
        let report = try make(folder)
        #expect(report.keptFrames == 13)
        #expect(try folder.contents(below: "out") == before)
    }

    @Test func otherOptionsAndFullFoldersAreRefused() throws {
        let folder = try TemporaryFolder()
        _ = try make(folder)
        let error = #expect(throws: DatasetError.self) { try make(folder, seed: 2) }
        #expect(error?.code == .occupied)
        #expect(error?.message.contains("it has seed: 1, asked is seed: 2") == true)
        let other = try TemporaryFolder()
        try other.write("mine", "out/thesis.txt")
        let full = #expect(throws: DatasetError.self) { try make(other) }
        #expect(full?.message.contains("is not empty") == true)
    }

    @Test func missingPhotographsSayWhatToInstall() throws {
        let folder = try TemporaryFolder()
        let error = #expect(throws: DatasetError.self) { try make(folder, source: "/nowhere") }
        #expect(error?.code == .missing)
        #expect(error?.message.contains("apt install dataset-fashion-mnist") == true)
        #expect(error?.message.contains("--source") == true)
    }

    @Test func damagedPhotographsAreNamed() throws {
        let folder = try TemporaryFolder()
        for name in [
            "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
        ] {
            let bytes = try Data(contentsOf: URL(fileURLWithPath: "\(Self.source)/\(name)"))
            let count = name.hasPrefix("t10k-images") ? bytes.count / 2 : bytes.count
            try folder.write([UInt8](bytes.prefix(count)), "photographs/\(name)")
        }
        let error = #expect(throws: DatasetError.self) {
            try make(folder, source: "\(folder.path)/photographs")
        }
        #expect(error?.code == .malformed)
        #expect(error?.message.contains("t10k-images-idx3-ubyte.gz is a damaged gzip") == true)
        try folder.write("text", "photographs/t10k-images-idx3-ubyte.gz")
        let text = #expect(throws: DatasetError.self) {
            try make(folder, source: "\(folder.path)/photographs")
        }
        #expect(text?.message.contains("is no IDX file of 3 dimensions") == true)
    }

    @Test func photographsAreDealtOnce() throws {
        // Ten categories of 40 training and 40 test photographs.
        let labels = [UInt8]((0..<400).map { UInt8($0 % 10) })
        let plans = FashionPlan.make(
            .init(trainSnippets: 30, valSnippets: 30, seed: 4), labels: [labels, labels])
        for split in [false, true] {
            let articles = plans.filter { $0.isValidation == split }.flatMap(\.articles)
            #expect(articles.allSatisfy { Int(labels[$0.photograph]) == $0.category })
            let used = Set(articles.map(\.photograph))
            #expect(used.count > articles.count * 3 / 4)
        }
        for plan in plans {
            #expect(Set(plan.articles.map(\.photograph)).count == plan.articles.count)
            #expect((3...6).contains(plan.articles.count))
        }
    }

    @Test func optionsOutOfRangeAreNamed() {
        let error = #expect(throws: DatasetError.self) { try FashionVideo(.init(frames: 1)) }
        #expect(error?.message == "--frames is 1; expected 2 to 100000")
        #expect(throws: DatasetError.self) {
            try FashionVideo(.init(trainSnippets: 0, valSnippets: 0))
        }
    }
}

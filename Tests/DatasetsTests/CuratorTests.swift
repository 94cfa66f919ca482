import Basics
import Datasets
import Foundation
import Images
import Testing

@Suite struct CuratorTests {
    private func standard() throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try folder.addStandardSource()
        _ = try folder.crop()
        return folder
    }

    @Test func tuplesFollowTheRules() throws {
        let folder = try standard()
        let report = try folder.curate(images: 60)
        let data = try DataSet(loading: "\(folder.path)/crops")
        #expect(data.sets.map(\.name) == ["easy_val_eval", "train_eval", "val_eval"])
        #expect(data.digest.hex == report.digest)
        for set in data.sets {
            let split = set.name == "train_eval" ? "train" : "val"
            #expect(set.memberCount >= 60 && set.memberCount < 67)
            var seen: Set<[Int]> = []
            for tuple in set.tuples {
                func sample(_ index: Int) -> Sample {
                    data.catalogue.samples[set.catalogueIndices[index]]
                }
                let (anchor, positive) = (sample(tuple.anchor), sample(tuple.positive))
                #expect(anchor.split == split && anchor.identity == positive.identity)
                #expect(anchor.frame != positive.frame)
                #expect(anchor.occluded == false && positive.occluded == false)
                #expect(seen.insert([tuple.anchor, tuple.positive]).inserted)
                let negatives = tuple.negatives.map(sample)
                #expect(negatives.allSatisfy { $0.frame == positive.frame })
                #expect(negatives.allSatisfy { $0.sequence == positive.sequence })
                #expect(negatives.allSatisfy { $0.identity != anchor.identity })
                if set.name == "easy_val_eval" {
                    #expect((1...5).contains(negatives.count))
                    for negative in negatives {
                        let box = try #require(negative.box)
                        #expect(negative.role == "random_crop")
                        #expect(box.xmax - box.xmin == 31 && box.ymax - box.ymin == 31)
                        #expect(box.xmin >= 0 && box.xmax < 300 && box.ymax < 280)
                        #expect(box.intersectionOverUnion(try #require(positive.box)) < 0.3)
                    }
                } else {
                    #expect(negatives.count == 2)
                }
            }
        }
    }

    @Test func setsAreAFunctionOfTheSeed() throws {
        let folders = try (0..<3).map { _ in try standard() }
        _ = try folders[0].curate(seed: 5, threads: 1)
        _ = try folders[1].curate(seed: 5, threads: 4)
        _ = try folders[2].curate(seed: 6)
        let contents = try folders.map { folder in
            try folder.contents(below: "crops").filter { $0.key != "dataset.json" }
        }
        #expect(contents[0] == contents[1])
        #expect(contents[0]["sets/val_eval.csv"] != contents[2]["sets/val_eval.csv"])
    }

    /// `val_eval` of the standard data, and its images.
    private func valEval(
        negatives: Curator.OccludedNegatives
    ) throws -> (set: EvaluationSet, samples: [Sample]) {
        let folder = try standard()
        _ = try folder.curate(images: 1000, negatives: negatives)
        let data = try DataSet(loading: "\(folder.path)/crops", sets: ["val_eval"])
        return (data.sets[0], data.sets[0].catalogueIndices.map { data.catalogue.samples[$0] })
    }

    /// Every frame has three objects; without the covered one frame 1 has too few.
    @Test func droppedNegativesAreUncovered() throws {
        let (set, samples) = try valEval(negatives: .drop)
        #expect(samples.allSatisfy { $0.occluded == false })
        #expect(set.tuples.allSatisfy { samples[$0.positive].frame != 1 })
    }

    @Test func keptNegativesMayBeCovered() throws {
        let (set, samples) = try valEval(negatives: .keep)
        #expect(set.tuples.contains { $0.negatives.contains { samples[$0].occluded == true } })
    }

    @Test func smallDataEndsWithAllItsTuples() throws {
        let folder = try standard()
        let report = try folder.curate(images: 100_000)
        #expect(report.shortSets == EvaluationSet.standardNames)
        // Tracks 0 and 1 pair 4 x 3 frames, track 2 is uncovered in three: 12 + 12 + 6.
        #expect(report.sets.map(\.size.tuples) == [30, 30, 30])
    }

    @Test func secondRunKeepsEverything() throws {
        let folder = try standard()
        let first = try folder.curate()
        let before = try folder.contents(below: "crops")
        let second = try folder.curate()
        #expect(second.wasComplete && second.sets == first.sets)
        #expect(try folder.contents(below: "crops") == before)
        #expect(try folder.crop().wasComplete)
        #expect(try folder.contents(below: "crops") == before)
    }

    @Test func otherOptionsNeedForce() throws {
        let folder = try standard()
        _ = try folder.curate(seed: 1)
        let error = #expect(throws: DatasetError.self) { try folder.curate(seed: 2) }
        #expect(error?.code == .occupied)
        #expect(error?.message.contains("seed 1") == true)
        _ = try folder.curate(seed: 2, force: true)
        let data = try DataSet(loading: "\(folder.path)/crops")
        #expect(data.manifest.seed == 2)
        let listed = Set(data.catalogue.samples.map(\.path))
        let there = try folder.contents(below: "crops").keys.filter { $0.hasSuffix(".jpg") }
        #expect(Set(there) == listed)
    }

    @Test func lostRandomCropIsMadeAgain() throws {
        let folder = try standard()
        _ = try folder.curate()
        let before = try folder.contents(below: "crops")
        let path = try #require(before.keys.first { $0.hasPrefix("Data/Random/") })
        try folder.remove("crops/\(path)")
        #expect(try !folder.curate().wasComplete)
        #expect(try folder.contents(below: "crops") == before)
    }

    @Test func missingFramesAreNamed() throws {
        let folder = try standard()
        try folder.remove("source")
        let error = #expect(throws: DatasetError.self) { try folder.curate() }
        #expect(error?.message.contains("cut from the original frames") == true)
    }

    @Test func otherFolderOfFramesIsTaken() throws {
        let folder = try standard()
        try FileManager.default.moveItem(
            atPath: "\(folder.path)/source", toPath: "\(folder.path)/moved")
        let report = try Curator(
            .init(
                crops: "\(folder.path)/crops", source: "\(folder.path)/moved", imagesPerSet: 30,
                isQuiet: true)
        ).run()
        #expect(report.sets.count == 3)
    }

    @Test func tooFewObjectsLeaveASetEmpty() throws {
        let folder = try TemporaryFolder()
        for frame in 0..<3 {
            try folder.addFrame("val/two", frame, [Annotated(0, 10, 10, 60, 70)])
        }
        _ = try folder.crop()
        let error = #expect(throws: DatasetError.self) { try folder.curate() }
        #expect(error?.code == .notEnough)
        #expect(error?.message.hasPrefix("train_eval would be empty") == true)
    }

    @Test func snippetOfOneFrameEnds() throws {
        let folder = try standard()
        try folder.addFrame(
            "val/single", 0,
            [
                Annotated(0, 10, 10, 60, 70), Annotated(1, 80, 20, 140, 60),
                Annotated(2, 200, 100, 260, 200),
            ])
        _ = try folder.crop()
        let report = try folder.curate(images: 100_000)
        #expect(report.sets[1].size.snippets == 1)
    }

    @Test func changedFilesAreFoundOnLoading() throws {
        for (name, expected) in [
            ("catalogue.csv", "catalogue.csv has digest"),
            ("sets/val_eval.csv", "val_eval.csv has digest"),
        ] {
            let folder = try standard()
            _ = try folder.curate()
            let text = try folder.read("crops/\(name)")
            // The last tuple or sample goes.
            let lines = text.split(separator: "\n")
            let kept =
                name == "catalogue.csv"
                ? lines.count
                : lines.lastIndex {
                    $0.contains(",anchor,")
                }
            var changed = lines.prefix(kept ?? 0).joined(separator: "\n") + "\n"
            if name == "catalogue.csv" { changed = changed.replacing(",bag,", with: ",hat,") }
            try folder.write(changed, "crops/\(name)")
            let error = #expect(throws: DatasetError.self) {
                try DataSet(loading: "\(folder.path)/crops")
            }
            #expect(error?.code == .inconsistent)
            #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
        }
    }

    @Test func unknownSetNamesThoseThere() throws {
        let folder = try standard()
        _ = try folder.curate()
        let error = #expect(throws: DatasetError.self) {
            try DataSet(loading: "\(folder.path)/crops", sets: ["val"])
        }
        #expect(error?.message.contains("easy_val_eval, train_eval, val_eval") == true)
    }

    @Test func otherFoldersAreNoDataSets() throws {
        let error = #expect(throws: DatasetError.self) { try DataSet(loading: "/usr") }
        #expect(error?.message.contains("/usr/dataset.json is missing") == true)
        let folder = try TemporaryFolder()
        try folder.write("{", "dataset.json")
        #expect(throws: DatasetError.self) { try DataSet(loading: folder.path) }
        try folder.write("{\"version\": 9}", "dataset.json")
        let version = #expect(throws: DatasetError.self) { try DataSet(loading: folder.path) }
        #expect(version?.message.contains("has version 9, this program reads 1") == true)
    }

    @Test(arguments: [
        ("--images-per-set", 2, 5, 0.3, 3), ("--random-crops", 60, 0, 0.3, 3),
        ("--max-iou", 60, 5, 0, 3), ("--min-objects", 60, 5, 0.3, 1),
    ])
    func optionsOutOfRangeAreNamed(
        name: String, images: Int, crops: Int, overlap: Double, objects: Int
    ) {
        let error = #expect(throws: DatasetError.self) {
            try Curator(
                .init(
                    crops: "x", imagesPerSet: images, randomCrops: crops, maxIoU: overlap,
                    minObjects: objects))
        }
        #expect(error?.message.hasPrefix(name) == true)
    }
}

import Basics
import Datasets
import EvalWorker
import Foundation
import Storage
import Testing

/// Mining with a network, to a file.
@Suite struct TripletMiningTests {
    private let tiny: TinyRun
    private let checkpoint: CheckpointReader

    init() throws {
        tiny = try TinyRun(split: "train")
        checkpoint = try tiny.writeCheckpoint(tiny.configuration())
    }

    private func mining(_ kind: TripletKind) throws -> TripletMining {
        try TripletMining(
            settings: tiny.settings, dataSet: DataSet(loading: tiny.root, sets: []),
            options: .init(kind: kind, seed: 5))
    }

    private func text(_ name: String) throws -> String {
        try String(contentsOfFile: tiny.run.path + "/" + name, encoding: .utf8)
    }

    private var files: [String] {
        get throws {
            try FileManager.default.contentsOfDirectory(atPath: tiny.run.path)
                .filter { $0.contains(".csv") }.sorted()
        }
    }

    @Test(arguments: TripletKind.allCases)
    func theFileDependsOnNothingElse(_ kind: TripletKind) throws {
        let mining = try mining(kind)
        for (name, threads) in [("a.csv", 1), ("b.csv", 3)] {
            let count = try mining.write(
                with: kind == .random ? nil : checkpoint, to: tiny.run.path + "/" + name,
                threads: threads, isQuiet: true)
            #expect(count == 12)
        }
        #expect(try text("a.csv") == text("b.csv"))
        #expect(try files == ["a.csv", "b.csv"])
        let data = try DataSet(loading: tiny.root, sets: [])
        let list = try TripletList(
            loading: tiny.run.path + "/a.csv", catalogue: data.catalogue,
            split: ImageSplit(data.catalogue, validationShare: 0, seed: 1))
        #expect(list.triplets.count == 12)
    }

    /// What is embedded is kept when the work ends early, and is not computed again.
    @Test func whatWasInterruptedGoesOn() throws {
        let mining = try mining(.hardCentroid)
        try mining.write(with: checkpoint, to: tiny.run.path + "/a.csv", isQuiet: true)
        let file = tiny.run.path + "/b.csv"
        func move(_ image: Int, away: Bool) throws {
            let path = "\(tiny.root)/\(image).jpg"
            try FileManager.default.moveItem(
                atPath: away ? path : path + ".away", toPath: away ? path + ".away" : path)
        }
        // The last of three batches cannot be read; the first two are.
        try move(11, away: true)
        #expect(throws: (any Error).self) {
            try mining.write(with: checkpoint, to: file, isQuiet: true)
        }
        #expect(try files == [".b.csv.embeddings", "a.csv"])
        let stop = StopRequest()
        stop.stop()
        let error = #expect(throws: EvalWorkerError.self) {
            try mining.write(with: checkpoint, to: file, isQuiet: true, stop: stop)
        }
        #expect(error?.code == .stopped)
        try move(11, away: false)
        for image in 0..<10 { try move(image, away: true) }
        try mining.write(with: checkpoint, to: file, isQuiet: true)
        #expect(try text("b.csv") == text("a.csv"))
        #expect(try files == ["a.csv", "b.csv"])
    }

    @Test func anotherDataSetsCheckpointIsRefused() throws {
        try tiny.run.store.remove(step: 0)
        try tiny.run.writeCheckpoint(0)
        let foreign = try tiny.run.store.open(step: 0)
        let error = #expect(throws: EvalWorkerError.self) {
            try mining(.hardCentroid).write(
                with: foreign, to: tiny.run.path + "/a.csv", isQuiet: true)
        }
        #expect(error?.code == .dataset)
        #expect(throws: EvalWorkerError.self) {
            try mining(.hardSimilarity).write(
                with: nil, to: tiny.run.path + "/a.csv", isQuiet: true)
        }
        #expect(try files == [])
    }
}

/// Embeddings in a file.
@Suite struct EmbeddingStoreTests {
    private let path = NSTemporaryDirectory() + "lineup-store-\(UUID().uuidString)"

    private func open(_ key: UInt64 = 7) throws -> EmbeddingStore {
        try EmbeddingStore(path: path, key: key, count: 8, dimension: 2, batchSize: 3)
    }

    private func rows(_ range: Range<Int>) -> [Float] { range.flatMap { [Float($0), -Float($0)] } }

    @Test func whatIsWholeIsKept() throws {
        defer { unlink(path) }
        var store = try open()
        try store.append(rows(0..<3))
        try store.append(rows(3..<6))
        #expect(store.rows == 6)
        // Cut off within the second batch, then a bit of the first.
        var bytes = try Data(contentsOf: URL(filePath: path))
        try bytes.dropLast(5).write(to: URL(filePath: path))
        store = try open()
        #expect(store.rows == 3)
        bytes[20] ^= 1
        try bytes.write(to: URL(filePath: path))
        store = try open()
        #expect(store.rows == 0)
        for batch in [0..<3, 3..<6, 6..<8] { try store.append(rows(batch)) }
        store = try open()
        #expect(store.rows == 8)
        let found = try store.withRows { row in (0..<8).flatMap { Array(row($0)) } }
        #expect(found == rows(0..<8))
        // Of something else nothing is kept.
        #expect(try open(8).rows == 0)
        try Data([1, 2, 3]).write(to: URL(filePath: path))
        #expect(try open().rows == 0)
    }
}

import Basics
import EvalWorker
import Foundation
import Scoring
import Storage
import Synchronization
import Testing

/// Images of six floats each, all functions of their number.
private final class TestImages: ImageSource {
    let count: Int
    let elementCount = 6
    let name: String
    private let loads = Mutex(0)
    private let missing: Int?

    init(_ count: Int, name: String = "image", missing: Int? = nil) {
        self.count = count
        self.name = name
        self.missing = missing
    }

    var loadCount: Int { loads.withLock { $0 } }

    func load(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) throws {
        loads.withLock { $0 += 1 }
        if index == missing { throw EvalWorkerError(.dataset, "image \(index) is missing") }
        var random = CounterRandom(seed: 5, item: UInt64(index), purpose: .dataset)
        for place in target.indices { target[place] = Float(random.uniform()) }
    }

    func key(_ index: Int) -> String { "\(name)\(index)" }
}

/// An embedding that depends on the place in the batch, as a real one's bits may.
private struct TestEmbedding: BatchEmbedding {
    let dimension = 3
    var slow = 0.0
    let batches = Counter()

    func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) throws -> [Float] {
        if slow > 0 { Thread.sleep(forTimeInterval: slow) }
        batches.add()
        var rows: [Float] = []
        for image in 0..<count {
            for part in 0..<dimension {
                let start = image * 6 + part
                rows.append(images[start] * images[start + 3] + Float(image) * 1e-6)
            }
        }
        return rows
    }
}

private final class Counter: Sendable {
    private let value = Mutex(0)
    func add() { value.withLock { $0 += 1 } }
    var count: Int { value.withLock { $0 } }
}

private func set(
    _ source: any ImageSource, name: String = "val_eval",
    cache: InputCache = InputCache(bytesMax: 0)
) -> SetScorer {
    let tuples = (0..<source.count - 3).map {
        TupleIndices(anchor: $0, positive: $0 + 1, negatives: [$0 + 2, $0 + 3])
    }
    return SetScorer(
        name: name, source: source,
        question: .tuples(
            tuples,
            TupleScorer(
                loss: TupleLoss(LossConfiguration(name: .batchHard, margin: .number(0.2))))),
        batchSize: 8,
        cache: cache)
}

struct SetScorerTests {
    @Test func decodingAheadChangesNothing() throws {
        let images = TestImages(61)
        let plain = try set(images).embed(with: TestEmbedding())
        #expect(plain.count == 61 * 3)
        for threads in [1, 2, 5, 40] {
            #expect(try set(images).embed(with: TestEmbedding(), decodeThreads: threads) == plain)
        }
    }

    @Test func partsOfBatchesGiveTheWhole() throws {
        let scorer = set(TestImages(61))
        #expect(scorer.batchCount == 8)
        let whole = try scorer.embed(with: TestEmbedding())
        var parts: [Float] = []
        for batches in [0..<3, 3..<4, 4..<8] {
            parts += try scorer.embed(batches, with: TestEmbedding())
        }
        #expect(parts == whole)
    }

    @Test func cacheSparesDecodingUpToItsBound() throws {
        let images = TestImages(20)
        let cache = InputCache(bytesMax: 12 * 6 * 4)
        let scorer = set(images, cache: cache)
        let first = try scorer.score(with: TestEmbedding())
        #expect(images.loadCount == 20)
        #expect(cache.bytes == 12 * 6 * 4)
        let second = try scorer.score(with: TestEmbedding(), decodeThreads: 2)
        #expect(images.loadCount == 28)
        #expect(second.metrics == first.metrics)
        // The same pictures in another set come from the cache too.
        let other = TestImages(12)
        _ = try set(other, cache: cache).score(with: TestEmbedding())
        #expect(other.loadCount == 0)
    }

    @Test(arguments: [0, 3]) func unreadableImageEndsTheSet(threads: Int) throws {
        let scorer = set(TestImages(61, missing: 44))
        let error = #expect(throws: EvalWorkerError.self) {
            try scorer.score(with: TestEmbedding(), decodeThreads: threads)
        }
        #expect(error?.message == "image 44 is missing")
    }

    @Test(arguments: [0, 3]) func stopEndsAtTheNextBatch(threads: Int) throws {
        let stop = StopRequest()
        stop.stop()
        let embedding = TestEmbedding()
        let error = #expect(throws: EvalWorkerError.self) {
            try set(TestImages(61)).score(with: embedding, decodeThreads: threads, stop: stop)
        }
        #expect(error?.code == .stopped)
        #expect(embedding.batches.count == 0)
    }

    @Test func brokenEmbeddingIsReported() throws {
        struct Broken: BatchEmbedding {
            let dimension = 1
            func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) -> [Float] {
                Array(repeating: .nan, count: count)
            }
        }
        let result = try set(TestImages(9)).score(with: Broken())
        #expect(result.nonFiniteTuples == 6)
        #expect(result.metrics[.generalAccuracyTies] == 0)
        #expect(result.metrics[.meanLoss]?.isNaN == true)
    }

    @Test func pixelsAreTheirOwnEmbedding() throws {
        let images = TestImages(10)
        let scorer = set(images)
        let values = try scorer.embed(with: PixelEmbedding(elementCount: 6))
        var expected: [Float] = []
        for index in 0..<10 {
            var buffer = [Float](repeating: 0, count: 6)
            try buffer.withUnsafeMutableBufferPointer { try images.load(index, into: $0) }
            expected += buffer
        }
        #expect(values == expected)
    }
}

struct CheckpointScorerTests {
    private func outcomes(
        _ scorer: CheckpointScorer, _ checkpoint: CheckpointReader, _ sets: [String],
        concurrently: Bool = true
    ) -> [String: Result<SetResult, any Error>] {
        let found = Mutex<[String: Result<SetResult, any Error>]>([:])
        scorer.score(checkpoint, sets: sets, concurrently: concurrently) { set, outcome in
            found.withLock { $0[set] = outcome }
        }
        return found.withLock { $0 }
    }

    private func scorer(_ embedding: TestEmbedding) -> CheckpointScorer {
        CheckpointScorer(
            sets: TestRun.sets.enumerated().map { set(TestImages(40 + $0, name: $1), name: $1) },
            numericsClass: "test", datasetDigest: TestRun.datasetDigest
        ) { _ in embedding }
    }

    @Test func setsRunSideBySideWithTheSameResults() throws {
        let run = try TestRun()
        let checkpoint = try CheckpointReader(path: run.writeCheckpoint(3))
        let scorer = scorer(TestEmbedding(slow: 0.02))
        let together = outcomes(scorer, checkpoint, TestRun.sets)
        let alone = outcomes(scorer, checkpoint, TestRun.sets, concurrently: false)
        var (starts, ends, sum) = ([Double](), [Double](), 0.0)
        for name in TestRun.sets {
            let (one, other) = (try #require(together[name]).get(), try #require(alone[name]).get())
            #expect(one.metrics == other.metrics)
            #expect(one.set == name)
            #expect(one.finished >= one.started)
            starts.append(one.started)
            ends.append(one.finished)
            sum += other.finished - other.started
        }
        // Sleeping embeddings overlap wholly; half leaves room for a busy machine.
        #expect(try #require(ends.max()) - #require(starts.min()) < sum / 2)
    }

    @Test func unknownSetFailsAlone() throws {
        let run = try TestRun()
        let checkpoint = try CheckpointReader(path: run.writeCheckpoint(3))
        let found = outcomes(scorer(TestEmbedding()), checkpoint, ["val_eval", "test_eval"])
        #expect(throws: Never.self) { try found["val_eval"]?.get() }
        let error = #expect(throws: EvalWorkerError.self) { try found["test_eval"]?.get() }
        #expect(error?.message.contains("train_eval, val_eval, easy_val_eval") == true)
    }

    @Test func checkpointOfAnotherDataSetIsRefused() throws {
        let run = try TestRun()
        let checkpoint = try CheckpointReader(path: run.writeCheckpoint(3, datasetDigest: 1))
        let found = outcomes(scorer(TestEmbedding()), checkpoint, TestRun.sets)
        for name in TestRun.sets {
            let error = #expect(throws: EvalWorkerError.self) { try found[name]?.get() }
            #expect(error?.code == .dataset)
        }
    }
}

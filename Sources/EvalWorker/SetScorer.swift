import Basics
import Foundation
public import Scoring
import Synchronization

/// What one evaluation set scored on one checkpoint.
public struct SetResult: Equatable, Sendable {
    /// Name of the set.
    public var set: String
    /// Value by metric.
    public var metrics: [MetricName: Double]
    /// When the first image was read, in seconds since 1970.
    public var started: Double
    /// When the last image was scored.
    public var finished: Double
    /// Distinct images that were embedded.
    public var images: Int
    /// Tuples, or images of a set of images, with an embedding that is not finite; they count as
    /// failures.
    public var nonFiniteTuples: Int

    /// Names every part.
    public init(
        set: String, metrics: [MetricName: Double], started: Double, finished: Double, images: Int,
        nonFiniteTuples: Int = 0
    ) {
        self.set = set
        self.metrics = metrics
        self.started = started
        self.finished = finished
        self.images = images
        self.nonFiniteTuples = nonFiniteTuples
    }
}

/// A request to stop that any thread may make.
public final class StopRequest: Sendable {
    private let flag = Atomic(false)

    /// Makes a request that has not been made.
    public init() {}

    /// Asks to stop at the next batch.
    public func stop() { flag.store(true, ordering: .relaxed) }

    /// Whether to stop.
    public var isStopped: Bool { flag.load(ordering: .relaxed) }

    func check(_ end: String = "the set was scored") throws(EvalWorkerError) {
        if isStopped { throw EvalWorkerError(.stopped, "stopped before \(end)") }
    }
}

/// Scores one evaluation set: embeds its distinct images in fixed batches, then compares.
///
/// Images are embedded in the order of their source, which is the catalogue's, in batches of one
/// size, the last one filled up with zeros. An embedding's bits may depend on the batch's size and
/// on the place in it, so both are a function of the set alone: a part of the work is a whole number
/// of batches, and parts give the bits of the whole.
public struct SetScorer: Sendable {
    /// Name of the set.
    public let name: String
    /// The distinct images, which tuples name by index.
    public let source: any ImageSource
    /// What is asked about the images.
    public enum Question: Sendable {
        /// Which candidate shows what the anchor shows.
        case tuples([TupleIndices], TupleScorer)
        /// Which of the identities that are trained on each shows.
        case identities([Int], IdentityScorer)
    }

    /// What is asked about the images, and how answers become metrics.
    public let question: Question
    /// Images a batch has.
    public let batchSize: Int
    /// Where decoded images are kept between checkpoints.
    public let cache: InputCache

    /// Prepares a set.
    public init(
        name: String, source: any ImageSource, question: Question, batchSize: Int,
        cache: InputCache = InputCache(bytesMax: 0)
    ) {
        precondition(batchSize > 0, "batches of \(batchSize) images")
        self.name = name
        self.source = source
        self.question = question
        self.batchSize = batchSize
        self.cache = cache
    }

    /// Batches of the whole set.
    public var batchCount: Int { (source.count + batchSize - 1) / batchSize }

    /// Embeds some batches on the calling thread.
    ///
    /// - Parameters:
    ///   - batches: which; all where nil.
    ///   - decodeThreads: threads that decode ahead; with 0 the calling thread decodes too.
    /// - Returns: the embeddings of the batches' images, row-major.
    /// - Throws: what decoding or embedding throws, and ``EvalWorkerError`` with code `stopped`.
    public func embed(
        _ batches: Range<Int>? = nil, with embedding: any BatchEmbedding, decodeThreads: Int = 0,
        stop: StopRequest = StopRequest()
    ) throws -> [Float] {
        let batches = batches ?? 0..<batchCount
        let feeder = BatchFeeder(
            source, cache: cache, batches: batches, batchSize: batchSize, threads: decodeThreads)
        defer { feeder.close() }
        var values: [Float] = []
        values.reserveCapacity(batches.count * batchSize * embedding.dimension)
        for batch in batches {
            try stop.check()
            let rows = try feeder.withBatch(batch) { images in
                try embedding.embed(images, count: batchSize)
            }
            precondition(
                rows.count == batchSize * embedding.dimension,
                "\(rows.count) values for \(batchSize) embeddings of \(embedding.dimension)")
            let images = min(batchSize, source.count - batch * batchSize)
            values.append(contentsOf: rows[..<(images * embedding.dimension)])
        }
        return values
    }

    /// Scores the set on the calling thread.
    ///
    /// - Throws: as ``embed(_:with:decodeThreads:stop:)`` and ``ScoringError``.
    public func score(
        with embedding: any BatchEmbedding, decodeThreads: Int = 0,
        stop: StopRequest = StopRequest()
    ) throws -> SetResult {
        let started = Date().timeIntervalSince1970
        let values = try embed(with: embedding, decodeThreads: decodeThreads, stop: stop)
        let (metrics, nonFinite) = try metrics(
            of: EmbeddingMatrix(values, dimension: embedding.dimension), embedding.classes)
        return SetResult(
            set: name, metrics: metrics, started: started,
            finished: Date().timeIntervalSince1970, images: source.count,
            nonFiniteTuples: nonFinite)
    }

    private func metrics(
        of embeddings: EmbeddingMatrix, _ classes: EmbeddingMatrix?
    ) throws -> (metrics: [MetricName: Double], nonFinite: Int) {
        switch question {
        case .tuples(let tuples, let scorer):
            let scores = try scorer.score(tuples, of: embeddings)
            return (try scores.metrics(), scores.nonFiniteTuples)
        case .identities(let labels, let scorer):
            guard let classes else {
                throw EvalWorkerError(
                    .corrupt,
                    "the checkpoint has no 'loss/\(scorer.configuration.name.rawValue)', without which "
                        + "set '\(name)' cannot be scored; use the run's own checkpoints")
            }
            return try scorer.score(embeddings, labels: labels, classes: classes)
        }
    }
}

import Basics
import Foundation
public import Storage
import Synchronization

/// Scores evaluation sets on one pinned checkpoint, all at the same time.
///
/// Every set has a thread of its own with one intra-op thread, and all share the weights. Which sets
/// run side by side changes no bit.
public final class CheckpointScorer: Sendable {
    /// Makes an embedding of a checkpoint's weights.
    public typealias MakeEmbedding = @Sendable (CheckpointReader) throws -> any BatchEmbedding

    /// The sets, in the order of the settings.
    public let sets: [SetScorer]
    /// The numerics class in which images are embedded.
    public let numericsClass: String
    /// Digest of the data set.
    public let datasetDigest: UInt64
    private let decodeThreads: Int
    private let prepareThread: @Sendable () throws -> Void
    private let makeEmbedding: MakeEmbedding

    /// Prepares a scorer.
    ///
    /// - Parameters:
    ///   - decodeThreads: threads a set has for decoding ahead. With 0 a set's own thread decodes,
    ///     so that a machine that trains at the same time lends one thread a set and no more.
    ///   - prepareThread: is called on every thread before it embeds.
    public init(
        sets: [SetScorer], numericsClass: String, datasetDigest: UInt64, decodeThreads: Int = 0,
        prepareThread: @escaping @Sendable () throws -> Void = {},
        makeEmbedding: @escaping MakeEmbedding
    ) {
        self.sets = sets
        self.numericsClass = numericsClass
        self.datasetDigest = datasetDigest
        self.decodeThreads = decodeThreads
        self.prepareThread = prepareThread
        self.makeEmbedding = makeEmbedding
    }

    /// Scores sets on a checkpoint; returns when all are done.
    ///
    /// - Parameters:
    ///   - names: sets to score; unknown names fail.
    ///   - concurrently: whether the sets run side by side; the results are the same.
    ///   - stop: ends the work at the next batch.
    ///   - completed: is told each set's outcome as soon as there is one, on that set's thread, one
    ///     call at a time.
    public func score(
        _ checkpoint: CheckpointReader, sets names: [String], concurrently: Bool = true,
        stop: StopRequest = StopRequest(),
        completed: @escaping @Sendable (String, Result<SetResult, any Error>) -> Void
    ) {
        let embedding: any BatchEmbedding
        do {
            try check(checkpoint)
            try prepareThread()
            embedding = try makeEmbedding(checkpoint)
        } catch {
            for name in names { completed(name, .failure(error)) }
            return
        }
        let group = DispatchGroup()
        let reporting = Mutex(())
        for name in names {
            group.enter()
            let thread = Thread { [self] in
                let outcome = Result { try scoreOne(name, embedding, stop) }
                reporting.withLock { _ in completed(name, outcome) }
                group.leave()
            }
            thread.name = "score \(name)"
            thread.stackSize = 16 << 20
            thread.start()
            if !concurrently { group.wait() }
        }
        group.wait()
    }

    private func scoreOne(_ name: String, _ embedding: any BatchEmbedding, _ stop: StopRequest)
        throws -> SetResult
    {
        guard let set = sets.first(where: { $0.name == name }) else {
            let known = sets.map(\.name).joined(separator: ", ")
            throw EvalWorkerError(.dataset, "there is no set '\(name)'; the run has \(known)")
        }
        try prepareThread()
        return try set.score(with: embedding, decodeThreads: decodeThreads, stop: stop)
    }

    /// Whether scoring reads more of a checkpoint than the network: the vectors of identities.
    public var needsWholeCheckpoints: Bool {
        sets.contains { if case .identities = $0.question { true } else { false } }
    }

    private func check(_ checkpoint: CheckpointReader) throws {
        if needsWholeCheckpoints { try checkpoint.verify(.state) }
        guard checkpoint.metadata.datasetDigest == datasetDigest else {
            throw EvalWorkerError(
                .dataset,
                "checkpoint \(checkpoint.path) was trained on data set "
                    + "\(checkpoint.metadata.datasetDigest.hex), this one is "
                    + "\(datasetDigest.hex); name the run's data set with --data-root")
        }
    }
}

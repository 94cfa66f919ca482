import Basics
public import Datasets
import Foundation
import Images
import Networks
public import Settings
public import Storage
import Synchronization
public import Tensors
import Training

/// Mines triplets of a data set with the weights of a checkpoint and writes them as CSV.
///
/// The file is a function of settings, data, checkpoint, options and the arithmetic of the device. Embeddings
/// are kept beside it until it is complete: when the work is interrupted it goes on there.
public struct TripletMining: Sendable {
    /// What is mined.
    public let miner: TripletMiner
    private let settings: Settings
    private let dataSet: DataSet
    private let device: Device

    /// Prepares to mine.
    ///
    /// - Parameter settings: network, input, and what is held out of training.
    /// - Throws: ``EvalWorkerError`` with code `dataset`, or a ``DatasetError``, when the data is too small.
    public init(
        settings: Settings, dataSet: DataSet, options: TripletMiner.Options, device: Device = .cpu
    ) throws {
        let split = try ImageSplit(
            dataSet.catalogue, validationShare: settings.data.validationShare, seed: settings.seed)
        miner = try TripletMiner(identities: split.trained, options: options)
        self.settings = settings
        self.dataSet = dataSet
        self.device = device
    }

    /// Mines triplets.
    ///
    /// - Parameters:
    ///   - checkpoint: whose weights embed; random triplets need none.
    ///   - path: where the triplets are written; embeddings are kept in `.NAME.embeddings` beside it.
    ///   - threads: batches that are decoded and embedded at once; they change no bit.
    ///   - isQuiet: shows no progress.
    ///   - stop: ends the work after the batches under way.
    /// - Returns: how many triplets were written.
    /// - Throws: ``EvalWorkerError`` with code `stopped`, `corrupt` or `io`, and what reading images,
    ///   checkpoints and networks throws.
    @discardableResult
    public func write(
        with checkpoint: CheckpointReader?, to path: String, threads: Int = 1,
        isQuiet: Bool = false, stop: StopRequest = StopRequest()
    ) throws -> Int {
        let triplets: [Triplet]
        var store: EmbeddingStore?
        if miner.images.isEmpty {
            triplets = try miner.triplets { _ in preconditionFailure("no embedding is needed") }
        } else {
            guard let checkpoint else {
                throw EvalWorkerError(
                    .setting,
                    "\(miner.options.kind.rawValue) triplets are mined with a network; name a run's "
                        + "checkpoint, or take random ones")
            }
            let rows = try embed(
                with: checkpoint, to: Self.storePath(path), threads: threads, isQuiet: isQuiet,
                stop: stop)
            triplets = try rows.withRows { try miner.triplets($0) }
            store = rows
        }
        try TripletList.write(triplets, of: dataSet.catalogue, to: path)
        store?.remove()
        return triplets.count
    }

    private static func storePath(_ path: String) -> String {
        let file = URL(fileURLWithPath: path)
        return file.deletingLastPathComponent()
            .appending(path: ".\(file.lastPathComponent).embeddings").path
    }

    /// Prepares a round of a run.
    ///
    /// - Parameter step: of the checkpoint.
    /// - Throws: as ``init(settings:dataSet:options:device:)``.
    public init(
        round step: Int, of settings: Settings, dataSet: DataSet, device: Device = .cpu
    ) throws {
        guard let kind = TripletKind(rawValue: settings.mining.offline.rawValue) else {
            preconditionFailure("a round of mining.offline=\(settings.mining.offline)")
        }
        let (mining, batch) = (settings.mining, settings.batch)
        let taken = mining.everySteps * batch.miniBatchesPerStep * batch.triplets
        var options = TripletMiner.Options(
            kind: kind, seed: settings.seed, step: step,
            anchors: mining.anchors > 0 ? mining.anchors : taken)
        options.negatives = mining.negatives
        options.pool = mining.pool
        options.samples = mining.samples
        try self.init(settings: settings, dataSet: dataSet, options: options, device: device)
    }

    // MARK: - Embedding

    private func embed(
        with checkpoint: CheckpointReader, to path: String, threads: Int, isQuiet: Bool,
        stop: StopRequest
    ) throws -> EmbeddingStore {
        guard checkpoint.metadata.datasetDigest == dataSet.digest else {
            throw EvalWorkerError(
                .dataset,
                "checkpoint \(checkpoint.path) was trained on data set "
                    + "\(checkpoint.metadata.datasetDigest.hex), this one is "
                    + "\(dataSet.digest.hex); name the run's data set with --data-root")
        }
        let key = try key(checkpoint)
        let embedder = try Embedder(
            settings.networkConfiguration, device: device,
            precision: settings.numerics.precision == .bf16 ? .bf16 : .fp32, threads: 1
        ) { name in checkpoint[name].map { ($0.shape, $0.bytes) } }
        let source = CatalogueImages(
            loader: try ImageLoader(root: dataSet.root, input: settings.evaluationInput),
            samples: miner.images.map { dataSet.catalogue.samples[$0] })
        let size = settings.evaluation.batchSize
        let store = try EmbeddingStore(
            path: path, key: key, count: source.count,
            dimension: embedder.network.embeddingDimension, batchSize: size)
        let batches = (source.count + size - 1) / size
        let meter = ProgressMeter(
            "embedding", total: source.count, unit: "images", isQuiet: isQuiet)
        meter.advance(by: store.rows, skipped: store.rows)
        let buffers = (0..<max(1, min(threads, batches - store.batches))).map { _ in
            FloatBuffer(count: size * source.elementCount)
        }
        while store.batches < batches {
            try stop.check("the triplets were mined")
            let group = Array(store.batches..<min(batches, store.batches + buffers.count))
            for rows in try Self.embed(group, of: source, size, embedder, buffers) {
                let first = store.rows
                try check(rows, first, checkpoint, dimension: store.dimension)
                try store.append(rows)
                meter.advance(by: store.rows - first)
            }
        }
        meter.finish()
        return store
    }

    /// The rows of some batches; places beyond the last image are filled with zeros and left out.
    private static func embed(
        _ batches: [Int], of source: CatalogueImages, _ size: Int, _ embedder: Embedder,
        _ buffers: [FloatBuffer]
    ) throws -> [[Float]] {
        let found = Mutex<[Int: [Float]]>([:])
        try Parallel.tryRun(parts: batches.count) { part, _ in
            let images = buffers[part].floats
            let first = batches[part] * size
            let count = min(size, source.count - first)
            for place in 0..<size {
                let target = UnsafeMutableBufferPointer(
                    rebasing: images[
                        place * source.elementCount..<(place + 1) * source.elementCount])
                if place < count {
                    try source.load(first + place, into: target)
                } else {
                    target.update(repeating: 0)
                }
            }
            let rows = try embedder.embed(UnsafePointer(buffers[part].base), count: size)
            let values = Array(rows[..<(count * embedder.network.embeddingDimension)])
            found.withLock { $0[part] = values }
        }
        return found.withLock { found in batches.indices.map { found[$0]! } }
    }

    private func check(
        _ rows: [Float], _ first: Int, _ checkpoint: CheckpointReader, dimension: Int
    ) throws {
        guard let place = rows.firstIndex(where: { !$0.isFinite }) else { return }
        let image = dataSet.catalogue.samples[miner.images[first + place / dimension]].path
        throw EvalWorkerError(
            .corrupt,
            "checkpoint \(checkpoint.path) gives '\(image)' an embedding that is not finite; mine with "
                + "an earlier checkpoint")
    }

    /// What decides the bits of embeddings, and so which triplets are mined, besides weights and images.
    ///
    /// Opens the tensor engine and sets its switches for this process.
    ///
    /// - Throws: what opening the tensor engine or the device throws.
    public func numericsClass() throws -> String {
        try Engine.load()
        try Engine.setNumerics(.bitwise)
        try device.requireAvailable()
        return try settings.embeddingClass(device)
    }

    /// Of what embeddings are a function.
    private func key(_ checkpoint: CheckpointReader) throws -> UInt64 {
        var hash = XXH64()
        hash.update("lineup embeddings 1 \(try numericsClass()) ")
        hash.update(checkpoint.digests.weights)
        hash.update(dataSet.digest)
        for image in miner.images { hash.update(UInt64(image)) }
        return hash.finish()
    }
}

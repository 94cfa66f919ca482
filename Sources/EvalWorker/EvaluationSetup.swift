import Basics
import Datasets
import Foundation
import Images
import Networks
import Scoring
public import Settings
import Storage
public import Tensors
import Training

/// What an evaluator needs of a run's settings and data set to score its checkpoints.
public struct EvaluationSetup: Sendable {
    /// The sets of `evaluation.sets`, in that order.
    public let sets: [SetScorer]
    /// Digest of the data set.
    public let datasetDigest: UInt64
    private let settings: Settings
    private let device: Device

    /// Decoded images kept between checkpoints unless said otherwise: 512 MiB.
    public static let cacheBytesMax = 512 << 20

    /// Reads the run's data set.
    ///
    /// - Parameters:
    ///   - dataRoot: where the data set is on this machine; nil takes `data.root`.
    ///   - device: where images are embedded.
    ///   - cacheBytesMax: the most bytes of decoded images that are kept between checkpoints.
    /// - Throws: ``EvalWorkerError`` with code `setting`, and the errors of data sets and images, all
    ///   naming what is wrong.
    public init(
        settings: Settings, dataRoot: String? = nil, device: Device = .cpu,
        cacheBytesMax: Int = Self.cacheBytesMax
    ) throws {
        guard let root = dataRoot ?? settings.data.root else {
            throw EvalWorkerError(
                .setting, "the run has no data.root; name the data set's folder with --data-root")
        }
        let data = try DataSet(loading: root, sets: settings.evaluation.storedSets)
        let loader = try ImageLoader(root: root, input: settings.evaluationInput)
        let scorer = TupleScorer(loss: TupleLoss(settings.loss))
        let cache = InputCache(bytesMax: cacheBytesMax)
        func images(_ rows: [Int]) -> CatalogueImages {
            CatalogueImages(loader: loader, samples: rows.map { data.catalogue.samples[$0] })
        }
        let split = try ImageSplit(
            data.catalogue, validationShare: settings.data.validationShare, seed: settings.seed)
        sets = settings.evaluation.sets.map { name in
            let source: CatalogueImages
            let question: SetScorer.Question
            if let set = data.sets.first(where: { $0.name == name }) {
                source = images(set.catalogueIndices)
                question = .tuples(
                    set.tuples.map {
                        TupleIndices(
                            anchor: $0.anchor, positive: $0.positive, negatives: $0.negatives)
                    }, scorer)
            } else if let identityScorer = IdentityScorer(settings.loss) {
                let labelled = (name == "val_images" ? split.heldOut : split.compared).enumerated()
                    .flatMap { label, identity in identity.samples.map { (row: $0, label: label) } }
                    .sorted { $0.row < $1.row }
                source = images(labelled.map(\.row))
                question = .identities(labelled.map(\.label), identityScorer)
            } else {
                preconditionFailure("set \(name) with loss \(settings.loss.name) after checks")
            }
            return SetScorer(
                name: name, source: source, question: question,
                batchSize: settings.evaluation.batchSize, cache: cache)
        }
        datasetDigest = data.digest
        self.settings = settings
        self.device = device
    }

    /// A scorer of the run's network; opens the tensor engine.
    ///
    /// - Throws: what opening the tensor engine or the device throws.
    public func checkpointScorer() throws -> CheckpointScorer {
        try Engine.load()
        try device.requireAvailable()
        let network = try settings.networkConfiguration
        let precision: Training.Precision = settings.numerics.precision == .bf16 ? .bf16 : .fp32
        let device = device
        let usesAverage = settings.evaluation.weights == .average
        let classes = settings.loss.classifier.map { classifier in
            "loss/" + (usesAverage ? "average/" : "") + classifier.name.rawValue
        }
        return CheckpointScorer(
            sets: sets, numericsClass: try settings.embeddingClass(device),
            datasetDigest: datasetDigest,
            decodeThreads: decodeThreads, prepareThread: { try Engine.setIntraOpThreads(1) },
            makeEmbedding: { checkpoint in
                NetworkEmbedding(
                    embedder: try Embedder(
                        network, device: device, precision: precision, threads: 1,
                        usesAverage: usesAverage
                    ) { name in checkpoint[name].map { ($0.shape, $0.bytes) } },
                    classes: try classes.flatMap { name in
                        try checkpoint[name].map { try EmbeddingMatrix(identities: $0) }
                    })
            })
    }

    /// Scores a set by nearest neighbour on raw pixels, at the network's input size.
    ///
    /// Needs no tensor engine and no checkpoint.
    ///
    /// - Throws: ``EvalWorkerError`` with code `dataset` for an unknown name, or what decoding throws.
    public func pixelBaseline(set name: String) throws -> SetResult {
        guard let set = sets.first(where: { $0.name == name }) else {
            let known = sets.map(\.name).joined(separator: ", ")
            throw EvalWorkerError(.dataset, "there is no set '\(name)'; the run has \(known)")
        }
        return try set.score(with: PixelEmbedding(elementCount: set.source.elementCount))
    }

    /// Threads that a set has for decoding ahead.
    ///
    /// Beside a GPU decoding is what there is to do. On a CPU a set's own thread decodes, and only
    /// cores beyond one a set help: training may need the machine, and after the first checkpoint
    /// the images come from the cache.
    private var decodeThreads: Int {
        let count = max(1, sets.count)
        if device.kind != .cpu { return max(1, settings.data.decodeThreads / count) }
        let spare = ProcessInfo.processInfo.activeProcessorCount - max(3, count)
        return max(0, min(settings.data.decodeThreads, spare) / count)
    }
}

/// The images of a set, checked against the catalogue as they are read.
struct CatalogueImages: ImageSource {
    let loader: ImageLoader
    let samples: [Sample]

    var count: Int { samples.count }
    var elementCount: Int { loader.input.elementCount }

    func load(_ index: Int, into target: UnsafeMutableBufferPointer<Float>) throws {
        let sample = samples[index]
        try loader.load(sample.path, expecting: sample.fingerprint, into: target)
    }

    func key(_ index: Int) -> String { samples[index].path }
}

/// A network with the weights of one checkpoint.
private struct NetworkEmbedding: BatchEmbedding {
    let embedder: Embedder
    let classes: EmbeddingMatrix?

    var dimension: Int { embedder.network.embeddingDimension }

    func embed(_ images: UnsafeMutableBufferPointer<Float>, count: Int) throws -> [Float] {
        guard let start = images.baseAddress else { return [] }
        return try embedder.embed(UnsafePointer(start), count: count)
    }
}

extension EmbeddingMatrix {
    /// A loss's vectors of identities.
    fileprivate init(identities tensor: CheckpointTensor) throws {
        guard let values = tensor.floats(), tensor.shape.count == 2 else {
            throw EvalWorkerError(
                .corrupt,
                "tensor '\(tensor.name)' is \(tensor.type.rawValue) \(tensor.shape), expected F32 "
                    + "[identities, dimension]; use the run's own checkpoints")
        }
        try self.init(values, dimension: tensor.shape[1])
    }
}

extension Settings {
    /// The network that these settings describe.
    var networkConfiguration: NetworkConfiguration {
        get throws {
            try NetworkConfiguration(
                backbone: network.backbone.rawValue, head: network.head.rawValue,
                embeddingDimension: network.embeddingDim, inputHeight: input.height,
                inputWidth: input.width, channels: network.channels, batchNorm: network.batchNorm,
                batchNormMomentum: network.batchNormMomentum)
        }
    }

    /// The network's input without augmentation.
    var evaluationInput: InputConfiguration {
        let normalisation: Images.Normalisation =
            switch input.normalisation {
            case .imagenet: .imagenet
            case .signed: .signed
            }
        return InputConfiguration(
            height: input.height, width: input.width, normalisation: normalisation)
    }
}

extension Settings {
    /// Everything besides the weights and the images that may change an embedding's bits.
    func embeddingClass(_ device: Device) throws -> String {
        let model = device.kind == .cpu ? try Engine.cpuCapability() : try device.model()
        let probe = try NumericsProbe.digest(
            embedding: try networkConfiguration, input: evaluationInput,
            device: device, precision: numerics.precision == .bf16 ? .bf16 : .fp32)
        // Words that are added later keep the others as they are: a run of before then goes on.
        return [
            "evaluation 1", "\(device.kind)", model, "libtorch \(try Engine.version())",
            "threads 1", "model \(try device.modelWord())", "libjpeg-turbo \(JPEG.libraryVersion)",
            "openblas \(OpenBLAS.version)", "probe \(probe.hex)",
            "batch \(evaluation.batchSize)x3x\(input.height)x\(input.width)",
            numerics.precision.rawValue, "channels_last",
        ].joined(separator: "; ")
    }
}

public import Basics

/// Everything that decides what a run computes and how, resolved: no value is missing.
///
/// In JSON the names are those of ``SettingsCatalogue``, in snake case, one object a section:
/// `{"loss": {"margin": 0.3}}`. The default and its reason stand beside each value; where the
/// default depends on the backbone, ``defaults(backbone:loss:)`` says how.
///
/// ```swift
/// let settings = try Settings.resolve(
///     paramsJSON: Data(contentsOf: file), overrides: ["loss.margin=0.3"])
/// print(settings.digest.hex, settings.batch.imagesPerSlot)
/// ```
public struct Settings: Codable, Hashable, Sendable {
    /// Seed of all randomness.
    ///
    /// 1: any fixed number does, and the same one shows the same run.
    public var seed: UInt64 = 1
    /// Share of slots and folds that are computed twice and compared.
    ///
    /// 0: costs nothing.
    public var auditFraction = 0.0
    /// The network.
    public var network = Network()
    /// The loss.
    public var loss = LossConfiguration()
    /// What is mined over what.
    public var mining = Mining()
    /// The shape of a step.
    public var batch = Batch()
    /// The network's input.
    public var input = Input()
    /// What is done to training images.
    public var augmentation = Augmentation()
    /// The optimizer.
    public var optimizer = Optimizer()
    /// How long to train and at which rate.
    public var schedule = Schedule()
    /// When to keep what.
    public var checkpoint = Checkpoint()
    /// Metrics of a set in which one checkpoint is better than another.
    public enum RankingMetric: String, Codable, Hashable, Sendable, CaseIterable {
        /// Share of tuples in which the positive is nearest.
        case generalAccuracy = "general_accuracy"
        /// Mean share of negatives that are farther than the positive.
        case easyAccuracy = "easy_accuracy"
        /// ``generalAccuracy`` with ties as success.
        case generalAccuracyTies = "general_accuracy_ties"
        /// ``easyAccuracy`` with ties as success.
        case easyAccuracyTies = "easy_accuracy_ties"
        /// Mean rank of what shows the anchor's object.
        case averageRankingPosition = "average_ranking_position"
        /// Mean loss.
        case meanLoss = "mean_loss"
        /// Share of the loss's terms that are active.
        case fractionPositive = "fraction_positive"
        /// Share of images whose identity is the most probable.
        case top1 = "top1"

        /// Whether larger values are better.
        public var isLargerBetter: Bool {
            switch self {
            case .generalAccuracy, .easyAccuracy, .generalAccuracyTies, .easyAccuracyTies, .top1:
                true
            case .averageRankingPosition, .meanLoss, .fractionPositive: false
            }
        }
    }

    /// What is written for people.
    public var logging = Logging()
    /// What is scored, how often.
    public var evaluation = Evaluation()
    /// Where the pictures are.
    public var data = DataSource()
    /// What decides bits.
    public var numerics = Numerics()
    /// The ledger.
    public var ledger = LedgerPlace()

    enum CodingKeys: String, CodingKey {
        case seed
        case auditFraction = "audit_fraction"
        case network, loss, mining, batch, input, augmentation, optimizer, schedule, checkpoint
        case logging, evaluation, data, numerics, ledger
    }

    /// A resnet50 with batch_hard, as its defaults are.
    public init() {}

    /// The defaults for a backbone and a loss.
    ///
    /// `basic` is a small network for small pictures: it gets the head it was published with
    /// (one dense layer of 64), an input of 64x64, and its learning rates: 1e-3 with `batch_all`,
    /// 1e-4 with the losses that mine, which collapse at more. `LossName.defaults` are a loss's
    /// own.
    public static func defaults(
        backbone: Backbone = .resnet50, loss: LossName = .batchHard
    ) -> Settings {
        var settings = Settings()
        settings.network.backbone = backbone
        settings.loss = loss.defaults
        if backbone == .basic {
            settings.network.head = .direct
            settings.network.embeddingDim = 64
            settings.input = Input(height: 64, width: 64, normalisation: .signed)
            settings.augmentation.cropFromHeight = 72
            settings.augmentation.cropFromWidth = 72
            settings.optimizer.learningRate = loss == .batchAll ? 1e-3 : 1e-4
        }
        return settings
    }
}

extension Settings {
    /// Which trunk computes the features.
    public enum Backbone: String, Codable, Hashable, Sendable, CaseIterable {
        /// Two blocks of 3x3 convolution, ReLU and 2x2 pooling.
        case basic
        /// ResNet-50 with the stride in the 3x3 convolution of a stage's first unit.
        case resnet50
    }

    /// What turns features into an embedding.
    public enum Head: String, Codable, Hashable, Sendable, CaseIterable {
        /// One dense layer.
        case direct
        /// One dense layer, then unit length.
        case directNormalize = "direct_normalize"
        /// Dense 1024, batch norm, ReLU, dense.
        case fc1024
        /// The same, then unit length.
        case fc1024Normalize = "fc1024_normalize"
    }

    /// Which of a weights file's tensors are taken.
    public enum WeightsScope: String, Codable, Hashable, Sendable, CaseIterable {
        /// The backbone's, all of which must be there.
        case backbone
        /// All, all of which must be there.
        case all
        /// Those whose name and shape fit.
        case matching
    }

    /// The network.
    public struct Network: Codable, Hashable, Sendable {
        /// The trunk.
        ///
        /// resnet50: what the published re-identification results use.
        public var backbone = Backbone.resnet50
        /// The head.
        ///
        /// fc1024 as published with resnet50; `direct` with basic.
        public var head = Head.fc1024
        /// Numbers in an embedding.
        ///
        /// 128 as published with resnet50; 64 with basic.
        public var embeddingDim = 128
        /// File to start from; nil starts from random weights.
        public var weights: String?
        /// Digest of what is taken from it, in hexadecimal; a run that starts writes it down.
        ///
        /// The run is a function of this and not of the file's name.
        public var weightsDigest: String?
        /// What is taken from it.
        ///
        /// backbone: a head rarely fits another task.
        public var weightsScope = WeightsScope.backbone
        /// Channels of basic's first block; the second has twice as many.
        ///
        /// 32 as published.
        public var channels = 32
        /// Whether basic has batch norm.
        ///
        /// false as published; resnet50 always has it.
        public var batchNorm = false
        /// Share of a new batch's statistics in the running ones.
        ///
        /// 0.1: the earlier systems' 0.9 decay.
        public var batchNormMomentum = 0.1
        /// Parameters that stay as they are, names with `*`, between commas.
        public var freeze: String?
        /// How many of the backbone's last blocks are trained.
        ///
        /// -1, all: as published.
        public var trainLastBlocks = -1
        /// 0: what is frozen is so for good.
        public var freezeSteps = 0

        enum CodingKeys: String, CodingKey {
            case backbone, head, weights, channels, freeze
            case trainLastBlocks = "train_last_blocks"
            case freezeSteps = "freeze_steps"
            case embeddingDim = "embedding_dim"
            case weightsScope = "weights_scope"
            case weightsDigest = "weights_digest"
            case batchNorm = "batch_norm"
            case batchNormMomentum = "batch_norm_momentum"
        }
    }

    /// Over what triplets are formed.
    public enum MiningScope: String, Codable, Hashable, Sendable, CaseIterable {
        /// Inside one slot's P x K images.
        case slot
        /// Over the images of all slots of a step.
        case step
    }

    /// How often a slot runs forward in a step that mines over all of its slots.
    public enum MiningForward: String, Codable, Hashable, Sendable, CaseIterable {
        /// Once: its graph is kept until the loss of the step is known.
        case once
        /// Twice: the graph is made anew for the backward pass (gradient caching).
        case twice
    }

    /// How triplets are mined offline, once in a while.
    public enum OfflineMining: String, Codable, Hashable, Sendable, CaseIterable {
        /// Not at all.
        case none
        /// Images with random others.
        case random
        /// Negatives by the centroids of identities.
        case hardCentroid = "hard_centroid"
        /// Positives and negatives by similarity in a pool of images.
        case hardSimilarity = "hard_similarity"

        /// Whether a checkpoint embeds images for it.
        public var needsCheckpoint: Bool { self == .hardCentroid || self == .hardSimilarity }
    }

    /// What is mined over what.
    public struct Mining: Codable, Hashable, Sendable {
        /// slot: a slot's result then depends on nothing but the slot.
        public var scope = MiningScope.slot
        /// once: no slot is computed twice; a trainer holds the graphs of all its slots.
        public var forward = MiningForward.once
        /// none: most losses mine in the mini-batch.
        public var offline = OfflineMining.none
        /// Steps between rounds of offline mining.
        ///
        /// 0: has to be given; the human re-identification system had 16.
        public var everySteps = 0
        /// Anchors of a round, at most; 0: as many as its steps take.
        ///
        /// 0: every triplet is trained on once.
        public var anchors = 0
        /// Images that a negative is chosen from.
        ///
        /// 1024, as the whale system had it.
        public var negatives = 1_024
        /// Images that are embedded.
        ///
        /// 5000, as the human re-identification system had it.
        public var pool = 5_000
        /// What decides how many positives and negatives are chosen from.
        ///
        /// 25, as the same.
        public var samples = 25

        enum CodingKeys: String, CodingKey {
            case scope, forward, offline, anchors, negatives, pool, samples
            case everySteps = "every_steps"
        }
    }

    /// The shape of a step.
    public struct Batch: Codable, Hashable, Sendable {
        /// P, identities in a slot.
        ///
        /// 18 as in the published training scripts.
        public var identities = 18
        /// K, images of each.
        ///
        /// 4 as in the same.
        public var imagesPerIdentity = 4
        /// G, slots in a step, which trainers share.
        ///
        /// 4: up to four trainers scale; 1 is the earlier systems' step exactly and does not scale
        /// out.
        public var miniBatchesPerStep = 4
        /// Images of a slot that are drawn one by one; 0 draws P identities with K images each.
        ///
        /// 0: most losses compare images of one identity.
        public var images = 0
        /// Given triplets of a slot; 0 draws P identities with K images each.
        ///
        /// 0: most losses mine triplets themselves.
        public var triplets = 0
        /// Other P and K from some step on, as `5000:9x8,10000:18x4`.
        ///
        /// None: all earlier systems keep theirs.
        public var phases: String?

        /// Whether slots are made of triplets that are given.
        public var isOfTriplets: Bool { triplets > 0 }
        /// Images in one slot.
        public var imagesPerSlot: Int {
            if isOfTriplets { return 3 * triplets }
            return images > 0 ? images : identities * imagesPerIdentity
        }
        /// Images in one step.
        public var imagesPerStep: Int { imagesPerSlot * miniBatchesPerStep }

        enum CodingKeys: String, CodingKey {
            case identities, images, triplets, phases
            case imagesPerIdentity = "images_per_identity"
            case miniBatchesPerStep = "mini_batches_per_step"
        }
    }

    /// How bytes become numbers.
    public enum Normalisation: String, Codable, Hashable, Sendable, CaseIterable {
        /// Each channel less its ImageNet mean, by its ImageNet standard deviation.
        case imagenet
        /// From -1 to 1.
        case signed
    }

    /// The network's input.
    public struct Input: Codable, Hashable, Sendable {
        /// 256 as published with resnet50; 64 with basic.
        public var height = 256
        /// 128 as published with resnet50; 64 with basic.
        public var width = 128
        /// imagenet for resnet50, whose weights expect it; signed for basic, as published.
        public var normalisation = Normalisation.imagenet
    }

    /// What is done to training images.
    public struct Augmentation: Codable, Hashable, Sendable {
        /// Mirror every second image.
        ///
        /// On, as in the published training scripts.
        public var flip = true
        /// Resize to `crop_from`, then cut the input at random.
        ///
        /// On, as in the same.
        public var crop = true
        /// 288 as published; 72 with basic: the same one eighth more.
        public var cropFromHeight = 288
        /// 144 as published; 72 with basic.
        public var cropFromWidth = 144
        /// 0, as in most of the published scripts.
        public var occlusionStart = 0.0
        /// 0, as well.
        public var occlusionEnd = 0.0
        /// 0: a ramp has to be asked for.
        ///
        /// Not a share of `schedule.steps`: a run whose steps are raised keeps its past.
        public var occlusionRampSteps = 0

        enum CodingKeys: String, CodingKey {
            case flip, crop
            case occlusionStart = "occlusion_start"
            case occlusionEnd = "occlusion_end"
            case occlusionRampSteps = "occlusion_ramp_steps"
            case cropFromHeight = "crop_from_height"
            case cropFromWidth = "crop_from_width"
        }
    }

    /// Which optimizer.
    public enum OptimizerName: String, Codable, Hashable, Sendable, CaseIterable {
        /// Adam with epsilon inside the bias correction, as PyTorch has it.
        case adam
        /// Adam with epsilon outside the bias correction, as TensorFlow 1 and Keras have it.
        case adamTF = "adam_tf"
        /// Adam as PyTorch has it, with weight decay past the moments.
        case adamw
        /// Stochastic gradient descent with momentum.
        case sgd
        /// The same with weight decay past the momentum.
        case sgdw

        /// Whether it is stochastic gradient descent.
        public var isSGD: Bool { self == .sgd || self == .sgdw }
        /// Whether weight decay shrinks parameters and leaves gradients alone.
        public var decouplesDecay: Bool { self == .adamw || self == .sgdw }
    }

    /// The optimizer.
    public struct Optimizer: Codable, Hashable, Sendable {
        /// adam: all five earlier systems use it.
        public var name = OptimizerName.adam
        /// 3e-4 as published with resnet50; with basic 1e-3 for batch_all and 1e-4 for the losses that
        /// mine, as published too.
        public var learningRate = 3e-4
        /// 0.9, Adam's own.
        public var beta1 = 0.9
        /// 0.999, Adam's own.
        public var beta2 = 0.999
        /// 1e-8, Adam's own.
        public var epsilon = 1e-8
        /// 0.9 as everywhere.
        public var momentum = 0.9
        /// Off, as in PyTorch.
        public var nesterov = false
        /// 0: the earlier systems declare one and apply none.
        public var weightDecay = 0.0
        /// 1: PyTorch decays everything alike; 0 is usual where it does not.
        public var weightDecayNormFactor = 1.0
        /// 1, for the same reason.
        public var weightDecayBiasFactor = 1.0
        /// 1; fine-tuning of a pretrained backbone is usual with 10.
        public var headRateFactor = 1.0
        /// 1; Caffe's recipes have 2.
        public var biasRateFactor = 1.0
        /// 0: none of the earlier systems clips.
        public var clipNorm = 0.0
        /// 0, for the same reason.
        public var clipValue = 0.0
        /// 0: costs no memory and no time.
        public var averageDecay = 0.0

        enum CodingKeys: String, CodingKey {
            case name, beta1, beta2, epsilon, momentum, nesterov
            case learningRate = "learning_rate"
            case weightDecay = "weight_decay"
            case weightDecayNormFactor = "weight_decay_norm_factor"
            case weightDecayBiasFactor = "weight_decay_bias_factor"
            case headRateFactor = "head_rate_factor"
            case biasRateFactor = "bias_rate_factor"
            case clipNorm = "clip_norm"
            case clipValue = "clip_value"
            case averageDecay = "average_decay"
        }

        /// Adam, as its defaults are.
        public init() {}
    }

    /// How the learning rate changes.
    public enum ScheduleName: String, Codable, Hashable, Sendable, CaseIterable {
        /// Not at all.
        case constant
        /// To a thousandth, by the same factor at every step.
        case exponential
        /// By a factor at each milestone.
        case step
        /// Along half a cosine.
        case cosine
        /// By a factor when a score no longer improves.
        case plateau
    }

    /// How long to train and at which rate.
    public struct Schedule: Codable, Hashable, Sendable {
        /// 25000 as published.
        public var steps = 25000
        /// exponential as published.
        public var name = ScheduleName.exponential
        /// First step of the exponential or cosine decay; -1, or not before the end, keeps the
        /// rate constant.
        ///
        /// 15000 as published.
        public var decayStartStep = 15000
        /// None: they depend on the length of the run.
        public var milestones: [Int] = []
        /// 0.1 as usual.
        public var factor = 0.1
        /// 0: to nothing, as in the paper (Loshchilov, Hutter, arXiv:1608.03983).
        public var finalFactor = 0.0
        /// 0: the earlier systems start at the full rate.
        public var warmupSteps = 0
        /// 0.1 as usual.
        public var warmupFactor = 0.1
        /// The set that is not trained on.
        public var decisionSet = "val_eval"
        /// What the published figures compare.
        public var decisionMetric = RankingMetric.generalAccuracy
        /// Steps between a checkpoint and the first step that its score decides on.
        ///
        /// 100: long enough for an evaluator that keeps up, short beside the interval of checkpoints.
        public var decisionLagSteps = 100
        /// 4 as in the earlier system that had a plateau.
        public var plateauPatience = 4
        /// 0: runs end after their steps; that system had 12.
        public var stopPatience = 0
        /// 0.0001 as in Keras.
        public var minDelta = 0.0001

        /// Whether scores decide on training.
        public var goesByScores: Bool { name == .plateau || stopPatience > 0 }

        enum CodingKeys: String, CodingKey {
            case steps, name, milestones, factor
            case decisionSet = "decision_set"
            case decisionMetric = "decision_metric"
            case decisionLagSteps = "decision_lag_steps"
            case plateauPatience = "plateau_patience"
            case stopPatience = "stop_patience"
            case minDelta = "min_delta"
            case decayStartStep = "decay_start_step"
            case finalFactor = "final_factor"
            case warmupSteps = "warmup_steps"
            case warmupFactor = "warmup_factor"
        }

        /// Exponential, as its defaults are.
        public init() {}
    }

    /// When to keep what.
    public struct Checkpoint: Codable, Hashable, Sendable {
        /// 1000 as published; 0 keeps step 0 and the last alone.
        public var everySteps = 1000
        /// How far training may run ahead of a checkpoint that is not yet on disk.
        ///
        /// 50: minutes of a disk's trouble on a large network, while little is redone.
        public var maxLagSteps = 50
        /// Checkpoints kept though no evaluator has scored them.
        ///
        /// 100: weeks of an absent evaluator at the default interval.
        public var keepUnscored = 100
        /// The newest that stay.
        ///
        /// 0, all: as published; a disk costs less than a model that is gone.
        public var keepLast = 0
        /// 0: none stays for its step.
        public var keepEverySteps = 0
        /// 0: none stays for its score.
        public var keepBest = 0
        /// The set that is not trained on.
        public var keepBestSet = "val_eval"
        /// What the published figures compare.
        public var keepBestMetric = RankingMetric.generalAccuracy
        /// Time between recovery snapshots when checkpoints are rarer.
        ///
        /// 60: the most that is computed again after everything died.
        public var recoverySeconds = 60.0

        enum CodingKeys: String, CodingKey {
            case everySteps = "every_steps"
            case maxLagSteps = "max_lag_steps"
            case keepUnscored = "keep_unscored"
            case keepLast = "keep_last"
            case keepEverySteps = "keep_every_steps"
            case keepBest = "keep_best"
            case keepBestSet = "keep_best_set"
            case keepBestMetric = "keep_best_metric"
            case recoverySeconds = "recovery_seconds"
        }
    }

    /// What is written for people.
    public struct Logging: Codable, Hashable, Sendable {
        /// TensorBoard's interval.
        ///
        /// 10: a point costs little, and short runs show a curve.
        public var summaryEverySteps = 10
        /// Embeddings, losses and sample names of every step.
        ///
        /// Off: they are large.
        public var detailed = false

        enum CodingKeys: String, CodingKey {
            case detailed
            case summaryEverySteps = "summary_every_steps"
        }

        /// Whether a committed step has a TensorBoard point; the first step has one.
        public func summarises(step: Int) -> Bool {
            step == 1 || step.isMultiple(of: max(1, summaryEverySteps))
        }
    }

    /// Which of a checkpoint's weights are scored.
    public enum EvaluatedWeights: String, Codable, Hashable, Sendable, CaseIterable {
        /// Those that training goes on with.
        case last
        /// Their exponential average.
        case average
    }

    /// What is scored, how often.
    public struct Evaluation: Codable, Hashable, Sendable {
        /// All three, at the same time.
        public var sets = ["train_eval", "val_eval", "easy_val_eval"]
        /// 2 and not the earlier 120: a poll is one small message here, where it was a directory
        /// listing on a shared disk, and a fresh score is worth more than the message.
        public var pollSeconds = 2.0
        /// 2500 as in the earlier systems.
        public var timeoutSeconds = 2500.0
        /// Images embedded at once; part of the evaluation class.
        ///
        /// 64: near full speed at little memory.
        public var batchSize = 64
        /// last: an average is kept only where it is asked for.
        public var weights = EvaluatedWeights.last

        /// The sets that curation makes.
        public static let tupleSets = ["train_eval", "val_eval", "easy_val_eval"]
        /// Training images: as many of those trained on as are held out, and those held out
        /// (``DataSource/validationShare``).
        public static let imageSets = ["train_images", "val_images"]
        /// Those of ``sets`` that are stored with the data.
        public var storedSets: [String] { sets.filter { !Self.imageSets.contains($0) } }

        /// Whether scores of a set have a metric.
        static func has(_ metric: RankingMetric, in set: String) -> Bool {
            switch metric {
            case .meanLoss: true
            case .top1: imageSets.contains(set)
            case .generalAccuracy, .easyAccuracy, .generalAccuracyTies, .easyAccuracyTies,
                .averageRankingPosition, .fractionPositive:
                tupleSets.contains(set)
            }
        }

        enum CodingKeys: String, CodingKey {
            case sets, weights
            case pollSeconds = "poll_seconds"
            case timeoutSeconds = "timeout_seconds"
            case batchSize = "batch_size"
        }
    }

    /// Where the pictures are.
    public struct DataSource: Codable, Hashable, Sendable {
        /// Folder of the data set on this machine; has to be given.
        public var root: String?
        /// The catalogue, below the root.
        public var catalogue = "catalogue.csv"
        /// Share of each identity's training images that is held out.
        ///
        /// 0: data sets have a split of their own; the earlier system that classified held out 0.1.
        public var validationShare = 0.0
        /// CSV file of triplets to train on; nil: none.
        public var triplets: String?
        /// Digest of that file, in hexadecimal; a run that starts writes it down.
        ///
        /// The run is a function of this and not of the file's name.
        public var tripletsDigest: String?
        /// Threads that decode ahead of need, a trainer.
        ///
        /// 2: enough for one GPU's small pictures.
        public var decodeThreads = 2

        enum CodingKeys: String, CodingKey {
            case root, catalogue, triplets
            case tripletsDigest = "triplets_digest"
            case validationShare = "validation_share"
            case decodeThreads = "decode_threads"
        }
    }

    /// Whether a run may mix machines whose arithmetic differs.
    public enum NumericsMode: String, Codable, Hashable, Sendable, CaseIterable {
        /// Refuse them: every step has the same bits everywhere.
        case bitwise
        /// Record them.
        case statistical
    }

    /// The number format of forward and backward.
    public enum Precision: String, Codable, Hashable, Sendable, CaseIterable {
        /// 32-bit floating point.
        case fp32
        /// 16-bit brain floating point inside forward and backward; state stays 32-bit.
        case bf16
    }

    /// What decides bits.
    public struct Numerics: Codable, Hashable, Sendable {
        /// bitwise: a difference is then a fault that is seen, not noise.
        public var mode = NumericsMode.bitwise
        /// fp32: exact enough for any network; bf16 is two to three times faster where the CPU or
        /// GPU has it.
        public var precision = Precision.fp32
        /// Threads inside one slot.
        ///
        /// 1: gradients differ in bits between thread counts; a machine's cores are used by several
        /// slots at once, which is faster too.
        public var threadsPerSlot = 1

        enum CodingKeys: String, CodingKey {
            case mode, precision
            case threadsPerSlot = "threads_per_slot"
        }
    }

    /// The ledger.
    public struct LedgerPlace: Codable, Hashable, Sendable {
        /// File elsewhere than `RUN/ledger.sqlite`, for runs on a network disk.
        public var path: String?
    }
}

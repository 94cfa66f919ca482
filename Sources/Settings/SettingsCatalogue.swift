public import Basics

/// Every setting with its default, unit and meaning: what `lineup params` prints.
public enum SettingsCatalogue {
    /// One setting.
    public struct Entry: Sendable {
        /// Dotted name, such as `loss.margin`.
        public let key: String
        /// What values it takes.
        public let kind: SettingKind
        /// `images`, `steps`, `s` ...; empty when it has none.
        public let unit: String
        /// One sentence.
        public let meaning: String
        /// How it may change when a run is resumed.
        public let change: SettingChange
        /// Whether runs were started before it was there.
        ///
        /// Its default is what they did, and is no part of the settings' digest.
        public let isNewer: Bool

        /// The default for a backbone and a loss.
        public func defaultValue(
            backbone: Settings.Backbone = .resnet50, loss: LossName = .batchHard
        ) -> JSONValue {
            SettingsCatalogue.defaults(backbone: backbone, loss: loss)[key] ?? .null
        }

        /// The default as text, with those that differ by backbone or loss.
        public var defaultText: String {
            let usual = defaultValue()
            var text = usual.settingText
            // The two settings that the others depend on have one default.
            if key == "network.backbone" || key == "loss.name" { return text }
            if key.hasPrefix("loss.") { return text + defaultsOfLosses(usual) }
            let basic = defaultValue(backbone: .basic)
            if basic != usual { text += " (basic: \(basic.settingText))" }
            let all = defaultValue(backbone: .basic, loss: .batchAll)
            if all != basic { text += " (basic, batch_all: \(all.settingText))" }
            return text
        }

        /// ` (some_loss: 1)`, or that it is another for several losses.
        private func defaultsOfLosses(_ usual: JSONValue) -> String {
            let others = LossName.allCases.filter { defaultValue(loss: $0) != usual }
            guard let only = others.first else { return "" }
            return others.count > 1
                ? " (by loss)" : " (\(only.rawValue): \(defaultValue(loss: only).settingText))"
        }
    }

    /// All settings, by section.
    public static let entries: [Entry] =
        general + model + loss + step + training + observing + machines

    /// The entry of a name, if there is one.
    public static func entry(_ key: String) -> Entry? { byKey[key] }

    private static let byKey = Dictionary(uniqueKeysWithValues: entries.map { ($0.key, $0) })

    /// The names of all settings.
    public static var keys: [String] { entries.map(\.key) }

    private static func entry(
        _ key: String, _ kind: SettingKind, unit: String = "", change: SettingChange = .never,
        isNewer: Bool = false, _ meaning: String
    ) -> Entry {
        Entry(
            key: key, kind: kind, unit: unit, meaning: meaning, change: change, isNewer: isNewer)
    }

    private static func names<Choice: CaseIterable & RawRepresentable>(
        _: Choice.Type
    ) -> SettingKind where Choice.RawValue == String {
        .choice(Choice.allCases.map(\.rawValue))
    }

    private static let general: [Entry] = [
        entry("seed", .integer(0...Int.max), "Seed of all randomness."),
        entry(
            "audit_fraction", .number(0...1), change: .free,
            "Share of slots and blocks that two trainers compute and compare, against silent corruption."
        ),
    ]

    private static let model: [Entry] = [
        entry("network.backbone", names(Settings.Backbone.self), "Trunk of the network."),
        entry("network.head", names(Settings.Head.self), "What turns features into embeddings."),
        entry("network.embedding_dim", .integer(1...65_536), "Numbers in an embedding."),
        entry(
            "network.weights", .optionalText,
            "What to start from: a .safetensors file, a run's folder or RUN@STEP; null: random weights."
        ),
        entry(
            "network.weights_scope", names(Settings.WeightsScope.self),
            "Which of that file's tensors are taken."),
        entry(
            "network.weights_digest", .optionalText, isNewer: true,
            "Digest of the tensors taken; the run writes it down, another one is refused."),
        entry(
            "network.channels", .integer(1...1024), unit: "channels",
            "Width of basic's first block; the second is twice as wide."),
        entry("network.batch_norm", .flag, "Batch norm in basic; resnet50 always has it."),
        entry(
            "network.batch_norm_momentum", .number(0...1),
            "Share of a step's statistics in the running ones."),
        entry(
            "network.freeze", .optionalText, isNewer: true,
            "Parameters that are not trained: names between commas, * for any characters."),
        entry(
            "network.train_last_blocks", .integer(-1...64), unit: "blocks", isNewer: true,
            "Train the head and this many last blocks of the backbone alone; -1: all."),
        entry(
            "network.freeze_steps", .integer(0...1_000_000_000), unit: "steps", isNewer: true,
            "Steps after which what was frozen is trained too; 0: never."),
    ]

    private static let loss: [Entry] = [
        entry("loss.name", names(LossName.self), "Which loss."),
        entry(
            "loss.margin", .margin, unit: "distance",
            "Least wanted difference between negative and positive distance."),
        entry("loss.distance", names(Distance.self), "How far two embeddings are apart."),
        entry(
            "loss.normalize", names(Normalization.self), isNewer: true,
            "What is given length 1 before distances are taken."),
        entry(
            "loss.miner", names(PairMiner.self), isNewer: true,
            "Which of an image's pairs count."),
        entry(
            "loss.miner_epsilon", .number(0...1000), unit: "distance", isNewer: true,
            "multi_similarity mining: how much easier than the hardest a pair may be."),
        entry(
            "loss.reducer", names(Reducer.self), isNewer: true,
            "How the loss's terms become one number."),
        entry(
            "loss.active_threshold", .number(0...1000), isNewer: true,
            "Above which a term is active: counted, and by mean_nonzero averaged over."),
        entry(
            "loss.hap2s_sigma", .number(positive), unit: "distance", isNewer: true,
            "hap2s_exponential: scale of distances in weights."),
        entry(
            "loss.hap2s_alpha", .number(0...1000), isNewer: true,
            "hap2s_polynomial: exponent of positives' weights; negatives' is twice as much."),
        entry(
            "loss.hap2s_compatibility", .flag, isNewer: true,
            "Add 1e-6 to HAP2S's denominators and cap its weights, as earlier systems did."),
        entry(
            "loss.positive_threshold", .number(-1...1), unit: "similarity", isNewer: true,
            "dot_triplet: least wanted similarity of anchor and positive; -1: none."),
        entry(
            "loss.temperature", .number(positive), isNewer: true,
            "Contrastive losses and softmax: divisor of similarities."),
        entry(
            "loss.multi_similarity_alpha", .number(positive), isNewer: true,
            "How sharply dissimilar positives stand out."),
        entry(
            "loss.multi_similarity_beta", .number(positive), isNewer: true,
            "How sharply similar negatives stand out."),
        entry(
            "loss.multi_similarity_base", .number(-1...1), unit: "similarity", isNewer: true,
            "The similarity that divides positives from negatives."),
        entry(
            "loss.circle_gamma", .number(positive), isNewer: true, "Scale of circle's logits."),
        entry(
            "loss.scale", .number(positive), isNewer: true, "arcface, cosface: factor of cosines."),
        entry(
            "loss.label_smoothing", .number(0...0.999_999), isNewer: true,
            "Softmax over identities: share of the target that all identities have in equal parts."),
        entry(
            "loss.proxy_anchor_alpha", .number(positive), isNewer: true,
            "How sharply images on the wrong side of an identity's vector stand out."),
        entry(
            "loss.class_rate_factor", .number(0...1_000_000), isNewer: true,
            "What the learning rate of the identities' vectors is multiplied with."),
        entry(
            "loss.class_decay_factor", .number(0...1000), isNewer: true,
            "What the decay of the identities' vectors is multiplied with; 0: none."),
        entry(
            "loss.weight", .number(positive), isNewer: true,
            "What the loss is multiplied with."),
        entry(
            "loss.plus", .losses, isNewer: true,
            "Losses that are added: softmax,center:0.0005, or objects with settings of their own."),
        entry(
            "loss.memory", .integer(0...1_048_576), unit: "images", isNewer: true,
            "Embeddings of earlier steps that images are compared with as well; 0: none."),
        entry(
            "loss.memory_start_step", .integer(0...1_000_000_000), unit: "steps", isNewer: true,
            "Steps before they are compared with the memory."),
        entry(
            "loss.memory_weight", .number(positive), isNewer: true,
            "What the loss against the memory is multiplied with."),
        entry(
            "mining.scope", names(Settings.MiningScope.self),
            "Over whose images the loss is taken: a slot's, or those of all slots of a step."),
        entry(
            "mining.forward", names(Settings.MiningForward.self), isNewer: true,
            "Of a step's slots: once keeps their graphs for the backward pass, twice makes them again."
        ),
        entry(
            "mining.offline", names(Settings.OfflineMining.self), isNewer: true,
            "Mine the triplets of the next steps from a checkpoint, and how."),
        entry(
            "mining.every_steps", .integer(0...1_000_000_000), unit: "steps", isNewer: true,
            "Steps between rounds of offline mining."),
        entry(
            "mining.anchors", .integer(0...100_000_000), unit: "images", isNewer: true,
            "Anchors of a round, at most; 0: as many as its steps take."),
        entry(
            "mining.negatives", .integer(1...100_000_000), unit: "images", isNewer: true,
            "hard_centroid: images that a negative is chosen from."),
        entry(
            "mining.pool", .integer(3...100_000_000), unit: "images", isNewer: true,
            "hard_similarity: images that are embedded."),
        entry(
            "mining.samples", .integer(1...1_000_000), isNewer: true,
            "hard_similarity: decides how many are chosen from; 25 gives up to 5 positives and 5 negatives."
        ),
    ]

    private static let sets = Settings.Evaluation.tupleSets + Settings.Evaluation.imageSets

    private static let positive = Double.leastNormalMagnitude...1_000_000

    private static let step: [Entry] = [
        entry(
            "batch.identities", .integer(1...65_536), unit: "identities", "P, identities a slot."),
        entry(
            "batch.images_per_identity", .integer(1...65_536), unit: "images",
            "K, images of each identity in a slot."),
        entry(
            "batch.images", .integer(0...65_536), unit: "images", isNewer: true,
            "Images a slot drawn one by one, in place of P x K; 0: P x K."),
        entry(
            "batch.triplets", .integer(0...21_845), unit: "triplets", isNewer: true,
            "Given triplets a slot, in place of P x K; 0: P x K."),
        entry(
            "batch.mini_batches_per_step", .integer(1...4096), unit: "slots",
            "G, slots a step; trainers share them."),
        entry(
            "batch.phases", .optionalText, isNewer: true,
            "Other P and K after some steps: 5000:9x8,10000:18x4 in place of the two above."),
        entry("input.height", .integer(8...4096), unit: "px", "Height of the network's input."),
        entry("input.width", .integer(8...4096), unit: "px", "Width of the network's input."),
        entry(
            "input.normalisation", names(Settings.Normalisation.self),
            "How bytes become numbers."),
        entry("augmentation.flip", .flag, "Mirror every second training image."),
        entry("augmentation.crop", .flag, "Cut the input at random from a larger resize."),
        entry(
            "augmentation.crop_from_height", .integer(8...8192), unit: "px",
            "Height of that larger resize."),
        entry(
            "augmentation.crop_from_width", .integer(8...8192), unit: "px",
            "Width of that larger resize."),
        entry(
            "augmentation.occlusion_start", .number(0...1), unit: "share", isNewer: true,
            "Share of each training image that noise covers at the first step."),
        entry(
            "augmentation.occlusion_end", .number(0...1), unit: "share", isNewer: true,
            "The share at the end of the ramp and after it."),
        entry(
            "augmentation.occlusion_ramp_steps", .integer(0...1_000_000_000), unit: "steps",
            isNewer: true, "Steps in which the share goes from start to end; 0 has none."),
    ]

    private static let training: [Entry] = [
        entry("optimizer.name", names(Settings.OptimizerName.self), "Which optimizer."),
        entry(
            "optimizer.learning_rate", .number(Double.leastNormalMagnitude...1000),
            "The optimizer's step size before warm-up and decay."),
        entry("optimizer.beta1", .number(0...0.999_999), "Adam: decay of the first moment."),
        entry("optimizer.beta2", .number(0...0.999_999_999), "Adam: decay of the second moment."),
        entry(
            "optimizer.epsilon", .number(Double.leastNormalMagnitude...1),
            "Adam: keeps the division finite."),
        entry(
            "optimizer.momentum", .number(0...0.999_999), isNewer: true,
            "SGD: decay of the running sum of gradients."),
        entry(
            "optimizer.nesterov", .flag, isNewer: true,
            "SGD: look one step of the running sum ahead."),
        entry(
            "optimizer.weight_decay", .number(0...1000),
            "Times the parameter, added to the gradient; adamw and sgdw: times the rate, taken off the parameter."
        ),
        entry(
            "optimizer.weight_decay_norm_factor", .number(0...1000), isNewer: true,
            "What the decay of batch norms' scales and shifts is multiplied with; 0: none."),
        entry(
            "optimizer.weight_decay_bias_factor", .number(0...1000), isNewer: true,
            "What the decay of biases is multiplied with; 0: none."),
        entry(
            "optimizer.head_rate_factor", .number(0...1000), isNewer: true,
            "What the rate of the head's parameters is multiplied with."),
        entry(
            "optimizer.bias_rate_factor", .number(0...1000), isNewer: true,
            "What the rate of biases, the head's too, is multiplied with."),
        entry(
            "optimizer.clip_norm", .number(0...1_000_000), isNewer: true,
            "Largest Euclidean norm of a step's gradient, longer ones are scaled; 0: any."),
        entry(
            "optimizer.clip_value", .number(0...1_000_000), isNewer: true,
            "Largest component of a step's gradient, larger ones are cut; 0: any."),
        entry(
            "optimizer.average_decay", .number(0...0.999_999_999), isNewer: true,
            "Share of its value that the weights' running average keeps at a step; 0: no average."),
        entry(
            "schedule.steps", .integer(1...1_000_000_000), unit: "steps", change: .upward,
            "Optimizer updates in the run."),
        entry(
            "schedule.name", names(Settings.ScheduleName.self), isNewer: true,
            "How the learning rate changes."),
        entry(
            "schedule.decay_start_step", .integer(-1...1_000_000_000), unit: "steps",
            "Start of the decay: exponential to a thousandth, or cosine; -1: constant rate."),
        entry(
            "schedule.milestones", .rising(1...1_000_000_000), unit: "steps", isNewer: true,
            "step: updates after which the rate falls."),
        entry(
            "schedule.factor", .number(0...1), isNewer: true,
            "step, plateau: what the rate is multiplied with each time."),
        entry(
            "schedule.final_factor", .number(0...1), isNewer: true,
            "cosine: share of the rate at the end; plateau: the least share."),
        entry(
            "schedule.warmup_steps", .integer(0...1_000_000_000), unit: "steps", isNewer: true,
            "Updates in which the rate rises to its full value; a decay starts after them."),
        entry(
            "schedule.warmup_factor", .number(0...1), isNewer: true,
            "Share of the rate at the first update of the warm-up."),
        entry(
            "schedule.decision_set", .choice(sets),
            isNewer: true, "Set whose score decides on a plateau or an early end."),
        entry(
            "schedule.decision_metric", names(Settings.RankingMetric.self), isNewer: true,
            "Score that decides."),
        entry(
            "schedule.decision_lag_steps", .integer(1...1_000_000_000), unit: "steps",
            isNewer: true,
            "The score of checkpoint s decides from step s + this on, which waits for it."),
        entry(
            "schedule.plateau_patience", .integer(1...1_000_000), unit: "checkpoints",
            isNewer: true, "plateau: checkpoints without improvement before the rate falls."),
        entry(
            "schedule.stop_patience", .integer(0...1_000_000), unit: "checkpoints", isNewer: true,
            "Checkpoints without improvement before training ends; 0: it goes on."),
        entry(
            "schedule.min_delta", .number(0...1_000_000), isNewer: true,
            "What is no improvement of the score."),
    ]

    private static let observing: [Entry] = [
        entry(
            "checkpoint.every_steps", .integer(0...1_000_000_000), unit: "steps", change: .free,
            "Interval of checkpoints; 0: only the first and the last."),
        entry(
            "checkpoint.max_lag_steps", .integer(1...1_000_000), unit: "steps", change: .free,
            "How far training may run ahead of a checkpoint not yet on disk."),
        entry(
            "checkpoint.keep_last", .integer(0...1_000_000), unit: "files", change: .free,
            "Newest checkpoints kept; 0: all."),
        entry(
            "checkpoint.keep_every_steps", .integer(0...1_000_000_000), unit: "steps",
            change: .free, "Checkpoints of these multiples are kept as well; 0: none."),
        entry(
            "checkpoint.keep_best", .integer(0...1_000_000), unit: "files", change: .free,
            "Best checkpoints kept as well."),
        entry(
            "checkpoint.keep_best_set", .choice(sets),
            change: .free, "Set by which they are the best."),
        entry(
            "checkpoint.keep_best_metric", names(Settings.RankingMetric.self), change: .free,
            "Metric by which they are the best; the least average_ranking_position, mean_loss or "
                + "fraction_positive is."),
        entry(
            "checkpoint.keep_unscored", .integer(0...1_000_000), unit: "files", change: .free,
            "Most checkpoints kept only because they are not scored."),
        entry(
            "checkpoint.recovery_seconds", .number(0...86_400), unit: "s", change: .free,
            "Interval of recovery snapshots; 0: none."),
        entry(
            "logging.summary_every_steps", .integer(1...1_000_000), unit: "steps", change: .free,
            "Interval of TensorBoard points."),
        entry(
            "logging.detailed", .flag, change: .free,
            "Write embeddings, losses and file names of every step to RUN/detailed, as HDF5."),
        entry(
            "evaluation.sets", .list(sets),
            "Sets that every checkpoint is scored on."),
        entry(
            "evaluation.poll_seconds", .number(0.05...86_400), unit: "s", change: .free,
            "How often an evaluator asks for a new checkpoint."),
        entry(
            "evaluation.timeout_seconds", .number(0...10_000_000), unit: "s", change: .free,
            "An evaluator ends after this long without a new checkpoint."),
        entry(
            "evaluation.batch_size", .integer(1...65_536), unit: "images",
            "Images embedded at once; the last batch is padded."),
        entry(
            "evaluation.weights", names(Settings.EvaluatedWeights.self), isNewer: true,
            "Score the last weights, or their average (optimizer.average_decay)."),
    ]

    private static let machines: [Entry] = [
        entry(
            "data.root", .optionalText, change: .free,
            "Folder of the data set; where it is, not what it is."),
        entry("data.catalogue", .text, "The catalogue's file below data.root."),
        entry(
            "data.validation_share", .number(0...0.9), unit: "share", isNewer: true,
            "Share of each identity's training images that is held out of training, to be scored."),
        entry(
            "data.triplets", .optionalText, isNewer: true,
            "CSV file of anchor,positive,negative to train on; null: none."),
        entry(
            "data.triplets_digest", .optionalText, isNewer: true,
            "Digest of that file; the run writes it down, another one is refused."),
        entry(
            "data.decode_threads", .integer(1...256), unit: "threads", change: .free,
            "Threads of a trainer that decode ahead of need."),
        entry(
            "numerics.mode", names(Settings.NumericsMode.self), change: .relaxing,
            "Refuse (bitwise) or record (statistical) differing arithmetic."),
        entry(
            "numerics.precision", names(Settings.Precision.self),
            "Number format inside forward and backward."),
        entry(
            "numerics.threads_per_slot", .integer(1...256), unit: "threads",
            "Intra-op threads of one slot."),
        entry(
            "ledger.path", .optionalText, change: .free,
            "The ledger's file; null: ledger.sqlite in the run."),
    ]
}

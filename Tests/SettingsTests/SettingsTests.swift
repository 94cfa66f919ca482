import Basics
import Foundation
import Settings
import Testing

@Suite struct SettingsTests {
    private func resolve(
        _ json: String? = nil, _ overrides: String...
    ) throws(SettingsError) -> Settings {
        try Settings.resolve(paramsJSON: json.map { Data($0.utf8) }, overrides: overrides)
    }

    private func message(_ json: String?, _ overrides: String...) -> String {
        message(json, overrides: overrides)
    }

    private func message(_ json: String?, overrides: [String]) -> String {
        do {
            _ = try Settings.resolve(paramsJSON: json.map { Data($0.utf8) }, overrides: overrides)
            return ""
        } catch { return error.message }
    }

    @Test func nothingGivenIsThePublishedResNet() throws {
        let settings = try resolve()
        #expect(settings == Settings())
        #expect(settings.network.backbone == .resnet50)
        #expect(settings.batch.imagesPerSlot == 72)
        #expect(settings.schedule.steps == 25000)
        #expect(settings.loss.margin == .soft)
        #expect(settings.numerics.threadsPerSlot == 1)
    }

    @Test func basicBringsItsOwnDefaultsWhereverItIsNamed() throws {
        for settings in [
            try resolve(#"{"network": {"backbone": "basic"}}"#),
            try resolve(nil, "network.backbone=basic"),
        ] {
            #expect(settings == Settings.defaults(backbone: .basic))
            #expect(settings.network.head == .direct)
            #expect(settings.input.height == 64)
        }
        let chosen = try resolve(#"{"input": {"width": 32}}"#, "network.backbone=basic")
        #expect(chosen.input.width == 32 && chosen.input.height == 64)
    }

    @Test func overridesWinAndTheLastOfThemToo() throws {
        let settings = try resolve(
            #"{"loss": {"margin": 0.5}, "seed": 7}"#, "loss.margin=0.2", "loss.margin=0.3")
        #expect(settings.loss.margin == .number(0.3))
        #expect(settings.seed == 7)
    }

    @Test func overridesReadEveryKindOfValue() throws {
        let settings = try resolve(
            nil, "augmentation.flip=false", "loss.margin=none", "optimizer.learning_rate=1e-4",
            "evaluation.sets=val_eval,train_eval", "data.root=/a=b", "network.weights=null",
            "checkpoint.recovery_seconds=5")
        #expect(!settings.augmentation.flip)
        #expect(settings.loss.margin == .none)
        #expect(settings.optimizer.learningRate == 1e-4)
        #expect(settings.evaluation.sets == ["val_eval", "train_eval"])
        #expect(settings.data.root == "/a=b")
        #expect(settings.network.weights == nil)
        #expect(settings.checkpoint.recoverySeconds == 5)
    }

    @Test(arguments: [
        ("loss.margn=1", "loss.margin"), ("margin=1", "loss.margin"),
        ("batch_p=3", "batch.identities"), ("learning_rate=1", "optimizer.learning_rate"),
        ("optimizer.lerning_rate=1", "optimizer.learning_rate"),
        ("triplet_strategy=batch_hard", "loss.name"), ("steps=5", "schedule.steps"),
        ("batch.images_per_identitiy=4", "batch.images_per_identity"),
        ("checkpoint.evry_steps=4", "checkpoint.every_steps"),
        ("embeding_dim=64", "network.embedding_dim"),
    ])
    func anUnknownSettingIsRefusedWithTheNearest(override: String, nearest: String) {
        let text = message(nil, override)
        #expect(text.contains("unknown setting"))
        #expect(text.contains("'\(nearest)'"), "\(text)")
    }

    @Test func anUnknownSettingInAFileIsNamedWithItsLine() {
        let text = message("{\n  \"loss\": {\n    \"margn\": 1\n  }\n}")
        #expect(text.hasPrefix("params.json line 3: unknown setting 'loss.margn'"))
    }

    @Test(arguments: [
        ("batch.identities=0", "'batch.identities' is 0; expected a whole number from 1 to 65536"),
        ("batch.identities=2.5", "2.5; expected a whole number"),
        ("schedule.steps=abc", "\"abc\"; expected a whole number"),
        ("augmentation.flip=yes", "expected true or false"),
        ("loss.margin=-1", "expected a number from 0 on, soft or none"),
        ("loss.margin=sofd", "expected a number from 0 on, soft or none"),
        ("loss.name=batch_hrad", "did you mean 'batch_hard'?"),
        ("optimizer.learning_rate=0", "expected a number above 0"),
        ("optimizer.learning_rate=1e999", "expected a number above 0"),
        ("optimizer.learning_rate=nan", "expected a number above 0"),
        ("evaluation.sets=val_eval,val_eval", "expected a list of different ones"),
        ("network.backbone=null", "expected one of basic or resnet50"),
        ("seed=-1", "expected a whole number from 0"),
        ("seed=99999999999999999999", "expected a whole number from 0"),
        ("loss=3", "'loss' is a section"),
        ("=3", "expected key=value"), ("loss.margin", "expected key=value"),
    ])
    func aWrongValueNamesKeyValueAndExpectation(override: String, expected: String) {
        let text = message(nil, override)
        #expect(text.contains(expected), "\(text)")
    }

    @Test(arguments: [
        (#"{"loss": 3}"#, "'loss' is 3; expected an object"),
        (#"[1]"#, "expected an object"), ("", "expected a value"),
        (#"{"seed": 1, "seed": 2}"#, "the key 'seed' appears twice"),
        (#"{"seed": 01}"#, "'01' is not a number"),
        ("{\n\"seed\": 1,\n}", "line 3 is not valid JSON: expected a key"),
        (#"{"seed": {"a": 1}}"#, "'seed' is {\"a\":1}; expected a whole number"),
        (#"{"network": {"head": "fc\ud800"}}"#, "surrogate"),
        (#"{"seed": 1} x"#, "expected the end"), (#"{"seed": tru}"#, "expected a value"),
        (#"{"data": {"root": "a"#, "not closed"),
        (#"{"optimizer": {"beta1": 1e400}}"#, "'1e400' is not a number"),
    ])
    func aBrokenFileIsOneClearLine(json: String, expected: String) {
        let text = message(json)
        #expect(text.hasPrefix("params.json"))
        #expect(text.contains(expected), "\(text)")
        #expect(!text.contains("\n"))
    }

    @Test func deepNestingIsRefused() {
        #expect(message(String(repeating: "[", count: 100_000)).contains("nested deeper than"))
    }

    @Test(arguments: [
        ("input.height=300", "smaller than the input"),
        ("network.batch_norm=true", "resnet50 always has batch norm"),
        ("input.width=16", "at least 32"),
        ("checkpoint.keep_best=3", "checkpoint.keep_last is 0, which keeps every"),
        ("checkpoint.keep_every_steps=500", "leave checkpoint.keep_every_steps out"),
        ("optimizer.nesterov=true", "for sgd and sgdw, optimizer.name is adam"),
        ("optimizer.name=adamw", "optimizer.weight_decay is 0; set it"),
        ("evaluation.weights=average", "no average is kept"),
        ("network.freeze_steps=5", "nothing is frozen"),
        ("network.weights_digest=0123456789abcdef", "network.weights names no file"),
        ("batch.images=64", "batch_hard compares images of one identity"),
        ("loss.name=triplet", "triplet takes given triplets, but batch.triplets is 0"),
        ("loss.plus=dot_triplet", "dot_triplet takes given triplets"),
        ("batch.triplets=8", "batch.triplets is 8, but data.triplets names no file"),
        ("data.triplets=t.csv", "data.triplets is t.csv, but batch.triplets is 0"),
        ("mining.offline=random", "mining.offline is random, but batch.triplets is 0"),
        ("mining.every_steps=5", "mining.every_steps is set, but mining.offline is none"),
        ("mining.pool=50", "mining.pool is set, but mining.offline is none"),
        ("loss.positive_threshold=0.5", "batch_hard does not use it"),
        ("evaluation.sets=val_images", "set data.validation_share, such as 0.1"),
        ("schedule.warmup_steps=25000", "the run has 25000 steps"),
        ("schedule.name=step", "schedule.milestones=15000,20000"),
        ("schedule.milestones=9", "for schedule.name=step, which is exponential"),
    ])
    func settingsThatExcludeEachOtherAreRefused(override: String, expected: String) {
        #expect(message(nil, override).contains(expected))
    }

    @Test func givenTripletsTakeThePlaceOfPK() throws {
        let given = ["loss.name=triplet", "batch.triplets=8", "data.triplets=t.csv"]
        let settings = try Settings.resolve(paramsJSON: nil, overrides: given)
        #expect(settings.loss.margin == .number(0.4) && settings.loss.distance == .sqeuclidean)
        #expect(settings.batch.imagesPerSlot == 24)
        #expect(try settings.batch.imagesOfLargestSlot == 24)
        for (override, expected) in [
            ("batch.identities=4", "batch.identities is set"),
            ("batch.images=4", "batch.images is set"),
            ("batch.phases=5:2x2", "batch.phases is set"),
            ("data.triplets_digest=12", "expected 16 hexadecimal digits"),
            ("loss.miner=multi_similarity", "triplet does not use it"),
            ("loss.positive_threshold=0.5", "triplet does not use it"),
        ] {
            let error = #expect(throws: SettingsError.self) {
                try Settings.resolve(paramsJSON: nil, overrides: given + [override])
            }
            #expect(error?.message.contains(expected) == true, "\(String(describing: error))")
        }
        // Losses that compare images find pairs among them too.
        _ = try Settings.resolve(
            paramsJSON: nil, overrides: Array(given.dropFirst()) + ["loss.name=batch_hard"])
        let dot = try Settings.resolve(
            paramsJSON: nil,
            overrides: given + ["loss.name=dot_triplet", "loss.positive_threshold=0.5"])
        #expect(dot.loss.margin == .number(0.1) && dot.loss.distance == .cosine)
    }

    @Test func roundsOfMiningAreOfCheckpoints() throws {
        let mined = ["loss.name=triplet", "batch.triplets=8", "mining.offline=hard_centroid"]
        func message(_ overrides: String...) -> String {
            let error = #expect(throws: SettingsError.self) {
                try Settings.resolve(paramsJSON: nil, overrides: mined + overrides)
            }
            return error?.message ?? ""
        }
        #expect(message().contains("mining.every_steps is 0"))
        #expect(message("mining.every_steps=1500").contains("checkpoint.every_steps is 1000"))
        #expect(
            message("mining.every_steps=1000", "data.triplets=t").contains("which mines others"))
        #expect(
            message("mining.every_steps=1000", "mining.samples=9").contains("does not use it"))
        let settings = try Settings.resolve(
            paramsJSON: nil, overrides: mined + ["mining.every_steps=2000", "mining.negatives=9"])
        #expect(settings.mining.negatives == 9)
        // Fewer triplets than a slot shows.
        #expect(
            message("mining.every_steps=1000", "mining.anchors=3")
                .contains("set mining.anchors to at least that"))
        // Random ones need no checkpoint.
        _ = try Settings.resolve(
            paramsJSON: nil,
            overrides: [
                "loss.name=triplet", "batch.triplets=8", "mining.offline=random",
                "mining.every_steps=7",
            ])
        // What is mined depends on which checkpoints there are.
        let record = try SettingsRecord(settings: settings, paramsJSON: nil)
        #expect(throws: SettingsError.self) {
            try record.resumed(paramsJSON: nil, overrides: ["checkpoint.every_steps=500"])
        }
    }

    @Test func theDigestIsOfWhatTheTripletsAreNotOfTheirName() throws {
        func digest(_ name: String, _ content: String) throws -> UInt64 {
            var settings = try Settings.resolve(
                paramsJSON: nil, overrides: ["batch.triplets=8", "data.triplets=\(name)"])
            settings.data.tripletsDigest = content
            return settings.digest
        }
        #expect(try digest("a", "0123456789abcdef") == digest("b", "0123456789abcdef"))
        #expect(try digest("a", "0123456789abcdef") != digest("a", "0123456789abcdee"))
    }

    @Test func classificationIsOfHeldOutImagesByALossThatClassifies() throws {
        let sets = "evaluation.sets=train_images,val_images"
        let share = "data.validation_share=0.1"
        let settings = try resolve(nil, "loss.name=softmax", "batch.images=128", sets, share)
        #expect(settings.batch.imagesPerSlot == 128)
        #expect(settings.evaluation.storedSets.isEmpty)
        #expect(try resolve(nil, "loss.plus=arcface", sets, share).evaluation.sets.count == 2)
        for (overrides, expected) in [
            ([sets, share], "batch_hard does not say which identity"),
            (["loss.name=center", sets, share], "center does not say which identity"),
            (["loss.name=softmax", "loss.normalize=columns", sets, share], "normalize=columns"),
            (["loss.name=softmax", "batch.images=8", "batch.identities=4"], "batch.identities is"),
            (
                [
                    "loss.name=softmax", "batch.images=8", "batch.images_per_identity=2",
                    "batch.phases=5:2x2",
                ], "batch.images_per_identity and batch.phases are"
            ),
            (["loss.name=softmax", "loss.plus=lifted", "batch.images=8"], "lifted compares"),
            (
                [
                    "loss.name=softmax", sets, share, "checkpoint.keep_last=1",
                    "checkpoint.keep_best=1", "checkpoint.keep_best_set=val_images",
                ], "val_images is scored by mean_loss and top1"
            ),
            (
                ["schedule.stop_patience=3", "schedule.decision_metric=top1"],
                "schedule.decision_metric is top1, but val_eval is scored by"
            ),
            (["network.weights=w", "network.weights_digest=12"], "expected 16 hexadecimal digits"),
        ] {
            let text = message(nil, overrides: overrides)
            #expect(text.contains(expected), "\(overrides): \(text)")
        }
        _ = try resolve(
            nil, "loss.name=softmax", sets, share, "schedule.stop_patience=3",
            "schedule.decision_set=val_images", "schedule.decision_metric=mean_loss")
    }

    @Test func whereWeightsCameFromIsNoPartOfTheDigest() throws {
        let digest = "network.weights_digest=0123456789abcdef"
        let one = try resolve(nil, "network.weights=a", digest)
        #expect(try resolve(nil, "network.weights=b", digest).digest == one.digest)
        #expect(try resolve(nil).digest != one.digest)
        #expect(
            try resolve(nil, "network.weights=a", "network.weights_digest=0123456789abcdee").digest
                != one.digest)
    }

    @Test func semiHardIsOnSquaredDistancesWithANumber() throws {
        let settings = try resolve(nil, "loss.name=tf_batch_semi_hard")
        #expect(settings.loss.distance == .sqeuclidean && settings.loss.margin == .number(1))
        #expect(
            message(nil, "loss.name=tf_batch_semi_hard", "loss.margin=soft")
                .contains("needs a number"))
        #expect(
            message(nil, "loss.name=tf_batch_semi_hard", "loss.distance=cityblock")
                .contains("defined on sqeuclidean"))
        #expect(
            message(nil, "loss.name=batch_all", "loss.margin=none")
                .contains("set a number or soft"))
    }

    @Test func schedulesAndOptimizersThatMakeNoSenseAreRefused() throws {
        #expect(
            message(nil, "optimizer.name=sgd", "optimizer.nesterov=true", "optimizer.momentum=0")
                .contains("optimizer.momentum is 0"))
        #expect(
            message(nil, "optimizer.clip_norm=1", "optimizer.clip_value=1")
                .contains("leave one of them out"))
        #expect(
            message(nil, "schedule.name=cosine", "schedule.steps=100")
                .contains("set schedule.decay_start_step=0"))
        for milestones in ["100,200", "5,20"] {
            #expect(
                message(
                    nil, "schedule.name=step", "schedule.steps=100", "schedule.warmup_steps=10",
                    "schedule.milestones=\(milestones)"
                ).contains("must lie after the warm-up of 10 and before the end of 100"))
        }
        for milestones in ["20,10", "0,5", "x", "7,7", "[1.5]"] {
            #expect(
                message(nil, "schedule.milestones=\(milestones)")
                    .contains("expected a list of rising whole numbers from 1"))
        }
        let settings = try resolve(nil, "schedule.name=step", "schedule.milestones=20,30")
        #expect(settings.schedule.milestones == [20, 30])
        #expect(try resolve(nil, "schedule.milestones=[]") == resolve())
    }

    @Test func miningThatCannotBeIsRefused() throws {
        #expect(
            message(nil, "mining.forward=twice")
                .contains("mining.forward is twice, but mining.scope is slot"))
        #expect(
            message(nil, overrides: ["mining.scope=step", "numerics.mode=statistical"])
                .contains("mining.scope is step, but numerics.mode is statistical"))
        for batch in [["batch.identities=3000"], ["batch.phases=5:2048x3"]] {
            #expect(
                message(nil, overrides: ["mining.scope=step", "network.embedding_dim=128"] + batch)
                    .contains("raise batch.mini_batches_per_step"))
        }
        let settings = try resolve(nil, "mining.scope=step", "mining.forward=twice")
        #expect(settings.mining.scope == .step && settings.mining.forward == .twice)
        #expect(try resolve(nil, "mining.scope=step").digest != resolve().digest)
        #expect(try settings.digest != resolve(nil, "mining.scope=step").digest)
    }

    @Test(arguments: [
        (["loss.memory=287"], "a step has 288 images"),
        (
            ["loss.memory=300", "batch.phases=5:20x4"],
            "a step has 320 images, not all of which it would hold; set loss.memory to at least 320"
        ),
        (["loss.memory=288", "loss.name=softmax"], "such as loss.plus=multi_similarity"),
        (["loss.memory=288", "loss.name=lifted"], "take generalized_lifted"),
        (["loss.memory=288", "loss.plus=batch_hard_000"], "batch_hard_000 counts an image"),
        (["loss.memory=288", "loss.normalize=columns"], "set loss.normalize=rows"),
        (
            ["loss.memory=288", "schedule.steps=1000"],
            "set less, such as loss.memory_start_step=100"
        ),
        (["loss.memory_weight=2"], "but loss.memory is 0"),
        (["loss.memory_start_step=0"], "but loss.memory is 0"),
        (["loss.memory=-1"], "a whole number from 0 to 1048576"),
        (
            [#"loss.plus=[{"name":"circle","memory":288}]"#],
            "loss.plus[0] has a memory of its own, but a run has one for all of its losses"
        ),
    ])
    func aMemoryThatCannotBeIsRefused(overrides: [String], expected: String) {
        let batch = ["batch.identities=18", "batch.images_per_identity=4"]
        let text = message(nil, overrides: batch + overrides)
        #expect(text.contains(expected), "\(text)")
    }

    /// A slot of 96 images, four of them a step.
    @Test func aMemoryHoldsAStepOfGivenTriplets() throws {
        let triplets = [
            "batch.triplets=32", "data.triplets=t.csv", "batch.mini_batches_per_step=4",
        ]
        let text = message(nil, overrides: triplets + ["loss.memory=383"])
        #expect(text.contains("384"), "\(text)")
        let settings = try Settings.resolve(
            paramsJSON: nil, overrides: triplets + ["loss.memory=384"])
        #expect(try settings.batch.imagesOfLargestSlot == 96)
    }

    @Test func aMemoryIsOfAllLossesThatCompareImages() throws {
        let settings = try resolve(
            nil, "loss.name=softmax", "loss.plus=circle", "loss.memory=8192",
            "loss.memory_start_step=0", "mining.scope=step")
        #expect(settings.loss.memory == 8192 && settings.loss.memoryWeight == 1)
        #expect(
            try settings.digest
                != resolve(
                    nil, "loss.name=softmax", "loss.plus=circle", "mining.scope=step"
                ).digest)
    }

    @Test func phasesOfBatchesAreStepsAndShapes() throws {
        let settings = try resolve(nil, "batch.phases=500:9x8,1000:4x2")
        let phases = try BatchPhase.all(of: settings.batch)
        #expect(phases.map(\.updatesBefore) == [0, 500, 1000])
        #expect(phases.map(\.identities) == [18, 9, 4])
        #expect(phases.map(\.imagesPerIdentity) == [4, 8, 2])
        for text in ["500", "0:9x8", "500:9x8,500:4x2", "500:9x1", "5:9x8x2", "5:9x8,", "a:9x8"] {
            #expect(
                message(nil, "batch.phases=\(text)").contains("expected rising steps with P and K"))
        }
        #expect(
            message(nil, "batch.phases=9:9x8", "schedule.steps=9").contains("leave that phase out"))
        #expect(try settings.digest != resolve().digest)
    }

    @Test(arguments: [
        (["batch.images_per_identity=1"], "set batch.images_per_identity to at least 2"),
        (
            ["batch.identities=1", "loss.name=circle"],
            "circle compares an image with those of other"
        ),
        (["loss.name=lifted", "loss.margin=soft"], "lifted needs a number, such as loss.margin=1"),
        (["loss.name=nt_xent", "loss.distance=euclidean"], "defined on cosine"),
        (["loss.temperature=0.2"], "batch_hard does not use it; leave it out"),
        (["loss.name=multi_similarity", "loss.margin=0.1"], "multi_similarity does not use it"),
        (["loss.miner=multi_similarity"], "batch_hard mines for itself"),
        (["loss.name=batch_all", "loss.miner_epsilon=0.2"], "loss.miner is all"),
        (["loss.name=arcface", "loss.margin=soft"], "needs a number, such as loss.margin=0.5"),
        (["loss.name=arcface", "loss.margin=28.6"], "adds it to an angle, in radians"),
        (["loss.name=softmax", "loss.margin=0.3"], "softmax does not use it"),
        (["loss.name=proxy_anchor", "loss.reducer=mean_nonzero"], "proxy_anchor does not use it"),
        (["loss.name=cosface", "loss.miner=multi_similarity"], "cosface does not use it"),
        (["loss.class_rate_factor=10"], "batch_hard does not use it"),
        (["loss.plus=batch_hard:2"], "name batch_hard twice"),
        (["loss.plus=softmx"], "did you mean 'softmax'?"),
        (["loss.plus=7"], "expected a list of losses, each NAME, NAME:WEIGHT"),
        (["loss.plus=softmax:0"], "NAME:WEIGHT with a weight above 0"),
        (["loss.plus=softmax:inf"], "NAME:WEIGHT with a weight above 0"),
        (["loss.plus=softmax:nan"], "NAME:WEIGHT with a weight above 0"),
        (["loss.weight=-1"], "'loss.weight' is -1; expected a number above 0"),
        (
            [#"loss.plus=[{"name":"center","temperature":2}]"#],
            "loss.plus[0].temperature is 2, but center does not use it"
        ),
        (
            [#"loss.plus=[{"name":"softmax","temprature":2}]"#],
            "nearest known one is 'loss.temperature'"
        ),
        ([#"loss.plus=[{"name":"softmax","plus":["center"]}]"#], "expected a list of losses"),
        (
            ["loss.name=softmax", "loss.plus=lifted", "batch.images_per_identity=1"],
            "lifted compares images of one identity"
        ),
    ])
    func aLossThatDoesNotFitIsRefused(overrides: [String], expected: String) {
        let text = message(nil, overrides: overrides)
        #expect(text.contains(expected), "\(text)")
    }

    @Test func aLossBringsTheSettingsItWasPublishedWith() throws {
        let circle = try resolve(nil, "loss.name=circle")
        #expect(circle.loss.distance == .cosine && circle.loss.margin == .number(0.4))
        #expect(try resolve(nil, "loss.name=nt_xent").loss.temperature == 0.07)
        let mined = try resolve(nil, "loss.name=multi_similarity", "loss.miner_epsilon=0.2")
        #expect(mined.loss.miner == .multiSimilarity)
        #expect(
            try resolve(nil, "loss.name=batch_all", "loss.margin=none", "loss.reducer=mean").loss
                .margin == .none)
        #expect(
            try resolve(nil, "loss.reducer=mean_nonzero", "loss.margin=0.3").digest
                != resolve(nil, "loss.margin=0.3").digest)
    }

    @Test func lossesAreAddedEachWithItsSettings() throws {
        let words = try resolve(nil, "loss.plus=softmax,center:0.0005")
        #expect(words.loss.parts.map(\.name) == [.batchHard, .softmax, .center])
        #expect(words.loss.plus.map(\.weight) == [1, 0.0005])
        #expect(words.loss.plus[0].labelSmoothing == 0.1 && words.loss.plus[0].temperature == 1)
        let objects = try resolve(
            #"""
            {"loss": {"margin": 0.3, "plus": [
                {"name": "softmax", "temperature": 1}, {"name": "center", "weight": 5e-4}]}}
            """#)
        #expect(objects.loss.plus == words.loss.plus)
        #expect(objects.loss.margin == .number(0.3))
        #expect(try resolve(objects.canonicalJSON) == objects)
        // What a loss has by itself is in no digest, so that a later version may add to it.
        #expect(
            objects.flatValues["loss.plus"]?.canonicalText
                == #"[{"name":"softmax"},{"name":"center","weight":0.0005}]"#)
        #expect(try resolve(nil, "loss.plus=[]").digest == resolve().digest)
        #expect(try resolve(nil, "loss.weight=1").digest == resolve().digest)
        #expect(words.digest != (try resolve().digest))
        // Identities are told apart without a second image of each.
        _ = try resolve(nil, "loss.name=softmax", "batch.images_per_identity=1")
    }

    @Test func theBestAreOfASetThatIsScored() throws {
        let keep = ["checkpoint.keep_last=1", "checkpoint.keep_best=1"]
        #expect(
            message(nil, keep[0], keep[1], "evaluation.sets=train_eval")
                .contains("keep_best_set is val_eval, but evaluation.sets is train_eval"))
        let settings = try resolve(nil, keep[0], keep[1], "checkpoint.keep_best_metric=mean_loss")
        #expect(!settings.checkpoint.keepBestMetric.isLargerBetter)
        #expect(
            message(nil, "checkpoint.keep_best_metric=general_acuracy")
                .contains("did you mean 'general_accuracy'"))
    }

    @Test func canonicalTextReadsBackToTheSameSettings() throws {
        let settings = try resolve(
            nil, "network.backbone=basic", "loss.margin=0.3", "data.root=/d\"\\é\u{1}",
            "optimizer.learning_rate=5e-5", "seed=9223372036854775807")
        #expect(try resolve(settings.canonicalJSON) == settings)
        let coded = try JSONDecoder().decode(
            Settings.self, from: JSONEncoder().encode(settings))
        #expect(coded == settings)
    }

    @Test func theDigestSeesWhatDecidesTheRunAndNothingElse() throws {
        let base = try resolve().digest
        for override in [
            "data.root=/elsewhere", "checkpoint.every_steps=7", "checkpoint.keep_last=7",
            "schedule.steps=30",
            "numerics.mode=statistical", "evaluation.poll_seconds=9", "ledger.path=/l",
            "data.decode_threads=9", "audit_fraction=0.5", "logging.detailed=true",
        ] {
            #expect(try resolve(nil, override).digest == base, "\(override)")
        }
        for override in [
            "seed=2", "loss.margin=0.3", "batch.identities=17", "numerics.precision=bf16",
            "numerics.threads_per_slot=2", "input.height=128", "schedule.decay_start_step=1",
            "evaluation.batch_size=32", "data.catalogue=other.csv", "optimizer.name=sgd",
            "optimizer.clip_norm=1", "schedule.warmup_steps=1", "network.freeze=conv1*",
        ] {
            #expect(try resolve(nil, override).digest != base, "\(override)")
        }
        #expect(try resolve(nil, "loss.margin=1").digest == resolve(nil, "loss.margin=1.0").digest)
    }

    /// A change here means that runs of older versions no longer resume: raise the record's format.
    @Test func theDigestCoversExactlyThisTextOfTheDefaults() throws {
        let text =
            #"{"augmentation":{"crop":true,"crop_from_height":288,"crop_from_width":144,"#
            + #""flip":true},"batch":{"identities":18,"images_per_identity":4,"#
            + #""mini_batches_per_step":4},"data":{"catalogue":"catalogue.csv"},"#
            + #""evaluation":{"batch_size":64,"sets":["train_eval","val_eval","easy_val_eval"]},"#
            + #""input":{"height":256,"normalisation":"imagenet","width":128},"#
            + #""loss":{"distance":"euclidean","margin":"soft","name":"batch_hard"},"#
            + #""mining":{"scope":"slot"},"network":{"backbone":"resnet50","batch_norm":false,"#
            + #""batch_norm_momentum":0.1,"channels":32,"embedding_dim":128,"head":"fc1024","#
            + #""weights":null,"weights_scope":"backbone"},"#
            + #""numerics":{"precision":"fp32","threads_per_slot":1},"#
            + #""optimizer":{"beta1":0.9,"beta2":0.999,"epsilon":1e-08,"learning_rate":0.0003,"#
            + #""name":"adam","weight_decay":0.0},"schedule":{"decay_start_step":15000},"seed":1}"#
        #expect(try resolve().digest == XXH64.digest(text))
    }

    /// The folder of this package.
    private static let package = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    @Test func everyPresetResolves() throws {
        let folder = Self.package.appending(path: "presets")
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
            .filter { $0.hasSuffix(".json") }.sorted()
        #expect(names.contains("fashion-demo.json"))
        let readme = try String(contentsOf: folder.appending(path: "README.md"), encoding: .utf8)
        for name in names {
            let data = try Data(contentsOf: folder.appending(path: name))
            _ = try Settings.resolve(paramsJSON: data, paramsName: name)
            #expect(readme.contains("`\(name)`"), "presets/README.md does not name \(name)")
        }
    }

    @Test func theDocumentNamesEverySettingWithItsDefault() throws {
        let text = try String(
            contentsOf: Self.package.appending(path: "docs/settings.md"), encoding: .utf8)
        for entry in SettingsCatalogue.entries {
            let row = "| `\(entry.key)` | \(entry.defaultText) |"
            #expect(text.contains(row), "docs/settings.md lacks: \(row)")
        }
    }

    @Test func theCatalogueAndTheStructureNameTheSameSettings() throws {
        var full = Settings()
        full.network.weights = "w"
        full.network.weightsDigest = "d"
        full.network.freeze = "f"
        full.batch.phases = "5:2x2"
        full.data.root = "r"
        full.data.triplets = "t"
        full.data.tripletsDigest = "d"
        full.ledger.path = "l"
        let data = try JSONEncoder().encode(full)
        let object = try #require(
            try JSONSerialization.jsonObject(with: data) as? [String: Any])
        var names: Set<String> = []
        for (key, value) in object {
            if let section = value as? [String: Any] {
                for name in section.keys { names.insert("\(key).\(name)") }
            } else {
                names.insert(key)
            }
        }
        #expect(names == Set(SettingsCatalogue.keys))
        #expect(SettingsCatalogue.keys.count == Set(SettingsCatalogue.keys).count)
        for backbone in Settings.Backbone.allCases {
            // Given triplets do not come by themselves.
            for loss in LossName.allCases where !loss.isOfTriplets {
                let settings = try resolve(
                    nil, "network.backbone=\(backbone.rawValue)", "loss.name=\(loss.rawValue)")
                #expect(settings == Settings.defaults(backbone: backbone, loss: loss))
            }
        }
        for entry in SettingsCatalogue.entries {
            #expect(entry.meaning.hasSuffix("."), "\(entry.key)")
        }
    }

    @Test func defaultsThatDependAreShownWithTheirReason() {
        #expect(SettingsCatalogue.entry("input.height")?.defaultText == "256 (basic: 64)")
        #expect(
            SettingsCatalogue.entry("loss.label_smoothing")?.defaultText == "0 (softmax: 0.1)")
        #expect(SettingsCatalogue.entry("loss.margin")?.defaultText == "soft (by loss)")
        #expect(SettingsCatalogue.entry("data.root")?.defaultText == "null")
    }
}

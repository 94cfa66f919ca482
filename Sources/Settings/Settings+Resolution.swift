import Basics
public import Foundation

extension Settings {
    /// Resolves what an author wrote and what the command line overrides to complete settings.
    ///
    /// - Parameters:
    ///   - paramsJSON: the text of `params.json`, one object a section; nil when there is none.
    ///   - overrides: `key=value` words of `--set`, in order; a later one wins.
    ///   - paramsName: what messages call the file.
    /// - Throws: ``SettingsError`` that names the key, the value and what was expected.
    public static func resolve(
        paramsJSON: Data?, overrides: [String] = [], paramsName: String = "params.json"
    ) throws(SettingsError) -> Settings {
        var given: [String: JSONValue] = [:]
        if let paramsJSON {
            given = try givenValues(inJSON: paramsJSON, name: paramsName)
        }
        for (key, value) in try givenValues(inOverrides: overrides) { given[key] = value }
        return try resolve(given: given)
    }

    /// The settings as one JSON object a section, nulls included.
    public var json: JSONValue { JSONValue.nested(flatValues) }

    /// The one text of these settings: sorted keys, no space, every key present.
    public var canonicalJSON: String { json.canonicalText }

    /// A digest of all that decides what the run computes.
    ///
    /// XXH64 of the canonical JSON without the settings that may change on resume (worker counts,
    /// intervals, addresses, `data.root`, `schedule.steps`, `numerics.mode`), see
    /// ``SettingsCatalogue/Entry/change``; and without newer settings at their defaults, which never
    /// change, so that runs of older versions keep their digest.
    public var digest: UInt64 {
        let defaults = SettingsCatalogue.defaults(backbone: network.backbone, loss: loss.name)
        var fixed = flatValues.filter { key, value in
            guard let entry = SettingsCatalogue.entry(key), entry.change == .never else {
                return false
            }
            return !entry.isNewer || value != defaults[key]
        }
        // What the weights are counts, not the name of the file that they came from.
        if network.weightsDigest != nil { fixed["network.weights"] = .null }
        if data.tripletsDigest != nil { fixed["data.triplets"] = nil }
        return XXH64.digest(JSONValue.nested(fixed).canonicalText)
    }

    /// Every setting's value by its dotted name.
    public var flatValues: [String: JSONValue] {
        var values = SettingsCatalogue.flattened(self)
        for entry in SettingsCatalogue.entries {
            let value = values[entry.key] ?? .null
            values[entry.key] = entry.kind.normalised(value) ?? value
        }
        return values
    }

    /// Values an author's file states, by dotted name, checked and in their normal form.
    static func givenValues(
        inJSON data: Data, name: String
    ) throws(SettingsError) -> [String: JSONValue] {
        var parser = JSONParser(data, name: name)
        let root = try parser.parse()
        guard case .object(let members) = root else {
            throw SettingsError(
                .malformed, "\(name) holds \(root.settingText.prefix(40)); expected an object")
        }
        let lines = parser.lines
        var given: [String: JSONValue] = [:]
        func collect(
            _ members: [String: JSONValue], path: String
        ) throws(SettingsError) {
            for key in members.keys.sorted() {
                let keyPath = path.isEmpty ? key : path + "." + key
                let place = "\(name) line \(lines[keyPath] ?? 1)"
                let isSection = SettingsCatalogue.sections.contains(keyPath)
                switch members[key] {
                case .object(let inner) where isSection: try collect(inner, path: keyPath)
                case .some(let value):
                    if isSection {
                        throw SettingsError(
                            .invalidValue,
                            "\(place): '\(keyPath)' is \(value.settingText); expected an object "
                                + "with the section's settings")
                    }
                    given[keyPath] = try checked(keyPath, value, place: place)
                case .none: break
                }
            }
        }
        try collect(members, path: "")
        return given
    }

    /// Values that `--set` words state, by dotted name; of two for one key the later counts.
    static func givenValues(
        inOverrides overrides: [String]
    ) throws(SettingsError) -> [String: JSONValue] {
        var given: [String: JSONValue] = [:]
        for override in overrides {
            guard let equals = override.firstIndex(of: "="), equals != override.startIndex else {
                throw SettingsError(
                    .malformed, "--set \(override): expected key=value, such as loss.margin=0.3")
            }
            let key = String(override[..<equals])
            let text = String(override[override.index(after: equals)...])
            let value =
                SettingsCatalogue.entry(key)?.kind.value(fromText: text) ?? .string(text)
            given[key] = try checked(key, value, place: "--set")
        }
        return given
    }

    private static func checked(
        _ key: String, _ value: JSONValue, place: String
    ) throws(SettingsError) -> JSONValue {
        guard let entry = SettingsCatalogue.entry(key) else {
            throw SettingsError(.unknownKey, unknownKeyMessage(key, place: place))
        }
        if case .losses = entry.kind { try checkLosses(value, place: "\(place): '\(key)'") }
        guard let normal = entry.kind.normalised(value) else {
            var message =
                "\(place): '\(key)' is \(value.canonicalText.prefix(80)); expected "
                + entry.kind.expectation
            if case .choice(let words) = entry.kind, case .string(let word) = value,
                let near = NearestName.of(word, among: words)
            {
                message += " (did you mean '\(near)'?)"
            }
            throw SettingsError(.invalidValue, message)
        }
        return normal
    }

    /// Checks names and settings of losses that are added, so that messages say which is wrong.
    private static func checkLosses(_ value: JSONValue, place: String) throws(SettingsError) {
        switch value {
        case .array(let losses):
            for loss in losses { try checkLosses(loss, place: place) }
        case .object(let members):
            for name in members.keys.sorted() where name != "plus" {
                _ = try checked("loss." + name, members[name]!, place: place)
            }
        case .string(let text):
            for word in text.split(separator: ",") {
                let name = word.prefix { $0 != ":" }
                _ = try checked("loss.name", .string(String(name)), place: place)
            }
        default: break
        }
    }

    private static func unknownKeyMessage(_ key: String, place: String) -> String {
        if SettingsCatalogue.sections.contains(key) {
            return "\(place): '\(key)' is a section; name a setting in it, such as "
                + "'\(SettingsCatalogue.keys.first { $0.hasPrefix(key + ".") } ?? key)'"
        }
        let hint =
            SettingsCatalogue.nearest(to: key).map { "; the nearest known one is '\($0)'" } ?? ""
        return "\(place): unknown setting '\(key)'\(hint) ('lineup params' lists all)"
    }

    static func resolve(given: [String: JSONValue]) throws(SettingsError) -> Settings {
        var backbone = Backbone.resnet50
        var loss = LossName.batchHard
        if case .string(let word) = given["network.backbone"] {
            backbone = Backbone(rawValue: word) ?? backbone
        }
        if case .string(let word) = given["loss.name"] {
            loss = LossName(rawValue: word) ?? loss
        }
        var values = SettingsCatalogue.defaults(backbone: backbone, loss: loss)
        values.merge(given) { _, new in new }
        let text = JSONValue.nested(values).canonicalText
        guard let settings = try? JSONDecoder().decode(Settings.self, from: Data(text.utf8)) else {
            preconditionFailure("checked settings do not decode: \(text)")
        }
        try settings.checkTogether()
        return settings
    }

    /// Checks what no single setting can tell.
    private func checkTogether() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        let crop = augmentation
        if crop.crop, crop.cropFromHeight < input.height || crop.cropFromWidth < input.width {
            throw refuse(
                "augmentation.crop_from is \(crop.cropFromHeight)x\(crop.cropFromWidth) "
                    + "(height x width), smaller than the input of \(input.height)x\(input.width); "
                    + "set augmentation.crop_from_height and _width to at least that, or "
                    + "augmentation.crop=false")
        }
        if let digest = network.weightsDigest {
            guard network.weights != nil else {
                throw refuse(
                    "network.weights_digest is \(digest), but network.weights names no file; set it, "
                        + "or leave the digest out")
            }
            guard UInt64(hex: digest) != nil else {
                throw refuse(
                    "network.weights_digest is '\(digest)'; expected 16 hexadecimal digits, or leave "
                        + "it out: the run writes it down")
            }
        }
        try checkLoss()
        try checkTriplets()
        try checkImages()
        try checkMining()
        try checkOptimizer()
        try checkSchedule()
        if checkpoint.keepLast == 0, checkpoint.keepBest > 0 || checkpoint.keepEverySteps > 0 {
            let key = checkpoint.keepBest > 0 ? "keep_best" : "keep_every_steps"
            throw refuse(
                "checkpoint.keep_last is 0, which keeps every checkpoint, but checkpoint.\(key) is "
                    + "set; set checkpoint.keep_last to at least 1, or leave checkpoint.\(key) out")
        }
        try checkRanking()
        if network.backbone == .resnet50, input.height < 32 || input.width < 32 {
            throw refuse(
                "input is \(input.height)x\(input.width) (height x width); resnet50 divides both "
                    + "by 32, so each must be at least 32")
        }
        if network.backbone == .resnet50, network.batchNorm {
            throw refuse(
                "network.batch_norm=true is for the basic backbone; resnet50 always has batch "
                    + "norm, so leave it out")
        }
    }
}

extension SettingsCatalogue {
    /// The names before the dot.
    static let sections: Set<String> = Set(
        keys.compactMap { key in key.firstIndex(of: ".").map { String(key[..<$0]) } })

    /// What the earlier systems called a setting, where no spelling would lead to it.
    private static let earlierNames: [String: String] = [
        "model_type": "network.backbone", "model_name": "network.backbone",
        "embedding_size": "network.embedding_dim", "warm_start_from": "network.weights",
        "initial_checkpoint": "network.weights", "init_model": "network.weights",
        "use_batch_norm": "network.batch_norm", "num_channels": "network.channels",
        "bn_momentum": "network.batch_norm_momentum", "triplet_strategy": "loss.name",
        "squared": "loss.distance", "metric": "loss.distance", "batch_p": "batch.identities",
        "batch_k": "batch.images_per_identity", "image_size": "input.height",
        "net_input_height": "input.height", "net_input_width": "input.width",
        "pre_crop_height": "augmentation.crop_from_height",
        "pre_crop_width": "augmentation.crop_from_width", "flip_augment": "augmentation.flip",
        "crop_augment": "augmentation.crop", "decay_start_iteration": "schedule.decay_start_step",
        "train_iterations": "schedule.steps", "checkpoint_frequency": "checkpoint.every_steps",
        "save_checkpoints_steps": "checkpoint.every_steps",
        "save_summary_steps": "logging.summary_every_steps",
        "detailed_logs": "logging.detailed", "eval_interval_secs": "evaluation.poll_seconds",
        "eval_timeout_secs": "evaluation.timeout_seconds",
        "loading_threads": "data.decode_threads", "prefetch_threads": "data.decode_threads",
        "train_set": "data.catalogue", "image_root": "data.root",
    ]

    /// The setting that somebody who wrote `key` probably meant.
    static func nearest(to key: String) -> String? {
        let bare = key.split(separator: ".").last.map(String.init) ?? key
        if let known = earlierNames[bare] { return known }
        let sameName = keys.filter { $0.hasSuffix("." + bare) }
        if !sameName.isEmpty {
            return sameName.count == 1
                ? sameName[0] : NearestName.of(key, among: sameName) ?? sameName[0]
        }
        if let near = NearestName.of(key, among: keys) { return near }
        let bareNames = keys.map { $0.split(separator: ".").last.map(String.init) ?? $0 }
        return NearestName.of(bare, among: bareNames).flatMap { name in
            keys.first { $0 == name || $0.hasSuffix("." + name) }
        }
    }

    /// The defaults for a backbone and a loss, by dotted name.
    static func defaults(
        backbone: Settings.Backbone, loss: LossName
    ) -> [String: JSONValue] {
        Settings.defaults(backbone: backbone, loss: loss).flatValues
    }

    /// A value's leaves by dotted name; optionals that are nil are absent.
    static func flattened(_ settings: Settings) -> [String: JSONValue] {
        guard let data = try? JSONEncoder().encode(settings) else {
            preconditionFailure("settings do not encode: \(settings)")
        }
        var parser = JSONParser(data, name: "settings")
        guard let root = try? parser.parse(), case .object(let members) = root else {
            preconditionFailure("encoded settings are no object: \(settings)")
        }
        var values: [String: JSONValue] = [:]
        for (key, value) in members {
            if case .object(let inner) = value {
                for (name, leaf) in inner { values[key + "." + name] = leaf }
            } else {
                values[key] = value
            }
        }
        return values
    }
}

extension JSONValue {
    /// One object a section from values by dotted name.
    static func nested(_ values: [String: JSONValue]) -> JSONValue {
        var root: [String: JSONValue] = [:]
        var sections: [String: [String: JSONValue]] = [:]
        for (key, value) in values {
            if let dot = key.firstIndex(of: ".") {
                sections[String(key[..<dot]), default: [:]][String(key[key.index(after: dot)...])] =
                    value
            } else {
                root[key] = value
            }
        }
        for (name, members) in sections { root[name] = .object(members) }
        return .object(root)
    }
}

import Basics

extension LossName {
    /// Whether settings give the loss a number as margin alone.
    var takesNumber: Bool { self == .tfBatchSemiHard || needsNumber }

    /// The distance that the loss is defined on, if it is one.
    var onlyDistance: Distance? {
        self == .tfBatchSemiHard || isOfSimilarities ? defaults.distance : nil
    }

    /// The settings below `loss.` that only some losses read, and this one does.
    var ownSettings: Set<String> {
        switch self {
        case .batchHard, .batchHard000, .batchAll, .tfBatchSemiHard, .semiHard, .batchSample,
            .weightedTriplet, .lifted, .generalizedLifted:
            ["margin"]
        case .hap2sExponential: ["margin", "hap2s_sigma", "hap2s_compatibility"]
        case .hap2sPolynomial: ["margin", "hap2s_alpha", "hap2s_compatibility"]
        case .multiSimilarity:
            ["multi_similarity_alpha", "multi_similarity_beta", "multi_similarity_base"]
        case .circle: ["margin", "circle_gamma"]
        case .supervisedContrastive, .ntXent: ["temperature"]
        case .triplet: ["margin"]
        case .dotTriplet: ["margin", "positive_threshold"]
        case .softmax, .normalizedSoftmax: ["temperature", "label_smoothing"]
        case .arcface, .cosface: ["margin", "scale", "label_smoothing"]
        case .proxyAnchor: ["margin", "proxy_anchor_alpha"]
        case .center: []
        }
    }

    private static let sharedSettings: Set<String> = [
        "name", "distance", "normalize", "active_threshold", "weight", "plus", "memory",
        "memory_start_step", "memory_weight",
    ]

    /// What pairs of images, and what identities' vectors read in common.
    private var sharedByKind: Set<String> {
        if isOfTriplets { return ["reducer"] }
        guard hasClasses else { return ["miner", "miner_epsilon", "reducer"] }
        let both: Set = ["class_rate_factor", "class_decay_factor"]
        return self == .proxyAnchor ? both : both.union(["reducer"])
    }

    /// Whether the loss reads a setting of this dotted name.
    func reads(_ key: String) -> Bool {
        let name = String(key.dropFirst("loss.".count))
        return [Self.sharedSettings, sharedByKind, ownSettings].contains { $0.contains(name) }
    }
}

extension Settings {
    /// Checks each loss of a sum, and that the sum names none twice.
    func checkLoss() throws(SettingsError) {
        let parts = loss.parts
        var names: Set<LossName> = []
        for part in parts where !names.insert(part.name).inserted {
            throw SettingsError(
                .conflict,
                "loss.name and loss.plus name \(part.name.rawValue) twice; give it once, with a weight"
            )
        }
        for (place, part) in parts.enumerated() {
            var alone = self
            alone.loss = part
            try alone.checkPart(path: place == 0 ? "loss" : "loss.plus[\(place - 1)]")
        }
        try checkMemory()
    }

    /// Checks that a loss's settings go together and that the batch has what it compares.
    ///
    /// - Parameter path: what messages call the section.
    private func checkPart(path: String) throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError {
            SettingsError(.conflict, message.replacing("loss.", with: path + "."))
        }
        let name = loss.name
        let defaults = SettingsCatalogue.defaults(backbone: network.backbone, loss: name)
        let values = flatValues
        for key in SettingsCatalogue.keys where key.hasPrefix("loss.") && !name.reads(key) {
            guard let value = values[key], value != defaults[key] else { continue }
            throw refuse(
                "\(key) is \(value.settingText), but \(name.rawValue) does not use it; leave it out"
            )
        }
        if let number = defaults["loss.margin"], name.takesNumber {
            guard case .number = loss.margin else {
                throw refuse(
                    "loss.margin is \(values["loss.margin"]?.settingText ?? ""), but "
                        + "\(name.rawValue) needs a number, such as "
                        + "loss.margin=\(number.settingText)")
            }
        }
        if let fixed = name.onlyDistance, loss.distance != fixed {
            throw refuse(
                "loss.distance is \(loss.distance.rawValue), but \(name.rawValue) is defined on "
                    + "\(fixed.rawValue); leave loss.distance out")
        }
        if loss.margin == .none, name.defaults.margin != .none, loss.reducer == .meanNonzero {
            throw refuse(
                "loss.margin is none, but loss.reducer=mean_nonzero averages over the terms that "
                    + "violate a margin; set a number or soft, or loss.reducer=mean")
        }
        if name.minesItself, loss.miner != .all {
            throw refuse(
                "loss.miner is \(loss.miner.rawValue), but \(name.rawValue) mines for itself; leave "
                    + "loss.miner out, or choose another loss")
        }
        if loss.miner == .all, loss.minerEpsilon != name.defaults.minerEpsilon {
            throw refuse(
                "loss.miner_epsilon is \(loss.minerEpsilon), but loss.miner is all; leave it out, or "
                    + "set loss.miner=multi_similarity")
        }
        if name == .arcface, case .number(let margin) = loss.margin, margin >= .pi {
            throw refuse(
                "loss.margin is \(margin), but arcface adds it to an angle, in radians; set less than "
                    + "3.14, such as loss.margin=0.5")
        }
        if !name.hasClasses, !batch.isOfTriplets { try checkBatch() }
    }

    /// Checks that a mini-batch has pairs for a loss that compares them.
    private func checkBatch() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        let name = loss.name
        if batch.imagesPerIdentity < 2 {
            throw refuse(
                "batch.images_per_identity is 1, but \(name.rawValue) compares images of one "
                    + "identity; set batch.images_per_identity to at least 2")
        }
        if batch.identities < 2 {
            throw refuse(
                "batch.identities is 1, but \(name.rawValue) compares an image with those of other "
                    + "identities; set batch.identities to at least 2")
        }
    }
}

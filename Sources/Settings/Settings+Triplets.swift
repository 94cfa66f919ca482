import Basics

extension Settings {
    private func refusal(_ message: String) -> SettingsError { SettingsError(.conflict, message) }

    /// Checks that a loss over given triplets is given some, and that they go with the rest.
    func checkTriplets() throws(SettingsError) {
        try checkOfflineMining()
        guard batch.isOfTriplets else {
            if let file = data.triplets {
                throw refusal(
                    "data.triplets is \(file), but batch.triplets is 0, so that none is used; set how "
                        + "many a slot has, such as batch.triplets=16, or leave the file out")
            }
            if let loss = loss.parts.first(where: \.name.isOfTriplets) {
                throw refusal(
                    "\(loss.name.rawValue) takes given triplets, but batch.triplets is 0; set "
                        + "batch.triplets, such as 16, and data.triplets or mining.offline")
            }
            return
        }
        let others = batch.namesOfShape + (batch.images > 0 ? ["batch.images"] : [])
        guard others.isEmpty else {
            throw refusal(
                "batch.triplets is \(batch.triplets), which makes slots of given triplets, but "
                    + "\(others.spoken("and")) \(others.count > 1 ? "are" : "is") set; leave one or "
                    + "the other out")
        }
        guard (data.triplets == nil) == (mining.offline != .none) else {
            throw refusal(
                data.triplets.map {
                    "data.triplets is \($0), but mining.offline is \(mining.offline.rawValue), which "
                        + "mines others; leave one of them out"
                }
                    ?? "batch.triplets is \(batch.triplets), but data.triplets names no file and "
                    + "mining.offline is none; set one of them, 'lineup mine' writes a file")
        }
        if let digest = data.tripletsDigest, UInt64(hex: digest) == nil {
            throw refusal(
                "data.triplets_digest is '\(digest)'; expected 16 hexadecimal digits, or leave it out: "
                    + "the run writes it down")
        }
    }

    /// Checks when and from what triplets are mined.
    private func checkOfflineMining() throws(SettingsError) {
        let (kind, name) = (mining.offline, mining.offline.rawValue)
        let published = Mining()
        let unread =
            (kind == .none && mining.everySteps != 0 ? ["mining.every_steps"] : [])
            + (kind == .none && mining.anchors != 0 ? ["mining.anchors"] : [])
            + (kind != .hardCentroid && mining.negatives != published.negatives
                ? ["mining.negatives"] : [])
            + (kind != .hardSimilarity && mining.pool != published.pool ? ["mining.pool"] : [])
            + (kind != .hardSimilarity && mining.samples != published.samples
                ? ["mining.samples"] : [])
        if let unread = unread.first {
            throw refusal(
                "\(unread) is set, but mining.offline is \(name), which does not use it; leave it out"
            )
        }
        guard kind != .none else { return }
        guard batch.isOfTriplets else {
            throw refusal(
                "mining.offline is \(name), but batch.triplets is 0, so that nothing of it is used; set "
                    + "how many triplets a slot has, such as batch.triplets=16")
        }
        for (name, value) in [("anchors", mining.anchors), ("pool", mining.pool)]
        where 0 < value && value < batch.triplets && (name == "anchors" || kind == .hardSimilarity)
        {
            throw refusal(
                "mining.\(name) is \(value), but batch.triplets is \(batch.triplets), more than a round "
                    + "would have; set mining.\(name) to at least that")
        }
        guard mining.everySteps > 0 else {
            throw refusal(
                "mining.offline is \(name), but mining.every_steps is 0; set how many steps train on "
                    + "what is mined, such as mining.every_steps=100")
        }
        let every = checkpoint.everySteps
        if kind.needsCheckpoint, every == 0 || mining.everySteps % every != 0 {
            throw refusal(
                "mining.every_steps is \(mining.everySteps), but checkpoint.every_steps is \(every), and "
                    + "\(name) mines from checkpoints; set mining.every_steps to a multiple of it")
        }
    }
}

extension Settings {
    /// Most bytes of one slot's embeddings, which travel in one message.
    static let slotEmbeddingBytesMax = 2 << 20

    /// Checks that what is mined over the step can be.
    func checkMining() throws(SettingsError) {
        guard mining.scope == .step else {
            guard mining.forward == .once else {
                throw SettingsError(
                    .conflict,
                    "mining.forward is \(mining.forward.rawValue), but mining.scope is "
                        + "\(mining.scope.rawValue), where a slot keeps no graph; leave it out, or "
                        + "set mining.scope=step")
            }
            return
        }
        guard numerics.mode == .bitwise else {
            throw SettingsError(
                .conflict,
                "mining.scope is step, but numerics.mode is \(numerics.mode.rawValue), where a slot's "
                    + "embeddings may differ from trainer to trainer; set numerics.mode=bitwise or "
                    + "mining.scope=slot")
        }
        let images = try batch.imagesOfLargestSlot
        let bytes = images * network.embeddingDim * 4
        guard bytes <= Self.slotEmbeddingBytesMax else {
            throw SettingsError(
                .conflict,
                "mining.scope is step, but a slot of \(images) images has \(bytes) bytes of "
                    + "embeddings, more than \(Self.slotEmbeddingBytesMax); make slots smaller "
                    + "and raise batch.mini_batches_per_step")
        }
    }
}

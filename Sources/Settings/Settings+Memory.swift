import Basics

extension Settings {
    /// Checks that images can be compared with those of earlier steps.
    func checkMemory() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        let plain = LossConfiguration()
        for (place, part) in loss.plus.enumerated()
        where part.memory != plain.memory || part.memoryStartStep != plain.memoryStartStep
            || part.memoryWeight != plain.memoryWeight
        {
            throw refuse(
                "loss.plus[\(place)] has a memory of its own, but a run has one for all of its "
                    + "losses; set loss.memory, loss.memory_start_step and loss.memory_weight")
        }
        guard loss.memory > 0 else {
            let isStated =
                loss.memoryStartStep != plain.memoryStartStep
                || loss.memoryWeight != plain.memoryWeight
            guard !isStated else {
                throw refuse(
                    "loss.memory_start_step or loss.memory_weight is set, but loss.memory is 0; "
                        + "leave it out, or set loss.memory, such as loss.memory=8192")
            }
            return
        }
        try checkMemoryLosses()
        let images = try stepImagesMax()
        if loss.memory < images {
            throw refuse(
                "loss.memory is \(loss.memory), but a step has \(images) images, not all of which it "
                    + "would hold; set loss.memory to at least \(images)")
        }
        if loss.memoryStartStep >= schedule.steps {
            throw refuse(
                "loss.memory_start_step is \(loss.memoryStartStep), but the run has "
                    + "\(schedule.steps) steps (schedule.steps), so that the memory would not be "
                    + "used; set less, such as loss.memory_start_step=\(schedule.steps / 10)")
        }
    }

    /// Checks that each loss which compares images can do so with those of earlier steps.
    private func checkMemoryLosses() throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(.conflict, message) }
        let comparing = loss.parts.filter { !$0.name.hasClasses }
        guard !comparing.isEmpty else {
            throw refuse(
                "loss.memory is \(loss.memory), but \(loss.name.rawValue) compares images with "
                    + "vectors of identities, not with each other; leave it out, or add a loss that "
                    + "does, such as loss.plus=multi_similarity")
        }
        for part in comparing {
            let name = part.name.rawValue
            guard part.name.takesMemory else {
                let instead =
                    switch part.name {
                    case .lifted:
                        "needs the negatives of an image's positives, which are no anchors in a "
                            + "memory; take generalized_lifted"
                    case .batchHard000:
                        "counts an image without negatives with its largest distance; take "
                            + "batch_hard"
                    default: "looks at given images alone; take batch_hard"
                    }
                throw refuse(
                    "loss.memory is \(loss.memory), but \(name) \(instead), or leave loss.memory out"
                )
            }
            if part.normalization == .columns {
                throw refuse(
                    "loss.memory is \(loss.memory), but loss.normalize=columns looks at a whole "
                        + "mini-batch, which earlier images do not belong to; set "
                        + "loss.normalize=rows")
            }
        }
    }

    /// Most images of a step.
    private func stepImagesMax() throws(SettingsError) -> Int {
        try batch.imagesOfLargestSlot * batch.miniBatchesPerStep
    }
}

extension Settings {
    private func refusal(_ message: String) -> SettingsError { SettingsError(.conflict, message) }

    /// Checks the optimizer's settings against each other.
    func checkOptimizer() throws(SettingsError) {
        let name = optimizer.name.rawValue
        if optimizer.nesterov, !optimizer.name.isSGD {
            throw refusal(
                "optimizer.nesterov=true is for sgd and sgdw, optimizer.name is \(name); leave it out"
            )
        }
        if optimizer.nesterov, optimizer.momentum == 0 {
            throw refusal(
                "optimizer.nesterov=true looks ahead by the momentum, but optimizer.momentum is 0; "
                    + "set optimizer.momentum=0.9 or leave optimizer.nesterov out")
        }
        if optimizer.name.decouplesDecay, optimizer.weightDecay == 0 {
            throw refusal(
                "optimizer.name is \(name), but optimizer.weight_decay is 0; set it, such as "
                    + "optimizer.weight_decay=0.01, or take \(optimizer.name.isSGD ? "sgd" : "adam")"
            )
        }
        if optimizer.clipNorm > 0, optimizer.clipValue > 0 {
            throw refusal(
                "optimizer.clip_norm and optimizer.clip_value are both set; leave one of them out")
        }
        if evaluation.weights == .average, optimizer.averageDecay == 0 {
            throw refusal(
                "evaluation.weights is average, but no average is kept; set "
                    + "optimizer.average_decay, such as 0.999")
        }
        if network.freezeSteps > 0, network.freeze == nil, network.trainLastBlocks < 0 {
            throw refusal(
                "network.freeze_steps is \(network.freezeSteps), but nothing is frozen; set "
                    + "network.freeze or network.train_last_blocks")
        }
    }

    /// Checks the schedule's settings against each other.
    func checkSchedule() throws(SettingsError) {
        let (steps, warmup) = (schedule.steps, schedule.warmupSteps)
        if warmup >= steps {
            throw refusal(
                "schedule.warmup_steps is \(warmup), but the run has \(steps) steps "
                    + "(schedule.steps); set less")
        }
        if let last = try BatchPhase.all(of: batch).last, last.updatesBefore >= steps {
            throw refusal(
                "batch.phases begins one after \(last.updatesBefore) steps, but the run has "
                    + "\(steps) (schedule.steps); leave that phase out")
        }
        switch schedule.name {
        case .step:
            guard let first = schedule.milestones.first else {
                throw refusal(
                    "schedule.name is step, but there are no milestones; set them, such as "
                        + "schedule.milestones=\(max(1, steps * 3 / 5)),\(max(2, steps * 4 / 5))")
            }
            if first >= steps || first < warmup {
                throw refusal(
                    "the first of schedule.milestones is \(first); it must lie after the warm-up "
                        + "of \(warmup) and before the end of \(steps) steps")
            }
        case .cosine:
            if !(0..<steps).contains(schedule.decayStartStep) {
                throw refusal(
                    "schedule.name is cosine, but schedule.decay_start_step is "
                        + "\(schedule.decayStartStep), so that the rate would stay as it is for all "
                        + "\(steps) steps; set schedule.decay_start_step=0")
            }
        case .constant, .exponential: break
        }
        if schedule.name != .step, !schedule.milestones.isEmpty {
            throw refusal(
                "schedule.milestones are for schedule.name=step, which is "
                    + "\(schedule.name.rawValue); set that, or leave them out")
        }
    }
}

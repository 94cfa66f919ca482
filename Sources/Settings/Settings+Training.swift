import Basics

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

    /// Checks what draws training images one by one, and what scores them.
    func checkImages() throws(SettingsError) {
        if batch.images > 0 {
            let others = batch.namesOfShape
            guard others.isEmpty else {
                throw refusal(
                    "batch.images is \(batch.images), which draws images one by one, but "
                        + "\(others.spoken("and")) \(others.count > 1 ? "are" : "is") set; leave one "
                        + "or the other out")
            }
            if let loss = loss.parts.first(where: { !$0.name.hasClasses }) {
                throw refusal(
                    "batch.images is \(batch.images), which draws images one by one, but "
                        + "\(loss.name.rawValue) compares images of one identity; leave it out, or "
                        + "take a loss with vectors of identities, such as loss.name=softmax")
            }
        }
        guard let set = evaluation.sets.first(where: Evaluation.imageSets.contains) else { return }
        guard data.validationShare > 0 else {
            throw refusal(
                "evaluation.sets has \(set), but no training images are held out to compare; set "
                    + "data.validation_share, such as 0.1")
        }
        guard let classifier = loss.classifier else {
            throw refusal(
                "evaluation.sets has \(set), but \(loss.name.rawValue) does not say which identity an "
                    + "image shows; leave it out, or take loss.name=softmax, normalized_softmax, "
                    + "arcface or cosface, or add one by loss.plus")
        }
        if classifier.normalization == .columns {
            throw refusal(
                "evaluation.sets has \(set), but loss.normalize=columns looks at the whole "
                    + "mini-batch, which single images do not have; set another")
        }
    }

    /// Checks that a set is scored by a metric.
    private func checkScored(
        _ set: String, _ metric: RankingMetric, _ setKey: String, _ metricKey: String
    ) throws(SettingsError) {
        guard evaluation.sets.contains(set) else {
            throw refusal(
                "\(setKey) is \(set), but evaluation.sets is "
                    + "\(evaluation.sets.joined(separator: ",")); name one of those")
        }
        guard Evaluation.has(metric, in: set) else {
            let known = RankingMetric.allCases.filter { Evaluation.has($0, in: set) }
            throw refusal(
                "\(metricKey) is \(metric.rawValue), but \(set) is scored by "
                    + "\(known.map(\.rawValue).spoken("and")); name one of those")
        }
    }

    /// Checks what the best checkpoints are found by.
    func checkRanking() throws(SettingsError) {
        guard checkpoint.keepBest > 0 else { return }
        try checkScored(
            checkpoint.keepBestSet, checkpoint.keepBestMetric, "checkpoint.keep_best_set",
            "checkpoint.keep_best_metric")
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
        case .constant, .exponential, .plateau: break
        }
        if schedule.goesByScores {
            let asks = schedule.name == .plateau ? "name is plateau" : "stop_patience is set"
            if checkpoint.everySteps == 0 {
                throw refusal(
                    "schedule.\(asks), but checkpoint.every_steps is 0, so that there is nothing to "
                        + "score on the way; set checkpoint.every_steps")
            }
            // Stored before the score of the oldest that is waited for has come.
            let waiting = schedule.decisionLagSteps / max(1, checkpoint.everySteps) + 1
            if checkpoint.keepLast > 0, checkpoint.keepUnscored < waiting {
                throw refusal(
                    "schedule.\(asks), but checkpoint.keep_unscored is \(checkpoint.keepUnscored), so "
                        + "that a checkpoint might be deleted whose score is waited for; set "
                        + "checkpoint.keep_unscored to at least \(waiting)")
            }
            try checkScored(
                schedule.decisionSet, schedule.decisionMetric,
                "schedule.\(asks) and schedule.decision_set", "schedule.decision_metric")
        }
        if schedule.name != .step, !schedule.milestones.isEmpty {
            throw refusal(
                "schedule.milestones are for schedule.name=step, which is "
                    + "\(schedule.name.rawValue); set that, or leave them out")
        }
    }
}

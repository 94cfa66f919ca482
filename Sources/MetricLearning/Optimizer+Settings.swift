public import Settings

extension OptimizerConfiguration {
    /// What a run's `optimizer` settings mean.
    public init(_ settings: Settings.Optimizer) {
        let adam = AdamConfiguration(
            form: settings.name == .adamTF ? .tensorflow : .torch, beta1: settings.beta1,
            beta2: settings.beta2, epsilon: settings.epsilon)
        let sgd = SGDConfiguration(
            momentum: settings.momentum, isNesterov: settings.nesterov)
        self.init(
            rule: settings.name.isSGD ? .sgd(sgd) : .adam(adam),
            weightDecay: WeightDecay(
                rate: settings.weightDecay, isDecoupled: settings.name.decouplesDecay,
                normFactor: settings.weightDecayNormFactor,
                biasFactor: settings.weightDecayBiasFactor),
            headRateFactor: settings.headRateFactor, biasRateFactor: settings.biasRateFactor,
            clipping: settings.clipNorm > 0
                ? .norm(settings.clipNorm)
                : settings.clipValue > 0 ? .value(settings.clipValue) : .none,
            averageDecay: settings.averageDecay > 0 ? settings.averageDecay : nil)
    }
}

extension LearningRateSchedule {
    /// What a run's settings mean.
    public init(_ settings: Settings) {
        let schedule = settings.schedule
        let decay: Decay =
            switch schedule.name {
            case .constant: .none
            case .exponential: .exponential(start: schedule.decayStartStep)
            case .step: .step(milestones: schedule.milestones, factor: schedule.factor)
            case .plateau:
                .plateau(factor: schedule.factor, finalFactor: schedule.finalFactor)
            case .cosine:
                .cosine(start: schedule.decayStartStep, finalFactor: schedule.finalFactor)
            }
        self.init(
            base: settings.optimizer.learningRate, decay: decay,
            warmupSteps: schedule.warmupSteps, warmupFactor: schedule.warmupFactor,
            totalSteps: schedule.steps)
    }
}

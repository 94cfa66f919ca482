public import Protocol

extension ClusterView {
    /// What a coordinator reports.
    ///
    /// Numbers from the network are taken as they come: what cannot be a step or a share is shown as
    /// unknown, never trapped on.
    public init(_ status: WireStatus) {
        // A resumed run has a step before this term has measured anything.
        let hasStepped = status.step > status.firstStep
        func known(_ value: Double, _ isKnown: Bool = true) -> Double? {
            isKnown && value.isFinite ? value : nil
        }
        self.init(
            run: status.runName, state: status.state, step: Int(clamping: status.step),
            totalSteps: Int(clamping: status.totalSteps),
            loss: hasStepped ? status.loss : nil,
            fractionPositive: known(status.fractionPositive, hasStepped),
            learningRate: known(status.learningRate, hasStepped),
            samplesPerSecond: known(status.samplesPerSecond, status.samplesPerSecond > 0),
            secondsLeft: known(status.secondsLeft, status.secondsLeft >= 0),
            workers: status.workers.map(Worker.init), scores: status.scores.map(Score.init),
            warnings: status.warnings, events: status.events, isFinal: status.final)
    }
}

extension ClusterView.Worker {
    init(_ status: WireWorkerStatus) {
        let role =
            switch status.role {
            case .trainer: "trainer"
            case .evaluator: "evaluator"
            case .observer: "observer"
            case .unspecified, .UNRECOGNIZED: "unknown"
            }
        self.init(
            name: status.worker, role: role, host: status.host, device: status.device,
            phase: status.phase, lagSteps: Int(clamping: status.lagSteps),
            slots: Int(clamping: status.slots), silentSeconds: status.silentSeconds,
            isConnected: status.connected)
    }
}

extension ClusterView.Score {
    init(_ status: WireScoreStatus) {
        let step = Int(clamping: status.step)
        self =
            Self.isOfImages(status.set)
            ? Self(step: step, set: status.set, loss: status.meanLoss, top1: status.top1)
            : Self(
                step: step, set: status.set, general: status.generalAccuracy,
                easy: status.easyAccuracy)
    }
}

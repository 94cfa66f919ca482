public import Protocol

extension CoordinatorStateMachine {
    /// What the step trains on that is computed or committed; nil between steps.
    public var samplesInHand: WireStepSamples? { flight?.samples }

    /// File names of a slot's images.
    public func names(of samples: WireSlotSamples) -> [String] { source.names(of: samples) }

    /// What observers are shown.
    public func status(now: Duration) -> WireStatus {
        var status = WireStatus()
        status.state = stateName
        status.step = UInt64(cursor)
        status.totalSteps = UInt64(lastStep)
        status.loss = lastLoss
        status.fractionPositive = lastFraction
        status.learningRate = lastRate
        let mean =
            stepSeconds.isEmpty ? 0 : stepSeconds.reduce(0, +) / Double(stepSeconds.count)
        status.samplesPerSecond = mean > 0 ? Double(lastSamples) / mean : 0
        status.secondsLeft = mean > 0 ? mean * Double(lastStep - cursor) : -1
        status.scores = scores
        status.events = recentEvents
        status.term = term
        status.generation = generation
        status.firstStep = UInt64(firstStep)
        if case .ended = phase { status.final = true }
        status.workers = order.all.compactMap { id in
            guard let worker = workers[id], worker.hello.role != .observer else { return nil }
            var row = WireWorkerStatus()
            row.worker = id
            row.role = worker.hello.role
            row.host = worker.hello.host
            row.device = worker.hello.device
            row.processID = worker.hello.processID
            row.phase = worker.phase
            row.lagSteps = worker.stage == .member ? Int64(cursor - worker.appliedStep) : 0
            row.slots = UInt32(leaseCount(id))
            row.silentSeconds = (now - worker.lastHeard).seconds
            row.connected = true
            return row
        }
        return status
    }

    /// Keeps the last events for observers.
    public mutating func noteEvent(_ text: String) {
        recentEvents.append(text)
        if recentEvents.count > 8 { recentEvents.removeFirst() }
    }

    private func leaseCount(_ id: String) -> Int { flight?.slots(of: id).count ?? 0 }

    private var stateName: String {
        switch phase {
        case .recovering: "waiting for the trainers of the last term"
        case .gathering: "waiting for trainers"
        case .loading: "trainers load the state"
        case .stepping, .committing: isDraining ? "draining" : "training"
        case .holding:
            if isDraining {
                "draining"
            } else if let awaitedScore {
                "waiting for the score of step \(awaitedScore)"
            } else {
                "waiting for a checkpoint"
            }
        case .finishing: pending == nil ? "waiting for evaluators" : "storing the last checkpoint"
        case .ended: "ended"
        }
    }
}

internal import Protocol

/// When triplets are mined anew while a run trains.
///
/// The round of step s is mined from the state after s updates, and its triplets are what steps s + 1 to
/// s + ``everySteps`` train on. Step s + 1 is not begun before they are there, so that they depend on nothing
/// but that state.
public struct MiningRounds: Codable, Sendable, Equatable {
    /// Steps of a round.
    public var everySteps: Int
    /// Whether a round is mined from a checkpoint; random triplets need none.
    public var needsCheckpoint: Bool

    /// Names both parts.
    public init(everySteps: Int, needsCheckpoint: Bool) {
        precondition(everySteps > 0, "rounds of \(everySteps) steps")
        self.everySteps = everySteps
        self.needsCheckpoint = needsCheckpoint
    }

    /// The round whose triplets a step trains on, by the step that it is mined at.
    ///
    /// - Parameter step: from 1.
    public func round(of step: Int) -> Int { (step - 1) / everySteps * everySteps }
}

extension CoordinatorStateMachine {
    /// Rounds that are remembered to be there; older ones are asked for again.
    static var roundsMax: Int { 8 }

    /// The round of mining that the next step waits for.
    var awaitedRound: Int? {
        guard let mining = configuration.mining, cursor < lastStep else { return nil }
        let round = mining.round(of: cursor + 1)
        return minedRounds.contains(round) ? nil : round
    }

    /// The last step whose samples are known.
    var lastSampledStep: Int {
        guard let mining = configuration.mining else { return lastStep }
        return min(lastStep, mining.round(of: cursor + 1) + mining.everySteps)
    }

    /// Sees to what a step that is held waits for: the checkpoint of the boundary, which no plan asks for,
    /// and the round.
    mutating func fetchAwaited(now: Duration) -> [CoordinatorAction] {
        let round = awaitedRound
        let needsState = configuration.mining?.needsCheckpoint == true && round == cursor
        if awaitedScore == cursor || needsState, isCheckpointStep(cursor), !isStored(cursor) {
            return pending == nil ? askForCheckpoint(recovery: false, now: now) : []
        }
        guard let round, askedRound != round else { return [] }
        askedRound = round
        return [.mine(step: round, of: durable.first { $0.step == round && !$0.isRecovery })]
    }

    /// A round's triplets are on disk, and ``StepSource`` knows them.
    public mutating func roundMined(step: Int, now: Duration) -> [CoordinatorAction] {
        if askedRound == step { askedRound = nil }
        minedRounds.removeAll { $0 == step }
        minedRounds.append(step)
        if minedRounds.count > Self.roundsMax { minedRounds.removeFirst() }
        guard case .holding = phase else { return [] }
        return boundary(now: now)
    }

    /// A round cannot be mined: nothing is trained on anything else.
    public mutating func roundFailed(step: Int, reason: String) -> [CoordinatorAction] {
        end(.failed("the triplets of step \(step) cannot be had: \(reason)"))
    }
}

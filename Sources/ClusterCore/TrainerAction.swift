public import Protocol

/// Effects of a trainer's decisions, carried out by its shell in order.
///
/// What takes time carries an `epoch`; its report repeats it, and a report of an earlier epoch
/// changes nothing.
public enum TrainerAction: Sendable, Equatable {
    /// Send a control message to the coordinator; the shell completes a HELLO with what it knows of
    /// this machine.
    case send(WireBody)
    /// Load settings, data set and engine, then report ``TrainerStateMachine/prepared(_:slotCount:epoch:)``.
    case prepare(WireWelcome, epoch: Int)
    /// Let go of state and step; get the state, then report ``TrainerStateMachine/stateLoaded(step:digest:epoch:)``.
    case load(WireLoadState, epoch: Int)
    /// Send the copy made for joiners to one of them.
    case donate(WireDonateState)
    /// Start decoding these mini-batches; those of the first step are needed first.
    case prefetch([WireStepSamples], slots: [Int])
    /// Compute these slots, reporting ``TrainerStateMachine/slotComputed(_:epoch:)`` for each.
    case compute(step: Int, slots: [Int], samples: WireStepSamples, epoch: Int)
    /// In a step that mines over all of its slots `compute` is their forward pass, reported by
    /// ``TrainerStateMachine/slotEmbedded(_:epoch:)``; this is the loss of the step and their backward
    /// pass.
    case backward(step: Int, slots: [Int], epoch: Int)
    /// These slots are computed elsewhere: what has not begun need not begin.
    case cancel(step: Int, slots: [Int])
    /// Open the exchange of a step; parked data of it can be taken in.
    case openExchange(step: Int, history: UInt64, peers: [WireMember])
    /// Members or listeners changed: connect to whoever is new.
    case peersChanged([WireMember])
    /// Forget partials and finished blocks of the step, not the slots but for those that are computed
    /// again: it is folded once more.
    case refold(step: Int, without: [Int])
    /// Take in what came for a later fold of the step, or for the step, before its time.
    case takeParked(step: Int)
    /// Carry out what the exchange decided.
    case exchange(ExchangeStateMachine.Action)
    /// Carry out what was decided about embeddings.
    case gather(GatherStateMachine.Action)
    /// Digest the complete effect, then report ``TrainerStateMachine/effectDigested(step:fold:digest:state:epoch:)``.
    case digestEffect(step: Int, fold: Int, scalars: WireStepScalars, epoch: Int)
    /// Change the state by the staged effect, then report ``TrainerStateMachine/applied(step:epoch:)``.
    case apply(step: Int, scalars: WireStepScalars, epoch: Int)
    /// Copy the state aside before the next apply; send it when `send` is set.
    case snapshot(step: Int, recovery: Bool, send: Bool)
    /// Send the copy made before.
    case sendSnapshot(step: Int, recovery: Bool)
    /// The copy is no longer needed.
    case releaseSnapshot(step: Int)
    /// Copy the state aside for joiners before the next apply.
    case keepForJoiners(step: Int)
    /// Joiners have what they need.
    case releaseForJoiners(step: Int)
    /// Digest the whole state before the next apply, then report ``TrainerStateMachine/stateDigested(step:digest:epoch:)``.
    case digestState(step: Int, epoch: Int)
    /// Something that people should know.
    case note(String)
    /// The trainer's work is over.
    case leave(WireStop)
    /// The coordinator does not want this worker.
    case refused(WireRefusal)
    /// Something is wrong with this worker's state: say so and leave.
    case fail(String)
}

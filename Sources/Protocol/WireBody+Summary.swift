/// What a control message says, in a few words: for records and traces.
extension WireEnvelope.OneOf_Body {
    /// Its name and the numbers by which it is told from others.
    public var summary: String {
        switch self {
        case .hello(let m):
            "HELLO \(m.role) state \(m.hasState_p ? String(m.stateStep) : "none") staged "
                + (m.hasStaged_p ? String(m.stagedStep) : "none")
        case .prepared: "PREPARED"
        case .slotDone(let m): "SLOT_DONE step \(m.step) slot \(m.slot) attempt \(m.attempt)"
        case .ready(let m): "READY step \(m.step) generation \(m.generation) term \(m.term)"
        case .progress(let m): "PROGRESS step \(m.step) \(m.phase)"
        case .stateLoaded(let m): "LOADED step \(m.step) number \(m.number)"
        case .slotReturned(let m): "SLOT_RETURNED step \(m.step) slot \(m.slot)"
        case .goodbye(let m): "GOODBYE\(m.drain ? " drain" : "") \(m.reason)"
        case .evaluationPoll(let m): "POLL\(m.idle ? " idle" : "")"
        case .evaluationRows(let m): "ROWS step \(m.step) \(m.set)"
        case .checkpointFailed(let m): "CHECKPOINT_FAILED step \(m.step)"
        case .stateAwaited(let m): "AWAITED number \(m.number)"
        case .slotDetail(let m): "SLOT_DETAIL step \(m.step) slot \(m.slot) first \(m.first)"
        case .welcome(let m): "WELCOME term \(m.term)"
        case .refusal(let m): "REFUSAL \(m.message)"
        case .loadState(let m): "LOAD step \(m.step) number \(m.number) \(m.source)"
        case .plan(let m):
            "PLAN step \(m.step) generation \(m.generation) fold \(m.fold) members "
                + "\(m.members.count) leases \(m.leases.count)"
        case .commit(let m): "COMMIT step \(m.step) digest \(m.digest)"
        case .evaluationGrant(let m): "GRANT step \(m.step) sets \(m.sets.count)"
        case .evaluationAck(let m): "ACK step \(m.step) \(m.set)"
        case .stop(let m): "STOP \(m.reason) \(m.message)"
        case .status(let m): "STATUS step \(m.step)"
        case .sendCheckpoint(let m): "SEND_CHECKPOINT step \(m.step)"
        case .releaseCheckpoint(let m): "RELEASE_CHECKPOINT step \(m.step)"
        case .admission(let m): "ADMISSION of \(m.trainers.count) keys"
        case .donateState(let m): "DONATE step \(m.step) to \(m.worker)"
        }
    }
}

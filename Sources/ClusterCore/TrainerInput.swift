public import Basics
public import Protocol

/// Everything that a trainer's machine is told.
public enum TrainerInput: Sendable {
    /// A connection to the coordinator is there.
    case connectionOpened
    /// It is gone.
    case connectionClosed
    /// Time has passed.
    case tick
    /// A signal asks to leave.
    case drain
    /// A control message.
    case received(WireBody)
    /// Data set and engine are there.
    case prepared(
        WirePrepared, slotCount: Int, audit: Audit = .none, minesStep: Bool = false, epoch: Int)
    /// The state is there.
    case stateLoaded(step: Int, digest: UInt64, epoch: Int)
    /// The state did not come.
    case loadFailed(String, epoch: Int)
    /// A piece of the state has come.
    case statePieceReceived
    /// Something takes long.
    case stillBusy
    /// A slot is computed.
    case slotComputed(WireSlotDone, epoch: Int)
    /// A slot's forward pass is done, in a step that mines over all of its slots.
    case slotEmbedded(WireSlotDone, epoch: Int)
    /// Embeddings of a slot were kept.
    case embeddingsReceived(Int, from: String)
    /// A peer lacks embeddings of slots.
    case embeddingsWanted([Int], by: String)
    /// A slot could not be computed.
    case slotFailed(step: Int, slot: Int, reason: String, diverged: Bool, epoch: Int)
    /// A partial was kept.
    case partialReceived(Int, run: SlotRun)
    /// A finished block was kept.
    case resultReceived(Int, digest: UInt64)
    /// A block was folded a second time.
    case blockAudited(Int, digest: UInt64)
    /// A peer lacks blocks.
    case wanted([Int], partials: Bool, by: String)
    /// The data connection to a peer broke and is there again.
    case peerReconnected(String)
    /// The effect is digested.
    case effectDigested(step: Int, fold: Int, digest: UInt64, state: UInt64, epoch: Int)
    /// The effect is applied.
    case applied(step: Int, epoch: Int)
    /// The whole state is digested.
    case stateDigested(step: Int, digest: UInt64, epoch: Int)
}

extension TrainerStateMachine: RecordedMachine {
    /// Whose machine it is.
    public static var role: FlightRole { .trainer }

    /// Decides what follows from one input.
    public mutating func handle(_ input: TrainerInput, now: Duration) -> [TrainerAction] {
        switch input {
        case .connectionOpened: return connectionOpened(now: now)
        case .connectionClosed:
            connectionClosed()
            return []
        case .tick: return tick(now: now)
        case .drain: return drain()
        case .received(let body): return received(body, now: now)
        case .prepared(let message, let slotCount, let audit, let minesStep, let epoch):
            return prepared(
                message, slotCount: slotCount, audit: audit, minesStep: minesStep, epoch: epoch)
        case .stateLoaded(let step, let digest, let epoch):
            return stateLoaded(step: step, digest: digest, epoch: epoch)
        case .loadFailed(let reason, let epoch): return loadFailed(reason, epoch: epoch)
        case .statePieceReceived:
            statePieceReceived()
            return []
        case .stillBusy:
            stillBusy()
            return []
        case .slotComputed(let done, let epoch): return slotComputed(done, epoch: epoch)
        case .slotEmbedded(let done, let epoch): return slotEmbedded(done, epoch: epoch)
        case .embeddingsReceived(let slot, let peer): return embeddingsReceived(slot, from: peer)
        case .embeddingsWanted(let slots, let peer): return embeddingsWanted(slots, by: peer)
        case .slotFailed(let step, let slot, let reason, let diverged, let epoch):
            return slotFailed(
                step: step, slot: slot, reason: reason, diverged: diverged, epoch: epoch)
        case .partialReceived(let block, let run): return partialReceived(block, run: run)
        case .resultReceived(let block, let digest): return resultReceived(block, digest: digest)
        case .blockAudited(let block, let digest): return blockAudited(block, digest: digest)
        case .wanted(let blocks, let partials, let peer):
            return wanted(blocks, partials: partials, by: peer)
        case .peerReconnected(let peer): return peerReconnected(peer)
        case .effectDigested(let step, let fold, let digest, let state, let epoch):
            return effectDigested(
                step: step, fold: fold, digest: digest, state: state, epoch: epoch)
        case .applied(let step, let epoch): return applied(step: step, epoch: epoch)
        case .stateDigested(let step, let digest, let epoch):
            stateDigested(step: step, digest: digest, epoch: epoch)
            return []
        }
    }

    /// Writes an input down.
    public static func write(_ input: TrainerInput, into writer: inout FlightWriter) {
        switch input {
        case .connectionOpened: writer.put(UInt8(1))
        case .connectionClosed: writer.put(UInt8(2))
        case .tick: writer.put(UInt8(3))
        case .drain: writer.put(UInt8(4))
        case .received(let body):
            writer.put(UInt8(5))
            writer.put(body)
        case .prepared(let message, let slotCount, let audit, let minesStep, let epoch):
            writer.put(UInt8(6))
            writer.put(.prepared(message))
            writer.put(slotCount)
            writer.put(audit.seed)
            writer.put(audit.fraction.bitPattern)
            writer.put(UInt8(minesStep ? 1 : 0))
            writer.put(epoch)
        case .stateLoaded(let step, let digest, let epoch):
            writer.put(UInt8(7))
            writer.put(step)
            writer.put(digest)
            writer.put(epoch)
        case .loadFailed(let reason, let epoch):
            writer.put(UInt8(8))
            writer.put(reason)
            writer.put(epoch)
        case .statePieceReceived: writer.put(UInt8(9))
        case .stillBusy: writer.put(UInt8(10))
        case .slotComputed(let done, let epoch):
            writer.put(UInt8(11))
            writer.put(.slotDone(done))
            writer.put(epoch)
        case .slotEmbedded(let done, let epoch):
            writer.put(UInt8(20))
            writer.put(.slotDone(done))
            writer.put(epoch)
        case .embeddingsReceived(let slot, let peer):
            writer.put(UInt8(21))
            writer.put(slot)
            writer.put(peer)
        case .embeddingsWanted(let slots, let peer):
            writer.put(UInt8(22))
            put(slots, into: &writer)
            writer.put(peer)
        case .slotFailed(let step, let slot, let reason, let diverged, let epoch):
            writer.put(UInt8(12))
            writer.put(step)
            writer.put(slot)
            writer.put(reason)
            writer.put(UInt8(diverged ? 1 : 0))
            writer.put(epoch)
        case .partialReceived(let block, let run):
            writer.put(UInt8(13))
            writer.put(block)
            writer.put(run.low)
            writer.put(run.high)
        case .resultReceived(let block, let digest):
            writer.put(UInt8(14))
            writer.put(block)
            writer.put(digest)
        case .blockAudited(let block, let digest):
            writer.put(UInt8(18))
            writer.put(block)
            writer.put(digest)
        case .wanted(let blocks, let partials, let peer):
            writer.put(UInt8(15))
            put(blocks, into: &writer)
            writer.put(UInt8(partials ? 1 : 0))
            writer.put(peer)
        case .peerReconnected(let peer):
            writer.put(UInt8(19))
            writer.put(peer)
        case .effectDigested(let step, let fold, let digest, let state, let epoch):
            writer.put(UInt8(16))
            writer.put(step)
            writer.put(fold)
            writer.put(digest)
            writer.put(state)
            writer.put(epoch)
        case .applied(let step, let epoch):
            writer.put(UInt8(17))
            writer.put(step)
            writer.put(epoch)
        case .stateDigested(let step, let digest, let epoch):
            writer.put(UInt8(23))
            writer.put(step)
            writer.put(digest)
            writer.put(epoch)
        }
    }

    private static func put(_ numbers: [Int], into writer: inout FlightWriter) {
        writer.put(numbers.count)
        for number in numbers { writer.put(number) }
    }

    private static func numbers(_ reader: inout FlightReader) throws -> [Int] {
        let count = try reader.number()
        guard count >= 0, count <= 1 << 20 else { throw FlightError("a list of \(count)") }
        return try (0..<count).map { _ in try reader.number() }
    }

    private static func slotDone(_ reader: inout FlightReader) throws -> WireSlotDone {
        guard case .slotDone(let done) = try reader.body() else {
            throw FlightError("SLOT_DONE is another message")
        }
        return done
    }

    /// Reads an input.
    public static func read(
        _ reader: inout FlightReader, earlier: [TrainerAction]
    ) throws -> TrainerInput {
        switch try reader.byte() {
        case 1: return .connectionOpened
        case 2: return .connectionClosed
        case 3: return .tick
        case 4: return .drain
        case 5: return .received(try reader.body())
        case 6:
            guard case .prepared(let message) = try reader.body() else {
                throw FlightError("PREPARED is another message")
            }
            let slotCount = try reader.number()
            let audit = Audit(
                seed: try reader.word(), fraction: Double(bitPattern: try reader.word()))
            let minesStep = try reader.flag()
            return .prepared(
                message, slotCount: slotCount, audit: audit, minesStep: minesStep,
                epoch: try reader.number())
        case 7:
            let (step, digest) = (try reader.number(), try reader.word())
            return .stateLoaded(step: step, digest: digest, epoch: try reader.number())
        case 8:
            let reason = try reader.text()
            return .loadFailed(reason, epoch: try reader.number())
        case 9: return .statePieceReceived
        case 10: return .stillBusy
        case 11:
            let done = try slotDone(&reader)
            return .slotComputed(done, epoch: try reader.number())
        case 20:
            let done = try slotDone(&reader)
            return .slotEmbedded(done, epoch: try reader.number())
        case 21:
            let slot = try reader.number()
            return .embeddingsReceived(slot, from: try reader.text())
        case 22:
            let slots = try numbers(&reader)
            return .embeddingsWanted(slots, by: try reader.text())
        case 12:
            let (step, slot, reason) = (
                try reader.number(), try reader.number(), try reader.text()
            )
            let diverged = try reader.flag()
            return .slotFailed(
                step: step, slot: slot, reason: reason, diverged: diverged,
                epoch: try reader.number())
        case 13:
            let (block, low, high) = (
                try reader.number(), try reader.number(), try reader.number()
            )
            guard 0 <= low, low < high else { throw FlightError("an empty slot run") }
            return .partialReceived(block, run: SlotRun(low, high))
        case 14:
            let block = try reader.number()
            return .resultReceived(block, digest: try reader.word())
        case 18:
            let block = try reader.number()
            return .blockAudited(block, digest: try reader.word())
        case 15:
            let blocks = try numbers(&reader)
            let partials = try reader.flag()
            return .wanted(blocks, partials: partials, by: try reader.text())
        case 19: return .peerReconnected(try reader.text())
        case 16:
            let (step, fold) = (try reader.number(), try reader.number())
            let (digest, state) = (try reader.word(), try reader.word())
            return .effectDigested(
                step: step, fold: fold, digest: digest, state: state, epoch: try reader.number())
        case 17:
            let step = try reader.number()
            return .applied(step: step, epoch: try reader.number())
        case 23:
            let (step, digest) = (try reader.number(), try reader.word())
            return .stateDigested(step: step, digest: digest, epoch: try reader.number())
        case let other: throw FlightError("an input of kind \(other), unknown to this version")
        }
    }

    /// An input in a few words.
    public static func summary(of input: TrainerInput) -> String {
        switch input {
        case .connectionOpened: "connected"
        case .connectionClosed: "connection closed"
        case .tick: "tick"
        case .drain: "asked to stop"
        case .received(let body): "coordinator: \(body.summary)"
        case .prepared: "data set and engine are there"
        case .stateLoaded(let step, let digest, _): "state of step \(step), digest \(digest)"
        case .loadFailed(let why, _): "no state: \(why)"
        case .statePieceReceived: "a piece of the state"
        case .stillBusy: "still busy"
        case .slotComputed(let done, _): "computed slot \(done.slot) of step \(done.step)"
        case .slotEmbedded(let done, _): "embedded slot \(done.slot) of step \(done.step)"
        case .embeddingsReceived(let slot, let peer): "embeddings of slot \(slot) from \(peer)"
        case .embeddingsWanted(let slots, let peer): "\(peer) wants embeddings of slots \(slots)"
        case .slotFailed(let step, let slot, let why, _, _): "slot \(slot) of step \(step): \(why)"
        case .partialReceived(let block, let run): "partial of block \(block), slots \(run)"
        case .resultReceived(let block, let digest): "block \(block), digest \(digest)"
        case .blockAudited(let block, let digest): "second fold of block \(block) is \(digest)"
        case .wanted(let blocks, let partials, let peer):
            "\(peer) wants \(blocks.count) \(partials ? "partials" : "blocks")"
        case .peerReconnected(let peer): "connected to \(peer) again"
        case .effectDigested(let step, _, let digest, _, _): "effect of step \(step) is \(digest)"
        case .applied(let step, _): "applied step \(step)"
        case .stateDigested(let step, let digest, _):
            "the whole state of step \(step) is \(digest)"
        }
    }

    /// A decision in a few words.
    public static func summary(of action: TrainerAction) -> String {
        switch action {
        case .send(let body): "send \(body.summary)"
        case .prepare(_, let epoch): "prepare, epoch \(epoch)"
        case .load(let load, let epoch): "load step \(load.step) \(load.source), epoch \(epoch)"
        case .donate(let donation): "donate step \(donation.step) to \(donation.worker)"
        case .prefetch(let steps, let slots): "prefetch \(steps.count) steps, slots \(slots)"
        case .compute(let step, let slots, _, let epoch):
            "compute slots \(slots) of step \(step), epoch \(epoch)"
        case .backward(let step, let slots, let epoch):
            "loss and backward of slots \(slots) of step \(step), epoch \(epoch)"
        case .cancel(let step, let slots): "cancel slots \(slots) of step \(step)"
        case .openExchange(let step, _, let peers):
            "open the exchange of step \(step) with \(peers.count)"
        case .peersChanged(let peers): "now \(peers.count) peers"
        case .refold(let step, let slots):
            "fold step \(step) again\(slots.isEmpty ? "" : ", without slots \(slots)")"
        case .takeParked(let step): "take what was parked for step \(step)"
        case .exchange(let exchange): summary(of: exchange)
        case .gather(.send(let slots, let peers)):
            "send embeddings of slots \(slots) to \(peers.count)"
        case .gather(.want(let slots, let peer)): "want embeddings of slots \(slots) from \(peer)"
        case .gather(.forget(let slots)): "forget embeddings of slots \(slots)"
        case .gather(.startOver): "forget all embeddings and gradients"
        case .digestEffect(let step, let fold, _, _): "digest the effect of step \(step), \(fold)"
        case .apply(let step, _, let epoch): "apply step \(step), epoch \(epoch)"
        case .snapshot(let step, _, let send):
            "copy the state of step \(step)\(send ? ", send" : "")"
        case .sendSnapshot(let step, _): "send the state of step \(step)"
        case .releaseSnapshot(let step): "drop the copy of step \(step)"
        case .keepForJoiners(let step): "keep step \(step) for joiners"
        case .releaseForJoiners(let step): "drop step \(step) for joiners"
        case .digestState(let step, _): "digest the whole state of step \(step)"
        case .note(let text): "note: \(text)"
        case .leave(let stop): "leave: \(stop.message)"
        case .refused(let refusal): "refused: \(refusal.message)"
        case .fail(let why): "fail: \(why)"
        }
    }

    private static func summary(of exchange: ExchangeStateMachine.Action) -> String {
        switch exchange {
        case .sendPartial(let run, let blocks, let peer):
            "send \(blocks.count) partials of slots \(run) to \(peer)"
        case .keepPartial(let run, let blocks): "keep \(blocks.count) partials of slots \(run)"
        case .combine(let block, let left, let right):
            "combine block \(block), \(left) and \(right)"
        case .finish(let blocks): "finish \(blocks.count) blocks"
        case .broadcast(let blocks, let peers): "send \(blocks.count) blocks to \(peers.count)"
        case .audit(let blocks): "fold \(blocks.count) blocks a second time"
        case .complete: "the effect is complete"
        case .wantPartials(let blocks, let peer): "want \(blocks.count) partials from \(peer)"
        case .wantResults(let blocks, let peer): "want \(blocks.count) blocks from \(peer)"
        }
    }

    /// Whether a later input answers this decision by naming it.
    public static func isAnswered(_ action: TrainerAction) -> Bool { false }

    /// Whether this input answers such a decision.
    public static func isAnswer(_ input: TrainerInput) -> Bool { false }
}

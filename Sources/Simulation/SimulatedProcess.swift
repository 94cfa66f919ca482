internal import Basics
internal import Protocol

#if PLANTED_BUGS
    internal import ClusterCorePlanted
#else
    internal import ClusterCore
#endif

/// What trainers send each other.
enum Packet {
    case partial(step: Int, history: UInt64, fold: Int, block: Int, SlotRun, UInt64)
    case result(step: Int, history: UInt64, fold: Int, block: Int, UInt64)
    case want(step: Int, history: UInt64, fold: Int, blocks: [Int], partials: Bool)
    case embeddings(step: Int, history: UInt64, fold: Int, slot: Int, UInt64)
    case wantEmbeddings(step: Int, history: UInt64, slots: [Int])
    case state(step: Int, piece: Int, UInt64)

    /// What it is, whoever sends it; nil for what is never kept for later.
    var name: Name? {
        switch self {
        case .partial(let step, _, let fold, let block, let run, _):
            Name(step: step, fold: fold, block: block, run: run)
        case .result(let step, _, let fold, let block, _):
            Name(step: step, fold: fold, block: block, run: nil)
        case .embeddings(let step, _, let fold, let slot, _):
            Name(step: step, fold: fold, block: slot, run: nil, isEmbeddings: true)
        case .want, .wantEmbeddings, .state: nil
        }
    }

    struct Name: Hashable {
        let step: Int
        let fold: Int
        /// Or the slot.
        let block: Int
        /// Nil for a finished block and for embeddings.
        let run: SlotRun?
        var isEmbeddings = false
    }
}

/// Copies of a state, kept aside.
struct StateCopy {
    let state: UInt64
    let history: UInt64
}

/// A bit that flipped at a trainer.
struct Flip: Hashable {
    let step: Int
    let trainer: String
}

/// The model of what a trainer's shell holds and does.
struct TrainerModel {
    var machine: TrainerStateMachine
    var state: UInt64 = 0
    var slots: [Int: UInt64] = [:]
    /// Embeddings of slots that were computed here, and those that were received.
    var embedded: [Int: UInt64] = [:]
    var received: [Int: UInt64] = [:]
    var partials: [Int: [SlotRun: UInt64]] = [:]
    var effect: [Int: UInt64] = [:]
    var copies: [Int: StateCopy] = [:]
    var kept: [Int: StateCopy] = [:]
    var sending: Set<Int> = []
    var parked: [(packet: Packet, from: Int)] = []
    var parkedNames: Set<Packet.Name> = []
    /// Pieces of the state that have come from a peer, by their number.
    var pieces: [Int: UInt64] = [:]
    var awaitedEpoch: Int?
    var loadStep = 0
    var busyUntil: Int64 = 0
    /// What its last READY said.
    var ready: WireReady?
    var numerics = "class"
    var version = "test"
    /// What another numerics class changes in every slot.
    var wrongness: UInt64 { numerics == "class" ? 0 : 1 }
    /// Whether a bit flips in every effect, as with broken memory.
    var isFaulty = false
    /// Until then it cannot read its samples.
    var unreadableUntil: Int64 = 0
    /// Step of the last slot that it handed back.
    var returnedStep = 0
    /// A bit that flips in the next effect.
    var flip: UInt64 = 0
    /// A bit that flips in the next slot that somebody else computes too.
    var slotFlip: UInt64 = 0
    /// Whether a bit flips in the next such slot once it is digested, and slots where one has.
    var flipsSealed = false
    var damagedSlots: Set<Int> = []
    /// A bit that flips in the next block that somebody else folds too.
    var foldFlip: UInt64 = 0
    /// A bit that flips in the next copy of the state.
    var copyFlip: UInt64 = 0
    /// Whether its state came from a peer, and from a copy in which a bit had flipped.
    var isFromPeer = false
    var isMisled = false
    /// Blocks of the effect that are no longer what was folded.
    var flippedBlocks: Set<Int> = []
}

/// The model of what an evaluator's shell holds and does.
struct EvaluatorModel {
    var machine: EvaluatorStateMachine
    var scoringLeft = 0
}

/// A connection between a worker and a coordinator.
final class ControlLink {
    let id: Int
    let worker: Int
    let coordinator: Int
    var isOpenAtWorker = false
    var isOpenAtCoordinator = false
    /// Carries nothing any more, and nobody is told.
    var isDead = false
    var lastUp: Int64 = 0
    var lastDown: Int64 = 0

    init(id: Int, worker: Int, coordinator: Int) {
        self.id = id
        self.worker = worker
        self.coordinator = coordinator
    }
}

/// A data connection from one trainer to another.
struct Lane {
    /// When the last message arrives that keeps its place.
    var last: Int64 = 0
    /// Until then nothing arrives, and nothing can be sent.
    var brokenUntil: Int64 = 0

    static func key(_ from: Int, _ to: Int) -> UInt64 { UInt64(from) << 32 | UInt64(to) }
}

/// A trainer or evaluator.
final class WorkerProcess {
    let index: Int
    let name: String
    var trainer: TrainerModel?
    var evaluator: EvaluatorModel?
    var isAlive = true
    var diedAt: Int64 = 0
    var haltedUntil: Int64 = 0
    var skew: Int64 = 0
    var link: ControlLink?
    /// Microseconds for a slot.
    let slotTime: Int64
    var dripUntil: Int64 = 0
    let bornAt: Int64
    var drainedAt: Int64?

    init(index: Int, name: String, slotTime: Int64, bornAt: Int64) {
        self.index = index
        self.name = name
        self.slotTime = slotTime
        self.bornAt = bornAt
    }
}

/// A coordinator with the ledger's term that it began.
final class CoordinatorProcess {
    let index: Int
    let term: UInt64
    var machine: CoordinatorStateMachine
    var isAlive = true
    var haltedUntil: Int64 = 0
    var skew: Int64 = 0
    var awake = AwakeClock()
    var links: [Int: ControlLink] = [:]
    /// Pieces of checkpoints under way, by name.
    var incoming: [String: Int] = [:]

    init(index: Int, term: UInt64, machine: CoordinatorStateMachine) {
        self.index = index
        self.term = term
        self.machine = machine
    }
}

#if PLANTED_BUGS
    public import ClusterCorePlanted
#else
    public import ClusterCore
#endif

/// What may go wrong in a simulated cluster.
public enum Fault: String, CaseIterable, Sendable {
    /// Single messages vanish, as at a high-water mark.
    case loss
    /// Messages are late by up to seconds.
    case delay
    /// Messages arrive twice.
    case duplication
    /// Messages overtake each other.
    case reordering
    /// One direction between two processes carries nothing for a while.
    case partition
    /// A connection breaks, to the coordinator or between trainers; what was on its way is lost.
    case reset
    /// A connection carries nothing more, and neither side is told for a while.
    case halfOpen = "half-open"
    /// A process's messages trickle.
    case drip
    /// A trainer or evaluator dies.
    case crash
    /// The coordinator dies.
    case coordinatorCrash = "coordinator-crash"
    /// A process is halted for longer than any lease.
    case pause
    /// A process's clock jumps forward.
    case clockJump = "clock-jump"
    /// The coordinator's disk is full for a while: for checkpoints, or for the ledger too.
    case diskFull = "disk-full"
    /// A crash damages what was being written.
    case tornWrite = "torn-write"
    /// A trainer cannot read its samples for a while, and hands slots back.
    case badData = "bad-data"
    /// A bit flips in memory: in a slot or a fold that is audited, or in what a trainer has staged.
    case bitFlip = "bit-flip"
    /// Every trainer dies at once, between commit and apply where that can be had.
    case allHoldersDie = "all-holders-die"
    /// A worker of another numerics class wants to take part.
    case wrongNumerics = "wrong-numerics"
    /// Many trainers come at once.
    case massJoin = "mass-join"
    /// Many trainers leave at once, some asking first.
    case massLeave = "mass-leave"
    /// A second coordinator starts while the first is halted, and both go on.
    case twoCoordinators = "two-coordinators"
    /// A worker of an older version comes.
    case oldVersion = "old-version"
    /// Strangers and workers send what no machine of ours would.
    case hostile
}

/// What faults are meant to bring about: counted, so that a test can tell that they do.
public enum Occurrence: String, CaseIterable, Sendable {
    /// The coordinator dies when a step is in the ledger and nobody has been told.
    case crashBeforeCommit = "crash before COMMIT"
    /// The coordinator dies while a step that is done again is compared.
    case crashBeforeComparison = "crash before a comparison"
    /// The coordinator dies when a checkpoint is written and not renamed.
    case crashBeforeRename = "crash before a rename"
    /// The coordinator dies when a checkpoint's file is there and its row is not.
    case crashBeforeRow = "crash before a checkpoint's row"
    /// The coordinator dies when a checkpoint is deleted in the ledger and its file is there.
    case crashBeforeRemoval = "crash before a removal"
    /// A trainer's connection to another is there again, and it has something to say again.
    case laneOpened = "data said again"
    /// A coordinator ends because its ledger cannot be written.
    case ledgerFailed = "ledger not written"
    /// A trainer hands a slot back.
    case slotReturned = "slot handed back"

    /// Those that the coordinator can be made to die at.
    static let crashes: [Occurrence] = [
        .crashBeforeCommit, .crashBeforeComparison, .crashBeforeRename, .crashBeforeRow,
        .crashBeforeRemoval,
    ]
}

/// A simulated cluster and what happens to it; equal configurations run equally.
public struct SimulationConfiguration: Sendable {
    /// Seed of everything that is drawn.
    public var seed: UInt64
    /// Trainers at the start.
    public var trainers: Int
    /// Evaluators at the start.
    public var evaluators: Int
    /// Slots in a step.
    public var slots: Int
    /// Optimizer steps of the run.
    public var steps: Int
    /// Blocks of an effect.
    public var blocks: Int
    /// Steps between checkpoints.
    public var checkpointEvery: Int
    /// Share of slots and folds that two trainers compute.
    public var auditFraction: Double
    /// Whether steps mine over all of their slots, and so have two phases.
    public var minesStep: Bool
    /// Steps between rounds of mining, a multiple of ``checkpointEvery``; 0 mines none.
    public var miningEvery: Int
    /// What a trainer takes for a slot, drawn for each; every slot takes 0.8 to 1.3 times as long.
    public var slotMilliseconds: ClosedRange<Int>
    /// Which checkpoints stay on disk; drawn from the seed where it is not given.
    public var retention: CheckpointRetention
    /// What may go wrong.
    public var faults: Set<Fault>
    /// Keeps the last events as text.
    public var isTraced: Bool

    /// Describes a cluster; slots follow the trainers where they are not given.
    public init(
        seed: UInt64, trainers: Int, evaluators: Int = 1, slots: Int? = nil, steps: Int,
        blocks: Int = 3, checkpointEvery: Int = 10, auditFraction: Double = 0,
        minesStep: Bool = false, miningEvery: Int = 0, slotMilliseconds: ClosedRange<Int> = 20...79,
        faults: Set<Fault> = Set(Fault.allCases),
        isTraced: Bool = false
    ) {
        self.seed = seed
        self.trainers = trainers
        self.evaluators = evaluators
        self.slots = slots ?? max(1, min(trainers, 256))
        self.steps = steps
        self.blocks = blocks
        self.checkpointEvery = checkpointEvery
        self.auditFraction = auditFraction
        self.minesStep = minesStep
        self.miningEvery = miningEvery
        self.slotMilliseconds = slotMilliseconds
        retention = CheckpointRetention(
            last: 1 + Int(seed % 3), everySteps: seed % 2 == 0 ? 0 : 4 * checkpointEvery,
            best: Int(seed % 4),
            ranking: .init(
                set: "val_eval", metric: "general_accuracy", isLargerBetter: seed % 5 < 2),
            unscored: 2 + Int(seed % 7))
        self.faults = faults
        self.isTraced = isTraced
    }
}

extension SimulationConfiguration {
    var mining: MiningRounds? {
        miningEvery > 0 ? MiningRounds(everySteps: miningEvery, needsCheckpoint: true) : nil
    }

    var audit: Audit { Audit(seed: seed, fraction: auditFraction) }

    /// The share that a seed draws where none is asked for: none for half of the seeds.
    public static func drawnAuditFraction(seed: UInt64) -> Double {
        [0, 0.1, 0, 1][Int(seed / 3 % 4)]
    }

    /// Whether a seed's steps mine over all of their slots, where nothing is asked for: a third do.
    public static func drawnMinesStep(seed: UInt64) -> Bool { seed / 2 % 3 == 1 }
}

/// A promise that was broken.
public struct Violation: Error, Sendable, CustomStringConvertible {
    /// Name in the list of invariants: `S1` to `S13`, `L1` to `L3`.
    public let invariant: String
    /// What was seen.
    public let text: String
    /// Seconds of simulated time.
    public let seconds: Double

    /// One line.
    public var description: String {
        "\(invariant) at \(String(Int(seconds * 1000))) ms: \(text)"
    }
}

/// What came of a simulated run.
public struct SimulationResult: Sendable {
    /// The first broken promise.
    public var violation: Violation?
    /// Steps in the ledger.
    public var steps: Int
    /// Events handled.
    public var events: Int
    /// Simulated seconds.
    public var seconds: Double
    /// How often each fault struck.
    public var strikes: [Fault: Int]
    /// How often each came about.
    public var occurrences: [Occurrence: Int]
    /// Bits that flipped in slots and folds while two trainers computed them.
    public var auditedFlips: Int
    /// Those whose trainer was named.
    public var auditedFlipsNamed: Int
    /// Checkpoints that came with a bit flipped, and were not stored.
    public var copiesRefused: Int
    /// Coordinator starts.
    public var terms: Int
    /// Slots computed, also those computed again.
    public var slotsComputed: Int
    /// Steps done again after a loss of state.
    public var stepsRedone: Int
    /// The last events, when traced.
    public var trace: [String]
}

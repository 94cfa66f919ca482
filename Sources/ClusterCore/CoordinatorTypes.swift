public import Protocol

/// What the coordinator decides by, fixed for its lifetime.
public struct CoordinatorConfiguration: Codable, Sendable {
    /// Run id, in every frame.
    public var run: UInt64
    /// Digest of the data set; a worker with another one is refused.
    public var datasetDigest: UInt64
    /// `batch.mini_batches_per_step`.
    public var slotCount: Int
    /// `schedule.steps`.
    public var totalSteps: Int
    /// `checkpoint.every_steps`; 0 stores the first and the last alone.
    public var checkpointEverySteps: Int
    /// `checkpoint.max_lag_steps`.
    public var checkpointMaxLagSteps: Int
    /// `evaluation.sets`.
    public var evaluationSets: [String]
    /// How long an idle evaluator is waited for at the end of a run.
    public var evaluationTimeout: Duration
    /// Trainers to wait for before the first step.
    public var expectedTrainers: Int
    /// Evaluators that somebody started; the end of the run waits for them to come.
    public var expectedEvaluators: Int
    /// How long they are waited for once the first is prepared.
    public var startPatience: Duration
    /// A worker silent for longer is let go, and so is a member that alone holds up a step.
    public var silenceMax: Duration
    /// A member that is silent for longer is not waited for: where it was heard regularly, a few of its
    /// usual gaps are enough, within these bounds.
    public var suspicion: ClosedRange<Duration>
    /// How long a member whose connection broke stays one.
    public var reconnectGrace: Duration
    /// How long a new term waits for the trainers of the last one.
    public var returnPatience: Duration
    /// What a worker lacks is said again after this time.
    public var repeatInterval: Duration
    /// `checkpoint.recovery_seconds`: how much work may be lost at most when every trainer dies; nil
    /// takes no recovery snapshots.
    public var recoveryInterval: Duration?
    /// Which checkpoints stay on disk; nil keeps all.
    public var retention: CheckpointRetention?
    /// What scores decide; nil where training does not depend on them.
    public var decisions: DecisionRule?
    /// When triplets are mined anew; nil where training goes by none that are.
    public var mining: MiningRounds?
    /// Steps whose samples go out ahead of their plan.
    public var stepsAhead: Int
    /// What two workers compute.
    public var audit: Audit
    /// Sees when embeddings collapse; nil for losses of which that cannot be said.
    public var collapse: CollapseDetector?
    /// Whether a step mines over all of its slots, and so has two phases.
    public var minesStep: Bool
    /// Whether a worker of another numerics class is refused (`bitwise`) or noted.
    public var isBitwise: Bool
    /// This Lineup, compared in HELLO.
    public var lineupVersion: String

    /// The defaults are those of `lineup coordinator`.
    public init(
        run: UInt64, datasetDigest: UInt64, slotCount: Int, totalSteps: Int,
        checkpointEverySteps: Int,
        checkpointMaxLagSteps: Int, evaluationSets: [String], evaluationTimeout: Duration,
        expectedTrainers: Int = 1, expectedEvaluators: Int = 0,
        startPatience: Duration = .seconds(60), silenceMax: Duration = .seconds(5),
        suspicion: ClosedRange<Duration> = .milliseconds(300) ... .seconds(1),
        reconnectGrace: Duration = .milliseconds(100),
        returnPatience: Duration = .seconds(1),
        repeatInterval: Duration = .milliseconds(500),
        recoveryInterval: Duration? = .seconds(60), retention: CheckpointRetention? = nil,
        decisions: DecisionRule? = nil, mining: MiningRounds? = nil, stepsAhead: Int = 3,
        audit: Audit = .none,
        collapse: CollapseDetector? = nil, minesStep: Bool = false,
        isBitwise: Bool = true,
        lineupVersion: String
    ) {
        self.run = run
        self.datasetDigest = datasetDigest
        self.slotCount = slotCount
        self.totalSteps = totalSteps
        self.checkpointEverySteps = checkpointEverySteps
        self.checkpointMaxLagSteps = checkpointMaxLagSteps
        self.evaluationSets = evaluationSets
        self.evaluationTimeout = evaluationTimeout
        self.expectedTrainers = expectedTrainers
        self.expectedEvaluators = expectedEvaluators
        self.startPatience = startPatience
        self.silenceMax = silenceMax
        self.suspicion = suspicion
        self.reconnectGrace = reconnectGrace
        self.returnPatience = returnPatience
        self.repeatInterval = repeatInterval
        self.recoveryInterval = recoveryInterval
        self.retention = retention
        self.decisions = decisions
        self.mining = mining
        self.stepsAhead = stepsAhead
        self.audit = audit
        self.collapse = collapse
        self.minesStep = minesStep
        self.isBitwise = isBitwise
        self.lineupVersion = lineupVersion
    }
}

/// What is trained on at a step: a pure function of the step.
public protocol StepSource: Sendable {
    /// Rows of the catalogue and labels of every slot.
    func samples(step: Int) -> WireStepSamples
    /// Learning rate and what follows from it, as bit patterns.
    func scalars(step: Int) -> WireStepScalars
    /// The same once the rate has fallen so often on a plateau.
    func scalars(step: Int, reductions: Int) -> WireStepScalars
    /// What people call a slot's images, in its order.
    func names(of samples: WireSlotSamples) -> [String]
}

extension StepSource {
    /// Those of a source whose rate does not depend on scores.
    public func scalars(step: Int, reductions: Int) -> WireStepScalars { scalars(step: step) }

    /// Rows of the catalogue, where nobody knows more.
    public func names(of samples: WireSlotSamples) -> [String] {
        samples.indices.map { "row \($0)" }
    }
}

/// A checkpoint or recovery snapshot that is durable on disk.
public struct DurableCheckpoint: Codable, Equatable, Sendable {
    /// Step of the state.
    public var step: Int
    /// History digest up to that step.
    public var history: UInt64
    /// Path relative to the run's folder.
    public var file: String
    /// Size in bytes.
    public var byteCount: Int
    /// Digest of the state that it holds.
    public var digest: UInt64
    /// Whether it is a recovery snapshot, which is neither listed nor scored.
    public var isRecovery: Bool

    /// Describes a durable file.
    public init(
        step: Int, history: UInt64, file: String, byteCount: Int, digest: UInt64,
        isRecovery: Bool
    ) {
        self.step = step
        self.history = history
        self.file = file
        self.byteCount = byteCount
        self.digest = digest
        self.isRecovery = isRecovery
    }
}

/// A checkpoint or recovery snapshot that is on its way.
public struct AwaitedCheckpoint: Equatable, Sendable {
    /// Step whose state is sent.
    public let step: Int
    /// Whether it is an unlisted recovery snapshot.
    public let isRecovery: Bool
    /// Workers that hold a copy for it.
    public let senders: [String]
    /// What it must hold.
    public let state: StateVerdict

    /// Names all of them.
    public init(step: Int, isRecovery: Bool, senders: [String], state: StateVerdict) {
        self.step = step
        self.isRecovery = isRecovery
        self.senders = senders
        self.state = state
    }
}

/// What the ledger and the checkpoint folder hold when a coordinator starts.
public struct CoordinatorRecovery: Sendable {
    /// This coordinator's term.
    public var term: UInt64
    /// Last step in the ledger, 0 when none.
    public var committedStep: Int
    /// History digest up to the last step in the ledger.
    public var committedHistory: UInt64
    /// Digest of the last step in the ledger, 0 when none.
    public var committedDigest: UInt64
    /// History digest up to the step before the last one.
    public var previousHistory: UInt64
    /// Trainers that had not left when the last term ended: they may come back with their state.
    public var liveTrainers: [String]
    /// Workers that left for ``CoordinatorStateMachine/quarantineReason``.
    public var quarantined: [String]
    /// Files that verify and are not newer than the ledger, oldest first.
    public var checkpoints: [DurableCheckpoint]
    /// Sets with rows in the ledger, by step of the checkpoint.
    public var scored: [Int: Set<String>]
    /// What checkpoints are ranked by, by step, as far as they are scored.
    public var rankingValues: [Int: Double]
    /// What decisions go by, by step, as far as checkpoints are scored.
    public var decisionScores: [Int: Double]
    /// Digests of the states of checkpoints that were deleted, by step.
    public var deletedDigests: [Int: UInt64]
    /// Training class of the run, empty until its first worker set it.
    public var numericsClass: String
    /// Its evaluation class, empty until the first evaluator set it.
    public var evaluationClass: String
    /// Last step of those whose rows were superseded, 0 when none were.
    public var supersededStep: Int

    /// A run's beginning, or what was found of it.
    public init(
        term: UInt64, committedStep: Int, committedHistory: UInt64,
        checkpoints: [DurableCheckpoint], scored: [Int: Set<String>],
        numericsClass: String = "", evaluationClass: String = "", committedDigest: UInt64 = 0,
        previousHistory: UInt64 = 0,
        liveTrainers: [String] = [], quarantined: [String] = [],
        rankingValues: [Int: Double] = [:], decisionScores: [Int: Double] = [:],
        deletedDigests: [Int: UInt64] = [:], supersededStep: Int = 0
    ) {
        self.term = term
        self.committedStep = committedStep
        self.committedHistory = committedHistory
        self.committedDigest = committedDigest
        self.previousHistory = previousHistory
        self.liveTrainers = liveTrainers
        self.quarantined = quarantined
        self.checkpoints = checkpoints
        self.scored = scored
        self.rankingValues = rankingValues
        self.decisionScores = decisionScores
        self.deletedDigests = deletedDigests
        self.numericsClass = numericsClass
        self.evaluationClass = evaluationClass
        self.supersededStep = supersededStep
    }
}

/// How a coordinator's life ends.
public enum CoordinatorOutcome: Equatable, Sendable {
    /// All steps are committed, the last checkpoint is durable, evaluators have nothing left.
    case finished
    /// A signal asked for it; the run can be resumed.
    case drained
    /// The run cannot go on; the reason says what to do.
    case failed(String)
    /// Workers computed different numbers and nobody knows who is right; nothing was committed.
    case disagreed(String)
    /// Another coordinator has begun a newer term of the run.
    case superseded
}

/// How grave an event is.
public enum EventSeverity: String, Sendable {
    case info
    case warning
    case error
}

/// Effects of the coordinator's decisions, carried out by its shell in order.
public enum CoordinatorAction: Sendable, Equatable {
    /// Send a control message.
    case send(WireBody, to: String)
    /// Write one step to the ledger in one transaction, then report ``CoordinatorStateMachine/stepCommitted(_:now:)``.
    case commit(StepRecord)
    /// Set aside the ledger's rows from this step on, and those of its checkpoints and evaluations; the
    /// ledger then ends with the step before.
    case supersede(from: Int)
    /// Compare a redone step with the ledger's row, then report ``CoordinatorStateMachine/stepCompared(_:matches:now:)``.
    case compareRedone(StepRecord)
    /// A worker joined: a row in the ledger.
    case workerJoined(WireHello)
    /// A worker is prepared: its row gets its numerics class.
    case workerPrepared(String, numericsClass: String)
    /// A worker left: its row is completed.
    case workerLeft(String, why: String)
    /// The numerics class of a role's first worker is the run's from now on.
    case recordNumerics(String, of: WireRole)
    /// Read a checkpoint again, then report ``CoordinatorStateMachine/checkpointVerified(_:isWhole:now:)``.
    case verifyCheckpoint(DurableCheckpoint)
    /// Mark a checkpoint as deleted in the ledger, then remove its file.
    case deleteCheckpoint(DurableCheckpoint)
    /// Mine the triplets of the steps after this one, or find those that were mined, then report
    /// ``CoordinatorStateMachine/roundMined(step:now:)`` or ``CoordinatorStateMachine/roundFailed(step:reason:)``.
    case mine(step: Int, of: DurableCheckpoint?)
    /// Recovery snapshots of older steps than this serve nobody any more.
    case dropRecoverySnapshots(before: Int)
    /// Read the ledger's term, then report ``CoordinatorStateMachine/termRead(_:for:now:)``.
    case readTerm(String)
    /// Drop the connection's state for a worker that is refused or expelled.
    case forget(String)
    /// An event for ledger, log and observers.
    case event(kind: String, severity: EventSeverity, text: String)
    /// Write rows once, then report ``CoordinatorStateMachine/evaluationRecorded(_:from:now:)``.
    case recordEvaluation(WireEvaluationRows, from: String)
    /// The machine has nothing more to do.
    case finish(CoordinatorOutcome)
}

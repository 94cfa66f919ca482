/// What a run is, as the ledger's single row of `runs` says it.
public struct RunRecord: Codable, Equatable, Sendable {
    /// How far a run has come.
    public enum State: String, Codable, Sendable {
        /// Created, or left by a crash.
        case running
        /// Stopped by a signal; resume goes on.
        case drained
        /// All steps are done.
        case finished
        /// Stopped by an error that an event names.
        case failed
    }

    /// A name that no other run has.
    public var run: String
    /// When it was created, in seconds since 1970.
    public var created: Double
    /// How often a coordinator has started; 0 before the first.
    public var term: Int
    /// The last committed step; 0 before the first.
    public var lastStep: Int
    /// The digest that chains the effects of all committed steps.
    @Hex public var history: UInt64
    /// The resolved settings, as JSON text.
    public var settings: String
    /// The digest of the settings.
    @Hex public var settingsDigest: UInt64
    /// The digest of the data set.
    @Hex public var datasetDigest: UInt64
    /// The numerics class of training; nil before the first trainer.
    @OrNull public var trainingClass: String?
    /// The numerics class of evaluation; nil before the first evaluator.
    @OrNull public var evaluationClass: String?
    /// How far it has come.
    public var state: State
    /// When it finished, in seconds since 1970.
    @OrNull public var finished: Double?

    enum CodingKeys: String, CodingKey {
        case run, created, term
        case lastStep = "last_step"
        case history, settings
        case settingsDigest = "settings_digest"
        case datasetDigest = "dataset_digest"
        case trainingClass = "training_class"
        case evaluationClass = "evaluation_class"
        case state, finished
    }

    /// Describes a run before its first step.
    public init(
        run: String, created: Double, settings: String, settingsDigest: UInt64,
        datasetDigest: UInt64, trainingClass: String? = nil, evaluationClass: String? = nil
    ) {
        self.run = run
        self.created = created
        term = 0
        lastStep = 0
        history = 0
        self.settings = settings
        self.settingsDigest = settingsDigest
        self.datasetDigest = datasetDigest
        self.trainingClass = trainingClass
        self.evaluationClass = evaluationClass
        state = .running
        finished = nil
    }
}

/// Where a step's time went, in seconds.
public struct StepSeconds: Codable, Equatable, Sendable {
    /// The slots, as the slowest trainer saw them.
    public var compute: Double
    /// From the last slot to the last READY.
    public var exchange: Double
    /// From the last READY to the ledger's commit.
    public var commit: Double
    /// From one commit to the next.
    public var total: Double

    /// Names the phases of a step.
    public init(compute: Double, exchange: Double, commit: Double, total: Double) {
        self.compute = compute
        self.exchange = exchange
        self.commit = commit
        self.total = total
    }
}

/// A committed step.
public struct StepRecord: Codable, Equatable, Sendable {
    /// The step; the first is 1.
    public var step: Int
    /// The mean of the slots' losses.
    public var loss: Double
    /// The share of valid triplets with a loss above zero.
    public var fractionPositive: Double
    /// Triplets with a loss above zero.
    public var activeCount: Int
    /// The learning rate that the step was taken with.
    public var learningRate: Double
    /// Images that the step used.
    public var samples: Int
    /// The digest of the step's effect.
    @Hex public var digest: UInt64
    /// The coordinator's scalars of the effect, in a form that keeps their bits; nil if unused.
    @OrNull public var scalars: String?
    /// The digest of the state before the step, where the whole state was digested.
    @OrNull public var stateDigest: String?
    /// Where the time went.
    public var seconds: StepSeconds
    /// The digest that chains the effects up to this step; the ledger computes it.
    @Hex public private(set) var history: UInt64
    /// The term that committed it; the ledger fills it in.
    public private(set) var term: Int
    /// When it was committed, in seconds since 1970; the ledger fills it in.
    public private(set) var committed: Double

    enum CodingKeys: String, CodingKey {
        case step, loss
        case fractionPositive = "fraction_positive"
        case activeCount = "active_count"
        case learningRate = "learning_rate"
        case samples, digest, scalars
        case stateDigest = "state_digest"
        case seconds, history, term, committed
    }

    /// Describes a step that is to be committed.
    public init(
        step: Int, loss: Double, fractionPositive: Double, activeCount: Int, learningRate: Double,
        samples: Int, digest: UInt64, scalars: String? = nil, stateDigest: String? = nil,
        seconds: StepSeconds
    ) {
        self.step = step
        self.loss = loss
        self.fractionPositive = fractionPositive
        self.activeCount = activeCount
        self.learningRate = learningRate
        self.samples = samples
        self.digest = digest
        self.scalars = scalars
        self.stateDigest = stateDigest
        self.seconds = seconds
        history = 0
        term = 0
        committed = 0
    }

    func sealed(history: UInt64, term: Int, committed: Double) -> StepRecord {
        var copy = self
        copy.history = history
        copy.term = term
        copy.committed = committed
        return copy
    }
}

/// One computation of one slot of a step.
public struct MiniBatchRecord: Codable, Equatable, Sendable {
    /// What became of a computation.
    public enum Outcome: String, Codable, Sendable {
        /// Its result is part of the step.
        case used
        /// Its worker vanished or handed it back before the result was in.
        case lost
        /// Another worker's equal result was in first.
        case duplicate
    }

    /// The step.
    public var step: Int
    /// The slot within the step, from 0.
    public var slot: Int
    /// Which lease of the slot within the step, from 0.
    public var attempt: Int
    /// The worker that held the lease.
    public var worker: String
    /// How long it computed; nil when no result came.
    @OrNull public var seconds: Double?
    /// What became of it.
    public var outcome: Outcome

    /// Describes one computation of a slot.
    public init(
        step: Int, slot: Int, attempt: Int = 0, worker: String, seconds: Double?,
        outcome: Outcome = .used
    ) {
        self.step = step
        self.slot = slot
        self.attempt = attempt
        self.worker = worker
        self.seconds = seconds
        self.outcome = outcome
    }
}

/// A worker's time with the run, from joining to leaving.
public struct WorkerRecord: Codable, Equatable, Sendable {
    /// The worker's name in the cluster.
    public var worker: String
    /// `trainer`, `evaluator` or `coordinator`.
    public var role: String
    /// Its process id on its host.
    public var process: Int
    /// Its host.
    public var host: String
    /// Its device, for instance `cuda:0`.
    public var device: String
    /// Its numerics class; nil for a coordinator.
    @OrNull public var numericsClass: String?
    /// The term in which it joined.
    public internal(set) var term: Int
    /// When it joined, in seconds since 1970.
    public var joined: Double
    /// When it left; nil while it is here.
    @OrNull public internal(set) var left: Double?
    /// Why it left.
    @OrNull public internal(set) var why: String?

    enum CodingKeys: String, CodingKey {
        case worker, role, process, host, device
        case numericsClass = "numerics_class"
        case term, joined, left, why
    }

    /// Describes a worker that joins.
    public init(
        worker: String, role: String, process: Int, host: String, device: String,
        numericsClass: String? = nil, joined: Double
    ) {
        self.worker = worker
        self.role = role
        self.process = process
        self.host = host
        self.device = device
        self.numericsClass = numericsClass
        term = 0
        self.joined = joined
        left = nil
        why = nil
    }
}

/// A checkpoint that is durable, or was.
public struct CheckpointRecord: Codable, Equatable, Sendable {
    /// Whether the file is there.
    public enum State: String, Codable, Sendable {
        /// The file is whole and durable.
        case durable
        /// Retention removed the file.
        case deleted
        /// The file failed a check when it was needed.
        case damaged
    }

    /// The step whose state it holds.
    public var step: Int
    /// The file, relative to the run's folder.
    public var file: String
    /// Bytes of the file.
    public var bytes: Int
    /// The digest of the weights alone, as `lineup checkpoint digest` prints it.
    @Hex public var digest: UInt64
    /// The digest of all tensors, the optimizer's included.
    @Hex public var stateDigest: UInt64
    /// Whether the file is there.
    public var state: State
    /// When it became durable, in seconds since 1970.
    public var written: Double
    /// When its file was deleted; nil while it is there.
    @OrNull public internal(set) var deleted: Double?

    enum CodingKeys: String, CodingKey {
        case step, file, bytes, digest
        case stateDigest = "state_digest"
        case state, written, deleted
    }

    /// Describes a durable checkpoint.
    public init(
        step: Int, file: String, bytes: Int, digest: UInt64, stateDigest: UInt64, written: Double
    ) {
        self.step = step
        self.file = file
        self.bytes = bytes
        self.digest = digest
        self.stateDigest = stateDigest
        state = .durable
        self.written = written
        deleted = nil
    }
}

/// One metric of one set at one checkpoint.
public struct EvaluationRecord: Codable, Equatable, Sendable {
    /// The checkpoint's step.
    public var step: Int
    /// The set, for instance `val_eval`.
    public var set: String
    /// The metric, for instance `general_accuracy`.
    public var metric: String
    /// The value.
    public var value: Double
    /// When the first image was read, in seconds since 1970.
    public var started: Double
    /// When the last image was scored.
    public var finished: Double
    /// The worker that scored it.
    public var evaluator: String
    /// The numerics class in which it was scored.
    @OrNull public var numericsClass: String?

    enum CodingKeys: String, CodingKey {
        case step, set, metric, value, started, finished, evaluator
        case numericsClass = "numerics_class"
    }

    /// Describes one value.
    public init(
        step: Int, set: String, metric: String, value: Double, started: Double, finished: Double,
        evaluator: String, numericsClass: String? = nil
    ) {
        self.step = step
        self.set = set
        self.metric = metric
        self.value = value
        self.started = started
        self.finished = finished
        self.evaluator = evaluator
        self.numericsClass = numericsClass
    }
}

/// Something that happened, for whoever reads the run later.
public struct EventRecord: Codable, Equatable, Sendable {
    /// How much it matters.
    public enum Severity: String, Codable, Sendable {
        /// Part of a normal run.
        case info
        /// The run went on, with something lost.
        case warning
        /// Something is wrong.
        case error
    }

    /// When, in seconds since 1970.
    public var time: Double
    /// A constant name, for instance `trainer_lost`.
    public var kind: String
    /// How much it matters.
    public var severity: Severity
    /// The step it belongs to, if any.
    @OrNull public var step: Int?
    /// One sentence.
    public var text: String
    /// The values, as JSON text.
    @OrNull public var payload: String?
    /// The term in which it was recorded; the ledger fills it in.
    public internal(set) var term: Int

    /// Describes an event.
    public init(
        time: Double, kind: String, severity: Severity = .info, step: Int? = nil, text: String,
        payload: String? = nil
    ) {
        self.time = time
        self.kind = kind
        self.severity = severity
        self.step = step
        self.text = text
        self.payload = payload
        term = 0
    }
}

/// Something that a coordinator notes as it happens: telemetry, of which several go into one
/// transaction.
public enum LedgerNote: Sendable {
    /// A worker joined.
    case joined(WorkerRecord)
    /// A worker is prepared, and computes in a numerics class; one that is not here changes nothing.
    case prepared(String, numericsClass: String)
    /// A worker left, at a time in seconds since 1970; one that is not here changes nothing.
    case left(String, at: Double, why: String)
    /// An event.
    case event(EventRecord)

    /// What it is of, for messages.
    var name: String {
        switch self {
        case .joined(let worker): "worker \(worker.worker)"
        case .prepared(let worker, _): "the class of worker \(worker)"
        case .left(let worker, _, _): "the end of worker \(worker)"
        case .event: "an event"
        }
    }
}

/// What inserting an evaluation did.
public enum InsertOutcome: String, Equatable, Sendable {
    /// The row is new.
    case inserted
    /// The row was there with the same bits; nothing changed.
    case identical
    /// The row was there with another value; it stays, and an error event was recorded.
    case differing
}

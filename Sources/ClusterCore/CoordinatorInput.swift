public import Protocol

/// Everything that the coordinator's machine is told.
public enum CoordinatorInput: Sendable {
    /// A control message of a worker.
    case received(WireBody, from: String)
    /// A worker's connection is closed.
    case disconnected(String)
    /// Time has passed.
    case tick
    /// A signal asks to stop.
    case drain
    /// A newer term has begun.
    case ledgerRefused
    /// The ledger cannot be written.
    case ledgerFailed(String)
    /// A file is durable.
    case checkpointStored(DurableCheckpoint)
    /// A piece of a file has come.
    case checkpointPieceReceived(step: Int)
    /// A file cannot be written.
    case checkpointWriteFailed(step: Int, reason: String)
    /// What came for a file is not the state that members hold.
    case checkpointRefused(step: Int, reason: String)
    /// A file was read again.
    case checkpointVerified(DurableCheckpoint, isWhole: Bool)
    /// The ledger holds the step.
    case stepCommitted(StepRecord)
    /// A redone step was compared.
    case stepCompared(StepRecord, matches: Bool)
    /// A round's triplets are there.
    case roundMined(step: Int)
    /// A round's triplets cannot be had.
    case roundFailed(step: Int, reason: String)
    /// Rows are in the ledger.
    case evaluationRecorded(WireEvaluationRows, from: String)
    /// The ledger's term was read.
    case termRead(UInt64, for: String)
}

extension CoordinatorStateMachine: RecordedMachine {
    /// Whose machine it is.
    public static var role: FlightRole { .coordinator }

    /// Decides what follows from one input.
    public mutating func handle(_ input: CoordinatorInput, now: Duration) -> [CoordinatorAction] {
        switch input {
        case .received(let body, let worker): return received(body, from: worker, now: now)
        case .disconnected(let worker): return disconnected(worker, now: now)
        case .tick: return tick(now: now)
        case .drain: return drain(now: now)
        case .ledgerRefused: return ledgerRefused()
        case .ledgerFailed(let why): return ledgerFailed(why)
        case .checkpointStored(let checkpoint): return checkpointStored(checkpoint, now: now)
        case .checkpointPieceReceived(let step):
            checkpointPieceReceived(step: step, now: now)
            return []
        case .checkpointWriteFailed(let step, let reason):
            return checkpointWriteFailed(step: step, reason: reason, now: now)
        case .checkpointRefused(let step, let reason):
            return checkpointRefused(step: step, reason: reason, now: now)
        case .checkpointVerified(let checkpoint, let isWhole):
            return checkpointVerified(checkpoint, isWhole: isWhole, now: now)
        case .stepCommitted(let record): return stepCommitted(record, now: now)
        case .stepCompared(let record, let matches):
            return stepCompared(record, matches: matches, now: now)
        case .roundMined(let step): return roundMined(step: step, now: now)
        case .roundFailed(let step, let reason): return roundFailed(step: step, reason: reason)
        case .evaluationRecorded(let rows, let worker):
            return evaluationRecorded(rows, from: worker, now: now)
        case .termRead(let current, let worker):
            return termRead(current, for: worker, now: now)
        }
    }

    /// Writes an input down.
    public static func write(_ input: CoordinatorInput, into writer: inout FlightWriter) {
        switch input {
        case .received(let body, let worker):
            writer.put(UInt8(1))
            writer.put(worker)
            writer.put(body)
        case .disconnected(let worker):
            writer.put(UInt8(2))
            writer.put(worker)
        case .tick: writer.put(UInt8(3))
        case .drain: writer.put(UInt8(4))
        case .ledgerRefused: writer.put(UInt8(5))
        case .ledgerFailed(let why):
            writer.put(UInt8(14))
            writer.put(why)
        case .checkpointStored(let checkpoint):
            writer.put(UInt8(6))
            writer.put(checkpoint)
        case .checkpointPieceReceived(let step):
            writer.put(UInt8(7))
            writer.put(step)
        case .checkpointWriteFailed(let step, let reason):
            writer.put(UInt8(8))
            writer.put(step)
            writer.put(reason)
        case .checkpointRefused(let step, let reason):
            writer.put(UInt8(15))
            writer.put(step)
            writer.put(reason)
        case .checkpointVerified(let checkpoint, let isWhole):
            writer.put(UInt8(9))
            writer.put(checkpoint)
            writer.put(UInt8(isWhole ? 1 : 0))
        // What the ledger was given is in the decision that asked for it.
        case .stepCommitted(let record):
            writer.put(UInt8(10))
            writer.put(record.step)
        case .stepCompared(let record, let matches):
            writer.put(UInt8(11))
            writer.put(record.step)
            writer.put(UInt8(matches ? 1 : 0))
        case .roundMined(let step):
            writer.put(UInt8(16))
            writer.put(step)
        case .roundFailed(let step, let reason):
            writer.put(UInt8(17))
            writer.put(step)
            writer.put(reason)
        case .evaluationRecorded(let rows, let worker):
            writer.put(UInt8(12))
            writer.put(worker)
            writer.put(.evaluationRows(rows))
        case .termRead(let current, let worker):
            writer.put(UInt8(13))
            writer.put(current)
            writer.put(worker)
        }
    }

    /// Reads an input.
    public static func read(
        _ reader: inout FlightReader, earlier: [CoordinatorAction]
    ) throws -> CoordinatorInput {
        func record(_ step: Int) throws -> StepRecord {
            for case .commit(let record) in earlier.reversed() where record.step == step {
                return record
            }
            for case .compareRedone(let record) in earlier.reversed() where record.step == step {
                return record
            }
            throw FlightError("step \(step) was committed, and nobody had asked for it")
        }
        switch try reader.byte() {
        case 1:
            let worker = try reader.text()
            return .received(try reader.body(), from: worker)
        case 2: return .disconnected(try reader.text())
        case 3: return .tick
        case 4: return .drain
        case 5: return .ledgerRefused
        case 14: return .ledgerFailed(try reader.text())
        case 6: return .checkpointStored(try reader.checkpoint())
        case 7: return .checkpointPieceReceived(step: try reader.number())
        case 8:
            let step = try reader.number()
            return .checkpointWriteFailed(step: step, reason: try reader.text())
        case 15:
            let step = try reader.number()
            return .checkpointRefused(step: step, reason: try reader.text())
        case 16: return .roundMined(step: try reader.number())
        case 17:
            let step = try reader.number()
            return .roundFailed(step: step, reason: try reader.text())
        case 9:
            let checkpoint = try reader.checkpoint()
            return .checkpointVerified(checkpoint, isWhole: try reader.flag())
        case 10: return .stepCommitted(try record(try reader.number()))
        case 11:
            let step = try reader.number()
            return .stepCompared(try record(step), matches: try reader.flag())
        case 12:
            let worker = try reader.text()
            guard case .evaluationRows(let rows) = try reader.body() else {
                throw FlightError("rows are another message")
            }
            return .evaluationRecorded(rows, from: worker)
        case 13:
            let current = try reader.word()
            return .termRead(current, for: try reader.text())
        case let other: throw FlightError("an input of kind \(other), unknown to this version")
        }
    }

    /// An input in a few words.
    public static func summary(of input: CoordinatorInput) -> String {
        switch input {
        case .received(let body, let worker): "\(worker): \(body.summary)"
        case .disconnected(let worker): "\(worker): connection closed"
        case .tick: "tick"
        case .drain: "asked to stop"
        case .ledgerRefused: "the ledger refuses this term"
        case .ledgerFailed(let why): "the ledger cannot be written: \(why)"
        case .checkpointStored(let checkpoint): "stored \(checkpoint.file)"
        case .checkpointPieceReceived(let step): "a piece of the state of step \(step)"
        case .checkpointWriteFailed(let step, let why): "state of step \(step) not stored: \(why)"
        case .checkpointRefused(let step, let why): "state of step \(step) refused: \(why)"
        case .checkpointVerified(let checkpoint, let isWhole):
            "\(checkpoint.file) is \(isWhole ? "whole" : "damaged")"
        case .stepCommitted(let record): "step \(record.step) is in the ledger"
        case .stepCompared(let record, let matches):
            "step \(record.step) is \(matches ? "" : "not ")as in the ledger"
        case .roundMined(let step): "the triplets of step \(step) are there"
        case .roundFailed(let step, let why): "no triplets of step \(step): \(why)"
        case .evaluationRecorded(let rows, _): "\(rows.set) of step \(rows.step) is in the ledger"
        case .termRead(let current, let worker): "\(worker) asked; the ledger's term is \(current)"
        }
    }

    /// A decision in a few words.
    public static func summary(of action: CoordinatorAction) -> String {
        switch action {
        case .send(let body, let worker): "send \(body.summary) to \(worker)"
        case .commit(let record): "commit step \(record.step) digest \(record.digest)"
        case .compareRedone(let record): "compare step \(record.step) digest \(record.digest)"
        case .supersede(let step): "set the rows from step \(step) on aside"
        case .workerJoined(let hello): "worker \(hello.worker) joined"
        case .workerPrepared(let worker, let text): "worker \(worker) computes in class \(text)"
        case .workerLeft(let worker, let why): "worker \(worker) left: \(why)"
        case .recordNumerics(let text, let role): "numerics class of a \(role.word): \(text)"
        case .verifyCheckpoint(let checkpoint): "read \(checkpoint.file) again"
        case .deleteCheckpoint(let checkpoint): "delete \(checkpoint.file)"
        case .mine(let step, let checkpoint):
            "mine the triplets of step \(step)" + (checkpoint.map { " from \($0.file)" } ?? "")
        case .dropRecoverySnapshots(let step): "drop snapshots before \(step)"
        case .readTerm(let worker): "read the ledger's term for \(worker)"
        case .forget(let worker): "forget \(worker)"
        case .event(let kind, let severity, let text): "\(severity) \(kind): \(text)"
        case .recordEvaluation(let rows, let worker):
            "write \(rows.set) of step \(rows.step) by \(worker)"
        case .finish(let outcome): "end: \(outcome)"
        }
    }

    /// Whether a later input answers this decision by naming it.
    public static func isAnswered(_ action: CoordinatorAction) -> Bool {
        switch action {
        case .commit, .compareRedone: true
        default: false
        }
    }

    /// Whether this input answers such a decision.
    public static func isAnswer(_ input: CoordinatorInput) -> Bool {
        switch input {
        case .stepCommitted, .stepCompared: true
        default: false
        }
    }
}

extension FlightWriter {
    fileprivate mutating func put(_ checkpoint: DurableCheckpoint) {
        put(checkpoint.step)
        put(checkpoint.history)
        put(checkpoint.file)
        put(checkpoint.byteCount)
        put(checkpoint.digest)
        put(UInt8(checkpoint.isRecovery ? 1 : 0))
    }
}

extension FlightReader {
    fileprivate mutating func checkpoint() throws -> DurableCheckpoint {
        let (step, history, file) = (try number(), try word(), try text())
        return DurableCheckpoint(
            step: step, history: history, file: file, byteCount: try number(),
            digest: try word(), isRecovery: try flag())
    }
}

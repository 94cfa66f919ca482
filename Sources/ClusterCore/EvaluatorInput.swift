public import Protocol

/// Everything that an evaluator's machine is told.
public enum EvaluatorInput: Sendable {
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
    case prepared(WirePrepared, pollSeconds: Double, timeoutSeconds: Double)
    /// A set is scored, or could not be.
    case scored(WireEvaluationRows)
    /// Everything of a grant is reported.
    case scoringEnded
}

extension EvaluatorStateMachine: RecordedMachine {
    /// Whose machine it is.
    public static var role: FlightRole { .evaluator }

    /// Decides what follows from one input.
    public mutating func handle(_ input: EvaluatorInput, now: Duration) -> [EvaluatorAction] {
        switch input {
        case .connectionOpened: return connectionOpened(now: now)
        case .connectionClosed:
            connectionClosed()
            return []
        case .tick: return tick(now: now)
        case .drain: return drain()
        case .received(let body): return received(body, now: now)
        case .prepared(let message, let pollSeconds, let timeoutSeconds):
            return prepared(
                message, pollSeconds: pollSeconds, timeoutSeconds: timeoutSeconds, now: now)
        case .scored(let rows): return scored(rows, now: now)
        case .scoringEnded: return scoringEnded(now: now)
        }
    }

    /// Writes an input down.
    public static func write(_ input: EvaluatorInput, into writer: inout FlightWriter) {
        switch input {
        case .connectionOpened: writer.put(UInt8(1))
        case .connectionClosed: writer.put(UInt8(2))
        case .tick: writer.put(UInt8(3))
        case .drain: writer.put(UInt8(4))
        case .received(let body):
            writer.put(UInt8(5))
            writer.put(body)
        case .prepared(let message, let pollSeconds, let timeoutSeconds):
            writer.put(UInt8(6))
            writer.put(.prepared(message))
            writer.put(pollSeconds.bitPattern)
            writer.put(timeoutSeconds.bitPattern)
        case .scored(let rows):
            writer.put(UInt8(7))
            writer.put(.evaluationRows(rows))
        case .scoringEnded: writer.put(UInt8(8))
        }
    }

    /// Reads an input.
    public static func read(
        _ reader: inout FlightReader, earlier: [EvaluatorAction]
    ) throws -> EvaluatorInput {
        switch try reader.byte() {
        case 1: return .connectionOpened
        case 2: return .connectionClosed
        case 3: return .tick
        case 4: return .drain
        case 5: return .received(try reader.body())
        case 6:
            guard case .prepared(let message) = try reader.body() else {
                throw FlightError("what is prepared is another message")
            }
            let poll = Double(bitPattern: try reader.word())
            let timeout = Double(bitPattern: try reader.word())
            guard (0...1e9).contains(poll), (0...1e9).contains(timeout) else {
                throw FlightError("an interval of \(poll) s, or \(timeout) s")
            }
            return .prepared(message, pollSeconds: poll, timeoutSeconds: timeout)
        case 7:
            guard case .evaluationRows(let rows) = try reader.body() else {
                throw FlightError("rows are another message")
            }
            return .scored(rows)
        case 8: return .scoringEnded
        case let other: throw FlightError("an input of kind \(other), unknown to this version")
        }
    }

    /// An input in a few words.
    public static func summary(of input: EvaluatorInput) -> String {
        switch input {
        case .connectionOpened: "connected"
        case .connectionClosed: "connection closed"
        case .tick: "tick"
        case .drain: "asked to stop"
        case .received(let body): "coordinator: \(body.summary)"
        case .prepared: "data set and engine are there"
        case .scored(let rows): "scored \(rows.set) of step \(rows.step)"
        case .scoringEnded: "everything granted is scored"
        }
    }

    /// A decision in a few words.
    public static func summary(of action: EvaluatorAction) -> String {
        switch action {
        case .send(let body): "send \(body.summary)"
        case .prepare: "prepare"
        case .score(let grant): "score \(grant.sets) of step \(grant.step)"
        case .leave(let end): "leave: \(end)"
        case .refused(let why): "refused: \(why)"
        }
    }

    /// Whether a later input answers this decision by naming it.
    public static func isAnswered(_ action: EvaluatorAction) -> Bool { false }

    /// Whether this input answers such a decision.
    public static func isAnswer(_ input: EvaluatorInput) -> Bool { false }
}

public import Protocol

/// Effects of an evaluator's decisions, carried out by its shell in order.
public enum EvaluatorAction: Sendable, Equatable {
    /// Send a control message; the shell completes a HELLO with what it knows of this machine.
    case send(WireBody)
    /// Load settings, data set and engine, then report ``EvaluatorStateMachine/prepared(_:pollSeconds:timeoutSeconds:now:)``.
    case prepare(WireWelcome)
    /// Score the sets of a checkpoint, reporting ``EvaluatorStateMachine/scored(_:now:)`` for each and
    /// ``EvaluatorStateMachine/scoringEnded(now:)`` after the last.
    case score(WireEvaluationGrant)
    /// The evaluator's work is over.
    case leave(EvaluatorEnd)
    /// The coordinator does not want this worker; why.
    case refused(String)
}

/// Why an evaluator ended, where nothing was wrong.
public enum EvaluatorEnd: Sendable, Equatable {
    /// The run is finished, or one pass was asked for and nothing is left.
    case finished
    /// No new checkpoint came for `evaluation.timeout_seconds`.
    case timedOut
    /// The evaluator or its coordinator was asked to stop.
    case drained
}

/// Everything an evaluator decides: when to ask for work, what to report again, when to end.
///
/// Holds no clock, socket or file. Rows are kept and sent again until the coordinator has
/// acknowledged them, also across coordinators; the idle clock stands still while there is work or
/// an unacknowledged row.
public struct EvaluatorStateMachine: Codable, Sendable {
    /// How long an acknowledgement may take before rows are sent again.
    static let acknowledgementPatience = Duration.seconds(2)

    private struct Report: Codable, Sendable {
        let rows: WireEvaluationRows
        var sentAt: Duration?
    }

    private let me: String
    private let once: Bool
    private var isConnected = false
    private var isWelcome = false
    private var isPreparing = false
    private var preparedMessage: WirePrepared?
    private var isWorking = false
    private var isGone = false
    private var held: [WireEvaluationTask] = []
    private var reports: [Report] = []
    private var pollInterval = Duration.milliseconds(250)
    private var timeout = Duration.seconds(60)
    private var helloAt: Duration?
    private var nextPoll = Duration.zero
    private var nextAsk = Duration.zero
    private var idleSince = Duration.zero

    /// Starts an evaluator that has not said HELLO.
    ///
    /// - Parameter once: end when nothing is left, rather than wait for more.
    public init(worker: String, once: Bool) {
        me = worker
        self.once = once
    }

    /// Whether WELCOME has come on the present connection.
    public var isKnown: Bool { isConnected && isWelcome }

    /// Rows that the coordinator has not acknowledged.
    public var unacknowledgedCount: Int { reports.count }

    private var isPrepared: Bool { preparedMessage != nil }

    /// A connection to the coordinator is there.
    public mutating func connectionOpened(now: Duration) -> [EvaluatorAction] {
        guard !isGone else { return [] }
        isConnected = true
        return sayHello(now: now)
    }

    /// The connection is gone; work under way goes on.
    public mutating func connectionClosed() {
        isConnected = false
        isWelcome = false
    }

    private mutating func sayHello(now: Duration) -> [EvaluatorAction] {
        isWelcome = false
        helloAt = now
        var hello = WireHello()
        hello.worker = me
        hello.role = .evaluator
        return [.send(.hello(hello))]
    }

    /// A control message arrived.
    public mutating func received(_ body: WireBody, now: Duration) -> [EvaluatorAction] {
        guard !isGone else { return [] }
        switch body {
        case .welcome(let welcome): return welcomed(welcome, now: now)
        case .refusal(let refusal):
            isGone = true
            return [.refused(refusal.message)]
        case .stop(let stop): return stopped(stop, now: now)
        case .evaluationGrant(let grant): return isWelcome ? granted(grant) : []
        case .evaluationAck(let ack):
            reports.removeAll { $0.rows.step == ack.step && $0.rows.set == ack.set }
            nextAsk = now
            nextPoll = now
            return []
        default: return []
        }
    }

    private mutating func welcomed(_ welcome: WireWelcome, now: Duration) -> [EvaluatorAction] {
        isWelcome = true
        for place in reports.indices { reports[place].sentAt = now }
        // A coordinator takes rows of those alone whose class it knows.
        var actions: [EvaluatorAction] = preparedMessage.map { [.send(.prepared($0))] } ?? []
        actions += reports.map { .send(.evaluationRows($0.rows)) }
        if !isPreparing && !isPrepared {
            isPreparing = true
            actions.append(.prepare(welcome))
        }
        return actions
    }

    private mutating func stopped(_ stop: WireStop, now: Duration) -> [EvaluatorAction] {
        let end: EvaluatorEnd
        switch stop.reason {
        case .finished: end = .finished
        case .drained: end = .drained
        // Between HELLO and WELCOME this answers something older.
        case .expelled: return isWelcome ? sayHello(now: now) : []
        default:
            isGone = true
            return [.refused(stop.message)]
        }
        isGone = true
        return [.leave(end)]
    }

    /// The shell has data set and engine.
    public mutating func prepared(
        _ message: WirePrepared, pollSeconds: Double, timeoutSeconds: Double, now: Duration
    ) -> [EvaluatorAction] {
        isPreparing = false
        preparedMessage = message
        pollInterval = .seconds(pollSeconds)
        timeout = .seconds(timeoutSeconds)
        idleSince = now
        nextPoll = now
        return isKnown ? [.send(.prepared(message))] : []
    }

    /// A set is scored, or could not be.
    public mutating func scored(_ rows: WireEvaluationRows, now: Duration) -> [EvaluatorAction] {
        held.removeAll { $0.step == rows.step && $0.set == rows.set }
        reports.append(Report(rows: rows, sentAt: isKnown ? now : nil))
        return isKnown ? [.send(.evaluationRows(rows))] : []
    }

    /// Everything of a grant is reported.
    public mutating func scoringEnded(now: Duration) -> [EvaluatorAction] {
        isWorking = false
        held = []
        idleSince = now
        nextPoll = now
        return []
    }

    /// A signal asks to leave.
    public mutating func drain() -> [EvaluatorAction] {
        guard !isGone else { return [] }
        isGone = true
        return goodbye("asked to stop") + [.leave(.drained)]
    }

    private func goodbye(_ reason: String) -> [EvaluatorAction] {
        guard isConnected else { return [] }
        var message = WireGoodbye()
        message.reason = reason
        return [.send(.goodbye(message))]
    }

    /// Time has passed; `now` is the time since any fixed instant.
    public mutating func tick(now: Duration) -> [EvaluatorAction] {
        guard !isGone else { return [] }
        if isConnected && !isWelcome {
            if helloAt.map({ now - $0 >= .seconds(1) }) ?? true { return sayHello(now: now) }
            return []
        }
        var actions: [EvaluatorAction] = []
        if isKnown, now >= nextPoll { actions += poll(now: now) }
        guard isPrepared else { return actions }
        if isWorking || !reports.isEmpty {
            idleSince = now
        } else if now - idleSince > timeout {
            isGone = true
            return actions + goodbye("no new checkpoint for \(timeout.seconds) s")
                + [.leave(.timedOut)]
        }
        return actions
    }

    /// Every message says that the evaluator lives; only one in `evaluation.poll_seconds` asks for
    /// work.
    private mutating func poll(now: Duration) -> [EvaluatorAction] {
        nextPoll = now + min(.seconds(1), pollInterval)
        var actions: [EvaluatorAction] = []
        for place in reports.indices
        where reports[place].sentAt.map({ now - $0 > Self.acknowledgementPatience }) ?? true {
            reports[place].sentAt = now
            actions.append(.send(.evaluationRows(reports[place].rows)))
        }
        var message = WireEvaluationPoll()
        message.held = held
        message.idle = isPrepared && !isWorking && reports.isEmpty && now >= nextAsk
        if message.idle { nextAsk = now + pollInterval }
        return actions + [.send(.evaluationPoll(message))]
    }

    private mutating func granted(_ grant: WireEvaluationGrant) -> [EvaluatorAction] {
        guard grant.granted else {
            guard once, isPrepared, !isWorking, reports.isEmpty else { return [] }
            isGone = true
            return goodbye("nothing left to score") + [.leave(.finished)]
        }
        guard !isWorking, isPrepared else { return [] }
        isWorking = true
        held = grant.sets.map { set in
            var task = WireEvaluationTask()
            task.step = grant.step
            task.set = set
            return task
        }
        return [.score(grant)]
    }
}

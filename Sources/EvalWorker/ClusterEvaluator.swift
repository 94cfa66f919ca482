internal import Basics
internal import Foundation
internal import Logging
internal import Protocol
internal import Scoring
internal import Settings
internal import Storage
public import Tensors
internal import Transport

/// How an evaluator of a cluster is started.
public struct ClusterEvaluatorOptions: Sendable {
    /// Control address of the coordinator.
    public var coordinator: String
    /// Where images are embedded.
    public var device: Device
    /// The run's data on this machine; nil where the coordinator's settings name it.
    public var dataRoot: String?
    /// Score what is there and end.
    public var once: Bool
    /// How long a coordinator that does not answer is waited for.
    public var patience: Duration
    /// This machine's name for others.
    public var host: String
    /// This Lineup.
    public var version: String

    /// Names every option.
    public init(
        coordinator: String, device: Device, dataRoot: String?, once: Bool, patience: Duration,
        host: String, version: String
    ) {
        self.coordinator = coordinator
        self.device = device
        self.dataRoot = dataRoot
        self.once = once
        self.patience = patience
        self.host = host
        self.version = version
    }
}

/// An evaluator as a process of a cluster: leases sets of checkpoints, fetches, scores, reports.
///
/// One thread, the one that calls ``run()``, owns the socket; scoring has threads of its own. Rows
/// are kept and sent again until the coordinator has acknowledged them, and the idle clock stands
/// still while there is work or an unacknowledged row.
public final class ClusterEvaluator {
    /// Why an evaluator ended, where nothing was wrong.
    public enum End: Sendable, Equatable {
        /// The run is finished, or `once` and nothing is left.
        case finished
        /// No new checkpoint came for `evaluation.timeout_seconds`.
        case timedOut
        /// The evaluator or its coordinator was asked to stop.
        case drained
    }

    private enum Input: Sendable {
        case prepared(Result<CheckpointScorer, any Error>)
        case scored(WireEvaluationRows)
        case done
        case drain
    }

    private let options: ClusterEvaluatorOptions
    private let worker: String
    private let context = Context()
    private let link: WorkerLink
    private let mailbox = Mailbox<Input>()
    private let stop = StopRequest()
    private let logger = Logger(label: "lineup.evaluator")
    private let clock = ContinuousClock()
    private var welcome: WireWelcome?
    private var settings: Settings?
    private var scorer: CheckpointScorer?
    /// Sets under way, and rows that the coordinator has not acknowledged.
    private var held: [WireEvaluationTask] = []
    private var unacknowledged: [WireEvaluationRows] = []
    private var isWorking = false
    private var saidHello = false
    private var isWelcome = false
    private var heardAt: ContinuousClock.Instant
    private var idleSince: ContinuousClock.Instant
    private var nextPoll: ContinuousClock.Instant
    private var nextAsk: ContinuousClock.Instant
    private var sentAt: [String: ContinuousClock.Instant] = [:]
    private var end: Result<End, any Error>?

    /// Opens the socket.
    ///
    /// - Throws: ``TransportError`` for an address that cannot be used.
    public init(options: ClusterEvaluatorOptions) throws {
        self.options = options
        worker = WorkerName.make(
            role: "evaluator", host: options.host,
            process: ProcessInfo.processInfo.processIdentifier)
        link = try WorkerLink(context, coordinator: options.coordinator, worker: worker)
        heardAt = clock.now
        idleSince = clock.now
        nextPoll = clock.now
        nextAsk = clock.now
    }

    /// Asks to leave; may be called from any thread.
    public var drain: @Sendable () -> Void {
        let mailbox = mailbox
        return { mailbox.post(.drain) }
    }

    /// Scores until the run ends or nothing new comes.
    ///
    /// - Throws: ``EvalWorkerError`` that says why it could not start or go on.
    public func run() throws -> End {
        sayHello()
        while end == nil {
            Poller.wait([link.socket], wakeup: mailbox.wakeup, timeout: .milliseconds(100))
            do {
                try receive()
            } catch {
                end = .failure(error)
            }
            for input in mailbox.take() { handle(input) }
            if clock.now >= nextPoll { poll() }
            checkClocks()
        }
        stop.stop()
        return try end!.get()
    }

    /// Every message says that the evaluator lives; only one in `evaluation.poll_seconds` asks for
    /// work.
    private var pollSeconds: Double { settings?.evaluation.pollSeconds ?? 0.25 }

    private func sayHello() {
        var hello = WireHello()
        hello.lineupVersion = options.version
        hello.role = .evaluator
        hello.worker = worker
        hello.host = options.host
        hello.processID = UInt32(ProcessInfo.processInfo.processIdentifier)
        hello.device = options.device.description
        link.send(.hello(hello))
        saidHello = true
        isWelcome = false
    }

    private func receive() throws {
        for event in link.socket.connectionEvents() {
            switch event {
            case .closed: saidHello = false
            case .opened: if !saidHello { sayHello() }
            }
        }
        for body in try link.receive() {
            heardAt = clock.now
            switch body {
            case .welcome(let welcome): try welcomed(welcome)
            case .refusal(let refusal): throw EvalWorkerError(.refused, refusal.message)
            case .stop(let message): try stopped(message)
            case .evaluationGrant(let grant): granted(grant)
            case .evaluationAck(let ack):
                unacknowledged.removeAll { $0.step == ack.step && $0.set == ack.set }
                sentAt["\(ack.step)-\(ack.set)"] = nil
                nextAsk = clock.now
                nextPoll = clock.now
            default: break
            }
        }
    }

    private func welcomed(_ welcome: WireWelcome) throws {
        let isFirst = self.welcome == nil
        self.welcome = welcome
        isWelcome = true
        var settings = try JSONDecoder().decode(Settings.self, from: Data(welcome.settings.utf8))
        if let root = options.dataRoot { settings.data.root = root }
        self.settings = settings
        for rows in unacknowledged { send(rows) }
        guard isFirst else { return }
        let (device, mailbox, expected) = (options.device, mailbox, welcome.datasetDigest)
        Thread.detachNewThread { [settings] in
            mailbox.post(
                .prepared(
                    Result {
                        let setup = try EvaluationSetup(settings: settings, device: device)
                        guard setup.datasetDigest == expected else {
                            throw EvalWorkerError(
                                .dataset,
                                "data set \(settings.data.root ?? "") has digest "
                                    + "\(setup.datasetDigest.hex), the run's has \(expected.hex); "
                                    + "name the run's own data with --data-root")
                        }
                        return try setup.checkpointScorer()
                    }))
        }
    }

    private func stopped(_ message: WireStop) throws {
        switch message.reason {
        case .finished: end = .success(.finished)
        case .drained: end = .success(.drained)
        // Between HELLO and WELCOME this answers something older.
        case .expelled: if isWelcome { sayHello() }
        default: throw EvalWorkerError(.refused, message.message)
        }
    }

    private func handle(_ input: Input) {
        switch input {
        case .prepared(.success(let scorer)):
            self.scorer = scorer
            idleSince = clock.now
            poll()
        case .prepared(.failure(let error)): leave(failing: error)
        case .scored(let rows):
            held.removeAll { $0.step == rows.step && $0.set == rows.set }
            unacknowledged.append(rows)
            send(rows)
        case .done:
            isWorking = false
            held = []
            idleSince = clock.now
            poll()
        case .drain:
            var message = WireGoodbye()
            message.reason = "asked to stop"
            link.send(.goodbye(message))
            end = .success(.drained)
        }
    }

    private func leave(failing error: any Error) {
        var message = WireGoodbye()
        message.reason = "\(error)"
        message.failed = true
        link.send(.goodbye(message))
        end = .failure(error)
    }

    private func poll() {
        nextPoll = clock.now + .seconds(min(1, pollSeconds))
        // Without a connection these would queue up for the next coordinator.
        guard welcome != nil, saidHello else { return }
        for rows in unacknowledged where isDue(rows) { send(rows) }
        var message = WireEvaluationPoll()
        message.held = held
        let mayAsk = scorer != nil && !isWorking && unacknowledged.isEmpty
        message.idle = mayAsk && clock.now >= nextAsk
        if message.idle { nextAsk = clock.now + .seconds(pollSeconds) }
        link.send(.evaluationPoll(message))
    }

    private func send(_ rows: WireEvaluationRows) {
        sentAt["\(rows.step)-\(rows.set)"] = clock.now
        link.send(.evaluationRows(rows))
    }

    /// Rows are sent again only where the acknowledgement has had time to come.
    private func isDue(_ rows: WireEvaluationRows) -> Bool {
        guard let sent = sentAt["\(rows.step)-\(rows.set)"] else { return true }
        return clock.now - sent > .seconds(2)
    }

    private func granted(_ grant: WireEvaluationGrant) {
        guard grant.granted else {
            if options.once, scorer != nil, !isWorking, unacknowledged.isEmpty {
                end = .success(.finished)
            }
            return
        }
        guard !isWorking, let scorer, let welcome else { return }
        isWorking = true
        held = grant.sets.map { set in
            var task = WireEvaluationTask()
            task.step = grant.step
            task.set = set
            return task
        }
        let (mailbox, context, run, stop) = (mailbox, context, link.run, stop)
        let identity = "\(worker)-fetch-\(grant.step)"
        Thread.detachNewThread {
            Self.score(
                grant, scorer, welcome, context, identity: identity, run: run, stop: stop
            ) { mailbox.post(.scored($0)) }
            mailbox.post(.done)
        }
    }

    private static func score(
        _ grant: WireEvaluationGrant, _ scorer: CheckpointScorer, _ welcome: WireWelcome,
        _ context: Context, identity: String, run: UInt64, stop: StopRequest,
        report: @escaping @Sendable (WireEvaluationRows) -> Void
    ) {
        let step = grant.step
        let digest = grant.digest
        @Sendable func rows(_ set: String) -> WireEvaluationRows {
            var rows = WireEvaluationRows()
            rows.step = step
            rows.set = set
            rows.checkpointDigest = digest
            return rows
        }
        do {
            let checkpoint = try GrantedCheckpoint.open(
                grant, welcome, context, identity: identity, run: run)
            scorer.score(
                checkpoint, sets: grant.sets, concurrently: true, stop: stop
            ) { set, outcome in
                var rows = rows(set)
                switch outcome {
                case .success(let result):
                    rows.started = result.started
                    rows.finished = result.finished
                    rows.metrics = result.metrics.map { name, value in
                        var metric = WireMetricValue()
                        metric.metric = name.rawValue
                        metric.value = value
                        return metric
                    }.sorted { $0.metric < $1.metric }
                case .failure(let error):
                    // A drain is no failure of the set.
                    if (error as? EvalWorkerError)?.code == .stopped { return }
                    rows.failure = "\(error)"
                }
                report(rows)
            }
        } catch {
            for set in grant.sets {
                var failed = rows(set)
                failed.failure = "\(error)"
                report(failed)
            }
        }
    }

    private func checkClocks() {
        guard end == nil else { return }
        if !saidHello || welcome == nil, clock.now - heardAt > options.patience {
            end = .failure(
                EvalWorkerError(
                    .noCoordinator,
                    "no coordinator has answered at \(options.coordinator) for "
                        + "\(options.patience.components.seconds) s; start one there, or name "
                        + "another address with --coordinator"))
            return
        }
        guard let settings, scorer != nil else { return }
        if isWorking || !unacknowledged.isEmpty {
            idleSince = clock.now
        } else if clock.now - idleSince > .seconds(settings.evaluation.timeoutSeconds) {
            var message = WireGoodbye()
            message.reason = "no new checkpoint for \(settings.evaluation.timeoutSeconds) s"
            link.send(.goodbye(message))
            end = .success(.timedOut)
        }
    }
}

/// A granted checkpoint as a file of this machine: the run's own where it can be read and holds the
/// granted state, else a fetched copy of the part that scoring needs.
private enum GrantedCheckpoint {
    /// Headers of networks of any size are shorter.
    private static let headerBytesGuess = 256 << 10

    static func open(
        _ grant: WireEvaluationGrant, _ welcome: WireWelcome, _ context: Context,
        identity: String, run: UInt64
    ) throws -> CheckpointReader {
        let shared = welcome.runDirectory + "/" + grant.file
        if let reader = try? CheckpointReader(path: shared, verifying: .weights),
            reader.digests.state == grant.digest
        {
            return reader
        }
        let byteCount = Int(clamping: grant.byteCount)
        func fetch(_ count: Int) throws -> Data {
            try FileFetcher.fetch(
                context, from: welcome.dataAddress, identity: identity + "-\(count)", run: run,
                file: grant.file, byteCount: min(count, byteCount))
        }
        var start = try fetch(Self.headerBytesGuess)
        let headerBytes = try start.withUnsafeBytes {
            try SafetensorsLayout.headerBytes($0, path: grant.file)
        }
        if let headerBytes, headerBytes > start.count { start = try fetch(headerBytes) }
        let header = try start.withUnsafeBytes {
            try CheckpointHeader(prefix: $0, byteCount: byteCount, path: grant.file)
        }
        guard header.digests.state == grant.digest else {
            throw EvalWorkerError(
                .corrupt,
                "\(grant.file) holds state \(header.digests.state.hex), the coordinator named "
                    + "\(grant.digest.hex)")
        }
        // The optimizer's tensors stay where they are: a hole has their place. The file is needed by
        // its name only until it is open.
        let path = FileManager.default.temporaryDirectory.appendingPathComponent(
            "lineup-\(identity).safetensors"
        ).path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try fetch(header.weightsEnd).write(to: URL(fileURLWithPath: path))
        guard truncate(path, off_t(byteCount)) == 0 else {
            throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path])
        }
        return try CheckpointReader(path: path, verifying: .weights)
    }
}

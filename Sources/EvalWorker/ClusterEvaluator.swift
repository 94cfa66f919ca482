internal import Basics
public import ClusterCore
internal import Flight
internal import Foundation
internal import Logging
internal import Protocol
internal import Scoring
internal import Settings
internal import Storage
internal import Synchronization
public import Tensors
public import Transport

/// How an evaluator of a cluster is started.
public struct ClusterEvaluatorOptions: Sendable {
    /// Control address of the coordinator.
    public var coordinator: String
    /// This evaluator's key and the coordinator's; nil without keys.
    public var keys: WorkerKeys?
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
    /// Folder of the flight record; nil for this machine's temporary one.
    public var flightFolder: String?

    /// Names every option.
    public init(
        coordinator: String, keys: WorkerKeys? = nil, device: Device, dataRoot: String?,
        once: Bool, patience: Duration, host: String, version: String,
        flightFolder: String? = nil
    ) {
        self.coordinator = coordinator
        self.keys = keys
        self.device = device
        self.dataRoot = dataRoot
        self.once = once
        self.patience = patience
        self.host = host
        self.version = version
        self.flightFolder = flightFolder
    }
}

/// An evaluator as a process of a cluster: leases sets of checkpoints, fetches, scores, reports.
///
/// One thread, the one that calls ``run()``, owns the socket; scoring has threads of its own. Rows
/// are kept and sent again until the coordinator has acknowledged them, and the idle clock stands
/// still while there is work or an unacknowledged row.
public final class ClusterEvaluator {
    private enum Input: Sendable {
        case prepared(Result<CheckpointScorer, any Error>)
        case scored(WireEvaluationRows)
        case done
        /// The coordinator's files cannot be had from here.
        case unreachable(TransportError)
        case drain
        case copyRecord
    }

    /// Events in each of the two files of the flight record, in bytes.
    private static let flightBytes = 256 << 10

    private let options: ClusterEvaluatorOptions
    private let worker: String
    private let context: Context
    private let link: WorkerLink
    private let mailbox = Mailbox<Input>()
    private let stop = StopRequest()
    private let logger = Logger(label: "lineup.evaluator")
    private let clock = ContinuousClock()
    private let begun: ContinuousClock.Instant
    private var machine: EvaluatorStateMachine
    private let flight: FlightRecorder<EvaluatorStateMachine>
    private var welcome = WireWelcome()
    private let bulk = BulkAddress()
    private var settings: Settings?
    private var scorer: CheckpointScorer?
    private var lostAt: ContinuousClock.Instant
    private var end: Result<EvaluatorEnd, any Error>?

    /// Opens the socket.
    ///
    /// - Throws: ``TransportError`` for an address that cannot be used.
    public init(options: ClusterEvaluatorOptions) throws {
        self.options = options
        // Nothing is bound here: nobody asks to come in.
        context = try Context(
            keys: options.keys?.own, refusals: Refusals(label: "lineup.evaluator")
        ) { _ in false }
        link = try WorkerLink(
            context, coordinator: options.coordinator, role: .evaluator, keys: options.keys,
            host: options.host)
        worker = link.worker
        machine = EvaluatorStateMachine(worker: worker, once: options.once)
        flight = FlightRecorder(
            path: (options.flightFolder ?? FlightFolder.ofThisMachine) + "/" + worker,
            bytes: Self.flightBytes,
            report: { [logger] in logger.warning("no flight record: \($0)") })
        begun = clock.now
        lostAt = clock.now
    }

    /// Asks to leave; may be called from any thread.
    public var drain: @Sendable () -> Void {
        let mailbox = mailbox
        return { mailbox.post(.drain) }
    }

    /// Copies the flight record aside; may be called from any thread.
    public var copyRecord: @Sendable () -> Void {
        let mailbox = mailbox
        return { mailbox.post(.copyRecord) }
    }

    /// Tells the machine, and the record.
    private func tell(_ input: EvaluatorInput) -> [EvaluatorAction] {
        flight.tell(input, now: now, machine: &machine)
    }

    /// Scores until the run ends or nothing new comes.
    ///
    /// - Throws: ``EvalWorkerError`` that says why it could not start or go on.
    public func run() throws -> EvaluatorEnd {
        while end == nil {
            Poller.wait([link.socket], wakeup: mailbox.wakeup, timeout: .milliseconds(100))
            do {
                try receive()
            } catch {
                end = .failure(error)
            }
            for input in mailbox.take() where end == nil { handle(input) }
            perform(tell(.tick))
            checkPatience()
        }
        stop.stop()
        if let file = flight.close(after: end!) {
            logger.notice("look at the last decisions by: lineup flight \(file)")
        }
        return try end!.get()
    }

    /// Time since the start.
    private var now: Duration { clock.now - begun }

    private func receive() throws {
        for event in try link.connectionEvents() {
            switch event {
            case .closed: perform(tell(.connectionClosed))
            case .opened: perform(tell(.connectionOpened))
            case .failed: break
            }
        }
        for body in try link.receive() where end == nil {
            if case .welcome(let welcome) = body {
                self.welcome = welcome
                bulk.value.withLock { $0 = welcome.dataAddress }
            }
            perform(tell(.received(body)))
        }
    }

    private func perform(_ actions: [EvaluatorAction]) {
        for action in actions where end == nil {
            switch action {
            case .send(let body): link.send(completed(body))
            case .prepare(let welcome): prepare(welcome)
            case .score(let grant): score(grant)
            case .leave(let reason): end = .success(reason)
            case .refused(let why): end = .failure(EvalWorkerError(.refused, why))
            }
        }
    }

    /// Adds what the machine does not know.
    private func completed(_ body: WireBody) -> WireBody {
        guard case .hello(var hello) = body else { return body }
        hello.lineupVersion = options.version
        hello.host = options.host
        hello.processID = UInt32(ProcessInfo.processInfo.processIdentifier)
        hello.device = options.device.description
        return .hello(hello)
    }

    private func prepare(_ welcome: WireWelcome) {
        let settings: Settings
        do {
            var run = try Settings.resolve(
                paramsJSON: Data(welcome.settings.utf8), paramsName: "the coordinator's settings")
            if let root = options.dataRoot { run.data.root = root }
            settings = run
        } catch {
            return leave(failing: error)
        }
        self.settings = settings
        let (device, mailbox, expected) = (options.device, mailbox, welcome.datasetDigest)
        Thread.detachNewThread {
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

    private func handle(_ input: Input) {
        switch input {
        case .prepared(.success(let scorer)):
            self.scorer = scorer
            var message = WirePrepared()
            message.datasetDigest = scorer.datasetDigest
            message.numerics.description_p = scorer.numericsClass
            perform(
                tell(
                    .prepared(
                        message, pollSeconds: settings!.evaluation.pollSeconds,
                        timeoutSeconds: settings!.evaluation.timeoutSeconds)))
        case .prepared(.failure(let error)): leave(failing: error)
        case .scored(let rows): perform(tell(.scored(rows)))
        case .done: perform(tell(.scoringEnded))
        case .unreachable(let error):
            leave(
                failing: EvalWorkerError(
                    .noCoordinator,
                    "\(error.message); see that this machine reaches that address, or start the "
                        + "coordinator with --bulk-bind and --bulk-advertise"))
        case .drain: perform(tell(.drain))
        case .copyRecord:
            logger.notice(
                "flight record copied",
                metadata: ["file": "\(flight.copy() ?? flight.problem ?? "none")"])
        }
    }

    private func leave(failing error: any Error) {
        var message = WireGoodbye()
        message.reason = "\(error)"
        message.failed = true
        link.send(.goodbye(message))
        end = .failure(error)
    }

    private func checkPatience() {
        // A coordinator that knows this worker may have nothing to say: only its absence counts.
        if machine.isKnown { lostAt = clock.now }
        guard end == nil, clock.now - lostAt > options.patience else { return }
        end = .failure(
            EvalWorkerError(
                .noCoordinator,
                "no coordinator has answered at \(options.coordinator) for "
                    + "\(options.patience.components.seconds) s; start one there, or name "
                    + "another address with --coordinator"))
    }

    private func score(_ grant: WireEvaluationGrant) {
        let (mailbox, stop, scorer) = (mailbox, stop, scorer!)
        let source = CheckpointSource(
            context: context, run: link.run, folder: welcome.runDirectory, address: bulk,
            silence: options.patience, copyName: "\(worker)-\(grant.step)",
            isWhole: scorer.needsWholeCheckpoints, stop: stop)
        Thread.detachNewThread {
            do throws(TransportError) {
                try Self.score(grant, scorer, source, stop: stop) { mailbox.post(.scored($0)) }
                mailbox.post(.done)
            } catch {
                mailbox.post(.unreachable(error))
            }
        }
    }

    /// - Throws: ``TransportError`` with code `unanswered`: that is no failure of the sets.
    private static func score(
        _ grant: WireEvaluationGrant, _ scorer: CheckpointScorer, _ source: CheckpointSource,
        stop: StopRequest, report: @escaping @Sendable (WireEvaluationRows) -> Void
    ) throws(TransportError) {
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
            let checkpoint = try source.open(grant)
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
            if stop.isStopped { return }
            if let error = error as? TransportError, error.code == .unanswered { throw error }
            for set in grant.sets {
                var failed = rows(set)
                failed.failure = "\(error)"
                report(failed)
            }
        }
    }
}

/// Where the coordinator of now gives files out.
private final class BulkAddress: Sendable {
    let value = Mutex("")
}

/// Where granted checkpoints are had from.
private struct CheckpointSource: Sendable {
    let context: Context
    let run: UInt64
    /// The run's folder, as the coordinator sees it.
    let folder: String
    let address: BulkAddress
    /// How long the coordinator may give nothing.
    let silence: Duration
    /// A name that no other copy on this machine has.
    let copyName: String
    /// Whether all of a checkpoint is needed, and not the weights alone.
    let isWhole: Bool
    let stop: StopRequest

    /// Headers of networks of any size are shorter.
    private static let headerBytesGuess = 256 << 10

    /// A granted checkpoint as a file of this machine: the run's own where it can be read and holds
    /// the granted state, else a fetched copy of the part that scoring needs.
    func open(_ grant: WireEvaluationGrant) throws -> CheckpointReader {
        if let reader = try? CheckpointReader(path: folder + "/" + grant.file, verifying: .weights),
            reader.digests.state == grant.digest
        {
            return reader
        }
        let byteCount = Int(clamping: grant.byteCount)
        func fetch(_ count: Int) throws -> Data {
            try FileFetcher.fetch(
                context, from: address.value.withLock { $0 }, run: run, file: grant.file,
                byteCount: min(count, byteCount), silence: silence,
                isCancelled: { stop.isStopped })
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
            "lineup-\(copyName).safetensors"
        ).path
        defer { try? FileManager.default.removeItem(atPath: path) }
        try fetch(isWhole ? byteCount : header.weightsEnd).write(to: URL(fileURLWithPath: path))
        guard truncate(path, off_t(byteCount)) == 0 else {
            throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path])
        }
        return try CheckpointReader(path: path, verifying: .weights)
    }
}

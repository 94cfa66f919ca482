internal import Basics
public import ClusterCore
public import Datasets
internal import Flight
internal import Foundation
internal import Logging
internal import Protocol
internal import Settings
internal import Storage
public import Transport

/// How a coordinator is started.
public struct CoordinatorOptions: Sendable {
    /// Control address to bind; `*` as port takes a free one.
    public var bind: String
    /// Address to bind for checkpoints; any port of the control address's interface where nil.
    public var bulkBind: String?
    /// The address for checkpoints that workers are told, where it is not the one that is bound.
    public var bulkAdvertised: String?
    /// Whether a bind that others can reach is allowed without keys.
    public var isInsecure: Bool
    /// The coordinator's key and whom it admits; nil without keys.
    public var keys: CoordinatorKeys?
    /// Trainers that the first step waits for.
    public var expectedTrainers: Int
    /// Evaluators that the end of the run waits for.
    public var expectedEvaluators: Int
    /// How long workers that are expected are waited for.
    public var startPatience: Duration
    /// Whether a run that exists goes on in other numerics classes than it had.
    public var acceptsNumerics: Bool
    /// This machine's name for others.
    public var host: String
    /// This Lineup.
    public var version: String

    /// Names every option.
    public init(
        bind: String, bulkBind: String? = nil, bulkAdvertised: String? = nil, isInsecure: Bool,
        keys: CoordinatorKeys? = nil, expectedTrainers: Int, expectedEvaluators: Int,
        startPatience: Duration = .seconds(60), acceptsNumerics: Bool = false, host: String,
        version: String
    ) {
        self.bind = bind
        self.bulkBind = bulkBind
        self.bulkAdvertised = bulkAdvertised
        self.isInsecure = isInsecure
        self.keys = keys
        self.expectedTrainers = expectedTrainers
        self.expectedEvaluators = expectedEvaluators
        self.startPatience = startPatience
        self.acceptsNumerics = acceptsNumerics
        self.host = host
        self.version = version
    }
}

/// The coordinator as a process: sockets, ledger and checkpoint store around the state machine.
///
/// One thread, the one that calls ``run()``, owns the control socket and the ledger. Bulk data has
/// a thread and a socket of its own.
public final class CoordinatorShell {
    private enum Input: Sendable {
        case bulk(BulkServer.Event)
        case drain
        case copyRecord
    }

    private let folder: RunFolder
    private let options: CoordinatorOptions
    private let runID: UInt64
    private let ledger: Ledger
    private var machine: CoordinatorStateMachine
    private let flight: FlightRecorder<CoordinatorStateMachine>
    private let context: Context
    private let control: Socket
    private let bulk: BulkServer
    private let mailbox = Mailbox<Input>()
    private let events: RunEvents
    private let detailedLog: DetailedLog
    /// What trainers have sent for it of the step in hand.
    private var details: SlotDetails
    private let logger = Logger(label: "lineup.coordinator")
    private let clock = ContinuousClock()
    private let begun: ContinuousClock.Instant
    private var awake = AwakeClock()
    private var connections: Connections
    private let refusals = Refusals(label: "lineup.coordinator")
    private var mistakes: (since: ContinuousClock.Instant, count: Int)
    /// Notes for the ledger that one transaction is to write, and what is sent after it.
    private var notes: [LedgerNote] = []
    /// Most notes and messages that wait for one another.
    private static let unwrittenMax = 4_096
    private var outbox: [(body: WireBody, worker: String, route: Data)] = []
    /// The message that was sent last, as bytes: a plan goes to many.
    private var encoded: (body: WireBody, frame: Data)?
    /// What every WELCOME says.
    private let welcome: WireWelcome
    /// What the state before the first step takes from elsewhere.
    private let startingWeights: StartingWeights.Copy?
    /// Whom trainers were told last that they may let in.
    private var toldKeys: [PublicKey] = []
    private var outcome: CoordinatorOutcome?
    /// Where workers connect.
    public let address: String
    /// Events in each of the two files of the flight record, in bytes.
    private static let flightBytes = 2 << 20

    /// Opens ledger and sockets; nothing is dispatched before ``run()``.
    ///
    /// - Throws: what is wrong with run, data set, ledger, checkpoints or address.
    public init(folder: RunFolder, dataSet: DataSet, options: CoordinatorOptions) throws {
        try Address.check(options.bind)
        for address in [options.bind, options.bulkBind].compactMap(\.self) {
            try Address.checkBind(
                address, hasKeys: options.keys != nil, isInsecure: options.isInsecure)
        }
        if let advertised = options.bulkAdvertised { try Address.checkAdvertised(advertised) }
        self.folder = folder
        self.options = options
        begun = clock.now
        mistakes = (begun, 0)
        var plan = try TrainingPlan(settings: folder.settings, dataSet: dataSet)
        for notice in plan.notices { logger.notice("\(notice)") }
        ledger = try Ledger(
            path: folder.ledger, lockPath: folder.path + "/" + Ledger.lockName,
            isBegun: try folder.hasCheckpoints())
        let isNew = try ledger.reader.run() == nil
        let recovered = try RunRecovery(
            folder: folder, ledger: ledger, dataSet: dataSet,
            acceptsNumerics: options.acceptsNumerics)
        if recovered.recovery.checkpoints.isEmpty {
            startingWeights = try StartingWeights.copy(of: folder)
        } else {
            // The run goes on without its beginning.
            startingWeights = try? StartingWeights.copy(of: folder)
        }
        // Only what comes after the newest checkpoint may have to be done again.
        try plan.keep(
            try ledger.reader.scalars(after: recovered.recovery.checkpoints.last?.step ?? 0))
        runID = XXH64.digest(recovered.run.run)
        events = try RunEvents(folder: folder, ledger: ledger)
        detailedLog = try DetailedLog(run: folder.path, settings: folder.settings, ledger: ledger)
        details = SlotDetails(dimension: folder.settings.network.embeddingDim)
        machine = CoordinatorStateMachine(
            configuration: Self.configuration(
                folder, options, run: runID, dataset: dataSet.digest),
            source: plan, recovery: recovered.recovery)
        flight = FlightRecorder(
            path: "\(folder.flight)/coordinator-\(recovered.recovery.term)",
            bytes: Self.flightBytes,
            report: { [logger] in logger.warning("no flight record: \($0)") })
        let admission = options.keys?.admission
        context = try Context(keys: options.keys?.own, refusals: refusals) { key in
            admission?.entry(for: key) != nil
        }
        connections = Connections(admission)
        control = try Socket(
            context, .server, frameBytesMax: WireCodec.workerMessageBytesMax,
            sendQueueMax: 1_000)
        try control.watchConnections()
        address = Address.reachable(
            try Self.bind(control, options, leftBy: folder.addressFile), from: options.host)
        let mailbox = mailbox
        bulk = try BulkServer(
            context, bind: options.bulkBind ?? Self.bulkAddress(options.bind),
            advertised: options.bulkAdvertised, host: options.host, run: runID, folder: folder,
            admission: admission, refusals: refusals,
            report: { mailbox.post(.bulk($0)) })
        var welcome = WireWelcome()
        welcome.runName = folder.name
        welcome.runDirectory = folder.path
        welcome.settings = folder.settings.canonicalJSON
        welcome.settingsDigest = folder.settings.digest
        welcome.dataAddress = bulk.address
        self.welcome = welcome
        perform(recovered.notes)
        if isNew, let text = startingWeights?.text {
            perform([.event(kind: "weights", severity: .info, text: text)])
        }
        takeUpDetails(lastStep: recovered.run.lastStep)
        flush()
        // An extended run has not ended any more.
        try? FileManager.default.removeItem(atPath: folder.finishedFile)
        try CoordinatorAddress(
            address: address, host: options.host,
            process: ProcessInfo.processInfo.processIdentifier
        ).write(to: folder.addressFile)
    }

    private static func configuration(
        _ folder: RunFolder, _ options: CoordinatorOptions, run: UInt64, dataset: UInt64
    ) -> CoordinatorConfiguration {
        let settings = folder.settings
        return CoordinatorConfiguration(
            run: run, datasetDigest: dataset, slotCount: settings.batch.miniBatchesPerStep,
            totalSteps: settings.schedule.steps,
            checkpointEverySteps: settings.checkpoint.everySteps,
            checkpointMaxLagSteps: settings.checkpoint.maxLagSteps,
            evaluationSets: settings.evaluation.sets,
            evaluationTimeout: .seconds(settings.evaluation.timeoutSeconds),
            expectedTrainers: options.expectedTrainers,
            expectedEvaluators: options.expectedEvaluators, startPatience: options.startPatience,
            recoveryInterval: settings.checkpoint.recoverySeconds > 0
                ? .seconds(settings.checkpoint.recoverySeconds) : nil,
            retention: CheckpointRetention(settings.checkpoint),
            decisions: DecisionRule(settings),
            audit: Audit(seed: settings.seed, fraction: settings.auditFraction),
            collapse: CollapseDetector(settings.loss),
            minesStep: settings.mining.scope == .step,
            isBitwise: settings.numerics.mode == .bitwise, lineupVersion: options.version)
    }

    /// Where any port will do, the one of the coordinator that died: its workers look for it there.
    private static func bind(
        _ control: Socket, _ options: CoordinatorOptions, leftBy file: String
    ) throws -> String {
        if options.bind.hasSuffix(":*"), let left = CoordinatorAddress(file: file),
            left.host == options.host, let port = left.address.split(separator: ":").last,
            let bound = try? control.bind(options.bind.dropLast() + String(port))
        {
            return bound
        }
        return try control.bind(options.bind)
    }

    /// The same interface as the control address, on any free port.
    private static func bulkAddress(_ control: String) -> String {
        if control.hasPrefix("ipc://") { return control + ".data" }
        return "tcp://\(Address.host(of: control) ?? "127.0.0.1"):*"
    }

    /// Asks to stop at the next step boundary; may be called from any thread.
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
    ///
    /// - Parameter frame: the message that the input is, as it came.
    private func tell(_ input: CoordinatorInput, frame: [UInt8]? = nil) -> [CoordinatorAction] {
        let actions = flight.tell(input, now: now, machine: &machine, frame: frame)
        // Before anybody is told to send one; most messages decide nothing.
        if frame == nil || !actions.isEmpty {
            bulk.expect(machine.awaitedCheckpoint, barred: machine.quarantinedWorkers)
        }
        return actions
    }

    /// Runs until the run is finished, drained or cannot go on.
    public func run() throws -> CoordinatorOutcome {
        var nextStatus = clock.now
        while outcome == nil {
            Poller.wait([control], wakeup: mailbox.wakeup, timeout: .milliseconds(100))
            receive()
            for input in mailbox.take() { handle(input) }
            perform(tell(.tick))
            admissionChanged()
            flush()
            if clock.now >= nextStatus {
                nextStatus = clock.now + .milliseconds(500)
                refusals.report()
                sendStatus()
            }
        }
        sendStatus()
        try finish()
        return outcome!
    }

    /// Time since the start, without pauses of this process.
    private var now: Duration { awake.now(at: clock.now - begun) }

    private func finish() throws {
        if outcome != .superseded { moveDetails { try detailedLog.writeAll() } }
        flush()
        bulk.stop()
        refusals.report(isLast: true)
        if let file = flight.close(keep: true), outcome != .finished, outcome != .drained {
            logger.notice("look at the last decisions by: lineup flight \(file)")
        }
        switch outcome! {
        case .finished:
            try ledger.setState(.finished)
            try RunFolder.write("finished\n", to: folder.finishedFile)
        case .drained: try ledger.setState(.drained)
        case .failed, .disagreed: try? ledger.setState(.failed)
        case .superseded: break
        }
        // The newer coordinator's is not this one's to remove.
        if outcome != .superseded {
            try? FileManager.default.removeItem(atPath: folder.addressFile)
        }
        try events.close()
        try ledger.close()
    }

    // MARK: In

    private func receive() {
        // A bounded share, so that no peer keeps the machine from its clock.
        for _ in 0..<4_096 {
            guard let frames = control.receive() else { break }
            // Before this message's connection is noted: an older one may have had its descriptor.
            closeConnections()
            guard frames.count == 2 else {
                refusals.note("a message of another form", "\(frames.count) frames")
                continue
            }
            receive(frames[1], at: frames[0].data)
        }
        closeConnections()
    }

    private func receive(_ frame: Frame, at route: Data) {
        guard connections.admits(frame) else {
            return refusals.note(
                "a message with a key that is not allowed any more", frame.key?.hex ?? "no key")
        }
        let envelope: WireEnvelope
        do throws(ProtocolError) {
            envelope = try frame.withUnsafeBytes { bytes throws(ProtocolError) in
                try WireCodec.decode(bytes)
            }
        } catch {
            refusals.note(
                "what is no message",
                "\(connections.worker(at: route) ?? "a stranger"): \(error.message)")
            if error.code == .version { refuse(route, .version, error.message) }
            return
        }
        guard envelope.run == 0 || envelope.run == runID, let body = envelope.body else {
            refusals.note("a message of another run", connections.worker(at: route) ?? "a stranger")
            return refuse(route, .version, "speaks of another run")
        }
        if case .hello(let hello) = body,
            let why = connections.open(route, hello, frame: frame)
        {
            note(kind: "refused", severity: .warning, text: why)
            return refuse(route, .role, why)
        }
        guard let worker = connections.worker(at: route) else {
            // A worker of an earlier term, or one whose connection was lost: it starts over.
            control.send([WireCodec.encode(.stop(.sayHelloAgain), run: runID)], to: route)
            return
        }
        if case .slotDetail(let piece) = body { return take(piece, from: worker) }
        guard
            !detailedLog.isOn
                || details.hasAll(claimedBy: body, from: worker, of: machine.samplesInHand)
        else {
            return refusals.note("a slot without what logging.detailed writes of it", worker)
        }
        perform(tell(.received(body, from: worker), frame: Array(frame.bytes)))
    }

    private func refuse(_ route: Data, _ code: WireRefusal.Code, _ text: String) {
        var refusal = WireRefusal()
        refusal.code = code
        refusal.message = text
        control.send([WireCodec.encode(.refusal(refusal), run: runID)], to: route)
    }

    private func closeConnections() {
        for event in control.connectionEvents() {
            switch event {
            case .opened: break
            case .failed: refusals.note("a connection that could not be agreed on")
            case .closed(let descriptor):
                guard let worker = connections.closed(descriptor: descriptor) else { continue }
                perform(tell(.disconnected(worker)))
            }
        }
    }

    /// What a change of the allow list brings: whoever is no longer on it goes, and trainers hear whom
    /// they may let in.
    private func admissionChanged() {
        for (worker, route, why) in connections.closeDisallowed() {
            refuse(route, .role, why)
            note(kind: "refused", severity: .warning, text: "\(worker): \(why)")
            var goodbye = WireGoodbye()
            goodbye.reason = why
            goodbye.failed = true
            perform(tell(.received(.goodbye(goodbye), from: worker)))
        }
        guard let keys = trainerKeys, keys != toldKeys else { return }
        toldKeys = keys
        for worker in connections.trainers { post(.admission(WireAdmission(keys)), to: worker) }
    }

    private func handle(_ input: Input) {
        switch input {
        case .drain: perform(tell(.drain))
        case .copyRecord:
            logger.notice(
                "flight record copied",
                metadata: ["file": "\(flight.copy() ?? flight.problem ?? "none")"])
        case .bulk(.stored(let checkpoint, let stored)):
            do {
                if !checkpoint.isRecovery {
                    try ledger.insertCheckpoint(
                        CheckpointRecord(
                            step: checkpoint.step, file: checkpoint.file,
                            bytes: checkpoint.byteCount, digest: stored.digests.weights,
                            stateDigest: stored.digests.state,
                            written: Ledger.secondsSince1970()))
                }
                perform(tell(.checkpointStored(checkpoint)))
            } catch {
                if error.code == .staleTerm { return perform(tell(.ledgerRefused)) }
                perform(
                    tell(.checkpointWriteFailed(step: checkpoint.step, reason: "\(error)")))
            }
        case .bulk(.piece(let step)): perform(tell(.checkpointPieceReceived(step: step)))
        case .bulk(.refused(let step, let reason)):
            perform(tell(.checkpointRefused(step: step, reason: reason)))
        case .bulk(.failed(let step, let reason)):
            perform(tell(.checkpointWriteFailed(step: step, reason: reason)))
        }
    }

    // MARK: Out

    private func perform(_ actions: [CoordinatorAction]) {
        for action in actions { perform(action) }
    }

    private func perform(_ action: CoordinatorAction) {
        switch action {
        case .send(let body, let worker): post(body, to: worker)
        case .commit(let record): commit(record)
        case .supersede(let step): supersede(from: step)
        case .compareRedone(let record): compare(record)
        case .workerJoined(let hello): notes.append(.joined(WorkerRecord(hello)))
        case .workerPrepared(let worker, let text):
            notes.append(.prepared(worker, numericsClass: text))
        case .workerLeft(let worker, let why):
            notes.append(.left(worker, at: Ledger.secondsSince1970(), why: why))
        case .recordNumerics(let text, let role):
            do {
                try role == .trainer
                    ? ledger.setNumericsClasses(training: text)
                    : ledger.setNumericsClasses(evaluation: text)
            } catch {
                stopAll(for: error)
            }
        case .forget: break
        case .verifyCheckpoint(let checkpoint): verify(checkpoint)
        case .deleteCheckpoint(let checkpoint): delete(checkpoint)
        case .dropRecoverySnapshots(let step): dropRecoverySnapshots(before: step)
        case .event(let kind, let severity, let text):
            note(kind: kind, severity: severity, text: text)
        case .recordEvaluation(let rows, let worker): recordEvaluation(rows, from: worker)
        case .readTerm(let worker): readTerm(for: worker)
        case .finish(let outcome): self.outcome = self.outcome ?? outcome
        }
    }

    /// Reads a checkpoint that a worker could not load.
    private func verify(_ checkpoint: DurableCheckpoint) {
        let store = CheckpointStore(
            directory: checkpoint.isRecovery ? folder.recovery : folder.checkpoints)
        let reader = try? store.open(step: checkpoint.step)
        perform(
            tell(
                .checkpointVerified(
                    checkpoint, isWhole: reader?.digests.state == checkpoint.digest)))
    }

    private func readTerm(for worker: String) {
        do {
            let current = try ledger.reader.run()?.term ?? 0
            perform(tell(.termRead(UInt64(current), for: worker)))
        } catch {
            stopAll(for: error)
        }
    }

    /// The row first: a crash in between leaves a file too many, which the next start lists again.
    private func delete(_ checkpoint: DurableCheckpoint) {
        do {
            try ledger.setCheckpointState(step: checkpoint.step, .deleted)
            try CheckpointStore(directory: folder.checkpoints).remove(step: checkpoint.step)
        } catch {
            if error.code == .staleTerm { return perform(tell(.ledgerRefused)) }
            logger.warning("a checkpoint was not deleted", metadata: ["why": "\(error)"])
        }
    }

    private func dropRecoverySnapshots(before step: Int) {
        let store = CheckpointStore(directory: folder.recovery)
        record {
            for old in try store.steps() where old < step { try store.remove(step: old) }
        }
    }

    /// Sends a message, once the ledger holds what was noted before it.
    private func post(_ body: WireBody, to worker: String) {
        guard let route = connections.route(to: worker) else { return unsent(to: worker) }
        if notes.count + outbox.count >= Self.unwrittenMax { flush() }
        if notes.isEmpty {
            send(body, to: worker, at: route)
        } else {
            outbox.append((body, worker, route))
        }
    }

    /// Writes what was noted, then sends what waits for it.
    private func flush() {
        guard !notes.isEmpty else { return }
        let written = Result { try ledger.record(notes) }
        notes = []
        // Who is quarantined, and who comes back, is known from them after a crash.
        if case .failure(let error) = written { stopAll(for: error) }
        for (body, worker, route) in outbox { send(body, to: worker, at: route) }
        outbox = []
    }

    private func send(_ body: WireBody, to worker: String, at route: Data) {
        var body = body
        if case .welcome(let specific) = body { body = .welcome(completed(specific)) }
        if case .loadState(let load) = body { body = .loadState(completed(load)) }
        if encoded?.body != body { encoded = (body, WireCodec.encode(body, run: runID)) }
        if !control.send([encoded!.frame], to: route) { unsent(to: worker) }
    }

    private func unsent(to worker: String) {
        logger.debug("a message found no connection", metadata: ["worker.id": "\(worker)"])
    }

    private func completed(_ specific: WireWelcome) -> WireWelcome {
        var welcome = welcome
        welcome.term = specific.term
        welcome.committedStep = specific.committedStep
        welcome.worker = specific.worker
        welcome.datasetDigest = specific.datasetDigest
        if let trainerKeys { welcome.admission = WireAdmission(trainerKeys) }
        return welcome
    }

    /// Says what the state before the first step is made from.
    private func completed(_ load: WireLoadState) -> WireLoadState {
        guard load.source == .initial, let startingWeights else { return load }
        var load = load
        load.file = StartingWeights.fileName
        load.byteCount = UInt64(startingWeights.byteCount)
        load.digest = startingWeights.stateDigest
        return load
    }

    /// Keys of trainers whose numbers are used; nil where the cluster has no keys.
    private var trainerKeys: [PublicKey]? {
        guard let allowed = options.keys?.admission.trainers.keys else { return nil }
        let barred = machine.barredKeys
        return barred.isEmpty ? allowed : allowed.filter { !barred.contains($0.fingerprint) }
    }

    private func commit(_ record: ClusterCore.StepRecord) {
        flush()
        let start = clock.now
        do {
            let history = try ledger.commitStep(
                Storage.StepRecord(record), miniBatches: MiniBatchRecord.all(of: record),
                detailed: detailedLog.isOn ? try details.rows(of: record, machine) : nil)
            guard history == record.history else {
                return stopAll(
                    "step \(record.step): the ledger's history is \(history.hex), the cluster's "
                        + "\(record.history.hex); resume from the last checkpoint")
            }
            events.stepCommitted(record, commitSeconds: (clock.now - start).seconds)
            perform(tell(.stepCommitted(record)))
            // Trainers compute the next step meanwhile.
            moveDetails { try detailedLog.writeFull(lastStep: record.step) }
        } catch {
            stopAll(for: error)
        }
    }

    private func supersede(from step: Int) {
        flush()
        moveDetails { try detailedLog.writeAll() }
        do {
            try ledger.supersede(fromStep: step)
        } catch {
            return stopAll(for: error)
        }
        takeUpDetails(lastStep: step - 1)
    }

    // MARK: The detailed log

    /// Keeps a piece of a slot's embeddings and losses: the machine knows nothing of them, nor does the
    /// flight record.
    private func take(_ piece: WireSlotDetail, from worker: String) {
        let why =
            detailedLog.isOn
            ? details.add(piece, from: worker, of: machine.samplesInHand)
            : "logging.detailed is off"
        if let why { refusals.note("embeddings that are not wanted", "\(worker): \(why)") }
    }

    private func takeUpDetails(lastStep: Int) {
        moveDetails {
            for name in try detailedLog.takeUp(lastStep: lastStep) {
                note(
                    kind: "detailed_log", severity: .info,
                    text:
                        "steps after \(lastStep) are done again: RUN/detailed/\(name) has what they "
                        + "were")
            }
        }
    }

    /// Rows that cannot be moved to a file stay in the ledger, and the training goes on.
    private func moveDetails(_ body: () throws -> Void) {
        do {
            try body()
        } catch {
            if (error as? StorageError)?.code == .staleTerm {
                return perform(tell(.ledgerRefused))
            }
            note(kind: "detailed_log", severity: .warning, text: "\(error)")
        }
    }

    private func compare(_ record: ClusterCore.StepRecord) {
        flush()
        do {
            // What is redone writes nothing, so that the ledger itself refuses nobody.
            guard try ledger.reader.run()?.term == ledger.term else {
                return perform(tell(.ledgerRefused))
            }
            let stored = try ledger.reader.digest(ofStep: record.step)
            perform(tell(.stepCompared(record, matches: stored == record.digest)))
        } catch {
            stopAll(for: error)
        }
    }

    private func recordEvaluation(_ rows: WireEvaluationRows, from worker: String) {
        flush()
        do {
            let records = rows.metrics.map {
                EvaluationRecord(
                    step: Int(clamping: rows.step), set: rows.set, metric: $0.metric,
                    value: $0.value, started: rows.started, finished: rows.finished,
                    evaluator: worker, numericsClass: machine.numericsClass(of: worker))
            }
            let outcomes = try ledger.insertEvaluations(records)
            if outcomes.contains(.inserted) { events.evaluated(rows) }
            perform(tell(.evaluationRecorded(rows, from: worker)))
        } catch {
            stopAll(for: error)
        }
    }

    /// The ledger cannot be written: a newer coordinator has begun, or nothing more can happen.
    private func stopAll(for error: any Error) {
        if (error as? StorageError)?.code == .staleTerm {
            perform(tell(.ledgerRefused))
        } else {
            stopAll("\(error)")
        }
    }

    /// Nothing more can happen, and everyone is told.
    private func stopAll(_ why: String) { perform(tell(.ledgerFailed(why))) }

    /// Telemetry: a row that cannot be written is said, and the training goes on.
    private func record(_ body: () throws -> Void) {
        do {
            try body()
        } catch {
            logger.warning("not recorded", metadata: ["why": "\(error)"])
        }
    }

    /// A peer's mistakes in the ledger: this many in this time, what is beyond is counted alone.
    private static let mistakesMax = 20
    private static let mistakesWindow = Duration.seconds(10)

    private func mayRecordMistake() -> Bool {
        if clock.now - mistakes.since > Self.mistakesWindow { mistakes = (clock.now, 0) }
        mistakes.count += 1
        return mistakes.count <= Self.mistakesMax
    }

    private func note(kind: String, severity: EventSeverity, text: String) {
        if ["refused", "protocol"].contains(kind), !mayRecordMistake() {
            return refusals.note("a message that no worker should send", text)
        }
        let level: Logger.Level =
            switch severity {
            case .info: .info
            case .warning: .warning
            case .error: .error
            }
        logger.log(level: level, "\(text)", metadata: ["kind": "\(kind)"])
        machine.noteEvent(text)
        notes.append(
            .event(
                EventRecord(
                    time: Ledger.secondsSince1970(), kind: kind,
                    severity: EventRecord.Severity(rawValue: severity.rawValue) ?? .info,
                    text: text)))
    }

    private func sendStatus() {
        let observers = machine.observers
        guard !observers.isEmpty else { return }
        var status = machine.status(now: now)
        status.runName = folder.name
        status.runDirectory = folder.path
        for observer in observers { post(.status(status), to: observer) }
    }
}

extension CheckpointRetention {
    /// The rules of a run; nil where it keeps every checkpoint.
    init?(_ settings: Settings.Checkpoint) {
        guard settings.keepLast > 0 else { return nil }
        self.init(
            last: settings.keepLast, everySteps: settings.keepEverySteps, best: settings.keepBest,
            ranking: Ranking(
                set: settings.keepBestSet, metric: settings.keepBestMetric.rawValue,
                isLargerBetter: settings.keepBestMetric.isLargerBetter),
            unscored: settings.keepUnscored)
    }
}

extension DecisionRule {
    /// The rules of a run; nil where scores decide nothing.
    init?(_ settings: Settings) {
        let schedule = settings.schedule
        guard schedule.goesByScores else { return nil }
        self.init(
            ranking: CheckpointRetention.Ranking(
                set: schedule.decisionSet, metric: schedule.decisionMetric.rawValue,
                isLargerBetter: schedule.decisionMetric.isLargerBetter),
            checkpointEverySteps: settings.checkpoint.everySteps,
            lagSteps: schedule.decisionLagSteps,
            plateauPatience: schedule.name == .plateau ? schedule.plateauPatience : 0,
            stopPatience: schedule.stopPatience, minDelta: schedule.minDelta)
    }
}

extension WorkerRecord {
    init(_ hello: WireHello) {
        self.init(
            worker: hello.worker, role: hello.role.word, process: Int(hello.processID),
            host: hello.host,
            device: hello.device, joined: Ledger.secondsSince1970())
    }
}

extension Storage.StepRecord {
    init(_ record: ClusterCore.StepRecord) {
        let compute = record.miniBatches.reduce(into: [String: Double]()) { sums, batch in
            sums[batch.worker, default: 0] += batch.computeSeconds
        }
        self.init(
            step: record.step, loss: Double(record.loss),
            fractionPositive: record.fractionPositive, activeCount: record.activeCount,
            learningRate: record.learningRate, samples: record.samples, digest: record.digest,
            scalars: record.scalars.text, stateDigest: nil,
            seconds: StepSeconds(
                compute: compute.values.max() ?? 0, exchange: record.exchangeSeconds, commit: 0,
                total: record.totalSeconds))
    }
}

extension MiniBatchRecord {
    static func all(of record: ClusterCore.StepRecord) -> [MiniBatchRecord] {
        record.miniBatches.map {
            MiniBatchRecord(
                step: record.step, slot: $0.slot, attempt: $0.attempt - 1, worker: $0.worker,
                seconds: $0.computeSeconds)
        }
    }
}

extension WireAdmission {
    init(_ keys: [PublicKey]) {
        self.init()
        trainers = keys.map { Data($0.bytes) }
    }
}

extension WireStop {
    /// For a worker that is not known here.
    static var sayHelloAgain: WireStop {
        var stop = WireStop()
        stop.reason = .expelled
        stop.message = "say HELLO again"
        return stop
    }
}

internal import Basics
internal import ClusterCore
internal import Datasets
internal import Exchange
internal import Flight
internal import Foundation
internal import Images
internal import Logging
internal import MetricLearning
internal import Protocol
internal import Settings
internal import Storage
internal import Synchronization
public import Tensors
internal import Training
public import Transport

/// How a trainer is started.
public struct TrainerOptions: Sendable {
    /// Control address of the coordinator.
    public var coordinator: String
    /// This trainer's key and the coordinator's; nil without keys.
    public var keys: WorkerKeys?
    /// Where slots are computed.
    public var device: Device
    /// Slots computed at once, each on a thread of its own.
    public var slotThreads: Int
    /// The run's data on this machine; nil where the coordinator's settings name it.
    public var dataRoot: String?
    /// Address that other trainers connect to; `*` as port takes a free one.
    public var bind: String
    /// The address that other trainers are told, where it is not the one that is bound.
    public var advertised: String?
    /// How long a coordinator that does not answer is waited for.
    public var patience: Duration
    /// This machine's name for others.
    public var host: String
    /// This Lineup.
    public var version: String
    /// Folder of the flight record; nil for this machine's temporary one.
    public var flightFolder: String?
    /// What a slot takes longer than it would: trainers that share a machine in a benchmark then do not
    /// take its processors from one another.
    public var slotPause: Duration
    /// A bit that flips in memory, once: for tests of what audits find.
    public var flip: BitFlip?

    /// Names every option.
    public init(
        coordinator: String, keys: WorkerKeys? = nil, device: Device, slotThreads: Int,
        dataRoot: String?, bind: String, advertised: String? = nil, patience: Duration,
        host: String, version: String, flightFolder: String? = nil,
        slotPause: Duration = .zero, flip: BitFlip? = nil
    ) {
        self.coordinator = coordinator
        self.keys = keys
        self.device = device
        self.slotThreads = slotThreads
        self.dataRoot = dataRoot
        self.bind = bind
        self.advertised = advertised
        self.patience = patience
        self.host = host
        self.version = version
        self.flightFolder = flightFolder
        self.slotPause = slotPause
        self.flip = flip
    }
}

/// How a worker's life ended, where nothing was wrong.
public enum WorkerEnd: Sendable, Equatable {
    /// The run is finished.
    case finished
    /// The worker or its coordinator was asked to stop.
    case drained
}

/// A trainer as a process: slots on a device, gradient exchange and state around the state machine.
///
/// One thread, the one that calls ``run()``, owns the sockets and the state. Slots are computed on
/// threads of a pool that only read the state; apply waits until none of them runs.
public final class TrainerShell {
    enum Input: Sendable {
        case prepared(Result<Prepared, any Error>, epoch: Int)
        case loaded(Result<Loaded, any Error>, epoch: Int)
        case embedded(EmbeddedSlotResult, epoch: Int)
        case computed(ComputedSlot, epoch: Int)
        case slotFailed(step: Int, slot: Int, why: String, diverged: Bool, epoch: Int)
        case sendFailed(step: Int, why: String)
        case stateDigested(step: Int, Result<UInt64, any Error>, epoch: Int)
        case note(String)
        case drain
        case copyRecord
    }

    struct Prepared: Sendable {
        let settings: Settings
        let configuration: TrainingConfiguration
        let inputs: SlotInputs
        let computer: SlotComputer
        let flat: FlatLayout
        let numerics: String
        let datasetDigest: UInt64
    }

    struct Loaded: Sendable {
        let state: TrainingState
        let digest: UInt64
    }

    struct ComputedSlot: Sendable {
        let done: WireSlotDone
        let contribution: SlotContribution
        /// What logging.detailed writes of it.
        let detail: Data
        /// What it is when it is done, where somebody else computes it too.
        let seal: SlotSeal?
        /// Of which loss the gradient is, in a step that mines over all of its slots.
        let loss: SharedStepLoss?

        /// - Parameter sealer: nil where nobody else computes the slot.
        init(
            _ done: WireSlotDone, _ contribution: SlotContribution, _ sealer: SlotSealer?,
            detail: Data, loss: SharedStepLoss? = nil
        ) {
            let seal = sealer?.seal(contribution)
            var done = done
            done.digest = seal?.digest ?? 0
            self.done = done
            self.contribution = contribution
            self.detail = detail
            self.seal = seal
            self.loss = loss
        }
    }

    let options: TrainerOptions
    let worker: String
    let context: Context
    /// Whom this trainer's data socket lets in, where the cluster has keys.
    let admitted = AdmittedKeys()
    let refusals = Refusals(label: "lineup.trainer")
    let link: WorkerLink
    let data: Socket
    let dataAddress: String
    let mailbox = Mailbox<Input>()
    let pool: WorkPool
    let tickets = SlotTickets()
    let logger = Logger(label: "lineup.trainer")
    let clock = ContinuousClock()
    let begun: ContinuousClock.Instant
    var machine: TrainerStateMachine
    private let flight: FlightRecorder<TrainerStateMachine>
    var welcome = WireWelcome()
    var prepared: Prepared?
    var layout: EffectLayout?
    var state: TrainingState?
    var buffers: StepBuffers?
    var spare: BufferPool?
    let carrier: BlockCarrier
    var parked = ParkedBlocks(bytesMax: 0)
    /// What is held between the phases of a step that mines over all of its slots.
    var mined = MinedStep()
    /// What logging.detailed writes of slots of the step in hand.
    var details: [Int: Data] = [:]
    /// Whether this coordinator writes them: the setting may change with the coordinator.
    var wantsDetails = false
    var incoming: IncomingState?
    var snapshots: SnapshotSender?
    var flip: BitFlip?
    var applySeconds = 0.0
    var exchangeBegan: ContinuousClock.Instant?
    var exchangeSeconds = 0.0
    var end: Result<WorkerEnd, any Error>?
    private var lostAt: ContinuousClock.Instant
    private var drainedAt: ContinuousClock.Instant?

    /// How long a trainer that was asked to leave waits to be let go at a step boundary.
    static let drainPatience = Duration.seconds(30)
    /// Events in each of the two files of the flight record, in bytes.
    private static let flightBytes = 1 << 20

    /// Opens the sockets.
    ///
    /// - Throws: ``TransportError`` for an address that cannot be used.
    public init(options: TrainerOptions) throws {
        self.options = options
        // A peer may be on the coordinator's list before this trainer has heard of it.
        context = try Context(
            keys: options.keys?.own, refusals: refusals, isRefusalFinal: false,
            admits: admitted.admits)
        link = try WorkerLink(
            context, coordinator: options.coordinator, role: .trainer, keys: options.keys,
            host: options.host)
        worker = link.worker
        data = try Socket(context, .router, frameBytesMax: WireCodec.payloadBytesMax)
        carrier = BlockCarrier(context, me: worker)
        dataAddress = carrier.addresses(
            try data.bindForData(
                options.bind, host: options.host, advertised: options.advertised))
        pool = WorkPool(threads: options.slotThreads)
        flip = options.flip
        machine = TrainerStateMachine(worker: worker)
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
    func tell(_ input: TrainerInput) -> [TrainerAction] {
        flight.tell(input, now: now, machine: &machine)
    }

    /// Time since the start.
    var now: Duration { clock.now - begun }

    /// Takes part until the run ends or this worker is no longer wanted.
    ///
    /// - Throws: ``TrainerError`` that says why it could not start or go on.
    public func run() throws -> WorkerEnd {
        while end == nil {
            Poller.wait(
                [link.socket, data], wakeup: mailbox.wakeup, timeout: .milliseconds(50))
            do {
                try receiveControl()
                receiveData()
            } catch {
                end = .failure(error)
            }
            for input in mailbox.take() where end == nil { handle(input) }
            sendAgain()
            perform(tell(.tick))
            refusals.report()
            checkPatience()
        }
        pool.stop()
        prepared?.inputs.stop()
        snapshots?.stop()
        if let file = flight.close(after: end!) {
            logger.notice("look at the last decisions by: lineup flight \(file)")
        }
        return try end!.get()
    }

    // MARK: Control

    private func receiveControl() throws {
        for event in try link.connectionEvents() {
            switch event {
            case .closed: perform(tell(.connectionClosed))
            case .opened: perform(tell(.connectionOpened))
            case .failed: break
            }
        }
        for body in try link.receive() where end == nil {
            switch body {
            case .welcome(let welcome): welcomed(welcome)
            case .admission(let admission): admitted.replace(with: admission.trainers)
            default: break
            }
            perform(tell(.received(body)))
        }
    }

    private func welcomed(_ welcome: WireWelcome) {
        // A coordinator that was replaced may still speak.
        guard welcome.term >= self.welcome.term else { return }
        self.welcome = welcome
        wantsDetails = (try? Self.settings(of: welcome))?.logging.detailed == true
        admitted.replace(with: welcome.admission.trainers)
        snapshots?.coordinator = welcome.dataAddress
    }

    private func checkPatience() {
        guard end == nil else { return }
        if let drainedAt, clock.now - drainedAt > Self.drainPatience {
            say(goodbye: "asked to stop", failed: false)
            end = .success(.drained)
        }
        // A coordinator that knows this worker may have nothing to say: only its absence counts.
        if machine.isKnown { lostAt = clock.now }
        guard clock.now - lostAt > options.patience else { return }
        end = .failure(
            TrainerError(
                .noCoordinator,
                "no coordinator has answered at \(options.coordinator) for "
                    + "\(options.patience.components.seconds) s; start one there, or name "
                    + "another address with --coordinator"))
    }

    private func handle(_ input: Input) {
        switch input {
        case .prepared(.success(let prepared), let epoch):
            guard epoch == machine.epoch else { return prepared.inputs.stop() }
            didPrepare(prepared, epoch: epoch)
        case .prepared(.failure(let error), let epoch):
            if epoch == machine.epoch { leave(failing: error) }
        case .loaded(.success(let loaded), let epoch): didLoad(loaded, epoch: epoch)
        case .loaded(.failure(let error), let epoch):
            perform(tell(.loadFailed("\(error)", epoch: epoch)))
        case .computed(let slot, let epoch):
            guard epoch == machine.epoch, let buffers, buffers.step == Int(slot.done.step),
                slot.loss === mined.loss, machine.awaits(slot.done)
            else { return }
            buffers.keep(slot: Int(slot.done.slot), slot.contribution, seal: slot.seal)
            details[Int(slot.done.slot)] = slot.detail
            exchangeBegan = clock.now
            perform(tell(.slotComputed(slot.done, epoch: epoch)))
        case .embedded(let slot, let epoch):
            guard epoch == machine.epoch, let buffers, buffers.step == Int(slot.done.step),
                machine.awaitsEmbeddings(slot.done)
            else { return }
            keep(slot, in: buffers)
            perform(tell(.slotEmbedded(slot.done, epoch: epoch)))
        case .slotFailed(let step, let slot, let why, let diverged, let epoch):
            perform(
                tell(
                    .slotFailed(
                        step: step, slot: slot, reason: why, diverged: diverged, epoch: epoch)))
        case .sendFailed(let step, let why):
            var message = WireCheckpointFailed()
            message.step = UInt64(step)
            message.reason = why
            link.send(.checkpointFailed(message))
        case .stateDigested(let step, .success(let digest), let epoch):
            perform(tell(.stateDigested(step: step, digest: digest, epoch: epoch)))
        case .stateDigested(_, .failure(let error), _): leave(failing: error)
        case .note(let text): logger.warning("\(text)")
        case .drain:
            drainedAt = clock.now
            perform(tell(.drain))
        case .copyRecord:
            logger.notice(
                "flight record copied",
                metadata: ["file": "\(flight.copy() ?? flight.problem ?? "none")"])
        }
    }

    private func say(goodbye reason: String, failed: Bool) {
        var message = WireGoodbye()
        message.reason = reason
        message.failed = failed
        link.send(.goodbye(message))
    }

    func leave(failing error: any Error) {
        guard end == nil else { return }
        say(goodbye: "\(error)", failed: true)
        end = .failure(error)
    }

    /// Waits for slots that have begun, and says meanwhile that this trainer lives.
    private func waitUntilIdle() {
        while !pool.waitUntilIdle(seconds: 0.2) {
            _ = tell(.stillBusy)
            for case .send(let body) in tell(.tick) { send(body) }
        }
    }

    /// Lets go of the state and of what is computed from it.
    func letGoOfState() {
        pool.dropWaiting()
        waitUntilIdle()
        tickets.cancelAll()
        snapshots?.waitUntilCopied()
        // Copies of a state that the run has left are of no use.
        snapshots?.releaseAll()
        state = nil
        endMinedStep()
        details = [:]
        if let buffers { spare!.recycle(buffers) }
        buffers = nil
        incoming = nil
        parked.removeAll()
    }

    // MARK: Actions

    func perform(_ actions: [TrainerAction]) {
        for action in actions where end == nil {
            do {
                try perform(action)
            } catch {
                leave(failing: error)
            }
        }
    }

    private func perform(_ action: TrainerAction) throws {
        switch action {
        case .send(let body): send(body)
        case .prepare(let welcome, let epoch): prepare(welcome, epoch: epoch)
        case .load(let load, let epoch): startLoading(load, epoch: epoch)
        case .donate(let donation): donate(donation)
        case .prefetch(let steps, let slots): prefetch(steps, slots: slots)
        case .compute(let step, let slots, let samples, let epoch) where isMiningStep:
            embed(step: step, slots: slots, samples: samples, epoch: epoch)
        case .backward(let step, let slots, let epoch):
            try backward(step: step, slots: slots, epoch: epoch)
        case .gather(let gather): try perform(gather)
        case .compute(let step, let slots, let samples, let epoch):
            compute(step: step, slots: slots, samples: samples, epoch: epoch)
        case .cancel(let step, let slots):
            for slot in slots { tickets.cancel(.init(step: step, slot: slot)) }
        case .openExchange(let step, let history, let peers):
            try openExchange(step: step, history: history, peers: peers)
        case .peersChanged(let peers): try carrier.connect(peers)
        case .refold(_, let slots): buffers!.forgetSums(and: slots)
        case .takeParked(let step): takeParked(of: step)
        case .exchange(let exchange): try perform(exchange)
        case .digestEffect(let step, let fold, let scalars, let epoch):
            try digestEffect(step: step, fold: fold, scalars, epoch: epoch)
        case .apply(let step, let scalars, let epoch):
            try apply(step: step, scalars, epoch: epoch)
        case .snapshot(let step, let recovery, let send):
            snapshot(step: step, recovery: recovery, send: send)
        case .sendSnapshot(let step, let recovery):
            snapshots?.send(step: step, recovery: recovery)
        case .releaseSnapshot(let step): snapshots?.release(step: step)
        case .keepForJoiners(let step): keepForJoiners(step: step)
        case .releaseForJoiners(let step): snapshots?.releaseForJoiners(step: step)
        case .digestState(let step, let epoch): digestState(step: step, epoch: epoch)
        case .note(let text): logger.warning("\(text)")
        case .leave(let stop): leave(stop)
        case .refused(let refusal): end = .failure(TrainerError(.refused, refusal.message))
        case .fail(let why): leave(failing: TrainerError(.failed, "trainer \(worker): \(why)"))
        }
    }

    /// Adds what the machine does not know.
    func completed(_ body: WireBody) -> WireBody {
        switch body {
        case .hello(var hello):
            hello.lineupVersion = options.version
            hello.host = options.host
            hello.processID = UInt32(ProcessInfo.processInfo.processIdentifier)
            hello.device = options.device.description
            hello.dataAddress = dataAddress
            return .hello(hello)
        case .ready(var ready):
            ready.exchangeSeconds = exchangeSeconds
            ready.applySeconds = applySeconds
            return .ready(ready)
        default: return body
        }
    }

    private func leave(_ stop: WireStop) {
        switch stop.reason {
        case .finished: end = .success(.finished)
        case .drained: end = .success(.drained)
        default: end = .failure(TrainerError(.failed, stop.message))
        }
    }

    // MARK: Effect and apply

    private func digestEffect(
        step: Int, fold: Int, _ scalars: WireStepScalars, epoch: Int
    ) throws {
        exchangeSeconds = exchangeBegan.map { (clock.now - $0).seconds } ?? 0
        let effect = effect(step: step, scalars)
        let digest = StepEffect.digest(
            blocks: Array(buffers!.digests[..<layout!.gradientBlocks]),
            batchStatistics: effect.batchStatistics, entries: effect.entries,
            scalars: effect.scalars, step: step)
        perform(
            tell(
                .effectDigested(
                    step: step, fold: fold, digest: digest,
                    state: try partialStateDigest(step: step), epoch: epoch)))
    }

    /// A rotating sixteenth of the state's tensors, so that a state that differs is found soon.
    private func partialStateDigest(step: Int) throws -> UInt64 {
        // On a GPU this would copy the whole state to the host at every step.
        guard options.device == .cpu else { return 0 }
        return try state!.digest(ofPart: step % 16, of: 16, threads: options.slotThreads)
    }

    private func effect(step: Int, _ scalars: WireStepScalars) -> StepEffect {
        let effect = buffers!.effect
        return StepEffect(
            step: step, gradient: effect.gradient, batchStatistics: Array(effect.statistics.floats),
            entries: Array(effect.entries.floats),
            scalars: StepScalars(
                learningRate: Double(bitPattern: scalars.learningRate),
                effectiveRate: Double(bitPattern: scalars.effectiveRate),
                effectiveEpsilon: Double(bitPattern: scalars.effectiveEpsilon)))
    }

    /// The one place where this process changes training state.
    private func apply(step: Int, _ scalars: WireStepScalars, epoch: Int) throws {
        let start = clock.now
        // A slot that was leased here a second time may still be reading the state, and so may a
        // copy for a checkpoint. What has not begun is not needed any more.
        pool.dropWaiting()
        waitUntilIdle()
        snapshots?.waitUntilCopied()
        try Training.apply(
            effect(step: step, scalars), to: state!, threads: options.slotThreads)
        endMinedStep()
        details = [:]
        spare!.recycle(buffers!)
        buffers = nil
        tickets.cancelAll()
        applySeconds = (clock.now - start).seconds
        prepared!.inputs.drop(before: step + 1)
        perform(tell(.applied(step: step, epoch: epoch)))
    }
}

internal import Basics
internal import ClusterCore
internal import Datasets
internal import Foundation
internal import Images
internal import Logging
internal import Protocol
internal import Settings
internal import Storage
public import Tensors
internal import Training
internal import Transport

/// How a trainer is started.
public struct TrainerOptions: Sendable {
    /// Control address of the coordinator.
    public var coordinator: String
    /// Where slots are computed.
    public var device: Device
    /// Slots computed at once, each on a thread of its own.
    public var slotThreads: Int
    /// The run's data on this machine; nil where the coordinator's settings name it.
    public var dataRoot: String?
    /// Address that other trainers connect to; `*` as port takes a free one.
    public var bind: String
    /// How long a coordinator that does not answer is waited for.
    public var patience: Duration
    /// This machine's name for others.
    public var host: String
    /// This Lineup.
    public var version: String

    /// Names every option.
    public init(
        coordinator: String, device: Device, slotThreads: Int, dataRoot: String?, bind: String,
        patience: Duration, host: String, version: String
    ) {
        self.coordinator = coordinator
        self.device = device
        self.slotThreads = slotThreads
        self.dataRoot = dataRoot
        self.bind = bind
        self.patience = patience
        self.host = host
        self.version = version
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
        case computed(ComputedSlot, epoch: Int)
        case slotFailed(step: Int, slot: Int, why: String, epoch: Int)
        case sendFailed(step: Int, why: String)
        case note(String)
        case drain
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
    }

    let options: TrainerOptions
    let worker: String
    let context = Context()
    let link: WorkerLink
    let data: Socket
    let dataAddress: String
    let mailbox = Mailbox<Input>()
    let pool: WorkPool
    let logger = Logger(label: "lineup.trainer")
    let clock = ContinuousClock()
    var machine: TrainerStateMachine?
    var welcome = WireWelcome()
    var prepared: Prepared?
    var layout: EffectLayout?
    var state: TrainingState?
    var buffers: StepBuffers?
    var peers: [String: (address: String, socket: Socket)] = [:]
    var parked: [(header: WireDataHeader, payload: Frame)] = []
    var incoming: IncomingState?
    var snapshots: SnapshotSender?
    /// Raised when state is loaded anew: what was computed before is of no use.
    var epoch = 0
    var applySeconds = 0.0
    var exchangeBegan: ContinuousClock.Instant?
    var exchangeSeconds = 0.0
    var end: Result<WorkerEnd, any Error>?
    private var heardAt: ContinuousClock.Instant
    private var saidHello = false
    private var isWelcome = false
    private var spareContributions: [SlotContribution] = []
    private var progressCounter: UInt64 = 0

    /// Opens the sockets.
    ///
    /// - Throws: ``TransportError`` for an address that cannot be used.
    public init(options: TrainerOptions) throws {
        self.options = options
        worker = WorkerName.make(
            role: "trainer", host: options.host,
            process: ProcessInfo.processInfo.processIdentifier)
        link = try WorkerLink(context, coordinator: options.coordinator, worker: worker)
        data = try Socket(context, .router, frameBytesMax: WireCodec.payloadBytesMax)
        dataAddress = try data.bindForData(options.bind, host: options.host)
        pool = WorkPool(threads: options.slotThreads)
        heardAt = clock.now
    }

    /// Asks to leave; may be called from any thread.
    public var drain: @Sendable () -> Void {
        let mailbox = mailbox
        return { mailbox.post(.drain) }
    }

    /// Takes part until the run ends or this worker is no longer wanted.
    ///
    /// - Throws: ``TrainerError`` that says why it could not start or go on.
    public func run() throws -> WorkerEnd {
        sayHello()
        var nextProgress = clock.now
        while end == nil {
            Poller.wait(
                [link.socket, data], wakeup: mailbox.wakeup, timeout: .milliseconds(100))
            do {
                try receiveControl()
                receiveData()
            } catch {
                end = .failure(error)
            }
            for input in mailbox.take() { handle(input) }
            if clock.now >= nextProgress {
                nextProgress = clock.now + .milliseconds(250)
                sayProgress()
            }
            checkPatience()
        }
        pool.stop()
        prepared?.inputs.stop()
        snapshots?.stop()
        return try end!.get()
    }

    // MARK: Control

    private func sayHello() {
        machine = nil
        var hello = WireHello()
        hello.lineupVersion = options.version
        hello.role = .trainer
        hello.worker = worker
        hello.host = options.host
        hello.processID = UInt32(ProcessInfo.processInfo.processIdentifier)
        hello.device = options.device.description
        hello.dataAddress = dataAddress
        link.send(.hello(hello))
        saidHello = true
        isWelcome = false
    }

    private func receiveControl() throws {
        for event in link.socket.connectionEvents() {
            switch event {
            case .closed: saidHello = false
            case .opened:
                // A coordinator that was restarted knows nobody.
                if !saidHello {
                    forgetRun()
                    sayHello()
                }
            }
        }
        for body in try link.receive() {
            heardAt = clock.now
            if case .welcome(let welcome) = body {
                self.welcome = welcome
                epoch += 1
                isWelcome = true
                let settings = try JSONDecoder().decode(
                    Settings.self, from: Data(welcome.settings.utf8))
                machine = TrainerStateMachine(
                    worker: worker, slotCount: settings.batch.miniBatchesPerStep)
            }
            if case .stop(let stop) = body, stop.reason == .expelled, !isWelcome { continue }
            if machine == nil {
                // Refused before WELCOME.
                machine = TrainerStateMachine(worker: worker, slotCount: 1)
            }
            perform(machine!.received(body))
        }
    }

    private func checkPatience() {
        guard end == nil, clock.now - heardAt > options.patience else { return }
        // A coordinator that has nothing to say is still connected: only silence without a
        // connection is a missing coordinator.
        if saidHello && machine != nil { return }
        end = .failure(
            TrainerError(
                .noCoordinator,
                "no coordinator has answered at \(options.coordinator) for "
                    + "\(options.patience.components.seconds) s; start one there, or name "
                    + "another address with --coordinator"))
    }

    private func sayProgress() {
        // Without a connection these would queue up for the next coordinator.
        guard saidHello, let machine else { return }
        progressCounter += 1
        var message = WireProgress()
        message.step = UInt64(machine.step)
        message.phase = machine.phaseName
        message.slotsDone = UInt32(machine.slots.done)
        message.slotsLeased = UInt32(machine.slots.leased)
        message.counter = progressCounter
        link.send(.progress(message))
    }

    private func handle(_ input: Input) {
        switch input {
        case .prepared(.success(let prepared), let epoch):
            guard epoch == self.epoch, machine != nil else { return prepared.inputs.stop() }
            didPrepare(prepared)
        case .prepared(.failure(let error), let epoch):
            if epoch == self.epoch { leave(failing: error) }
        case .loaded(.success(let loaded), let epoch): didLoad(loaded, epoch: epoch)
        case .loaded(.failure(let error), let epoch):
            if epoch == self.epoch { leave(failing: error) }
        case .computed(let slot, let epoch):
            guard epoch == self.epoch, let buffers, buffers.step == Int(slot.done.step) else {
                return
            }
            buffers.keep(slot: Int(slot.done.slot), slot.contribution)
            exchangeBegan = clock.now
            perform(machine!.slotComputed(slot.done))
        case .slotFailed(let step, let slot, let why, let epoch):
            guard epoch == self.epoch else { return }
            perform(machine!.slotFailed(step: step, slot: slot, reason: why))
        case .sendFailed(let step, let why):
            var message = WireCheckpointFailed()
            message.step = UInt64(step)
            message.reason = why
            link.send(.checkpointFailed(message))
        case .note(let text): logger.warning("\(text)")
        case .drain:
            say(goodbye: "asked to stop", failed: false)
            end = .success(.drained)
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

    /// The coordinator is gone or has forgotten this worker: begin as a new one.
    private func forgetRun() {
        epoch += 1
        pool.dropWaiting()
        pool.waitUntilIdle()
        snapshots?.waitUntilCopied()
        state = nil
        buffers = nil
        incoming = nil
        parked = []
        peers = [:]
        prepared?.inputs.stop()
        prepared = nil
        snapshots?.stop()
        snapshots = nil
        heardAt = clock.now
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
        case .send(var body):
            if case .ready(var ready) = body {
                ready.exchangeSeconds = exchangeSeconds
                ready.applySeconds = applySeconds
                body = .ready(ready)
            }
            link.send(body)
        case .prepare(let welcome): prepare(welcome)
        case .load(let load): startLoading(load)
        case .donate(let donation): donate(donation)
        case .prefetch(let steps, let slots): prefetch(steps, slots: slots)
        case .compute(let step, let slots, let samples):
            compute(step: step, slots: slots, samples: samples)
        case .openExchange(let step, let history, let members):
            try openExchange(step: step, history: history, members: members)
        case .membersChanged(let members): try connect(members)
        case .exchange(let exchange): try perform(exchange)
        case .digestEffect(let step, let scalars): try digestEffect(step: step, scalars)
        case .apply(let step, let scalars): try apply(step: step, scalars)
        case .snapshot(let step, let recovery, let send):
            snapshot(step: step, recovery: recovery, send: send)
        case .sendSnapshot(let step, let recovery):
            snapshots?.send(step: step, recovery: recovery)
        case .releaseSnapshot(let step): snapshots?.release(step: step)
        case .leave(let stop): leave(stop)
        case .refused(let refusal): end = .failure(TrainerError(.refused, refusal.message))
        case .fail(let why): leave(failing: TrainerError(.failed, "trainer \(worker): \(why)"))
        }
    }

    private func leave(_ stop: WireStop) {
        switch stop.reason {
        case .finished: end = .success(.finished)
        case .drained: end = .success(.drained)
        case .expelled:
            // Between HELLO and WELCOME this answers something older.
            guard isWelcome else { return }
            // The coordinator has forgotten this worker; nothing is wrong with it.
            forgetRun()
            sayHello()
        default: end = .failure(TrainerError(.failed, stop.message))
        }
    }

    // MARK: Slots

    private func prefetch(_ steps: [WireStepSamples], slots: [Int]) {
        for samples in steps {
            for slot in slots {
                prepared!.inputs.request(
                    .init(step: Int(samples.step), slot: slot),
                    indices: samples.slots[slot].indices.map { Int($0) })
            }
        }
    }

    private func compute(step: Int, slots: [Int], samples: WireStepSamples) {
        let prepared = prepared!
        let state = state!
        let mailbox = mailbox
        let epoch = epoch
        prefetch([samples], slots: slots)
        for slot in slots {
            let contribution = takeContribution()
            let labels = samples.slots[slot].labels.map { Int($0) }
            let attempt = machine!.attempt(ofSlot: slot)
            pool.submit {
                var done = WireSlotDone()
                done.step = UInt64(step)
                done.slot = UInt32(slot)
                done.attempt = attempt
                do {
                    let computed = try Self.computeSlot(
                        done, labels: labels, prepared: prepared, state: state,
                        into: contribution)
                    mailbox.post(.computed(computed, epoch: epoch))
                } catch {
                    mailbox.post(
                        .slotFailed(
                            step: step, slot: slot, why: "\(error)", epoch: epoch))
                }
            }
        }
    }

    private static func computeSlot(
        _ done: WireSlotDone, labels: [Int], prepared: Prepared, state: TrainingState,
        into contribution: SlotContribution
    ) throws -> ComputedSlot {
        let clock = ContinuousClock()
        let start = clock.now
        let pixels = try prepared.inputs.take(
            .init(step: Int(done.step), slot: Int(done.slot)))
        let decoded = clock.now
        let result = try prepared.computer.compute(
            images: pixels.base, labels: labels, state: state, into: contribution.gradient)
        prepared.inputs.recycle(pixels)
        guard result.loss.isFinite else {
            throw TrainerError(
                .failed,
                "the loss is \(result.loss): the training diverged; lower optimizer.learning_rate "
                    + "and start from the last checkpoint")
        }
        result.batchStatistics.withUnsafeBytes { bytes in
            UnsafeMutableRawBufferPointer(contribution.statistics.floats).copyMemory(from: bytes)
        }
        var done = done
        done.loss = result.loss.bitPattern
        done.fractionPositive = result.fractionPositive
        done.activeCount = UInt64(result.activeCount)
        done.validCount = UInt64(result.validCount)
        done.decodeSeconds = (decoded - start).seconds
        done.computeSeconds = (clock.now - decoded).seconds
        return ComputedSlot(done: done, contribution: contribution)
    }

    func takeContribution() -> SlotContribution {
        if let spare = spareContributions.popLast() { return spare }
        return SlotContribution(
            gradient: FloatBuffer(count: layout!.gradientCount),
            statistics: FloatBuffer(count: layout!.statisticsCount))
    }

    private func recycle(_ buffers: StepBuffers) {
        spareContributions += buffers.slots.values
        spareContributions.append(buffers.effect)
    }

    // MARK: Effect and apply

    private func digestEffect(step: Int, _ scalars: WireStepScalars) throws {
        exchangeSeconds = exchangeBegan.map { (clock.now - $0).seconds } ?? 0
        let effect = effect(step: step, scalars)
        let digest = StepEffect.digest(
            blocks: Array(buffers!.digests[..<layout!.gradientBlocks]),
            batchStatistics: effect.batchStatistics, scalars: effect.scalars, step: step)
        perform(
            machine!.effectDigested(
                step: step, digest: digest, state: try partialStateDigest(step: step)))
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
            scalars: StepScalars(
                learningRate: Double(bitPattern: scalars.learningRate),
                effectiveRate: Double(bitPattern: scalars.effectiveRate),
                effectiveEpsilon: Double(bitPattern: scalars.effectiveEpsilon)))
    }

    /// The one place where this process changes training state.
    private func apply(step: Int, _ scalars: WireStepScalars) throws {
        let start = clock.now
        // A slot that was leased here a second time may still be reading the state, and so may a
        // copy for a checkpoint. What has not begun is not needed any more.
        pool.dropWaiting()
        pool.waitUntilIdle()
        snapshots?.waitUntilCopied()
        try Training.apply(
            effect(step: step, scalars), to: state!, threads: options.slotThreads)
        recycle(buffers!)
        buffers = nil
        applySeconds = (clock.now - start).seconds
        prepared!.inputs.drop(before: step + 1)
        perform(machine!.applied(step: step))
    }
}

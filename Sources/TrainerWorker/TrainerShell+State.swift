internal import Basics
internal import ClusterCore
internal import Datasets
internal import Exchange
internal import Foundation
internal import Logging
internal import Images
internal import MetricLearning
internal import Protocol
internal import Settings
internal import Storage
internal import Synchronization
internal import Tensors
internal import Training
internal import Transport

/// Bytes of a state that a peer sends.
struct IncomingState {
    let step: Int
    let epoch: Int
    /// The one trainer that is to send it, over whichever stream.
    let donor: String
    var bytes = Data()
    var order = ChunkOrder()
}

extension TrainerShell {
    // MARK: Getting ready

    func prepare(_ welcome: WireWelcome, epoch: Int) {
        let options = options
        let mailbox = mailbox
        Thread.detachNewThread {
            mailbox.post(.prepared(Result { try Self.prepare(welcome, options) }, epoch: epoch))
        }
    }

    /// The run's settings.
    static func settings(of welcome: WireWelcome) throws -> Settings {
        try Settings.resolve(
            paramsJSON: Data(welcome.settings.utf8), paramsName: "the coordinator's settings")
    }

    private static func prepare(
        _ welcome: WireWelcome, _ options: TrainerOptions
    ) throws -> Prepared {
        var settings = try Self.settings(of: welcome)
        if let root = options.dataRoot { settings.data.root = root }
        guard let root = settings.data.root else {
            throw TrainerError(.differs, "the run names no data; give it with --data-root CROPS")
        }
        let dataSet = try DataSet(loading: root, sets: settings.evaluation.storedSets)
        guard dataSet.digest == welcome.datasetDigest else {
            throw TrainerError(
                .differs,
                "data set \(root) has digest \(dataSet.digest.hex), the run's has "
                    + "\(welcome.datasetDigest.hex); name the run's own data with --data-root")
        }
        try Engine.load()
        try Engine.setNumerics(.bitwise)
        let configuration = try TrainingConfiguration(
            settings: settings, device: options.device,
            classCount: dataSet.trainingIdentityCount)
        let inputs = try SlotInputs(
            catalogue: dataSet.catalogue,
            input: InputConfiguration(settings: settings, isTraining: true), seed: settings.seed,
            threads: settings.data.decodeThreads)
        return Prepared(
            settings: settings, configuration: configuration, inputs: inputs,
            computer: try SlotComputer(configuration),
            flat: try configuration.layout(),
            numerics: try NumericsClass.describe(settings, configuration),
            datasetDigest: dataSet.digest)
    }

    func didPrepare(_ prepared: Prepared, epoch: Int) {
        letGoOfState()
        self.prepared?.inputs.stop()
        snapshots?.stop()
        self.prepared = prepared
        layout = EffectLayout(
            prepared.flat, memory: prepared.configuration.memory,
            embeddingCount: Self.embeddingCount(prepared.settings))
        spare = BufferPool(layout!)
        parked = ParkedBlocks(layout!, steps: TrainerStateMachine.backlogMax + 1)
        snapshots = SnapshotSender(
            context: context, coordinator: welcome.dataAddress, worker: worker, run: link.run,
            metadata: { step, history in
                CheckpointMetadata(
                    step: step, settingsDigest: prepared.settings.digest,
                    datasetDigest: prepared.datasetDigest, numericsClass: prepared.numerics,
                    history: history)
            }, mailbox: mailbox)
        var message = WirePrepared()
        message.datasetDigest = prepared.datasetDigest
        message.blockCount = UInt64(layout!.blockCount)
        message.numerics.description_p = prepared.numerics
        perform(
            tell(
                .prepared(
                    message, slotCount: prepared.settings.batch.miniBatchesPerStep,
                    audit: Audit(
                        seed: prepared.settings.seed, fraction: prepared.settings.auditFraction),
                    minesStep: prepared.settings.mining.scope == .step, epoch: epoch)))
    }

    // MARK: Getting the state

    func startLoading(_ load: WireLoadState, epoch: Int) {
        letGoOfState()
        let step = Int(clamping: load.step)
        let configuration = prepared!.configuration
        let mailbox = mailbox
        let (context, welcome, run) = (context, welcome, link.run)
        switch load.source {
        case .peer: incoming = IncomingState(step: step, epoch: epoch, donor: load.peer)
        case .initial:
            let weightsDigest = prepared!.settings.network.weightsDigest
            Thread.detachNewThread {
                mailbox.post(
                    .loaded(
                        Result {
                            let weights =
                                try load.file.isEmpty
                                ? nil : Self.checkpoint(load, welcome, context, run: run)
                            return try Self.initialState(
                                configuration, weights, digest: weightsDigest)
                        }, epoch: epoch))
            }
        case .checkpoint:
            Thread.detachNewThread {
                mailbox.post(
                    .loaded(
                        Result {
                            let reader = try Self.checkpoint(load, welcome, context, run: run)
                            return try Self.state(
                                of: reader, step: step, configuration: configuration)
                        }, epoch: epoch))
            }
        default: leave(failing: TrainerError(.failed, "told to load a state from nowhere"))
        }
    }

    /// From the run's folder where this machine sees it, else over the data channel.
    private static func checkpoint(
        _ load: WireLoadState, _ welcome: WireWelcome, _ context: Context, run: UInt64
    ) throws -> CheckpointReader {
        let path = welcome.runDirectory + "/" + load.file
        if let reader = try? CheckpointReader(path: path), reader.digests.state == load.digest {
            return reader
        }
        let bytes = try FileFetcher.fetch(
            context, from: welcome.dataAddress, run: run, file: load.file,
            byteCount: Int(clamping: load.byteCount))
        let reader = try CheckpointReader(path: load.file, files: MemoryFile(bytes))
        guard reader.digests.state == load.digest else {
            throw TrainerError(
                .failed,
                "\(load.file) holds state \(reader.digests.state.hex), the coordinator named "
                    + "\(load.digest.hex); start again")
        }
        return reader
    }

    /// The state before the first step.
    ///
    /// - Parameter digest: what the settings say of the weights that are taken from elsewhere.
    private static func initialState(
        _ configuration: TrainingConfiguration, _ weights: CheckpointReader?, digest: String?
    ) throws -> Loaded {
        guard weights?.digests.weights.hex == digest else {
            throw TrainerError(
                .differs,
                "the run starts from weights with digest \(digest ?? "none"), the coordinator has "
                    + "\(weights?.digests.weights.hex ?? "none"); put weights.safetensors back into "
                    + "the run's folder, or start a new run")
        }
        let state = try TrainingState.initial(configuration) { name in
            weights?[name].map { ($0.shape, $0.bytes) }
        }
        withExtendedLifetime(weights) {}
        return Loaded(state: state, digest: try state.digest())
    }

    static func state(
        of reader: CheckpointReader, step: Int, configuration: TrainingConfiguration
    ) throws -> Loaded {
        guard reader.metadata.step == step else {
            throw TrainerError(
                .failed, "asked for the state of step \(step), got step \(reader.metadata.step)")
        }
        let places = Dictionary(
            uniqueKeysWithValues: reader.tensors.map { ($0.name, $0) })
        let state = try TrainingState.loading(configuration, step: step) { name in
            places[name].map { ($0.shape, $0.bytes) }
        }
        withExtendedLifetime(reader) {}
        return Loaded(state: state, digest: reader.digests.state)
    }

    func didLoad(_ loaded: Loaded, epoch: Int) {
        guard epoch == machine.epoch else { return }
        state = loaded.state
        perform(
            tell(.stateLoaded(step: loaded.state.step, digest: loaded.digest, epoch: epoch)))
    }

    /// A chunk of the state from a peer.
    func takeState(_ header: WireDataHeader, _ payload: Frame, from peer: String) {
        let total = Int(clamping: header.total)
        func refuse(_ why: String) {
            var answer = WireDataHeader()
            answer.kind = .fetchFailed
            data.send([WireCodec.encode(answer), Data(why.utf8)], to: peer)
        }
        guard !machine.isQuarantined(peer) else { return refuse("nothing of \(peer) is used") }
        guard let waiting = incoming, waiting.step == Int(clamping: header.step),
            waiting.epoch == machine.epoch, waiting.donor == WorkerName.owner(of: peer),
            total <= stateBytesMax,
            waiting.bytes.isEmpty ? header.offset == 0 : waiting.bytes.count == total
        else { return refuse("not waiting for a state") }
        // Taken out, so that writing a chunk does not copy all of them.
        incoming = nil
        var incoming = waiting
        if incoming.bytes.isEmpty { incoming.bytes = Data(count: total) }
        let before = incoming.order.received
        var state = incoming.bytes
        incoming.bytes = Data()
        let answers = incoming.order.add(header, payload) { offset, bytes, _ in
            guard offset + bytes.count <= total else { return }
            state.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[offset..<offset + bytes.count])
                    .copyMemory(from: bytes)
            }
        }
        incoming.bytes = state
        for answer in answers {
            if answer.kind == .again {
                logger.warning(
                    "a piece of the state arrived damaged, or not at all",
                    metadata: ["worker.id": "\(peer)", "offset": "\(answer.offset)"])
            }
            data.send([WireCodec.encode(answer)], to: peer)
        }
        if incoming.order.received > before { _ = tell(.statePieceReceived) }
        guard incoming.order.received >= total else {
            self.incoming = incoming
            return
        }
        let configuration = prepared!.configuration
        let mailbox = mailbox
        let bytes = incoming.bytes
        let (step, epoch) = (incoming.step, incoming.epoch)
        Thread.detachNewThread {
            mailbox.post(
                .loaded(
                    Result {
                        let reader = try CheckpointReader(
                            path: "state of step \(step)", files: MemoryFile(bytes))
                        return try Self.state(
                            of: reader, step: step, configuration: configuration)
                    }, epoch: epoch))
        }
    }

    /// What is kept of each parameter, the statistics, the memory, and a header that names the tensors.
    private var stateBytesMax: Int {
        guard let layout, let configuration = prepared?.configuration else { return 0 }
        let floats =
            layout.gradientCount * configuration.stateFloatsPerParameter + layout.statisticsCount
            + (configuration.memory?.stateCount ?? 0)
        return floats * 4 + (16 << 20)
    }

    // MARK: Giving the state

    func snapshot(step: Int, recovery: Bool, send: Bool) {
        snapshots?.copy(
            state!, step: step, history: currentHistory, recovery: recovery, send: send)
    }

    func keepForJoiners(step: Int) {
        snapshots?.keepForJoiners(state!, step: step, history: currentHistory)
    }

    func digestState(step: Int, epoch: Int) {
        let mailbox = mailbox
        snapshots?.digest(state!) {
            mailbox.post(.stateDigested(step: step, $0, epoch: epoch))
        }
    }

    func donate(_ donation: WireDonateState) {
        snapshots?.donate(
            step: Int(clamping: donation.step), to: donation.dataAddress,
            joiner: donation.worker)
    }

    /// History digest up to the state that is held.
    private var currentHistory: UInt64 { machine.history }
}

/// A file that is in memory already, for readers that want one.
struct MemoryFile: FileLayer {
    private let bytes: Data

    init(_ bytes: Data) { self.bytes = bytes }

    func contents(of path: String) throws(StorageError) -> FileContents {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 64)
        bytes.withUnsafeBytes { copy.copyMemory(from: $0) }
        return FileContents(UnsafeRawBufferPointer(copy)) { $0.deallocate() }
    }

    func createDirectory(_ path: String) throws(StorageError) { throw readOnly }
    func create(_ path: String) throws(StorageError) -> any OutputFile { throw readOnly }
    func rename(_ path: String, to newPath: String) throws(StorageError) { throw readOnly }
    func remove(_ path: String) throws(StorageError) { throw readOnly }
    func exists(_ path: String) -> Bool { true }
    func list(_ directory: String) throws(StorageError) -> [String] { [] }
    func synchroniseDirectory(_ path: String) throws(StorageError) {}

    private var readOnly: StorageError {
        StorageError(.io, "a state in memory cannot be changed like a file")
    }
}

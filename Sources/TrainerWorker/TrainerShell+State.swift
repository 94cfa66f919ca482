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
    var bytes: Data
    var received = 0
    /// Who sends it; chunks of an earlier donor are refused.
    var donor = ""
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

    private static func prepare(
        _ welcome: WireWelcome, _ options: TrainerOptions
    ) throws -> Prepared {
        var settings = try Settings.resolve(
            paramsJSON: Data(welcome.settings.utf8), paramsName: "the coordinator's settings")
        if let root = options.dataRoot { settings.data.root = root }
        guard let root = settings.data.root else {
            throw TrainerError(.differs, "the run names no data; give it with --data-root CROPS")
        }
        let dataSet = try DataSet(loading: root, sets: settings.evaluation.sets)
        guard dataSet.digest == welcome.datasetDigest else {
            throw TrainerError(
                .differs,
                "data set \(root) has digest \(dataSet.digest.hex), the run's has "
                    + "\(welcome.datasetDigest.hex); name the run's own data with --data-root")
        }
        try Engine.load()
        try Engine.setNumerics(.bitwise)
        let configuration = try TrainingConfiguration(settings: settings, device: options.device)
        let inputs = try SlotInputs(
            catalogue: dataSet.catalogue,
            input: InputConfiguration(settings: settings, isTraining: true), seed: settings.seed,
            threads: settings.data.decodeThreads)
        return Prepared(
            settings: settings, configuration: configuration, inputs: inputs,
            computer: try SlotComputer(configuration),
            flat: try configuration.layout(),
            numerics: try NumericsClass.describe(settings, device: options.device),
            datasetDigest: dataSet.digest)
    }

    func didPrepare(_ prepared: Prepared, epoch: Int) {
        letGoOfState()
        self.prepared?.inputs.stop()
        snapshots?.stop()
        self.prepared = prepared
        layout = EffectLayout(prepared.flat)
        spare = BufferPool(layout!)
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
                    epoch: epoch)))
    }

    // MARK: Getting the state

    func startLoading(_ load: WireLoadState, epoch: Int) {
        letGoOfState()
        let step = Int(clamping: load.step)
        let configuration = prepared!.configuration
        let mailbox = mailbox
        switch load.source {
        case .peer: incoming = IncomingState(step: step, epoch: epoch, bytes: Data())
        case .initial:
            Thread.detachNewThread {
                mailbox.post(
                    .loaded(
                        Result {
                            let state = try TrainingState.initial(configuration)
                            return Loaded(state: state, digest: try state.digest())
                        }, epoch: epoch))
            }
        case .checkpoint:
            let context = context
            let welcome = welcome
            let run = link.run
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
        var answer = WireDataHeader()
        answer.kind = .credit
        answer.length = 1
        let offset = Int(clamping: header.offset)
        let total = Int(clamping: header.total)
        func refuse(_ why: String) {
            answer.kind = .fetchFailed
            data.send([WireCodec.encode(answer), Data(why.utf8)], to: peer)
        }
        guard let waiting = incoming, waiting.step == Int(clamping: header.step),
            waiting.epoch == machine.epoch, offset == 0 || waiting.donor == peer,
            total <= stateBytesMax
        else { return refuse("not waiting for a state") }
        // Taken out, so that writing a chunk does not copy all of them.
        incoming = nil
        var incoming = waiting
        if offset == 0 {
            // From the beginning, also where an earlier stream broke off.
            incoming.donor = peer
            incoming.received = 0
            if incoming.bytes.count != total { incoming.bytes = Data(count: total) }
        }
        let isWhole = payload.withUnsafeBytes { XXH64.digest($0) == header.digest }
        guard isWhole, offset == incoming.received, incoming.bytes.count == total,
            offset + payload.count <= total
        else {
            // The stream ends here; the machine asks for another one.
            incoming.donor = ""
            self.incoming = incoming
            logger.warning(
                "a piece of the state arrived damaged",
                metadata: ["worker.id": "\(peer)", "offset": "\(offset)"])
            return refuse("a piece arrived damaged")
        }
        payload.withUnsafeBytes { bytes in
            incoming.bytes.withUnsafeMutableBytes {
                UnsafeMutableRawBufferPointer(rebasing: $0[offset..<offset + bytes.count])
                    .copyMemory(from: bytes)
            }
        }
        _ = tell(.statePieceReceived)
        incoming.received += payload.count
        data.send([WireCodec.encode(answer)], to: peer)
        guard incoming.received == total else {
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

    /// What is kept of each parameter, the statistics, and a header that names the tensors.
    private var stateBytesMax: Int {
        guard let layout, let kept = prepared?.configuration.stateFloatsPerParameter else {
            return 0
        }
        return (layout.gradientCount * kept + layout.statisticsCount) * 4 + (16 << 20)
    }

    // MARK: Giving the state

    func snapshot(step: Int, recovery: Bool, send: Bool) {
        snapshots?.copy(
            state!, step: step, history: currentHistory, recovery: recovery, send: send)
    }

    func keepForJoiners(step: Int) {
        snapshots?.keepForJoiners(state!, step: step, history: currentHistory)
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

internal import Basics
internal import ClusterCore
internal import Datasets
internal import EvalWorker
internal import Foundation
internal import Settings
internal import Storage
internal import Synchronization

/// The triplets that a run mines while it trains, round by round.
///
/// A round is a function of settings, data and the checkpoint of its step. It is kept in the run's folder as
/// `triplets/step-STEP-STATE-DIGEST.csv`, where STATE is the digest of the state that it was mined from
/// and DIGEST that of the file, before the first step is trained on it. What is there is not mined again.
final class MinedRounds: SlotSampler {
    private let folder: RunFolder
    private let dataSet: DataSet
    private let split: ImageSplit
    private let kind: TripletKind
    private let acceptsNumerics: Bool
    private let rule: MiningRounds
    private let rounds = Mutex<[(step: Int, sampler: TripletSampler)]>([])
    private let queue = DispatchQueue(label: "lineup.mining")
    private let stopping = StopRequest()
    /// One line on identities that give no anchors.
    let repeatedNotice: String?

    /// More than the coordinator's machine remembers.
    private static let roundsMax = 16

    /// Nil for a run that mines nothing.
    ///
    /// - Throws: ``DatasetError`` or an `EvalWorkerError` where the data has too few images.
    init?(_ folder: RunFolder, _ dataSet: DataSet, acceptsNumerics: Bool) throws {
        let settings = folder.settings
        guard let rule = MiningRounds(settings),
            let kind = TripletKind(rawValue: settings.mining.offline.rawValue)
        else { return nil }
        let first = try TripletMining(round: 0, of: settings, dataSet: dataSet).miner
        guard first.possibleAnchors >= settings.batch.triplets else {
            throw DatasetError(
                .notEnough,
                "batch.triplets is \(settings.batch.triplets), but \(dataSet.root) has "
                    + "\(first.possibleAnchors) images to train on whose identity has another; set it "
                    + "from 1 to that, or add data")
        }
        self.folder = folder
        self.dataSet = dataSet
        self.rule = rule
        self.kind = kind
        self.acceptsNumerics = acceptsNumerics
        split = try ImageSplit(
            dataSet.catalogue, validationShare: settings.data.validationShare, seed: settings.seed)
        repeatedNotice = first.notice
    }

    /// The images of a slot; its round must be there.
    func slot(step: Int, slot: Int, slotsPerStep: Int) -> SlotSamples {
        let round = rule.round(of: step + 1)
        guard let sampler = rounds.withLock({ $0.first { $0.step == round }?.sampler }) else {
            preconditionFailure("step \(step + 1) is planned before the triplets of step \(round)")
        }
        return sampler.slot(step: step - round, slot: slot, slotsPerStep: slotsPerStep)
    }

    /// Mines a round, or reads it where it is there, on a thread of its own, one after another.
    ///
    /// - Parameters:
    ///   - checkpoint: that of the step, where it is still there.
    ///   - completed: is told what was mined, nil where it was there; or why there is nothing.
    func fetch(
        _ step: Int, _ checkpoint: DurableCheckpoint?,
        completed: @escaping @Sendable (Result<String?, any Error>) -> Void
    ) {
        queue.async { [self] in
            completed(
                Result {
                    let known = try file(of: step, state: checkpoint?.digest)
                    let name = try known ?? mine(step, checkpoint)
                    let list = try read(name)
                    keep(try sampler(of: list, step, name), of: step)
                    return known == nil
                        ? "\(list.triplets.count) \(kind.rawValue) triplets of step \(step) are "
                            + "mined: triplets/\(name)" : nil
                })
        }
    }

    /// Ends what is under way as soon as may be; nothing is waited for.
    func stop() { stopping.stop() }

    private func keep(_ sampler: TripletSampler, of step: Int) {
        rounds.withLock { rounds in
            rounds.removeAll { $0.step == step }
            rounds.append((step, sampler))
            if rounds.count > Self.roundsMax { rounds.removeFirst() }
        }
    }

    private func sampler(
        of list: TripletList, _ step: Int, _ name: String
    ) throws -> TripletSampler {
        var hash = XXH64(seed: folder.settings.seed)
        hash.update(UInt64(step))
        return try TripletSampler(
            list, split: split, tripletsPerSlot: folder.settings.batch.triplets,
            seed: hash.finish(), name: "\(folder.minedTriplets)/\(name)")
    }

    // MARK: - Files

    private static func prefix(_ step: Int) -> String {
        let digits = String(step)
        return "step-" + String(repeating: "0", count: max(0, 9 - digits.count)) + digits + "-"
    }

    /// The name of a round's file, if it is there.
    ///
    /// - Parameter state: what it must have been mined from; nil where that is not known any more.
    private func file(of step: Int, state: UInt64?) throws -> String? {
        let state = kind == .random ? 0 : state
        let prefix = Self.prefix(step) + (state.map { $0.hex + "-" } ?? "")
        let names =
            (try? FileManager.default.contentsOfDirectory(atPath: folder.minedTriplets)) ?? []
        return names.filter { $0.hasPrefix(prefix) && $0.hasSuffix(".csv") }.max()
    }

    private func read(_ name: String) throws -> TripletList {
        let path = folder.minedTriplets + "/" + name
        let list = try TripletList(loading: path, catalogue: dataSet.catalogue, split: split)
        guard name.hasSuffix("-\(list.digest.hex).csv") else {
            throw CoordinatorError(
                .differs,
                "\(path) has digest \(list.digest.hex), not that in its name: it was changed; put the "
                    + "run's own back, or remove it, so that it is mined again")
        }
        return list
    }

    private func mine(_ step: Int, _ checkpoint: DurableCheckpoint?) throws -> String {
        let reader = try kind == .random ? nil : open(step, checkpoint)
        let mining = try TripletMining(round: step, of: folder.settings, dataSet: dataSet)
        try FileManager.default.createDirectory(
            atPath: folder.minedTriplets, withIntermediateDirectories: true)
        if reader != nil { try checkNumerics(mining) }
        let unnamed = "\(folder.minedTriplets)/mining.csv"
        try mining.write(
            with: reader, to: unnamed, threads: ProcessInfo.processInfo.activeProcessorCount,
            isQuiet: true, stop: stopping)
        let list = try TripletList(loading: unnamed, catalogue: dataSet.catalogue, split: split)
        let name = Self.prefix(step) + "\((reader?.digests.state ?? 0).hex)-\(list.digest.hex).csv"
        guard rename(unnamed, folder.minedTriplets + "/" + name) == 0 else {
            throw CoordinatorError(
                .failed,
                "\(folder.minedTriplets)/\(name) cannot be written: \(String(cString: strerror(errno)))"
            )
        }
        try SystemFiles().synchroniseDirectory(folder.minedTriplets)
        return name
    }

    private func open(_ step: Int, _ checkpoint: DurableCheckpoint?) throws -> CheckpointReader {
        guard let checkpoint else {
            throw CoordinatorError(
                .failed,
                "\(folder.minedTriplets) has none, and the checkpoint of step \(step) is not there any "
                    + "more to mine them again; put either back, or start a new run")
        }
        let reader = try CheckpointStore(directory: folder.checkpoints).open(step: step)
        guard reader.digests.state == checkpoint.digest else {
            throw CoordinatorError(
                .differs,
                "\(reader.path) holds state \(reader.digests.state.hex), the run's is "
                    + "\(checkpoint.digest.hex); put the run's own back, or start a new run")
        }
        return reader
    }

    /// Compares this process's arithmetic with that of the rounds before, which the folder names.
    private func checkNumerics(_ mining: TripletMining) throws {
        let path = folder.minedTriplets + "/numerics"
        let own = try mining.numericsClass()
        let known = FileManager.default.contents(atPath: path)
            .map { String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .newlines) }
        guard own != known else { return }
        if let known, folder.settings.numerics.mode == .bitwise, !acceptsNumerics {
            throw CoordinatorError(
                .differs,
                "this coordinator embeds in class '\(own)', the run's triplets were mined in '\(known)'; "
                    + "start it on such a machine, or go on with --accept-numerics")
        }
        try RunFolder.write(own + "\n", to: path)
    }
}

extension MiningRounds {
    /// When a run mines; nil where it does not.
    init?(_ settings: Settings) {
        guard settings.mining.offline != .none else { return nil }
        self.init(
            everySteps: settings.mining.everySteps,
            needsCheckpoint: settings.mining.offline.needsCheckpoint)
    }
}

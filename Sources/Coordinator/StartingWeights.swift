internal import Basics
internal import Foundation
internal import Networks
internal import Settings
internal import Storage
internal import Tensors
internal import Training

/// What a run takes of another network before its first step: parameters, and means and variances of
/// batch norms.
///
/// The run keeps a copy of its own. It starts from the same bits then, whatever becomes of the file.
struct StartingWeights: Sendable {
    /// The copy's name in the run's folder.
    static let fileName = "weights.safetensors"
    /// Where the copy says that it is from.
    private static let sourceKey = "source"

    /// The file, absolute.
    let source: String
    /// What is taken, under the names of checkpoints.
    let tensors: [CheckpointTensor]
    /// What the network has and the file does not, or not so.
    let misfits: [String]
    /// Over names, sizes and values of what is taken: `lineup checkpoint digest` of the copy.
    let digest: UInt64

    /// Reads what `network.weights` names; nil where it names nothing.
    ///
    /// - Throws: ``CoordinatorError`` for a file that is missing or does not fit, a `StorageError` for a
    ///   damaged one.
    init?(_ settings: Settings) throws {
        guard let name = settings.network.weights else { return nil }
        let scope = settings.network.weightsScope
        source = try Self.file(name)
        let found = try Self.tensors(of: source)
        let network = try Network(
            TrainingConfiguration(settings: settings, device: .cpu).network)
        let wanted =
            network.parameters.map { (name: $0.name, shape: $0.shape, isHead: $0.block == nil) }
            + network.buffers.map { (name: $0.name, shape: $0.shape, isHead: $0.block == nil) }
        var tensors: [CheckpointTensor] = []
        var misfits: [String] = []
        for (name, shape, isHead) in wanted where scope != .backbone || !isHead {
            if let why = Self.misfit(found[name], shape) {
                misfits.append("'\(name)' \(why)")
            } else if let tensor = found[name] {
                tensors.append(
                    CheckpointTensor(
                        name: StateDigests.networkPrefix + name, shape: shape,
                        bytes: tensor.bytes, owner: tensor.owner))
            }
        }
        guard scope == .matching ? !tensors.isEmpty : misfits.isEmpty else {
            throw CoordinatorError(
                .badSetting,
                "network.weights: \(source) does not fit the run's network "
                    + "'\(settings.network.backbone.rawValue)' (network.weights_scope="
                    + "\(scope.rawValue)): \(Self.spoken(misfits)); set the run's network as the "
                    + "file's was, or name another file"
                    + (scope == .matching
                        ? "" : ", or take what fits by network.weights_scope=matching"))
        }
        self.tensors = tensors
        self.misfits = misfits
        digest = StateDigests(of: tensors, step: 0).weights
        if let expected = settings.network.weightsDigest, expected != digest.hex {
            throw CoordinatorError(
                .differs,
                "network.weights_digest is \(expected), but what is taken of \(source) has "
                    + "\(digest.hex): it is another file, or was changed; name the one that is meant, "
                    + "or leave the digest out")
        }
    }

    /// One line for who starts the run.
    var notice: String {
        "network.weights: \(tensors.count) tensors of \(source), digest \(digest.hex)"
            + (misfits.isEmpty ? "" : "; not taken: \(Self.spoken(misfits))")
    }

    /// Writes the run's copy.
    func write(to path: String) throws(StorageError) {
        let metadata = CheckpointMetadata(
            step: 0, settingsDigest: 0, datasetDigest: 0, numericsClass: "", history: 0,
            extra: [Self.sourceKey: source])
        try SerialisedCheckpoint(tensors, metadata: metadata).write(to: path)
    }

    /// A run's copy as trainers are told of it.
    struct Copy {
        let byteCount: Int
        let stateDigest: UInt64
        /// What it is a copy of, for the ledger.
        let text: String
    }

    /// Verifies a run's copy; nil where the run started from random weights.
    ///
    /// - Throws: ``CoordinatorError`` or a `StorageError` where it is missing, damaged or another.
    static func copy(of folder: RunFolder) throws -> Copy? {
        guard let digest = folder.settings.network.weightsDigest else { return nil }
        let path = folder.startingWeightsFile
        guard FileManager.default.fileExists(atPath: path) else {
            throw CoordinatorError(
                .differs,
                "\(path) is missing, from which the run starts (digest \(digest)); put it back, or "
                    + "start a new run")
        }
        let reader = try CheckpointReader(path: path)
        guard reader.digests.weights.hex == digest else {
            throw CoordinatorError(
                .differs,
                "\(path) has digest \(reader.digests.weights.hex), the run starts from \(digest); "
                    + "put the run's own back, or start a new run")
        }
        return Copy(
            byteCount: reader.byteCount, stateDigest: reader.digests.state,
            text: "starts from \(reader.tensors.count) tensors of "
                + "\(reader.metadata.extra[sourceKey] ?? "another file"), digest \(digest)")
    }

    // MARK: - The file

    /// The file that a setting names: itself, a run's newest checkpoint, or that of RUN@STEP.
    private static func file(_ name: String) throws -> String {
        let path = URL(fileURLWithPath: name).standardizedFileURL.path
        var isFolder: ObjCBool = false
        if FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) {
            return isFolder.boolValue ? try checkpoint(of: path) : path
        }
        guard let at = path.lastIndex(of: "@"), let step = Int(path[path.index(after: at)...])
        else {
            throw CoordinatorError(
                .badSetting,
                "network.weights is '\(name)', but there is no \(path); name a .safetensors file, a "
                    + "run's folder, or one of its checkpoints as RUN@STEP")
        }
        return try checkpoint(of: String(path[..<at]), step: step)
    }

    private static func checkpoint(of run: String, step: Int? = nil) throws -> String {
        let store = CheckpointStore(directory: run + "/checkpoints")
        let steps = try store.steps()
        guard let newest = steps.last else {
            throw CoordinatorError(
                .badSetting,
                "network.weights: \(run) has no checkpoints; name the folder of a run that has, or a "
                    + ".safetensors file")
        }
        guard steps.contains(step ?? newest) else {
            let shown = steps.suffix(8).map { String($0) }.joined(separator: ", ")
            throw CoordinatorError(
                .badSetting,
                "network.weights: run \(run) has no checkpoint of step \(step ?? newest); it has "
                    + (steps.count > 8 ? "..., " : "") + shown)
        }
        return store.path(step: step ?? newest)
    }

    /// The tensors of a network in a file by their names; other files than checkpoints have them
    /// without `network/`.
    private static func tensors(of path: String) throws(StorageError) -> [String: CheckpointTensor]
    {
        // In memory: what somebody does to the file meanwhile changes nothing.
        let files = SystemFiles(access: .copied)
        let file = try SafetensorsFile(path: path, files: files)
        if file.isCheckpoint {
            _ = try CheckpointReader(path: path, verifying: .weights, files: files)
        }
        let prefix = StateDigests.networkPrefix
        let isPrefixed = file.tensors.contains { $0.name.hasPrefix(prefix) }
        return Dictionary(
            uniqueKeysWithValues: file.tensors.filter { !isPrefixed || $0.name.hasPrefix(prefix) }
                .map { (String($0.name.dropFirst(isPrefixed ? prefix.count : 0)), $0) })
    }

    /// Why a tensor cannot be taken; nil where it can.
    private static func misfit(_ tensor: CheckpointTensor?, _ shape: [Int]) -> String? {
        guard let tensor else { return "is missing there" }
        if tensor.shape != shape { return "is \(tensor.shape) there and \(shape) here" }
        if tensor.type != .float32 { return "is \(tensor.type.rawValue) there and F32 here" }
        return nil
    }

    private static func spoken(_ misfits: [String]) -> String {
        misfits.prefix(3).joined(separator: ", ")
            + (misfits.count > 3 ? " and \(misfits.count - 3) more" : "")
    }
}

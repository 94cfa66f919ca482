internal import Basics
public import Datasets
internal import Foundation
public import Settings
internal import Storage

/// The folder of one run: what its author wrote and what Lineup keeps there.
public struct RunFolder: Sendable {
    /// Path of the folder, absolute.
    public let path: String
    /// Settings as resolved at the run's beginning.
    public let record: SettingsRecord
    /// Whether the run was there before.
    public let isExisting: Bool
    /// What a new run takes from elsewhere before its first step.
    private let startingWeights: StartingWeights?
    /// What it is given to train on.
    private let givenTriplets: GivenTriplets?

    /// Name that scripts and people see.
    public var name: String { URL(fileURLWithPath: path).lastPathComponent }
    /// The settings in force.
    public var settings: Settings { record.settings }
    /// Folder of the listed checkpoints.
    public var checkpoints: String { path + "/checkpoints" }
    /// Folder of recovery snapshots, which are neither listed nor scored.
    public var recovery: String { path + "/checkpoints/recovery" }
    /// Folder of flight records.
    public var flight: String { path + "/flight" }
    /// Where the ledger lies.
    public var ledger: String { settings.ledger.path ?? path + "/ledger.sqlite" }
    /// Says that the run has ended, for evaluators without a coordinator.
    public var finishedFile: String { path + "/finished" }
    /// What the run started from, where that came from elsewhere.
    var startingWeightsFile: String { path + "/" + StartingWeights.fileName }
    /// What the run trains on, where it is given triplets.
    var tripletsFile: String { path + "/" + GivenTriplets.fileName }
    /// Folder of what is mined while the run trains.
    var minedTriplets: String { path + "/triplets" }
    /// Where the coordinator says how to reach it.
    public var addressFile: String { path + "/coordinator.json" }

    /// How a command means to use a folder.
    public enum Intent: Sendable {
        /// A new run; an existing one is refused.
        case start
        /// An existing run; settings given must agree.
        case resume
        /// Whichever it is, for launchers.
        case startOrResume
    }

    /// Looks at a run's folder and resolves its settings; writes nothing.
    ///
    /// - Throws: ``CoordinatorError`` when the folder is not in the state that the intent needs,
    ///   or what a setting is wrong with.
    public init(
        path: String, intent: Intent, overrides: [String], dataRoot: String? = nil,
        report: (String) -> Void = { _ in }
    ) throws {
        let files = FileManager.default
        let absolute = URL(fileURLWithPath: path).standardizedFileURL.path
        self.path = absolute
        let paramsFile = absolute + "/params.json"
        let settingsFile = absolute + "/settings.json"
        let params = files.contents(atPath: paramsFile)
        var overrides = overrides
        if let dataRoot { overrides.append("data.root=\(dataRoot)") }
        isExisting = files.fileExists(atPath: settingsFile)
        if isExisting {
            if case .start = intent {
                throw CoordinatorError(
                    .runExists,
                    "run \(path) exists already; go on with it by: lineup resume \(path)")
            }
            guard let stored = files.contents(atPath: settingsFile) else {
                throw CoordinatorError(.noRun, "\(settingsFile) cannot be read; check its owner")
            }
            let before = try SettingsRecord(parsing: stored, name: settingsFile)
            let (settings, changes) = try before.resumed(paramsJSON: params, overrides: overrides)
            for change in changes {
                report("\(change.key) is now \(change.given), it was \(change.stored)")
            }
            record = try SettingsRecord(
                settings: Self.absolute(settings), paramsJSON: params)
            startingWeights = nil
            givenTriplets = nil
        } else {
            if case .resume = intent {
                throw CoordinatorError(
                    .noRun,
                    "\(path) holds no run (no settings.json); start one with: lineup train \(path)")
            }
            var settings = Self.absolute(
                try Settings.resolve(
                    paramsJSON: params, overrides: overrides, paramsName: paramsFile))
            guard settings.data.root != nil else {
                throw CoordinatorError(
                    .badSetting,
                    "data.root is not set; name the folder of crops in \(paramsFile) or with "
                        + "--set data.root=CROPS")
            }
            startingWeights = try StartingWeights(settings)
            if let startingWeights {
                settings.network.weightsDigest = startingWeights.digest.hex
                report(startingWeights.notice)
            }
            givenTriplets = try GivenTriplets(settings)
            settings.data.tripletsDigest = givenTriplets?.digest.hex
            record = try SettingsRecord(settings: settings, paramsJSON: params)
        }
    }

    /// Makes the folder, or records what a resumed run changes; until here nothing is written.
    public func prepare() throws {
        let files = FileManager.default
        try files.createDirectory(atPath: path, withIntermediateDirectories: true)
        let params = path + "/params.json"
        if !files.fileExists(atPath: params) { try Self.write("{}\n", to: params) }
        try startingWeights?.write(to: startingWeightsFile)
        try givenTriplets?.write(to: tripletsFile)
        let settings = path + "/settings.json"
        let text = record.text
        // Last, since its presence says that the run exists.
        if files.contents(atPath: settings) != Data(text.utf8) {
            try Self.write(text, to: settings)
        }
    }

    /// Whether anything of the run is stored, and so a step in its ledger or soon to be.
    func hasCheckpoints() throws -> Bool {
        for directory in [checkpoints, recovery]
        where !(try CheckpointStore(directory: directory).steps().isEmpty) {
            return true
        }
        return false
    }

    /// Loads the run's data set.
    public func dataSet() throws -> DataSet {
        guard let root = settings.data.root else {
            throw CoordinatorError(
                .badSetting, "data.root is not set; give it with --data-root CROPS")
        }
        return try DataSet(loading: root, sets: settings.evaluation.storedSets)
    }

    /// What is trained on at each step.
    ///
    /// - Throws: what the data lacks for the settings, or what is wrong with given triplets.
    ///
    /// - Parameter acceptsNumerics: whether triplets may be mined in another numerics class than before.
    public func plan(of dataSet: DataSet, acceptsNumerics: Bool = false) throws -> TrainingPlan {
        let given = try givenTriplets ?? GivenTriplets(copyOf: self)
        return try TrainingPlan(
            settings: settings, dataSet: dataSet, triplets: given?.list(of: dataSet, settings),
            rounds: MinedRounds(self, dataSet, acceptsNumerics: acceptsNumerics))
    }

    private static func absolute(_ settings: Settings) -> Settings {
        var settings = settings
        if let root = settings.data.root {
            settings.data.root = URL(fileURLWithPath: root).standardizedFileURL.path
        }
        if let ledger = settings.ledger.path {
            settings.ledger.path = URL(fileURLWithPath: ledger).standardizedFileURL.path
        }
        return settings
    }

    static func write(_ text: String, to path: String) throws {
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic)
        } catch {
            throw CoordinatorError(
                .failed, "\(path) cannot be written: \(error.localizedDescription)")
        }
    }
}

/// How to reach a coordinator, as its run's folder tells.
public struct CoordinatorAddress: Codable, Sendable {
    /// Control address.
    public var address: String
    /// Host that the process runs on.
    public var host: String
    /// Process id on that host.
    public var process: Int32

    /// Names an address.
    public init(address: String, host: String, process: Int32) {
        self.address = address
        self.host = host
        self.process = process
    }

    /// Reads what a running coordinator left; nil when there is none or it is half written.
    public init?(file: String) {
        guard let data = FileManager.default.contents(atPath: file),
            let value = try? JSONDecoder().decode(Self.self, from: data)
        else { return nil }
        self = value
    }

    /// Writes the file at once, or not at all.
    public func write(to file: String) throws {
        try JSONEncoder().encode(self).write(to: URL(fileURLWithPath: file), options: .atomic)
    }
}

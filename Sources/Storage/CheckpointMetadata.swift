import Basics

/// What a checkpoint says about itself, beside its tensors.
public struct CheckpointMetadata: Equatable, Sendable {
    /// The layout that this version writes and the newest that it reads.
    public static let currentFormat = 1

    /// The layout of the file.
    public var formatVersion: Int
    /// Committed steps that the state has taken.
    public var step: Int
    /// The digest of the run's settings.
    public var settingsDigest: UInt64
    /// The digest of the run's data set.
    public var datasetDigest: UInt64
    /// The numerics class in which the state was computed.
    public var numericsClass: String
    /// The history digest after the step: it chains the digests of all steps before.
    public var history: UInt64
    /// Further pairs, for whoever writes them; keys must not be those of the other fields.
    public var extra: [String: String]

    /// Describes a checkpoint.
    public init(
        step: Int, settingsDigest: UInt64, datasetDigest: UInt64, numericsClass: String,
        history: UInt64, extra: [String: String] = [:]
    ) {
        formatVersion = Self.currentFormat
        self.step = step
        self.settingsDigest = settingsDigest
        self.datasetDigest = datasetDigest
        self.numericsClass = numericsClass
        self.history = history
        self.extra = extra
    }

    enum Key {
        static let format = "format_version"
        static let step = "step"
        static let settings = "settings_digest"
        static let dataset = "dataset_digest"
        static let numerics = "numerics_class"
        static let history = "history"
        static let weights = "weights_digest"
        static let state = "state_digest"
        static let metadata = "metadata_digest"
        static let all = [
            format, step, settings, dataset, numerics, history, weights, state, metadata,
        ]
    }

    /// The pairs of the header, without the digest of the pairs themselves.
    func pairs(_ digests: StateDigests) -> [String: String] {
        var pairs = extra
        pairs[Key.format] = String(formatVersion)
        pairs[Key.step] = String(step)
        pairs[Key.settings] = settingsDigest.hex
        pairs[Key.dataset] = datasetDigest.hex
        pairs[Key.numerics] = numericsClass
        pairs[Key.history] = history.hex
        pairs[Key.weights] = digests.weights.hex
        pairs[Key.state] = digests.state.hex
        return pairs
    }

    /// A digest of metadata pairs and of the tensors' types, so that no bit of a header is unguarded.
    static func digest(
        pairs: [String: String], tensors: [(name: String, type: TensorType)]
    ) -> UInt64 {
        var hash = XXH64()
        func add(_ text: String) {
            hash.update(UInt64(text.utf8.count))
            hash.update(text)
        }
        for key in pairs.keys.sorted() where key != Key.metadata {
            add(key)
            add(pairs[key] ?? "")
        }
        for tensor in tensors {
            add(tensor.name)
            add(tensor.type.rawValue)
        }
        return hash.finish()
    }
}

extension CheckpointMetadata {
    /// Reads the pairs of a header.
    ///
    /// - Throws: ``StorageError`` with code `corrupt`, or `newerVersion` for a later format.
    init(pairs: [String: String], path: String) throws(StorageError) {
        func missing(_ key: String, _ expected: String) -> StorageError {
            let found = pairs[key].map { "'\($0)'" } ?? "missing"
            return StorageError(
                .corrupt,
                "\(path): metadata '\(key)' is \(found), expected \(expected); "
                    + "name a checkpoint that Lineup wrote")
        }
        func digest(_ key: String) throws(StorageError) -> UInt64 {
            guard let value = pairs[key].flatMap({ UInt64(hex: $0) }) else {
                throw missing(key, "16 hexadecimal digits")
            }
            return value
        }
        guard let format = pairs[Key.format].flatMap({ Int($0) }), format >= 1 else {
            throw missing(Key.format, "a number from 1 to \(Self.currentFormat)")
        }
        guard format <= Self.currentFormat else {
            throw StorageError(
                .newerVersion,
                "\(path): format version \(format), this lineup reads up to "
                    + "\(Self.currentFormat); use the version that wrote it")
        }
        guard let step = pairs[Key.step].flatMap({ Int($0) }), step >= 0 else {
            throw missing(Key.step, "a step number")
        }
        guard let numericsClass = pairs[Key.numerics] else {
            throw missing(Key.numerics, "a numerics class")
        }
        self.init(
            step: step, settingsDigest: try digest(Key.settings),
            datasetDigest: try digest(Key.dataset), numericsClass: numericsClass,
            history: try digest(Key.history),
            extra: pairs.filter { !Key.all.contains($0.key) })
        formatVersion = format
    }
}

import Basics
public import Foundation

/// What `RUN/settings.json` holds: the resolved settings, their digest, and what the author wrote.
///
/// The author's file is kept as it was read at the start, so that a later edit is told from an
/// override of the command line that was not repeated.
public struct SettingsRecord: Sendable, Equatable {
    /// Version of the file's layout.
    public static let format = 1

    /// The run's resolved settings.
    public var settings: Settings
    /// What `params.json` stated when the run started, by dotted name.
    public let stated: [String: JSONValue]

    /// A setting that differs from the stored one on resume.
    public struct Change: Sendable, Equatable {
        /// Dotted name.
        public let key: String
        /// The run's value.
        public let stored: JSONValue
        /// The value that `params.json` or `--set` now gives.
        public let given: JSONValue
        /// Whether a running experiment may take it.
        public let isAllowed: Bool
    }

    /// Records a run's start.
    ///
    /// - Parameter paramsJSON: the author's file, nil when there is none.
    public init(settings: Settings, paramsJSON: Data?) throws(SettingsError) {
        self.settings = settings
        stated =
            try paramsJSON.map { data throws(SettingsError) in
                try Settings.givenValues(inJSON: data, name: "params.json")
            } ?? [:]
    }

    /// Reads `settings.json` back and checks its digest.
    ///
    /// - Parameter name: what messages call the file.
    public init(
        parsing data: Data, name: String = "settings.json"
    ) throws(SettingsError) {
        var parser = JSONParser(data, name: name)
        guard case .object(let members) = try parser.parse(),
            case .integer(let version) = members["format"]
        else {
            throw SettingsError(
                .malformed, "\(name) is not a run's settings: expected an object with 'format'")
        }
        guard version == Self.format else {
            throw SettingsError(
                .malformed,
                "\(name) has format \(version), this version reads \(Self.format); resume with the "
                    + "version that started the run")
        }
        func section(_ key: String) throws(SettingsError) -> [String: JSONValue] {
            let value = members[key] ?? .object([:])
            return try Settings.givenValues(
                inJSON: Data(value.canonicalText.utf8), name: "\(name) '\(key)'")
        }
        settings = try Settings.resolve(given: try section("settings"))
        stated = try section("params")
        let digest = settings.digest.hex
        guard members["digest"] == .string(digest) else {
            throw SettingsError(
                .malformed,
                "\(name) says digest \(members["digest"]?.settingText ?? "none"), but its settings "
                    + "have \(digest); the file was edited: restore it, or start a new run")
        }
    }

    /// The file's text: sorted keys, one setting a line.
    public var text: String {
        JSONValue.object([
            "format": .integer(Self.format), "digest": .string(settings.digest.hex),
            "settings": settings.json, "params": JSONValue.nested(stated),
        ]).prettyText
    }

    /// What differs between the stored settings and what is given now, by key.
    ///
    /// Only what somebody states is compared: settings of `params.json` that were edited since the
    /// start, and every `--set`.
    public func changes(
        paramsJSON: Data?, overrides: [String]
    ) throws(SettingsError) -> [Change] {
        var given: [String: JSONValue] = [:]
        if let paramsJSON {
            let now = try Settings.givenValues(inJSON: paramsJSON, name: "params.json")
            given = now.filter { stated[$0.key] != $0.value }
            let defaults = SettingsCatalogue.defaults(
                backbone: settings.network.backbone, loss: settings.loss.name)
            for (key, value) in stated where now[key] == nil {
                // A removed line states the default again, unless an override set it at the start.
                if settings.flatValues[key] == value { given[key] = defaults[key] }
            }
        }
        for (key, value) in try Settings.givenValues(inOverrides: overrides) { given[key] = value }
        return Self.changes(from: settings, to: given)
    }

    /// The settings to go on with: the stored ones and the allowed changes.
    ///
    /// - Throws: ``SettingsError`` with code `refusedChange` that names every refused key with both
    ///   values.
    public func resumed(
        paramsJSON: Data?, overrides: [String]
    ) throws(SettingsError) -> (settings: Settings, changes: [Change]) {
        let changes = try changes(paramsJSON: paramsJSON, overrides: overrides)
        let refused = changes.filter { !$0.isAllowed }
        guard refused.isEmpty else {
            let list = refused.map {
                "\($0.key) is \($0.stored.settingText) in this run and \($0.given.settingText) now"
            }
            throw SettingsError(
                .refusedChange,
                list.joined(separator: ", ")
                    + "; a run keeps its settings: leave the change out, or start a new run with it"
            )
        }
        var values = settings.flatValues
        for change in changes { values[change.key] = change.given }
        return (try Settings.resolve(given: values), changes)
    }

    fileprivate static func changes(
        from settings: Settings, to given: [String: JSONValue]
    ) -> [Change] {
        let stored = settings.flatValues
        return given.keys.sorted().compactMap { key in
            guard let old = stored[key], let new = given[key], old != new else { return nil }
            return Change(
                key: key, stored: old, given: new,
                isAllowed: isAllowed(key, old, new)
                    // What is decided depends on which checkpoints there are.
                    && !(key == "checkpoint.every_steps"
                        && (settings.schedule.goesByScores
                            || settings.mining.offline.needsCheckpoint))
            )
        }
    }

    private static func isAllowed(_ key: String, _ old: JSONValue, _ new: JSONValue) -> Bool {
        switch SettingsCatalogue.entry(key)?.change {
        case .free: return true
        case .relaxing: return old == .string("bitwise") && new == .string("statistical")
        case .upward:
            guard case .integer(let before) = old, case .integer(let after) = new else {
                return false
            }
            return after >= before
        case .never, nil: return false
        }
    }
}

extension Settings {
    /// What differs between two resolved settings and may not change on resume.
    public static func compare(stored: Settings, given: Settings) -> [SettingsRecord.Change] {
        SettingsRecord.changes(from: stored, to: given.flatValues).filter { !$0.isAllowed }
    }
}

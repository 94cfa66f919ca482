import ArgumentParser
import Basics
import Foundation
import Settings

/// `lineup params`: every setting.
struct ParamsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "params",
        abstract: "Print every setting with default, unit and meaning.",
        discussion: """
            A star marks what may still change when a run is resumed. With --file or --set it prints \
            the resolved values in place of the defaults, and so checks a params.json.

            Example: lineup params loss
            Example: lineup params --file experiments/base/params.json --set loss.margin=0.3
            """
    )

    @Argument(help: "Only settings whose name starts with this.")
    var prefix = ""

    @Option(help: "A params.json to resolve.")
    var file: String?

    @Option(name: .customLong("set"), help: "key=value to resolve; may be repeated.")
    var overrides: [String] = []

    @Flag(help: "Print one line of JSON.")
    var json = false

    func validate() throws {
        guard SettingsCatalogue.keys.contains(where: { $0.hasPrefix(prefix) }) else {
            let near = NearestName.of(prefix, among: SettingsCatalogue.keys + sections)
            throw ValidationError(
                "no setting starts with '\(prefix)'"
                    + (near.map { "; did you mean '\($0)'?" } ?? ""))
        }
    }

    func run() throws {
        let entries = SettingsCatalogue.entries.filter { $0.key.hasPrefix(prefix) }
        let resolved = try resolvedSettings()
        if json {
            print(jsonObject(entries, resolved: resolved).canonicalText)
            return
        }
        let values = entries.map { entry in
            resolved?.flatValues[entry.key]?.settingText ?? entry.defaultText
        }
        let rows = zip(entries, values).map { entry, value in
            [
                entry.key + (entry.change == .never ? "" : "*"), value, entry.unit,
                meaning(of: entry),
            ]
        }
        let header = ["setting", resolved == nil ? "default" : "value", "unit", "meaning"]
        print(TextTable.lines(rows, header: header).joined(separator: "\n"))
        if let resolved { print("\ndigest \(resolved.digest.hex)") }
    }

    private var sections: [String] {
        Array(
            Set(
                SettingsCatalogue.keys.compactMap {
                    $0.split(separator: ".").first.map(String.init)
                })
        )
        .sorted()
    }

    private func resolvedSettings() throws -> Settings? {
        guard file != nil || !overrides.isEmpty else { return nil }
        var data: Data?
        if let file {
            guard let read = FileManager.default.contents(atPath: file) else {
                throw ValidationError("cannot read '\(file)'; --file names a params.json")
            }
            data = read
        }
        return try Settings.resolve(
            paramsJSON: data, overrides: overrides, paramsName: file ?? "params.json")
    }

    private func meaning(of entry: SettingsCatalogue.Entry) -> String {
        switch entry.kind {
        case .choice(let words) where words.count > 1:
            return entry.meaning + " (" + words.joined(separator: ", ") + ")"
        default: return entry.meaning
        }
    }

    private func jsonObject(
        _ entries: [SettingsCatalogue.Entry], resolved: Settings?
    ) -> JSONValue {
        let values = resolved?.flatValues
        let rows = entries.map { entry in
            var row: [String: JSONValue] = [
                "key": .string(entry.key), "default": entry.defaultValue(),
                "default_basic": entry.defaultValue(backbone: .basic),
                "unit": .string(entry.unit), "meaning": .string(entry.meaning),
                "expects": .string(entry.kind.expectation),
                "on_resume": .string(entry.change.rawValue),
            ]
            if let values { row["value"] = values[entry.key] ?? .null }
            return JSONValue.object(row)
        }
        var object: [String: JSONValue] = ["settings": .array(rows)]
        if let resolved { object["digest"] = .string(resolved.digest.hex) }
        return .object(object)
    }
}

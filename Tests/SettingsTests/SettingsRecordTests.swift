import Basics
import Foundation
import Settings
import Testing

@Suite struct SettingsRecordTests {
    private func data(_ json: String) -> Data { Data(json.utf8) }

    private func record(
        _ json: String? = nil, _ overrides: [String] = []
    ) throws -> SettingsRecord {
        let params = json.map(data)
        return try SettingsRecord(
            settings: try Settings.resolve(paramsJSON: params, overrides: overrides),
            paramsJSON: params)
    }

    private func refusal(
        _ record: SettingsRecord, _ json: String?, _ overrides: [String] = []
    ) -> String {
        do {
            _ = try record.resumed(paramsJSON: json.map(data), overrides: overrides)
            return ""
        } catch { return error.message }
    }

    @Test func theFileReadsBack() throws {
        let record = try record(#"{"loss": {"margin": 0.5}}"#, ["loss.margin=0.3", "seed=4"])
        let read = try SettingsRecord(parsing: data(record.text))
        #expect(read == record)
        #expect(read.settings.loss.margin == .number(0.3))
    }

    @Test func aFileEditedByHandIsRefused() throws {
        let text = try record().text
        for edited in [
            text.replacingOccurrences(of: "\"seed\": 1", with: "\"seed\": 2"),
            text.replacingOccurrences(of: "\"format\": 1", with: "\"format\": 9"),
            "{}", "[]", String(text.prefix(text.count / 2)),
        ] {
            #expect(throws: SettingsError.self) {
                try SettingsRecord(parsing: Data(edited.utf8))
            }
        }
    }

    @Test func anOverrideOfTheStartNeedNotBeRepeated() throws {
        let json = #"{"loss": {"margin": 0.5}}"#
        let record = try record(json, ["loss.margin=0.3"])
        let resumed = try record.resumed(paramsJSON: data(json), overrides: [])
        #expect(resumed.settings == record.settings && resumed.changes.isEmpty)
        #expect(refusal(record, json, ["loss.margin=0.3"]) == "")
    }

    @Test func anEditedFileOrAnotherOverrideIsRefusedWithBothValues() throws {
        let record = try record(#"{"loss": {"margin": 0.5}}"#)
        #expect(
            refusal(record, #"{"loss": {"margin": 0.4}}"#)
                .contains("loss.margin is 0.5 in this run and 0.4 now"))
        let both = refusal(record, nil, ["seed=2", "loss.distance=cityblock"])
        #expect(both.contains("seed is 1 in this run and 2 now"))
        #expect(both.contains("loss.distance is euclidean in this run and cityblock now"))
        #expect(
            refusal(record, "{}").contains("loss.margin is 0.5 in this run and soft now"))
    }

    @Test func intervalsPlacesMoreStepsAndAStatisticalModeMayChange() throws {
        let record = try record(nil, ["schedule.steps=100"])
        let overrides = [
            "checkpoint.every_steps=5", "data.root=/new", "schedule.steps=200",
            "numerics.mode=statistical",
        ]
        let resumed = try record.resumed(paramsJSON: nil, overrides: overrides)
        #expect(resumed.settings.checkpoint.everySteps == 5)
        #expect(resumed.settings.schedule.steps == 200)
        #expect(resumed.settings.digest == record.settings.digest)
        #expect(
            resumed.changes.map(\.key)
                == overrides.map { $0.split(separator: "=")[0] }.sorted().map(String.init))
    }

    @Test func fewerStepsAndAStricterModeAreRefused() throws {
        let record = try record(nil, ["schedule.steps=100", "numerics.mode=statistical"])
        #expect(refusal(record, nil, ["schedule.steps=99"]).contains("schedule.steps is 100"))
        #expect(refusal(record, nil, ["numerics.mode=bitwise"]).contains("numerics.mode"))
    }

    @Test func twoResolvedSettingsCompareByWhatMayNotChange() throws {
        let stored = try Settings.resolve(paramsJSON: nil)
        let given = try Settings.resolve(
            paramsJSON: nil, overrides: ["seed=3", "checkpoint.every_steps=1"])
        let refused = Settings.compare(stored: stored, given: given)
        #expect(refused.map(\.key) == ["seed"])
        #expect(refused.first?.stored == .integer(1) && refused.first?.given == .integer(3))
    }
}

import Foundation
public import Settings

extension RunFolderEvaluator {
    /// Reads the settings of a run directory.
    ///
    /// - Throws: ``EvalWorkerError`` with code `notARun` when the folder or its `settings.json` is not
    ///   there, or a `SettingsError` when the file is not what a coordinator wrote.
    public static func settings(run: String) throws -> Settings {
        let path = run + "/settings.json"
        guard let data = FileManager.default.contents(atPath: path) else {
            throw EvalWorkerError(
                .notARun,
                "\(path) is missing or cannot be read; name a run's folder, and start the run first"
            )
        }
        return try SettingsRecord(parsing: data, name: path).settings
    }
}

extension RunFolderEvaluator.Options {
    /// Watches as a run's settings say.
    public init(run: String, settings: Settings, once: Bool = false) {
        self.init(
            run: run, sets: settings.evaluation.sets, once: once,
            pollSeconds: settings.evaluation.pollSeconds,
            timeoutSeconds: settings.evaluation.timeoutSeconds,
            refusesOtherClass: settings.numerics.mode == .bitwise)
    }
}

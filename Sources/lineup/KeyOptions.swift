import ArgumentParser
import Foundation
import Transport

/// `--keys` and `--insecure`, as every role has them.
struct KeyOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Folder of keys ('lineup keys create'). Off loopback ~/.config/lineup/keys is taken where it is not given.",
            valueName: "folder"))
    var keys: String?

    @Flag(help: "Go without keys off loopback: nothing is encrypted or authenticated.")
    var insecure = false

    func validate() throws {
        guard keys == nil || !insecure else {
            throw ValidationError("--keys and --insecure exclude each other; leave one out")
        }
    }

    /// The folder in force for an address: the given one, else the user's off loopback.
    private func folder(for address: String, isSuitable: (KeyFolder) -> Bool) -> KeyFolder? {
        if let keys { return KeyFolder(path: keys) }
        guard !insecure, !Address.isLocal(address) else { return nil }
        let standard = KeyFolder.standard()
        return isSuitable(standard) ? standard : nil
    }

    /// What a coordinator at an address needs; nil without keys.
    func forCoordinator(bind: String) throws -> CoordinatorKeys? {
        try Address.check(bind)
        guard let folder = folder(for: bind, isSuitable: \.suitsCoordinator) else {
            if insecure, !Address.isLocal(bind) { warnInsecure(bind) }
            return nil
        }
        return CoordinatorKeys(
            own: try folder.pair(.coordinator),
            admission: try Admission(file: folder.allowList))
    }

    /// What a worker of the coordinator at an address needs; nil without keys.
    ///
    /// - Throws: what is wrong with the keys, and off loopback that there are none.
    func forWorker(coordinator: String) throws -> WorkerKeys? {
        try Address.check(coordinator)
        if let folder = folder(for: coordinator, isSuitable: \.suitsWorker) {
            return WorkerKeys(
                own: try folder.pair(.worker), coordinator: try folder.publicKey(.coordinator))
        }
        guard Address.isLocal(coordinator) || insecure else {
            throw TransportError(
                .badKey,
                "the coordinator at \(coordinator) is reached over a network, and "
                    + "\(KeyFolder.standard().path) holds no keys for it; make them with 'lineup keys "
                    + "create --coordinator KEY', where KEY is what 'lineup keys list' shows on its "
                    + "machine, or write --insecure on a network you trust")
        }
        if !Address.isLocal(coordinator) { warnInsecure(coordinator) }
        return nil
    }
}

/// Warns of a channel without encryption.
func warnInsecure(_ address: String) {
    say(
        "lineup: warning: messages at \(address) are neither encrypted nor authenticated; use it "
            + "on a network you trust")
}

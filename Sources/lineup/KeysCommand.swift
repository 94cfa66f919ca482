import ArgumentParser
import Foundation
import Protocol
import Transport

/// `lineup keys`: who may take part.
struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Make keys and say which of them a coordinator admits, and as what.",
        discussion: """
            Keys encrypt and authenticate everything between the machines of a cluster \
            (docs/security.md). A folder of keys holds this user's key, the coordinator's public key \
            and, where the coordinator runs, its secret key and the list of allowed keys. Changes of \
            that list count at once.

            Example: lineup keys create
            Example: lineup keys allow 02c4...95fe --role trainer --name node7
            """,
        subcommands: [Create.self, List.self, Allow.self, Remove.self]
    )

    /// `--keys`, the folder.
    struct Folder: ParsableArguments {
        @Option(
            help: ArgumentHelp(
                "Folder of keys. Default: ~/.config/lineup/keys.", valueName: "folder"))
        var keys: String?

        var folder: KeyFolder { keys.map { KeyFolder(path: $0) } ?? .standard() }
    }

    /// `lineup keys create [--coordinator KEY]`.
    struct Create: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "create",
            abstract: "Make the keys of this machine.",
            discussion: """
                On the coordinator's machine: its key, and one for workers there, which is allowed. \
                On any other machine, with --coordinator: a key for its workers. Secret keys get mode \
                0600 and are never shown.

                Example: lineup keys create
                Example: lineup keys create --coordinator 7f3c...21d0
                """
        )

        @Option(
            help: ArgumentHelp(
                "Public key of the coordinator on another machine, as 'lineup keys list' shows it there.",
                valueName: "key"))
        var coordinator: String?

        @OptionGroup var place: Folder

        func run() throws {
            let folder = place.folder
            if let coordinator {
                try createForWorkers(in: folder, of: coordinator)
            } else {
                try createForCoordinator(in: folder)
            }
        }

        private func createForCoordinator(in folder: KeyFolder) throws {
            let files = FileManager.default
            let hasSecret = files.fileExists(atPath: folder.secretFile(.coordinator))
            let hasList = files.fileExists(atPath: folder.allowList)
            guard hasSecret || !files.fileExists(atPath: folder.publicFile(.coordinator)) else {
                throw ValidationError(
                    "\(folder.publicFile(.coordinator)) is a coordinator's whose secret key is not "
                        + "here; name another folder with --keys, or move that file away")
            }
            // What was stopped on the way is made complete.
            let pair =
                hasSecret && !hasList
                ? try folder.pair(.coordinator) : try folder.create(.coordinator)
            let key = pair.publicKey
            let own = try workerKey(in: folder)
            let entry = AllowList.Entry(
                key: own, roles: WireRole.workers, name: AllowList.name(for: hostName()))
            if !hasList { try AllowList().write(to: folder.allowList) }
            try AllowList.edit(folder.allowList) { try $0.allow(entry) }
            print("keys in \(folder.path)")
            print("coordinator  \(key.hex)")
            print("worker       \(own.hex)  allowed as \(entry.rolesText)")
            print("on every other machine: lineup keys create --coordinator \(key.hex)")
        }

        private func createForWorkers(in folder: KeyFolder, of text: String) throws {
            guard let key = PublicKey(hex: text) else {
                throw ValidationError(
                    "--coordinator has \(text.count) characters and is no key; expected the 64 "
                        + "hexadecimal digits that 'lineup keys list' shows on its machine")
            }
            guard !FileManager.default.fileExists(atPath: folder.secretFile(.coordinator)) else {
                throw ValidationError(
                    "\(folder.path) is a coordinator's own; name another folder with --keys")
            }
            let own = try workerKey(in: folder)
            try folder.publish(key, of: .coordinator)
            print("keys in \(folder.path)")
            print("coordinator  \(key.hex)")
            print("worker       \(own.hex)")
            print(
                "on the coordinator's machine: lineup keys allow \(own.hex) --role trainer "
                    + "--name \(AllowList.name(for: hostName()))")
        }

        /// The key that is there, else a new one.
        private func workerKey(in folder: KeyFolder) throws -> PublicKey {
            if FileManager.default.fileExists(atPath: folder.secretFile(.worker)) {
                return try folder.pair(.worker).publicKey
            }
            return try folder.create(.worker).publicKey
        }
    }

    /// `lineup keys list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "list",
            abstract: "Show the public keys of a folder, and whom it allows as what.",
            discussion: "Example: lineup keys list"
        )

        @OptionGroup var place: Folder

        func run() throws {
            let folder = place.folder
            let files = FileManager.default
            print("keys in \(folder.path)")
            var found = false
            if files.fileExists(atPath: folder.secretFile(.coordinator)) {
                print("coordinator  \(try folder.pair(.coordinator).publicKey.hex)  runs here")
                found = true
            } else if files.fileExists(atPath: folder.publicFile(.coordinator)) {
                print("coordinator  \(try folder.publicKey(.coordinator).hex)")
                found = true
            }
            if files.fileExists(atPath: folder.secretFile(.worker)) {
                print("worker       \(try folder.pair(.worker).publicKey.hex)")
                found = true
            }
            guard found else {
                throw ValidationError(
                    "\(folder.path) holds no keys; make them with 'lineup keys create'")
            }
            guard files.fileExists(atPath: folder.allowList) else { return }
            let entries = try AllowList(file: folder.allowList).entries
            guard !entries.isEmpty else { return print("no key is allowed yet") }
            let rows = entries.map { [$0.name, $0.rolesText, $0.key.fingerprint, $0.key.hex] }
            print("")
            for line in TextTable.lines(rows, header: ["allowed", "as", "fingerprint", "key"]) {
                print(line)
            }
        }
    }

    /// `lineup keys allow KEY --role ROLES --name NAME`.
    struct Allow: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "allow",
            abstract: "Let a coordinator admit a key, or admit it as something else.",
            discussion: """
                Roles: trainer computes, evaluator scores, observer watches. A coordinator that runs \
                takes the change in at once.

                Example: lineup keys allow 02c4...95fe --role trainer,evaluator --name node7
                """
        )

        @Argument(help: "The worker's public key: 64 hexadecimal digits.")
        var key: String

        @Option(help: "What it may be: trainer, evaluator, observer, or several with commas.")
        var role: String

        @Option(help: "What you call it: letters, digits, '.', '_' and '-'.")
        var name: String

        @OptionGroup var place: Folder

        func run() throws {
            guard let key = PublicKey(hex: key) else {
                throw ValidationError(
                    "KEY has \(key.count) characters and is no key; expected the 64 hexadecimal digits "
                        + "that 'lineup keys create' shows on the worker's machine")
            }
            let entry = AllowList.Entry(key: key, roles: try AllowList.roles(role), name: name)
            let file = place.folder.allowList
            try AllowList.edit(file) { try $0.allow(entry) }
            print("allowed \(entry.name) (\(key.fingerprint)) as \(entry.rolesText)")
        }
    }

    /// `lineup keys remove WHO`.
    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove",
            abstract: "Take a key off the list of allowed keys; its workers go at once.",
            discussion: "Example: lineup keys remove node7"
        )

        @Argument(help: "Name, fingerprint or key, as 'lineup keys list' shows them.")
        var who: String

        @OptionGroup var place: Folder

        func run() throws {
            let file = place.folder.allowList
            let entry = try AllowList.edit(file) { try $0.remove(who) }
            print("removed \(entry.name) (\(entry.key.fingerprint))")
        }
    }
}

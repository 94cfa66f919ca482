import ArgumentParser
import Basics
import Storage

/// `lineup checkpoint`: what a checkpoint file holds.
struct CheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint",
        abstract: "Show what a checkpoint file holds.",
        subcommands: [Digest.self]
    )

    /// `lineup checkpoint digest FILE`.
    struct Digest: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "digest",
            abstract: "Print a digest of the weights alone.",
            discussion: """
                Reads the whole file and checks it. Equal weights give equal digests, whatever \
                the optimizer holds and wherever they were computed.

                Example: lineup checkpoint digest RUN/checkpoints/step-000000060.safetensors
                """
        )

        @Argument(help: "A checkpoint file (.safetensors).")
        var file: String

        func run() throws {
            print(try CheckpointReader.weightsDigest(of: file).hex)
        }
    }
}

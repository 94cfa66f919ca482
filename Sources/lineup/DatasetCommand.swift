import ArgumentParser
import Datasets

/// `lineup dataset`: makes and handles data sets.
struct DatasetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dataset",
        abstract: "Make data sets.",
        subcommands: [FashionVideoCommand.self]
    )
}

/// `lineup dataset fashion-vid`: makes a video data set of photographed garments.
struct FashionVideoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fashion-vid",
        abstract:
            "Make a video data set of 70,000 photographed garments, laid out as ILSVRC2015 VID.",
        discussion: """
            The photographs are those of the Debian package dataset-fashion-mnist. The files depend \
            on the options alone, not on --threads; frames that are there already are kept.

            Example: lineup dataset fashion-vid OUT --train-snippets 60 --val-snippets 20 \
            --frames 12 --seed 1
            """
    )

    @Argument(help: "Folder to make the data set in.")
    var folder: String

    @Option(help: "Snippets in the training split.")
    var trainSnippets = 60

    @Option(help: "Snippets in the validation split, which shows test photographs only.")
    var valSnippets = 20

    @Option(help: "Frames in each snippet.")
    var frames = 12

    @Option(help: "Seed of every choice.")
    var seed: UInt64 = 1

    @Option(help: "Width of a frame in pixels.")
    var width = 400

    @Option(help: "Height of a frame in pixels.")
    var height = 300

    @Option(help: "Folder of the photographs' four files (default: the usual places).")
    var source: String?

    @Option(help: "Threads (default: one a core).")
    var threads: Int?

    func run() async throws {
        let video = try FashionVideo(
            .init(
                trainSnippets: trainSnippets, valSnippets: valSnippets, frames: frames, seed: seed,
                width: width, height: height, source: source, threads: threads))
        let report = try video.make(in: folder)
        print(
            "\(folder): \(report.snippets) snippets, \(report.frames) frames, "
                + "\(report.articles) articles; \(report.keptFrames) frames were there")
        print("next: lineup crop \(folder) --out \(folder)-crops")
    }
}

import ArgumentParser
import Datasets

/// `lineup crop`: cuts the annotated objects out of a video data set.
struct CropCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "crop",
        abstract: "Cut every annotated object of a video data set into a square crop.",
        discussion: """
            Reads the layout of ILSVRC2015 VID: Data/VID and Annotations/VID. Writes 255x255 JPEG \
            crops, catalogue.csv and dataset.json. Snippets that are done are kept when the \
            command is started again.

            Example: lineup crop data/ILSVRC2015 --out data/crops
            """
    )

    @Argument(help: "Folder that holds Data/VID and Annotations/VID.")
    var source: String

    @Option(help: "Folder for the crops.")
    var out: String

    @Option(help: "Margin around a box, as a share of its width plus height.")
    var context = 0.01

    @Option(help: "Side of a crop in pixels.")
    var side = 255

    @Option(help: "JPEG quality, 1 to 100.")
    var quality = 90

    @Option(help: "Threads (default: one a core).")
    var threads: Int?

    func run() async throws {
        let cropper = try Cropper(
            .init(
                source: source, output: out, context: context, side: side, quality: quality,
                threads: threads))
        let report = try cropper.run()
        print(
            "\(out): \(report.crops) crops of \(report.frames) frames in \(report.snippets) "
                + "snippets; \(report.keptCrops) were there")
        if report.droppedSets {
            print("the crops changed: the evaluation sets were dropped")
        }
        print("next: lineup curate \(out) --seed 1")
    }
}

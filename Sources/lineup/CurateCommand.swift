import ArgumentParser
import Datasets

/// `lineup curate`: draws the evaluation sets of a folder of crops.
struct CurateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "curate",
        abstract: "Draw the sets train_eval, val_eval and easy_val_eval from a folder of crops.",
        discussion: """
            A set is a list of tuples: an anchor, a crop of the same object, and crops of other \
            things. They are drawn once, from the seed, and stored beside the crops.

            Example: lineup curate data/crops --seed 1
            """
    )

    /// What becomes of covered objects, as it is written on the command line.
    enum OccludedNegatives: String, ExpressibleByArgument, CaseIterable {
        case keep
        case drop
    }

    @Argument(help: "Folder of the crops.")
    var crops: String

    @Option(help: "Seed of every choice.")
    var seed: UInt64 = 1

    @Option(help: "Images in each set, counted over all tuples.")
    var imagesPerSet = 10_000

    @Option(help: "Random crops in a tuple of easy_val_eval.")
    var randomCrops = 5

    @Option(help: "A random crop overlaps the positive by less than this share of their union.")
    var maxIou = 0.3

    @Option(help: "Objects in a tuple's second frame, at least.")
    var minObjects = 3

    @Option(help: "Covered objects among the negatives: keep or drop.")
    var occludedNegatives = OccludedNegatives.keep

    @Option(help: "Folder of the original frames (default: where the crops were cut from).")
    var source: String?

    @Flag(help: "Replace sets that were drawn with other options.")
    var force = false

    @Option(help: "Threads (default: one a core).")
    var threads: Int?

    func run() async throws {
        let curator = try Curator(
            .init(
                crops: crops, source: source, seed: seed, imagesPerSet: imagesPerSet,
                randomCrops: randomCrops, maxIoU: maxIou, minObjects: minObjects,
                occludedNegatives: occludedNegatives == .keep ? .keep : .drop, force: force,
                threads: threads))
        let report = try curator.run()
        if report.wasComplete { print("\(crops): the sets were there") }
        for set in report.sets {
            print(
                "\(set.name): \(set.size.tuples) tuples, \(set.size.images) images, "
                    + "\(set.size.snippets) snippets"
                    + (report.shortSets.contains(set.name)
                        ? " (no more tuples; \(imagesPerSet) images were asked for)" : ""))
        }
        print("data set \(report.digest)")
    }
}

import Basics
import Foundation
import Images

/// Draws the evaluation sets `train_eval`, `val_eval` and `easy_val_eval` from a folder of crops.
///
/// A tuple of the first two comes from a snippet most of whose frames show several objects: an
/// uncovered object of a random frame is the anchor, the same object uncovered in another random
/// frame the positive, and all other objects of that frame are the negatives. `easy_val_eval`
/// has random crops of the second frame's picture as negatives, which overlap the positive little.
///
/// Snippets take turns in a new random order each round, until a set has as many images as were
/// asked for or no new tuple is left; a pair of anchor and positive is drawn once. Everything is
/// a pure function of the crops and the options.
public struct Curator: Sendable {
    /// What becomes of covered objects among the negatives.
    public enum OccludedNegatives: String, Sendable, CaseIterable {
        /// They stay, as in the earlier tool.
        case keep
        /// They are left out, as its description said.
        case drop
    }

    /// What to draw.
    public struct Options: Sendable, Equatable {
        /// Folder of the crops.
        public var crops: String
        /// Folder of the frames; nil takes the one that the crops were cut from.
        public var source: String?
        /// Seed of every choice.
        public var seed: UInt64
        /// Images wanted in each set, counted over all tuples.
        public var imagesPerSet: Int
        /// Random crops wanted in a tuple.
        public var randomCrops: Int
        /// A random crop overlaps the positive's box by less than this share of their union.
        public var maxIoU: Double
        /// Objects that a tuple's second frame has at least.
        public var minObjects: Int
        /// What becomes of covered objects among the negatives.
        public var occludedNegatives: OccludedNegatives
        /// Replaces sets that were drawn with other options.
        public var force: Bool
        /// Threads; nil takes one a core.
        public var threads: Int?
        /// Shows no progress.
        public var isQuiet: Bool

        /// Names every part.
        public init(
            crops: String, source: String? = nil, seed: UInt64 = 1, imagesPerSet: Int = 10_000,
            randomCrops: Int = 5, maxIoU: Double = 0.3, minObjects: Int = 3,
            occludedNegatives: OccludedNegatives = .keep, force: Bool = false,
            threads: Int? = nil, isQuiet: Bool = false
        ) {
            self.crops = crops
            self.source = source
            self.seed = seed
            self.imagesPerSet = imagesPerSet
            self.randomCrops = randomCrops
            self.maxIoU = maxIoU
            self.minObjects = minObjects
            self.occludedNegatives = occludedNegatives
            self.force = force
            self.threads = threads
            self.isQuiet = isQuiet
        }
    }

    /// What was drawn.
    public struct Report: Sendable, Equatable {
        /// One set.
        public struct Entry: Sendable, Equatable {
            /// The set's name.
            public var name: String
            /// Its size.
            public var size: DataSetManifest.SetEntry
        }

        /// The sets in the order train_eval, val_eval, easy_val_eval.
        public var sets: [Entry]
        /// Distinct random crops written.
        public var randomCrops: Int
        /// Sets that ended before they had the images asked for.
        public var shortSets: [String]
        /// The data set's digest, in hexadecimal.
        public var digest: String
        /// Whether everything was there already.
        public var wasComplete: Bool
    }

    private static let randomFolder = "Data/Random"
    private static let randomRole = "random_crop"

    private let options: Options

    /// Checks the options.
    ///
    /// - Throws: ``DatasetError`` with code `invalidSetting` naming the option.
    public init(_ options: Options) throws(DatasetError) {
        for (name, value, range) in [
            ("--images-per-set", options.imagesPerSet, 3...100_000_000),
            ("--random-crops", options.randomCrops, 1...1000),
            ("--min-objects", options.minObjects, 2...1000),
            ("--threads", options.threads ?? 1, 1...1024),
        ] where !range.contains(value) {
            throw DatasetError(
                .invalidSetting,
                "\(name) is \(value); expected \(range.lowerBound) to \(range.upperBound)")
        }
        guard options.maxIoU > 0, options.maxIoU <= 1 else {
            throw DatasetError(
                .invalidSetting, "--max-iou is \(options.maxIoU); expected above 0 and up to 1")
        }
        self.options = options
    }

    /// Draws the sets and writes them, the random crops and the catalogue beside the crops.
    ///
    /// - Throws: ``DatasetError`` when the crops or the frames are missing or damaged, or when a
    ///   set would be empty.
    public func run() throws(DatasetError) -> Report {
        let folder = Cropper.absolute(options.crops)
        var manifest = try DataSetManifest(loading: folder)
        guard manifest.kind == "vid-crops" else {
            throw DatasetError(
                .inconsistent,
                "\(folder) holds a data set of kind '\(manifest.kind)'; expected the crops that "
                    + "'lineup crop' makes")
        }
        let lock = try FolderLock(folder)
        defer { withExtendedLifetime(lock) {} }
        if let curation = manifest.curation, !options.force {
            if let report = try alreadyDone(folder, manifest, curation) { return report }
        }
        let path = "\(folder)/\(SequenceSummary.fileName)"
        let bytes = try imaging { () throws(ImageError) in try FileBytes.read(path) }
        let sequences = try SequenceSummary.parse(bytes, name: path)
        let objects = try Catalogue(loading: folder).samples.filter { $0.role == "object" }
        if manifest.curation != nil { manifest = try forget(manifest, objects, folder) }
        let snippets = CuratedSnippet.group(objects, sequences)

        let trainDraws = draw(from: snippets, split: "train", set: 0)
        let valDraws = draw(from: snippets, split: "val", set: 1)
        let easy = try drawEasy(from: snippets, manifest, folder, cropSide: manifest.crop?.side)
        let samples = objects + easy.crops
        let catalogue = try Catalogue(root: folder, samples: samples)
        let sets = [
            ("train_eval", trainDraws), ("val_eval", valDraws), ("easy_val_eval", easy.draws),
        ]
        for (name, draws) in sets where draws.isEmpty {
            throw DatasetError(
                .notEnough,
                "\(name) would be empty: \(folder) has no "
                    + "\(name == "train_eval" ? "train" : "val") snippet with an object that is "
                    + "uncovered in two frames"
                    + (name == "easy_val_eval"
                        ? " of at least \((manifest.crop?.side ?? 255) + options.randomCrops) "
                            + "pixels a side"
                        : " and \(options.minObjects) objects in one; lower --min-objects or add "
                            + "data"))
        }
        return try write(sets, catalogue, manifest, easy.crops.count)
    }

    /// Takes earlier sets out of the data set, so that it is whole at any moment.
    private func forget(
        _ before: DataSetManifest, _ objects: [Sample], _ folder: String
    ) throws(DatasetError) -> DataSetManifest {
        let catalogue = try Catalogue(root: folder, samples: objects)
        var manifest = DataSetManifest(
            kind: before.kind, source: before.source, counts: before.counts, crop: before.crop,
            catalogueDigest: catalogue.digest)
        manifest.counts["random_crops"] = nil
        try catalogue.write(to: folder)
        try manifest.write(to: folder)
        try? FileManager.default.removeItem(atPath: "\(folder)/\(Self.randomFolder)")
        return manifest
    }

    private func write(
        _ sets: [(name: String, draws: [Draw])], _ catalogue: Catalogue,
        _ before: DataSetManifest, _ randomCount: Int
    ) throws(DatasetError) -> Report {
        let folder = catalogue.root
        try FolderLock.makeFolder("\(folder)/sets")
        var manifest = before
        manifest.sets = [:]
        var digests: [String: UInt64] = [:]
        var entries: [Report.Entry] = []
        try catalogue.write(to: folder)
        for (name, draws) in sets {
            let text = EvaluationSet.text(draws.map(\.row)) { catalogue.samples[$0].path }
            try imaging { () throws(ImageError) in
                try FileBytes.writeAtomically(text, to: EvaluationSet.path(folder, name))
            }
            digests[name] = XXH64.digest(text)
            let entry = DataSetManifest.SetEntry(
                tuples: draws.count, images: draws.reduce(0) { $0 + $1.row.members.count },
                snippets: Set(draws.map(\.sequence)).count, digest: XXH64.digest(text).hex)
            manifest.sets[name] = entry
            entries.append(Report.Entry(name: name, size: entry))
        }
        manifest.seed = options.seed
        manifest.curation = curation
        manifest.counts["random_crops"] = randomCount
        manifest.catalogueDigest = catalogue.digest.hex
        manifest.digest = DataSetManifest.digest(catalogue: catalogue.digest, sets: digests).hex
        try manifest.write(to: folder)
        return report(entries, manifest, wasComplete: false)
    }

    private func report(
        _ entries: [Report.Entry], _ manifest: DataSetManifest, wasComplete: Bool
    ) -> Report {
        Report(
            sets: entries, randomCrops: manifest.counts["random_crops"] ?? 0,
            shortSets: entries.filter { $0.size.images < options.imagesPerSet }.map(\.name),
            digest: manifest.digest, wasComplete: wasComplete)
    }

    private var curation: DataSetManifest.Curation {
        .init(
            seed: options.seed, imagesPerSet: options.imagesPerSet,
            randomCrops: options.randomCrops, maxIou: options.maxIoU,
            minObjects: options.minObjects, occludedNegatives: options.occludedNegatives.rawValue)
    }

    /// The report of sets that are there and whole; nil when they have to be drawn again.
    private func alreadyDone(
        _ folder: String, _ manifest: DataSetManifest, _ found: DataSetManifest.Curation
    ) throws(DatasetError) -> Report? {
        guard found == curation else {
            throw DatasetError(
                .occupied,
                "the sets of \(folder) were drawn with other options (seed \(found.seed), "
                    + "--images-per-set \(found.imagesPerSet), --random-crops "
                    + "\(found.randomCrops), --max-iou \(found.maxIou), --min-objects "
                    + "\(found.minObjects), --occluded-negatives \(found.occludedNegatives)); "
                    + "write --force to replace them, runs on the old sets then refuse to resume")
        }
        guard let data = try? DataSet(loading: folder),
            data.catalogue.samples.allSatisfy({ sample in
                sample.role != Self.randomRole
                    || FileBytes.size("\(folder)/\(sample.path)") == sample.byteCount
            })
        else { return nil }
        let entries = EvaluationSet.standardNames.compactMap { name in
            manifest.sets[name].map { Report.Entry(name: name, size: $0) }
        }
        return report(entries, manifest, wasComplete: true)
    }

    // MARK: - Drawing

    /// One tuple with the snippet that it comes from.
    struct Draw: Sendable {
        var row: EvaluationSet.Row
        var sequence: String
    }

    /// Draws tuples of one split until there are enough images or a whole round adds none.
    private func draw(from all: [CuratedSnippet], split: String, set: UInt64) -> [Draw] {
        let snippets = all.filter { $0.split == split && $0.kind == .multiple }
        var draws: [Draw] = []
        var images = 0
        forEachTurn(snippets.count, set) { used, index, random in
            guard let pair = snippets[index].pair(&random, &used) else { return .nothingNew }
            let frame = snippets[index].frames[pair.secondFrame]
            let members =
                [pair.anchor]
                + frame.objects.filter {
                    $0.sample == pair.positive || options.occludedNegatives == .keep
                        || !$0.occluded
                }.map(\.sample)
            guard members.count - 1 >= options.minObjects,
                let positive = members.dropFirst().firstIndex(of: pair.positive)
            else { return .retry }
            draws.append(
                Draw(
                    row: EvaluationSet.Row(members: members, positive: positive),
                    sequence: snippets[index].sequence))
            images += members.count
            return images >= options.imagesPerSet ? .enough : .drawn
        }
        return draws
    }

    private enum Outcome {
        case drawn
        /// This pair does not do; another of the snippet may.
        case retry
        /// The snippet has no pair left.
        case nothingNew
        case enough
    }

    /// Gives every snippet its turn, round after round, in a random order of each round.
    private func forEachTurn(
        _ count: Int, _ set: UInt64,
        _ body: (_ used: inout Set<CuratedSnippet.Pair>, Int, inout CounterRandom) -> Outcome
    ) {
        let triesMax = 200
        var used = [Set<CuratedSnippet.Pair>](repeating: [], count: count)
        var order = Array(0..<count)
        var round: UInt64 = 0
        while !order.isEmpty {
            var shuffling = CounterRandom(
                seed: options.seed, step: round, slot: set, purpose: .curation)
            order.sort()
            shuffling.shuffle(&order)
            var alive: [Int] = []
            for index in order {
                var random = CounterRandom(
                    seed: options.seed, step: round, slot: set, item: UInt64(index) + 1,
                    purpose: .curation)
                var outcome = Outcome.retry
                for _ in 0..<triesMax {
                    outcome = body(&used[index], index, &random)
                    if case .retry = outcome { continue }
                    break
                }
                switch outcome {
                case .enough: return
                case .drawn: alive.append(index)
                case .retry, .nothingNew: break
                }
            }
            order = alive
            round += 1
        }
    }

    /// Draws tuples whose negatives are random crops, and cuts those.
    private func drawEasy(
        from all: [CuratedSnippet], _ manifest: DataSetManifest, _ folder: String, cropSide: Int?
    ) throws(DatasetError) -> (draws: [Draw], crops: [Sample]) {
        let source = options.source.map(Cropper.absolute) ?? manifest.source
        let side = cropSide ?? 255
        let snippets = all.filter { $0.split == "val" && $0.kind != .missing }
        var plans: [EasyPlan] = []
        var sizes: [String: (width: Int, height: Int)] = [:]
        var failure: DatasetError?
        var images = 0
        forEachTurn(snippets.count, 2) { used, index, random in
            guard failure == nil else { return .enough }
            let snippet = snippets[index]
            guard let pair = snippet.pair(&random, &used) else { return .nothingNew }
            let number = snippet.frames[pair.secondFrame].number
            do throws(DatasetError) {
                let picture = try Self.picture(source, snippet.sequence, number)
                if sizes[picture] == nil { sizes[picture] = try Self.size(picture) }
                guard let size = sizes[picture] else { return .retry }
                let boxes = self.boxes(
                    size, side: side, apartFrom: snippet.box(pair), &random)
                guard !boxes.isEmpty else { return .retry }
                plans.append(
                    EasyPlan(
                        picture: picture, sequence: snippet.sequence, frame: number, pair: pair,
                        boxes: boxes))
                images += 2 + boxes.count
                return images >= options.imagesPerSet ? .enough : .drawn
            } catch {
                failure = error
                return .enough
            }
        }
        if let failure { throw failure }
        let objectCount = all.reduce(0) { $0 + $1.objectCount }
        let crops = try cut(plans, below: folder, side, manifest.crop?.quality ?? 90)
        var draws: [Draw] = []
        var next = objectCount
        for plan in plans {
            let members =
                [plan.pair.anchor, plan.pair.positive] + (next..<next + plan.boxes.count)
            next += plan.boxes.count
            draws.append(
                Draw(row: .init(members: members, positive: 1), sequence: plan.sequence))
        }
        return (draws, crops)
    }

    /// A tuple whose random crops are chosen and not yet cut.
    private struct EasyPlan: Sendable {
        var picture: String
        var sequence: String
        var frame: Int
        var pair: CuratedSnippet.Pair
        var boxes: [Box]
    }

    /// Chooses squares of the picture that overlap the positive little.
    ///
    /// A picture that is too small for `randomCrops` places along either side gives none.
    private func boxes(
        _ size: (width: Int, height: Int), side: Int, apartFrom positive: Box,
        _ random: inout CounterRandom
    ) -> [Box] {
        let attemptsMax = 201
        let (columns, rows) = (size.width - side, size.height - side)
        guard columns >= options.randomCrops, rows >= options.randomCrops else { return [] }
        var chosen: [Box] = []
        for _ in 0..<attemptsMax where chosen.count < options.randomCrops {
            let left = random.index(below: columns + 1)
            let top = random.index(below: rows + 1)
            let box = Box(xmin: left, ymin: top, xmax: left + side - 1, ymax: top + side - 1)
            if box.intersectionOverUnion(positive) < options.maxIoU { chosen.append(box) }
        }
        return chosen
    }

    /// Cuts the random crops; equal squares of one picture get files of their own.
    private func cut(
        _ plans: [EasyPlan], below folder: String, _ side: Int, _ quality: Int
    ) throws(DatasetError) -> [Sample] {
        let seed = options.seed
        try FolderLock.makeFolder("\(folder)/\(Self.randomFolder)")
        let meter = ProgressMeter(
            "random crops", total: plans.count, unit: "tuples", isQuiet: options.isQuiet)
        let cut = try ParallelWork.map(
            count: plans.count, threads: options.threads ?? ParallelWork.defaultThreadCount
        ) { (index) throws(DatasetError) -> [Sample] in
            let plan = plans[index]
            let image = try imaging { () throws(ImageError) in try JPEG.read(plan.picture) }
            let below = "\(Self.randomFolder)/seed-\(seed)/\(plan.sequence)"
            try FolderLock.makeFolder("\(folder)/\(below)")
            var samples: [Sample] = []
            for (attempt, box) in plan.boxes.enumerated() {
                let path =
                    "\(below)/\(String(format: "%06d", plan.frame))"
                    + ".t\(String(format: "%06d", index)).\(attempt).jpg"
                let jpeg = try imaging { () throws(ImageError) in
                    let crop = image.cropped(
                        left: box.xmin, top: box.ymin, width: side, height: side)
                    let jpeg = try JPEG.encode(crop, quality: quality)
                    try FileBytes.writeAtomically(jpeg, to: "\(folder)/\(path)")
                    return jpeg
                }
                let print = ImageFingerprint(of: jpeg)
                samples.append(
                    Sample(
                        path: path, identity: "", split: "val", sequence: plan.sequence,
                        frame: plan.frame, box: box, role: Self.randomRole,
                        byteCount: print.byteCount, digest: print.digest))
            }
            meter.advance()
            return samples
        }
        meter.finish()
        return cut.flatMap { $0 }
    }

    private static func picture(
        _ source: String, _ sequence: String, _ frame: Int
    ) throws(DatasetError) -> String {
        guard let folder = VIDLayout.dataFolder(root: source, sequence: sequence) else {
            throw DatasetError(
                .malformed, "sequence '\(sequence)' is not of the form letter/snippet")
        }
        return "\(folder)/\(String(format: "%06d", frame)).JPEG"
    }

    private static func size(_ picture: String) throws(DatasetError) -> (width: Int, height: Int) {
        do throws(ImageError) {
            return try JPEG.size(FileBytes.read(picture), name: picture)
        } catch  where error.code == .missing {
            throw DatasetError(
                .missing,
                "\(picture) is missing: random crops are cut from the original frames; name their "
                    + "folder with --source")
        } catch {
            throw DatasetError(error)
        }
    }
}

/// A snippet's frames and objects, as curation draws from them.
struct CuratedSnippet: Sendable {
    struct Object: Sendable {
        /// Index in the catalogue.
        var sample: Int
        var track: Int
        var occluded: Bool
        var box: Box
    }

    struct Frame: Sendable {
        var number: Int
        var objects: [Object]
    }

    /// The same object uncovered in two frames.
    struct Pair: Sendable, Hashable {
        /// Indices in the catalogue.
        var anchor: Int
        var positive: Int
        /// Index of the positive's frame among the snippet's frames.
        var secondFrame: Int
    }

    var sequence: String
    var split: String
    var kind: SequenceSummary.Class
    /// Frames with at least one object.
    var frames: [Frame]

    var objectCount: Int { frames.reduce(0) { $0 + $1.objects.count } }

    /// Gathers the catalogue's objects by snippet and frame, in the order of `sequences`.
    static func group(_ samples: [Sample], _ sequences: [SequenceSummary]) -> [CuratedSnippet] {
        var places: [String: Int] = [:]
        var snippets: [CuratedSnippet] = []
        for (index, row) in sequences.enumerated() {
            places[row.sequence] = index
            snippets.append(
                CuratedSnippet(
                    sequence: row.sequence, split: row.split, kind: row.kind, frames: []))
        }
        for (index, sample) in samples.enumerated() {
            guard let place = places[sample.sequence], let frame = sample.frame,
                let track = sample.track, let box = sample.box
            else { continue }
            let object = Object(
                sample: index, track: track, occluded: sample.occluded ?? false, box: box)
            if snippets[place].frames.last?.number == frame {
                snippets[place].frames[snippets[place].frames.count - 1].objects.append(object)
            } else {
                snippets[place].frames.append(Frame(number: frame, objects: [object]))
            }
        }
        return snippets
    }

    /// Draws a pair that was not drawn before and remembers it.
    ///
    /// A random frame, a random uncovered object of it, and a random other frame where the object
    /// is uncovered too. Nil when some hundred tries found nothing new.
    func pair(_ random: inout CounterRandom, _ used: inout Set<Pair>) -> Pair? {
        guard frames.count > 1 else { return nil }
        for _ in 0..<300 {
            let first = random.index(below: frames.count)
            let uncovered = frames[first].objects.filter { !$0.occluded }
            guard !uncovered.isEmpty else { continue }
            let anchor = uncovered[random.index(below: uncovered.count)]
            let others = frames.indices.compactMap { index -> Pair? in
                guard index != first,
                    let same = frames[index].objects.first(where: {
                        $0.track == anchor.track && !$0.occluded
                    })
                else { return nil }
                return Pair(anchor: anchor.sample, positive: same.sample, secondFrame: index)
            }
            guard !others.isEmpty else { continue }
            let pair = others[random.index(below: others.count)]
            if used.insert(pair).inserted { return pair }
        }
        return nil
    }

    /// The positive's box in its frame.
    func box(_ pair: Pair) -> Box {
        for object in frames[pair.secondFrame].objects where object.sample == pair.positive {
            return object.box
        }
        preconditionFailure("the pair's positive \(pair.positive) is not in its frame")
    }
}

import Basics
public import Datasets
import Scoring

/// How triplets are mined offline.
public enum TripletKind: String, Codable, CaseIterable, Sendable {
    /// Every image with a random other image of its identity and a random one of another: the coarse
    /// triplets of the whale system.
    case random
    /// Negatives by the centroids of identities: the fine triplets of the whale system.
    case hardCentroid = "hard_centroid"
    /// Positives and negatives by similarity in a pool of images, as the human re-identification system
    /// has them.
    case hardSimilarity = "hard_similarity"
}

/// Picks triplets of training images, as a pure function of images, embeddings, seed and step.
///
/// | kind | anchors | positive | negative |
/// |---|---|---|---|
/// | `random` | all images | another image of the identity | an image of another identity |
/// | `hard_centroid` | `anchors` (2,048) images | the identity's image at the largest Euclidean distance | of `negatives` (1,024) random images of other identities the first whose identity's centroid is nearest |
/// | `hard_similarity` | `anchors` (1,024) of a pool of `pool` (5,000) images | of the pool: one of the n least similar, n = min(others of the identity, floor(sqrt(`samples`))) | one of the `samples` div (n + 1) + 1 most similar |
///
/// Everything is drawn without replacement, similarity is the cosine, `samples` is 25. A centroid is the
/// mean of an identity's embeddings. Of equals the first in catalogue order is taken.
///
/// Where this departs from the earlier systems: an image whose identity has no other (in the pool) is no
/// anchor, where they end with an error or take the anchor as its own positive; the farthest positive is
/// found by images, where the whale system's formula compares one centroid with itself; the images that are
/// embedded are not covered.
public struct TripletMiner: Sendable {
    /// What is mined.
    public struct Options: Sendable, Equatable {
        /// How.
        public var kind: TripletKind
        /// Seed of every choice.
        public var seed: UInt64
        /// Step of the checkpoint, so that every round draws others.
        public var step: Int
        /// Anchors, at most; nil: as the system had it.
        public var anchors: Int?
        /// `hard_centroid`: images that a negative is chosen from.
        public var negatives = 1_024
        /// `hard_similarity`: images that are embedded.
        public var pool = 5_000
        /// `hard_similarity`: what decides how many positives and negatives are chosen from.
        public var samples = 25

        /// As the systems had it.
        public init(kind: TripletKind, seed: UInt64, step: Int = 0, anchors: Int? = nil) {
            self.kind = kind
            self.seed = seed
            self.step = step
            self.anchors = anchors
        }

        /// The most anchors there are to be.
        public var anchorsMax: Int {
            anchors ?? (kind == .random ? .max : kind == .hardCentroid ? 2_048 : 1_024)
        }
    }

    /// A row of the embeddings, as long as they live.
    public typealias Row = (Int) -> UnsafeBufferPointer<Float>

    /// What is mined.
    public let options: Options
    /// Rows of the catalogue that are to be embedded, in the order of the rows of ``triplets(_:)``.
    public let images: [Int]
    /// Images that may be anchors; in a pool they may be fewer.
    public var possibleAnchors: Int { ranges.reduce(0) { $0 + ($1.count > 1 ? $1.count : 0) } }
    /// One line on images that can be no anchors; nil where all can.
    public let notice: String?

    /// Rows of the catalogue, identity by identity.
    private let all: [Int]
    /// The places in ``all`` of each identity.
    private let ranges: [Range<Int>]
    /// Number of the identity at each place in ``all``.
    private let identityOf: [Int]
    /// Places in ``all`` of ``images``, of `hard_similarity`.
    private let pool: [Int]

    private enum Choice: UInt64 { case anchors, pool, pair }

    /// Prepares to mine.
    ///
    /// - Parameter identities: the images that are trained on.
    /// - Throws: ``EvalWorkerError`` with code `dataset` when there is no anchor, or no other identity.
    public init(
        identities: [Catalogue.Identity], options: Options
    ) throws(EvalWorkerError) {
        self.options = options
        all = identities.flatMap(\.samples)
        var ranges: [Range<Int>] = []
        for identity in identities {
            let start = ranges.last?.upperBound ?? 0
            ranges.append(start..<start + identity.samples.count)
        }
        self.ranges = ranges
        identityOf = ranges.indices.flatMap { number in ranges[number].map { _ in number } }
        let single = ranges.indices.filter { ranges[$0].count == 1 }
        guard ranges.count(where: { !$0.isEmpty }) >= 2, ranges.contains(where: { $0.count > 1 })
        else {
            throw EvalWorkerError(
                .dataset,
                "there are \(all.count) images of \(ranges.count) identities to train on, of which "
                    + "\(ranges.count - single.count) have two images; a triplet needs two identities, "
                    + "one of them with two images")
        }
        notice =
            single.isEmpty
            ? nil
            : "\(single.count) of \(ranges.count) identities have one image and are no anchors: "
                + single.prefix(5).map { identities[$0].name }.joined(separator: ", ")
                + (single.count > 5 ? " ..." : "")
        switch options.kind {
        case .random: (pool, images) = ([], [])
        case .hardCentroid: (pool, images) = ([], all)
        case .hardSimilarity:
            pool = Array(
                Self.shuffled(Array(all.indices), options, .pool).prefix(options.pool))
            images = pool.map { [all] in all[$0] }
        }
    }

    /// The triplets, in the order in which anchors are drawn; all images in catalogue order.
    ///
    /// - Parameter row: the embedding of ``images`` at a place.
    public func triplets(_ row: Row) throws(EvalWorkerError) -> [Triplet] {
        switch options.kind {
        case .random: randomTriplets()
        case .hardCentroid: centroidTriplets(row)
        case .hardSimilarity: try similarityTriplets(row)
        }
    }

    // MARK: - What is drawn

    private static func shuffled(
        _ places: [Int], _ options: Options, _ choice: Choice
    ) -> [Int] {
        var places = places
        var random = CounterRandom(
            seed: options.seed, step: UInt64(options.step), slot: choice.rawValue,
            purpose: .tripletMining)
        random.shuffle(&places)
        return places
    }

    /// What one anchor draws from, whichever else there are.
    private func random(of place: Int) -> CounterRandom {
        CounterRandom(
            seed: options.seed, step: UInt64(options.step), slot: Choice.pair.rawValue,
            item: UInt64(all[place]), purpose: .tripletMining)
    }

    /// Places of anchors: images whose identity has another.
    private func anchors() -> [Int] {
        let possible = all.indices.filter { ranges[identityOf[$0]].count > 1 }
        guard options.anchorsMax < possible.count else { return possible }
        return Array(Self.shuffled(possible, options, .anchors).prefix(options.anchorsMax))
    }

    /// A place of another identity from a number below how many there are.
    private func place(ofOther number: Int, than own: Range<Int>) -> Int {
        number < own.lowerBound ? number : number + own.count
    }

    private func triplet(_ anchor: Int, _ positive: Int, _ negative: Int) -> Triplet {
        Triplet(anchor: all[anchor], positive: all[positive], negative: all[negative])
    }

    private func randomTriplets() -> [Triplet] {
        anchors().map { anchor in
            let own = ranges[identityOf[anchor]]
            var random = random(of: anchor)
            var positive = own.lowerBound + random.index(below: own.count - 1)
            if positive >= anchor { positive += 1 }
            let negative = place(ofOther: random.index(below: all.count - own.count), than: own)
            return triplet(anchor, positive, negative)
        }
    }

    // MARK: - By centroids

    private func centroidTriplets(_ row: Row) -> [Triplet] {
        let centroids = ranges.map { range in
            range.isEmpty ? [] : Self.mean(range.map(row))
        }
        return anchors().map { anchor in
            let own = ranges[identityOf[anchor]]
            let embedding = row(anchor)
            var (positive, farthest) = (anchor, -1.0)
            for other in own where other != anchor {
                let distance = Distance.euclidean.rank(embedding, row(other))
                if distance > farthest { (positive, farthest) = (other, distance) }
            }
            var (negative, nearest) = (anchor, Double.infinity)
            var known: [Int: Double] = [:]
            for other in others(than: own, random(of: anchor)) {
                let identity = identityOf[other]
                let distance =
                    known[identity]
                    ?? centroids[identity].withUnsafeBufferPointer {
                        Distance.euclidean.rank(embedding, $0)
                    }
                known[identity] = distance
                if distance < nearest { (negative, nearest) = (other, distance) }
            }
            return triplet(anchor, positive, negative)
        }
    }

    /// Random images of other identities, none twice.
    private func others(than own: Range<Int>, _ random: CounterRandom) -> [Int] {
        var random = random
        let count = all.count - own.count
        if count <= 2 * options.negatives {
            var numbers = Array(0..<count)
            random.shuffle(&numbers)
            return numbers.prefix(options.negatives).map { place(ofOther: $0, than: own) }
        }
        var seen: Set<Int> = []
        var found: [Int] = []
        while found.count < options.negatives {
            let number = random.index(below: count)
            if seen.insert(number).inserted { found.append(place(ofOther: number, than: own)) }
        }
        return found
    }

    private static func mean(_ rows: [UnsafeBufferPointer<Float>]) -> [Float] {
        var sum = [Double](repeating: 0, count: rows[0].count)
        for row in rows { for place in sum.indices { sum[place] += Double(row[place]) } }
        return sum.map { Float($0 / Double(rows.count)) }
    }

    // MARK: - By similarity

    private func similarityTriplets(_ row: Row) throws(EvalWorkerError) -> [Triplet] {
        var members: [Int: [Int]] = [:]
        for (number, place) in pool.enumerated() {
            members[identityOf[place], default: []].append(number)
        }
        let possible = pool.indices.filter { members[identityOf[pool[$0]]]!.count > 1 }
        guard !possible.isEmpty, members.count > 1 else {
            throw EvalWorkerError(
                .dataset,
                "of \(pool.count) images that were drawn no two show one identity, or all do; mine "
                    + "from a larger pool, of the \(all.count) there are")
        }
        let queries = Self.shuffled(possible, options, .anchors).prefix(options.anchorsMax)
        return queries.map { query in
            let own = identityOf[pool[query]]
            let embedding = row(query)
            func ranked(_ numbers: some Sequence<Int>) -> [(distance: Double, place: Int)] {
                numbers.map { (Distance.cosine.rank(embedding, row($0)), pool[$0]) }
                    .sorted { ($0.0, $0.1) < ($1.0, $1.1) }
            }
            let near = ranked(members[own]!.filter { $0 != query }).reversed()
            let positives = near.prefix(min(near.count, Int(Double(options.samples).squareRoot())))
            let negatives = ranked(pool.indices.filter { identityOf[pool[$0]] != own })
                .prefix(options.samples / (positives.count + 1) + 1)
            var random = random(of: pool[query])
            let positive = Array(positives)[random.index(below: positives.count)]
            let negative = negatives[random.index(below: negatives.count)]
            return triplet(pool[query], positive.place, negative.place)
        }
    }
}

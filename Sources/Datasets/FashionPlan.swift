import Basics

/// Which photographs a snippet shows; made for all snippets at once, before any is drawn.
package struct FashionPlan: Sendable, Equatable {
    /// One article of a snippet.
    package struct Article: Sendable, Equatable {
        /// Index of the photograph in its archive.
        package var photograph: Int
        /// Label of its category.
        package var category: Int
    }

    /// Number of the snippet over both splits: it keys the snippet's random streams.
    package var number: Int
    package var isValidation: Bool
    /// Folder below `Data/VID` and `Annotations/VID`.
    package var folder: String
    /// In order of their tracks.
    package var articles: [Article]

    /// Articles of one category in a snippet at most.
    static let groupMax = 4

    /// Sizes of the groups of one category, by the number of articles in a snippet.
    private static let groupings: [[[Int]]] = [
        [[3]], [[2, 2], [4]], [[3, 2], [2, 3]], [[2, 2, 2], [3, 3]],
    ]

    /// Plans all snippets, `train` first.
    ///
    /// - Parameter labels: of the training photographs and of the test photographs.
    package static func make(_ options: FashionVideo.Options, labels: [[UInt8]]) -> [FashionPlan] {
        var plans: [FashionPlan] = []
        for (split, count) in [options.trainSnippets, options.valSnippets].enumerated() {
            var decks = PhotographDecks(labels[split], seed: options.seed, split: split)
            for index in 0..<count {
                var random = CounterRandom(
                    seed: options.seed, step: UInt64(index), slot: UInt64(split), item: 1,
                    purpose: .dataset)
                let grouping = groupings[random.index(below: groupings.count)]
                let sizes = grouping[random.index(below: grouping.count)]
                var categories = Array(PhotographArchive.categories.indices)
                random.shuffle(&categories)
                var articles = zip(sizes, categories).flatMap { size, category in
                    decks.draw(size, of: category).map {
                        Article(photograph: $0, category: category)
                    }
                }
                random.shuffle(&articles)
                plans.append(
                    FashionPlan(
                        number: plans.count, isValidation: split == 1,
                        folder: folder(split, index), articles: articles))
            }
        }
        return plans
    }

    private static func folder(_ split: Int, _ index: Int) -> String {
        let digits = String(index)
        let number = String(repeating: "0", count: max(8 - digits.count, 0)) + digits
        return split == 1
            ? "val/fashion_val_\(number)"
            : "train/ILSVRC2015_VID_train_000\(index % 4)/fashion_train_\(number)"
    }
}

/// A shuffled pile of photographs for every category, dealt without putting back.
private struct PhotographDecks {
    private let members: [[Int]]
    private var piles: [[Int]]
    private var rounds: [UInt64]
    private let seed: UInt64
    private let split: Int

    init(_ labels: [UInt8], seed: UInt64, split: Int) {
        var members = [[Int]](repeating: [], count: PhotographArchive.categories.count)
        for (index, label) in labels.enumerated() { members[Int(label)].append(index) }
        self.members = members
        self.seed = seed
        self.split = split
        piles = [[Int]](repeating: [], count: members.count)
        rounds = [UInt64](repeating: 0, count: members.count)
    }

    /// The next photographs of a category, all different; a pile with fewer is shuffled anew.
    mutating func draw(_ count: Int, of category: Int) -> [Int] {
        if piles[category].count < count {
            var pile = members[category]
            var random = CounterRandom(
                seed: seed, step: rounds[category], slot: UInt64(split),
                item: UInt64(category) << 8 | 2, purpose: .dataset)
            random.shuffle(&pile)
            rounds[category] += 1
            piles[category] = pile
        }
        defer { piles[category].removeLast(count) }
        return piles[category].suffix(count).reversed()
    }
}

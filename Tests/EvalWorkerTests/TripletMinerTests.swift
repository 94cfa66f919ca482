import Basics
import Datasets
import EvalWorker
import Foundation
import Testing

/// Which triplets are picked, against the rules written again in plain loops.
@Suite struct TripletMinerTests {
    private static let dimension = 3
    /// Images from 0 on, of identities with so many each.
    private static func identities(_ counts: [Int]) -> [Catalogue.Identity] {
        var next = 0
        return counts.enumerated().map { number, count in
            defer { next += count }
            return .init(name: "id\(number)", samples: Array(next..<next + count))
        }
    }

    private static func embeddings(_ count: Int) -> [[Float]] {
        var random = CounterRandom(seed: 21, purpose: .dataset)
        return (0..<count).map { _ in
            (0..<dimension).map { _ in Float(2 * random.uniform() - 1) }
        }
    }

    /// Mines with the embedding of each image by its row in the catalogue.
    private func mine(
        _ miner: TripletMiner, _ embeddings: [[Float]]
    ) throws -> [Triplet] {
        let values = miner.images.flatMap { embeddings[$0] }
        return try values.withUnsafeBufferPointer { values in
            try miner.triplets { row in
                .init(rebasing: values[row * Self.dimension..<(row + 1) * Self.dimension])
            }
        }
    }

    private func identity(of image: Int, _ identities: [Catalogue.Identity]) -> Int {
        identities.firstIndex { $0.samples.contains(image) }!
    }

    private func distance(_ a: [Float], _ b: [Float]) -> Double {
        zip(a, b).reduce(0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
    }

    private func similarity(_ a: [Float], _ b: [Float]) -> Double {
        func product(_ a: [Float], _ b: [Float]) -> Double {
            zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) }
        }
        return product(a, b) / (product(a, a) * product(b, b)).squareRoot()
    }

    private func checkAreTriplets(_ triplets: [Triplet], _ identities: [Catalogue.Identity]) {
        for triplet in triplets {
            let shown = [triplet.anchor, triplet.positive, triplet.negative].map {
                identity(of: $0, identities)
            }
            #expect(triplet.anchor != triplet.positive)
            #expect(shown[0] == shown[1] && shown[0] != shown[2], "\(triplet)")
        }
    }

    @Test func randomTripletsTakeEveryImageOnceAndAllOthers() throws {
        let identities = Self.identities([3, 1, 4, 2])
        var positives: [Int: Set<Int>] = [:]
        var negatives: [Int: Set<Int>] = [:]
        for seed in 0..<300 {
            let miner = try TripletMiner(
                identities: identities, options: .init(kind: .random, seed: UInt64(seed)))
            #expect(miner.images.isEmpty)
            #expect(miner.notice == "1 of 4 identities have one image and are no anchors: id1")
            let triplets = try mine(miner, [])
            // Image 3 has no other of its identity.
            #expect(triplets.map(\.anchor) == [0, 1, 2, 4, 5, 6, 7, 8, 9])
            checkAreTriplets(triplets, identities)
            for triplet in triplets {
                positives[triplet.anchor, default: []].insert(triplet.positive)
                negatives[triplet.anchor, default: []].insert(triplet.negative)
            }
        }
        #expect(positives[5] == [4, 6, 7])
        #expect(negatives[5] == [0, 1, 2, 3, 8, 9])
    }

    @Test func theNearestCentroidOfADrawnImageIsTheNegative() throws {
        let counts = [5, 1, 3, 7, 4, 6]
        let identities = Self.identities(counts)
        let embeddings = Self.embeddings(counts.reduce(0, +))
        let centroids = identities.map { identity in
            (0..<Self.dimension).map { place in
                Float(
                    identity.samples.reduce(0.0) { $0 + Double(embeddings[$1][place]) }
                        / Double(identity.samples.count))
            }
        }
        let miner = try TripletMiner(
            identities: identities, options: .init(kind: .hardCentroid, seed: 1))
        #expect(miner.images == Array(0..<26))
        let triplets = try mine(miner, embeddings)
        #expect(triplets.map(\.anchor) == (0..<26).filter { $0 != 5 })
        checkAreTriplets(triplets, identities)
        for triplet in triplets {
            let own = identity(of: triplet.anchor, identities)
            let anchor = embeddings[triplet.anchor]
            let farthest = identities[own].samples.max {
                distance(anchor, embeddings[$0]) < distance(anchor, embeddings[$1])
            }
            #expect(triplet.positive == farthest)
            // With more draws than images, every identity's centroid is looked at.
            let nearest = centroids.indices.filter { $0 != own }.min {
                distance(anchor, centroids[$0]) < distance(anchor, centroids[$1])
            }
            #expect(identity(of: triplet.negative, identities) == nearest)
        }
        // Of one image that is drawn it is that one.
        var options = TripletMiner.Options(kind: .hardCentroid, seed: 1)
        options.negatives = 1
        let single = try mine(
            TripletMiner(identities: identities, options: options), embeddings)
        checkAreTriplets(single, identities)
        #expect(Set(single.map(\.negative)).count > 8)
    }

    @Test func theMostSimilarOfThePoolAreNegatives() throws {
        let counts = [9, 8, 1, 10, 7]
        let identities = Self.identities(counts)
        let embeddings = Self.embeddings(counts.reduce(0, +))
        var positives: Set<Int> = []
        var negatives: Set<Int> = []
        for seed in 0..<60 {
            let miner = try TripletMiner(
                identities: identities,
                options: .init(kind: .hardSimilarity, seed: UInt64(seed)))
            // The pool is all there is, in the order of drawing.
            #expect(miner.images.sorted() == Array(0..<35))
            let triplets = try mine(miner, embeddings)
            checkAreTriplets(triplets, identities)
            #expect(Set(triplets.map(\.anchor)) == Set((0..<35).filter { $0 != 17 }))
            for triplet in triplets {
                let own = identity(of: triplet.anchor, identities)
                let anchor = embeddings[triplet.anchor]
                func rank(_ image: Int, among images: [Int]) -> Int {
                    images.sorted {
                        similarity(anchor, embeddings[$0]) > similarity(anchor, embeddings[$1])
                    }.firstIndex(of: image)!
                }
                // floor(sqrt 25) least similar positives, 25 div 6 + 1 most similar negatives.
                let near = identities[own].samples.filter { $0 != triplet.anchor }
                #expect(near.count - 1 - rank(triplet.positive, among: near) < 5)
                let far = (0..<35).filter { !identities[own].samples.contains($0) }
                #expect(rank(triplet.negative, among: far) < 5)
                if triplet.anchor == 0 {
                    positives.insert(near.count - 1 - rank(triplet.positive, among: near))
                    negatives.insert(rank(triplet.negative, among: far))
                }
            }
        }
        // Of a grid of five by five every line and every column is picked.
        #expect(positives == Set(0..<5) && negatives == Set(0..<5))
    }

    /// n_pos = min(#positives - 1, 5), n_neg = 25 div (n_pos + 1) + 1: 13 negatives for one positive.
    @Test func fewPositivesHaveMoreNegatives() throws {
        let identities = Self.identities([2, 20, 20])
        let embeddings = Self.embeddings(42)
        var ranks: Set<Int> = []
        for seed in 0..<200 {
            let triplets = try mine(
                TripletMiner(
                    identities: identities,
                    options: .init(kind: .hardSimilarity, seed: UInt64(seed))), embeddings)
            let triplet = try #require(triplets.first { $0.anchor == 0 })
            ranks.insert(
                (2..<42).sorted {
                    similarity(embeddings[0], embeddings[$0])
                        > similarity(embeddings[0], embeddings[$1])
                }.firstIndex(of: triplet.negative)!)
        }
        #expect(ranks == Set(0..<13))
    }

    @Test func thePoolAndTheAnchorsAreAsManyAsAskedFor() throws {
        let identities = Self.identities([Int](repeating: 6, count: 40))
        let embeddings = Self.embeddings(240)
        var options = TripletMiner.Options(kind: .hardSimilarity, seed: 4, step: 7, anchors: 20)
        options.pool = 60
        let miner = try TripletMiner(identities: identities, options: options)
        #expect(miner.images.count == 60 && Set(miner.images).count == 60)
        let triplets = try mine(miner, embeddings)
        #expect(triplets.count == 20 && Set(triplets.map(\.anchor)).count == 20)
        checkAreTriplets(triplets, identities)
        let drawn = Set(miner.images)
        for triplet in triplets {
            #expect(drawn.isSuperset(of: [triplet.anchor, triplet.positive, triplet.negative]))
        }
        // A step draws others, the same step the same.
        #expect(try mine(miner, embeddings) == triplets)
        options.step = 8
        #expect(
            try mine(TripletMiner(identities: identities, options: options), embeddings)
                != triplets)
        let few = TripletMiner.Options(kind: .hardCentroid, seed: 4, anchors: 9)
        let centroid = try mine(TripletMiner(identities: identities, options: few), embeddings)
        #expect(centroid.count == 9 && Set(centroid.map(\.anchor)).count == 9)
    }

    @Test(arguments: [[Int](), [5], [1, 1, 1]]) func dataWithoutTripletsAreRefused(_ counts: [Int])
    {
        for kind in TripletKind.allCases {
            let error = #expect(throws: EvalWorkerError.self) {
                try TripletMiner(
                    identities: Self.identities(counts), options: .init(kind: kind, seed: 1))
            }
            #expect(error?.message.contains("a triplet needs two identities") == true)
        }
    }

    @Test func aPoolWithoutPairsIsRefused() throws {
        let identities = Self.identities([Int](repeating: 2, count: 50))
        var options = TripletMiner.Options(kind: .hardSimilarity, seed: 2)
        options.pool = 3
        let miner = try TripletMiner(identities: identities, options: options)
        #expect(Set(miner.images.map { $0 / 2 }).count == 3, "another seed is needed")
        let error = #expect(throws: EvalWorkerError.self) {
            try mine(miner, Self.embeddings(100))
        }
        #expect(error?.message.contains("mine from a larger pool, of the 100 there are") == true)
    }
}

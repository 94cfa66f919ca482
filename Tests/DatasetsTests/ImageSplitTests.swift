import Datasets
import Testing

@Suite struct ImageSplitTests {
    private func split(_ counts: [Int], _ share: Double, seed: UInt64 = 1) throws -> ImageSplit {
        try ImageSplit(catalogue(counts), validationShare: share, seed: seed)
    }

    @Test func everyIdentityGivesItsShare() throws {
        let counts = [10, 20, 4, 2, 1, 15]
        let found = try split(counts, 0.1)
        #expect(found.heldOut.map(\.samples.count) == [1, 2, 1, 1, 0, 2])
        #expect(found.compared.map(\.samples.count) == [1, 2, 1, 1, 0, 2])
        let all = try catalogue(counts).identities(split: "train")
        for (number, identity) in all.enumerated() {
            let (rest, held) = (found.trained[number], found.heldOut[number])
            #expect(rest.name == identity.name && held.name == identity.name)
            #expect((rest.samples + held.samples).sorted() == identity.samples)
            #expect(Set(rest.samples).isSuperset(of: found.compared[number].samples))
        }
        #expect(try split(counts, 0.9).trained.map(\.samples.count) == [1, 2, 1, 1, 1, 1])
        #expect(
            found.notice
                == "7 of 52 training images are held out; none of 1 identities with one image: id4")
    }

    @Test func seedAndDataDecide() throws {
        let counts = [Int](repeating: 12, count: 30)
        let found = try split(counts, 0.25)
        #expect(try split(counts, 0.25).heldOut == found.heldOut)
        #expect(try split(counts, 0.25, seed: 2).heldOut != found.heldOut)
        // The same place in every identity would be no random split.
        let places = found.heldOut.enumerated().flatMap { number, identity in
            identity.samples.map { $0 - number * 12 }
        }
        #expect(Set(places).count == 12)
    }

    @Test func nothingIsHeldOutUnlessAskedFor() throws {
        let found = try split([3, 1], 0)
        #expect(found.trained == (try catalogue([3, 1]).identities(split: "train")))
        #expect(found.heldOut.allSatisfy(\.samples.isEmpty) && found.notice == nil)
    }

    @Test func oneImageAnIdentityCannotBeSplit() throws {
        let error = #expect(throws: DatasetError.self) { try split([1, 1, 1], 0.1) }
        #expect(
            error?.message
                == "data.validation_share is 0.1, but no identity of split 'train' of /data has two "
                + "uncovered images, one to train on and one to hold out; set it to 0 or add data")
    }

    @Test func noSamplerDrawsWhatIsHeldOut() throws {
        let catalogue = try catalogue([Int](repeating: 5, count: 8))
        let split = try ImageSplit(catalogue, validationShare: 0.4, seed: 3)
        let trained = Set(split.trained.flatMap(\.samples))
        let samplers: [any SlotSampler] = [
            try PKSampler(
                catalogue: catalogue, identities: 4, imagesPerIdentity: 3, validationShare: 0.4,
                seed: 3),
            try ImageSampler(
                catalogue: catalogue, imagesPerSlot: 6, validationShare: 0.4, seed: 3),
        ]
        for sampler in samplers {
            var drawn: Set<Int> = []
            for step in 0..<60 {
                for slot in 0..<2 {
                    drawn.formUnion(sampler.slot(step: step, slot: slot, slotsPerStep: 2).indices)
                }
            }
            #expect(drawn == trained)
        }
    }
}

@Suite struct ImageSamplerTests {
    @Test func anEpochShowsEveryImageOnceWithItsLabel() throws {
        let catalogue = try catalogue([7, 1, 12, 4])
        let sampler = try ImageSampler(catalogue: catalogue, imagesPerSlot: 3, seed: 7)
        let labels = catalogue.identities(split: "train").enumerated()
            .reduce(into: [Int: Int]()) { found, identity in
                for sample in identity.element.samples { found[sample] = identity.offset }
            }
        for epoch in 0..<5 {
            let slots = (0..<4).flatMap { step in
                (0..<2).map { sampler.slot(step: epoch * 4 + step, slot: $0, slotsPerStep: 2) }
            }
            #expect(Set(slots.flatMap(\.indices)).count == 24)
            for slot in slots { #expect(slot.labels == slot.indices.map { labels[$0] }) }
        }
        let first = sampler.slot(step: 0, slot: 0, slotsPerStep: 2)
        #expect(first != sampler.slot(step: 4, slot: 0, slotsPerStep: 2))
        let again = try ImageSampler(catalogue: catalogue, imagesPerSlot: 3, seed: 7)
        #expect(again.slot(step: 0, slot: 0, slotsPerStep: 2) == first)
    }

    @Test func moreImagesThanThereAreIsAnError() throws {
        for (count, share) in [(9, 0.0), (7, 0.25), (0, 0.0)] {
            let error = #expect(throws: DatasetError.self) {
                try ImageSampler(
                    catalogue: catalogue([4, 4]), imagesPerSlot: count, validationShare: share,
                    seed: 1)
            }
            #expect(error?.code == .notEnough)
            #expect(error?.message.hasPrefix("batch.images is \(count), ") == true)
        }
    }
}

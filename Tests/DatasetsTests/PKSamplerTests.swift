import Datasets
import Testing

@Suite struct PKSamplerTests {
    private func sampler(
        _ counts: [Int], p: Int, k: Int, seed: UInt64 = 7
    ) throws -> PKSampler {
        try PKSampler(
            catalogue: catalogue(counts), identities: p, imagesPerIdentity: k, seed: seed)
    }

    @Test func slotHasPIdentitiesOfKImages() throws {
        let sampler = try sampler([Int](repeating: 6, count: 20), p: 5, k: 3)
        let slot = sampler.slot(step: 3, slot: 1, slotsPerStep: 4)
        #expect(slot.indices.count == 15 && slot.labels.count == 15)
        for group in 0..<5 {
            let labels = Set(slot.labels[group * 3..<group * 3 + 3])
            #expect(labels.count == 1)
            let images = slot.indices[group * 3..<group * 3 + 3]
            #expect(Set(images).count == 3)
            let members = sampler.identities[try #require(labels.first)].samples
            #expect(images.allSatisfy(members.contains))
        }
        #expect(Set(slot.labels).count == 5)
    }

    @Test func samplingIsAPureFunction() throws {
        let first = try sampler([Int](repeating: 4, count: 30), p: 3, k: 2)
        let second = try sampler([Int](repeating: 4, count: 30), p: 3, k: 2)
        let forwards = (0..<40).map { first.slot(step: $0, slot: 1, slotsPerStep: 2) }
        let backwards = (0..<40).reversed().map { second.slot(step: $0, slot: 1, slotsPerStep: 2) }
        #expect(forwards == backwards.reversed())
        let other = try sampler([Int](repeating: 4, count: 30), p: 3, k: 2, seed: 8)
        #expect(forwards != (0..<40).map { other.slot(step: $0, slot: 1, slotsPerStep: 2) })
    }

    @Test(arguments: [1, 2, 4])
    func slotsOfAStepShareNoIdentity(slots: Int) throws {
        let sampler = try sampler([Int](repeating: 4, count: 25), p: 6, k: 2)
        for step in 0..<50 {
            let labels = (0..<slots).flatMap {
                sampler.slot(step: step, slot: $0, slotsPerStep: slots).labels
            }
            #expect(Set(labels).count == slots * 6)
        }
    }

    @Test func anEpochShowsEveryIdentityOnce() throws {
        let sampler = try sampler([Int](repeating: 4, count: 24), p: 3, k: 2)
        #expect(sampler.stepsPerEpoch(slotsPerStep: 4) == 2)
        for epoch in 0..<5 {
            let labels = (0..<2).flatMap { step in
                (0..<4).flatMap {
                    sampler.slot(step: epoch * 2 + step, slot: $0, slotsPerStep: 4).labels
                }
            }
            #expect(Set(labels).count == 24)
        }
        let first = sampler.slot(step: 0, slot: 0, slotsPerStep: 4).labels
        let second = sampler.slot(step: 2, slot: 0, slotsPerStep: 4).labels
        #expect(first != second)
    }

    @Test func fewerIdentitiesThanAStepNeedsAreSharedBetweenSlotsOnly() throws {
        let sampler = try sampler([Int](repeating: 4, count: 7), p: 3, k: 2)
        for step in 0..<20 {
            for slot in 0..<4 {
                let labels = sampler.slot(step: step, slot: slot, slotsPerStep: 4).labels
                #expect(Set(labels).count == 3)
            }
        }
    }

    /// REFERENCE 3.1: with c < K every image appears at most ceil(K / c) times.
    @Test func fewImagesRepeatEvenly() throws {
        let sampler = try sampler([3, 5, 1], p: 3, k: 4)
        for step in 0..<50 {
            let slot = sampler.slot(step: step, slot: 0, slotsPerStep: 1)
            for (identity, most) in [(0, 2), (1, 1), (2, 4)] {
                let members = sampler.identities[identity].samples
                for image in members {
                    #expect(slot.indices.count { $0 == image } <= most)
                }
                #expect(slot.indices.count { members.contains($0) } == 4)
            }
        }
        #expect(sampler.repeated.map(\.name) == ["id0", "id2"])
        #expect(
            sampler.repeatedNotice
                == "2 of 3 identities have fewer than 4 images and repeat them: id0 (3), id2 (1)")
    }

    @Test func everyImageIsDrawnInTheLongRun() throws {
        let sampler = try sampler([8, 8, 8, 8], p: 2, k: 2)
        var counts = [Int](repeating: 0, count: 32)
        for step in 0..<800 {
            for index in sampler.slot(step: step, slot: 0, slotsPerStep: 1).indices {
                counts[index] += 1
            }
        }
        // 100 expected, about binomial: five standard deviations are 50.
        #expect(counts.allSatisfy { (50...150).contains($0) })
    }

    @Test func moreIdentitiesThanThereAreIsAnError() throws {
        let error = #expect(throws: DatasetError.self) { try sampler([3, 3, 3], p: 4, k: 2) }
        #expect(error?.code == .notEnough)
        #expect(
            error?.message
                == "batch.identities (or batch.phases) is 4, but split 'train' of /data has 3 "
                + "identities with uncovered images; lower it or add data")
    }

    @Test(arguments: [(0, 2), (-1, 2), (2, 0)])
    func countsBelowOneAreAnError(p: Int, k: Int) throws {
        let error = #expect(throws: DatasetError.self) { try sampler([3, 3, 3], p: p, k: k) }
        #expect(error?.code == .invalidSetting)
    }

    @Test func coveredObjectsAndOtherSplitsAreLeftOut() throws {
        var samples = try catalogue([2, 2]).samples
        samples[0].occluded = true
        samples[2].split = "val"
        let sampler = try PKSampler(
            catalogue: Catalogue(root: "/data", samples: samples), identities: 2,
            imagesPerIdentity: 1, seed: 1)
        #expect(sampler.identities.map(\.samples) == [[1], [3]])
    }
}

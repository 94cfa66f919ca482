import Datasets
import Testing

@Suite struct TripletTests {
    /// id0 has images 0 to 3, of which one is covered, id1 4 to 6, id2 of another split 7 and 8.
    private func data() throws -> Catalogue {
        var samples = try catalogue([4, 3]).samples
        samples[3].occluded = true
        samples += try catalogue([2], split: "val").samples.map {
            var sample = $0
            sample.path = "val/" + sample.path
            return sample
        }
        return try Catalogue(root: "/data", samples: samples)
    }

    private func parse(_ text: String, share: Double = 0) throws -> TripletList {
        let data = try data()
        return try TripletList(
            parsing: Array(text.utf8), name: "t.csv", catalogue: data,
            split: ImageSplit(data, validationShare: share, seed: 1))
    }

    @Test func whatIsWrittenIsRead() throws {
        let triplets = [
            Triplet(anchor: 0, positive: 2, negative: 5),
            Triplet(anchor: 6, positive: 4, negative: 1),
        ]
        let text = TripletList.text(triplets, of: try data())
        #expect(
            text == """
                anchor,positive,negative
                0/0.jpg,0/2.jpg,1/1.jpg
                1/2.jpg,1/0.jpg,0/1.jpg

                """)
        let list = try parse(text)
        #expect(list.triplets == triplets)
        // Columns may be in any order; another file is another digest.
        let turned = try parse("negative,anchor,positive\n1/1.jpg,0/0.jpg,0/2.jpg\n")
        #expect(turned.triplets == [triplets[0]])
        #expect(turned.digest != list.digest)
        let folder = try TemporaryFolder()
        try TripletList.write(triplets, of: data(), to: folder.path + "/t.csv")
        #expect(try folder.read("t.csv") == text)
    }

    @Test(arguments: [
        ("anchor,negative\n", "t.csv:1: column 'positive' is missing"),
        ("anchor,positive,negative,margin\n", "t.csv:1: unknown column 'margin'"),
        ("anchor,positive,negative\n", "t.csv has no triplets"),
        ("anchor,positive,negative\n0/0.jpg,0/1.jpg\n", "t.csv:2: 2 fields; expected 3"),
        ("anchor,positive,negative\n0/0.jpg,0/1.jpg,1/0.jpg", "t.csv:2: the last line has no end"),
        (
            "anchor,positive,negative\n0/0.jpg,0/1.jpg,1/0.jpg\n0/0.jpg,0/9.jpg,1/0.jpg\n",
            "t.csv:3: positive is '0/9.jpg', which catalogue.csv of /data does not list"
        ),
        (
            "anchor,positive,negative\n0/3.jpg,0/1.jpg,1/0.jpg\n",
            "t.csv:2: anchor is '0/3.jpg', a covered object"
        ),
        (
            "anchor,positive,negative\n0/0.jpg,0/1.jpg,val/0/0.jpg\n",
            "t.csv:2: negative is 'val/0/0.jpg', of split 'val'"
        ),
        (
            "anchor,positive,negative\n0/0.jpg,0/0.jpg,1/0.jpg\n",
            "t.csv:2: anchor and positive are both '0/0.jpg'"
        ),
        (
            "anchor,positive,negative\n0/0.jpg,1/1.jpg,1/0.jpg\n",
            "t.csv:2: positive '1/1.jpg' shows 'id1', anchor '0/0.jpg' 'id0'"
        ),
        (
            "anchor,positive,negative\n0/0.jpg,0/1.jpg,0/2.jpg\n",
            "t.csv:2: negative '0/2.jpg' shows 'id0', as the anchor does"
        ),
    ])
    func badFilesAreRefusedWithTheLine(text: String, expected: String) {
        let error = #expect(throws: DatasetError.self) { try parse(text) }
        #expect(error?.message.hasPrefix(expected) == true, "\(String(describing: error))")
        #expect(error?.isBadInput == true)
    }

    @Test func whatIsHeldOutIsNoPartOfATriplet() throws {
        let data = try data()
        let split = try ImageSplit(data, validationShare: 0.4, seed: 1)
        let held = data.samples[split.heldOut[0].samples[0]].path
        let others = split.trained.map { $0.samples.map { data.samples[$0].path } }
        let error = #expect(throws: DatasetError.self) {
            try parse(
                "anchor,positive,negative\n\(others[0][0]),\(held),\(others[1][0])\n", share: 0.4)
        }
        #expect(error?.message.contains("'\(held)', which data.validation_share holds out") == true)
    }

    // MARK: Slots

    private func sampler(
        _ count: Int, perSlot: Int, seed: UInt64 = 3
    ) throws -> (TripletSampler, [Triplet]) {
        let data = try catalogue([Int](repeating: 4, count: 10))
        let triplets = (0..<count).map { number in
            let anchor = number % 40
            let first = anchor / 4 * 4
            return Triplet(
                anchor: anchor, positive: first + (anchor + 1) % 4,
                negative: (anchor + 4 + number / 40) % 40)
        }
        let split = try ImageSplit(data, validationShare: 0, seed: 1)
        let list = try TripletList(
            parsing: Array(TripletList.text(triplets, of: data).utf8), name: "t.csv",
            catalogue: data, split: split)
        return (
            try TripletSampler(
                list, split: split, tripletsPerSlot: perSlot, seed: seed, name: "t.csv"), triplets
        )
    }

    @Test func anEpochShowsEveryTripletOnce() throws {
        let (sampler, triplets) = try sampler(48, perSlot: 4)
        #expect(sampler.stepsPerEpoch(slotsPerStep: 3) == 4)
        func rows(_ steps: Range<Int>) -> [[Int]] {
            steps.flatMap { step in
                (0..<3).flatMap { slot in
                    let drawn = sampler.slot(step: step, slot: slot, slotsPerStep: 3)
                    #expect(drawn.indices.count == 12 && drawn.labels.count == 12)
                    #expect(drawn.labels == drawn.indices.map { $0 / 4 })
                    return stride(from: 0, to: 12, by: 3).map { Array(drawn.indices[$0..<$0 + 3]) }
                }
            }
        }
        let wanted = triplets.map { [$0.anchor, $0.positive, $0.negative] }
        let (first, second) = (rows(0..<4), rows(4..<8))
        #expect(Set(first) == Set(wanted) && first.count == 48)
        #expect(Set(second) == Set(wanted))
        #expect(first != second)
        #expect(first == rows(0..<4))
    }

    @Test func seedAndStepDecide() throws {
        let (one, _) = try sampler(30, perSlot: 5)
        let (other, _) = try sampler(30, perSlot: 5, seed: 4)
        #expect(
            one.slot(step: 7, slot: 1, slotsPerStep: 2)
                == (try sampler(30, perSlot: 5).0.slot(step: 7, slot: 1, slotsPerStep: 2)))
        #expect(
            one.slot(step: 0, slot: 0, slotsPerStep: 2)
                != other.slot(step: 0, slot: 0, slotsPerStep: 2))
    }

    @Test func moreThanThereAreIsRefused() throws {
        let error = #expect(throws: DatasetError.self) { try sampler(6, perSlot: 7) }
        #expect(
            error?.message
                == "batch.triplets is 7, but t.csv has 6; set it from 1 to that, or mine more")
    }
}

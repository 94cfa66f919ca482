import Basics
import Networks
import Testing
import Training

@Suite struct FoldTests {
    static func buffers(_ slots: Int, count: Int) -> [FloatBuffer] {
        (0..<slots).map { slot in
            let buffer = FloatBuffer(count: count)
            var random = CounterRandom(seed: 3, slot: UInt64(slot), purpose: .dataset)
            for at in 0..<count { buffer.base[at] = Float(random.uniform() - 0.5) }
            return buffer
        }
    }

    @Test(arguments: [1, 2, 3, 4, 5, 6, 7, 8, 13, 16]) func blocksFoldLikeTheTree(_ slots: Int)
        throws
    {
        let count = FlatLayout.blockElements + 77
        let buffers = Self.buffers(slots, count: count)
        var outputs: [[Float]] = []
        for threads in [1, 2, 3] {
            let output = FloatBuffer(count: count)
            try Fold.mean(buffers, into: output, threads: threads)
            outputs.append(Array(output.floats))
        }
        #expect(outputs[0] == outputs[1] && outputs[1] == outputs[2])
        for at in stride(from: 0, to: count, by: 991) {
            let leaves = buffers.map { $0.base[at] }
            #expect(outputs[0][at] == Fold.mean(leaves))
        }
    }

    @Test(arguments: [2, 3, 5, 8, 11]) func partialSumsOfSubtreesGiveTheSameBits(_ slots: Int)
        throws
    {
        let count = 1000
        let buffers = Self.buffers(slots, count: count)
        let whole = FloatBuffer(count: count)
        try Fold.mean(buffers, into: whole)
        // Two trainers hold the even-numbered and the odd-numbered halves of the slots.
        for cut in 1..<slots {
            var parts: [SlotRun: UnsafePointer<Float>] = [:]
            var kept: [FloatBuffer] = []
            for held in [Set(0..<cut), Set(cut..<slots)] {
                for run in FoldTree.cover(held, slotCount: slots) {
                    let leaves = Dictionary(
                        uniqueKeysWithValues: (run.low..<run.high).map {
                            (SlotRun($0, $0 + 1), UnsafePointer(buffers[$0].base))
                        })
                    let partial = FloatBuffer(count: count)
                    try Fold.sum(run, parts: leaves, into: partial.base, count: count)
                    parts[run] = UnsafePointer(partial.base)
                    kept.append(partial)
                }
            }
            let output = FloatBuffer(count: count)
            try Fold.sum(
                SlotRun(0, slots), parts: parts, into: output.base, count: count,
                scale: Float(1) / Float(slots))
            #expect(Array(output.floats) == Array(whole.floats))
            kept.removeAll()
        }
    }

    @Test func absentSlotIsNamed() throws {
        let buffers = Self.buffers(4, count: 8)
        let parts = [
            SlotRun(0, 2): UnsafePointer(buffers[0].base),
            SlotRun(3, 4): UnsafePointer(buffers[3].base),
        ]
        let output = FloatBuffer(count: 8)
        let error = #expect(throws: TrainingError.self) {
            try Fold.sum(SlotRun(0, 4), parts: parts, into: output.base, count: 8)
        }
        #expect(error?.message.contains("slot 2") == true)
    }

    @Test func layoutCutsBlocksAtFixedPlaces() throws {
        let network = try Network(NetworkConfiguration(backbone: .resnet50))
        let layout = try FlatLayout(network)
        #expect(layout.elementCount == 23_508_032 + 2048 * 128 + 128)
        #expect(layout.blockCount == 363)
        #expect(layout.blockRange(0) == 0..<65_536)
        #expect(layout.blockRange(362).upperBound == layout.elementCount)
        #expect(layout.statisticsCount == 2 * 26_560)
    }
}

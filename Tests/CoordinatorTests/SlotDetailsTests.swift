import Coordinator
import Foundation
import Protocol
import Storage
import Testing

/// Embeddings and losses on their way from trainers: two slots of two images, three numbers each.
@Suite struct SlotDetailsTests {
    private static let samples: WireStepSamples = {
        var samples = WireStepSamples()
        samples.step = 7
        samples.slots = (0..<2).map { _ in
            var slot = WireSlotSamples()
            slot.labels = [1, 1]
            return slot
        }
        return samples
    }()

    private func piece(
        _ slot: Int, _ first: Int, _ values: [Float], step: Int = 7
    ) -> WireSlotDetail {
        var piece = WireSlotDetail()
        piece.step = UInt64(step)
        piece.slot = UInt32(slot)
        piece.first = UInt32(first)
        piece.values = values.littleEndianBytes
        return piece
    }

    private func done(_ slot: Int, step: Int = 7) -> WireSlotDone {
        var done = WireSlotDone()
        done.step = UInt64(step)
        done.slot = UInt32(slot)
        return done
    }

    private func has(_ details: SlotDetails, _ body: WireBody, from worker: String = "a") -> Bool {
        details.hasAll(claimedBy: body, from: worker, of: Self.samples)
    }

    /// Six numbers of embeddings and two losses.
    private static func numbers(_ start: Float) -> [Float] { (0..<8).map { start + Float($0) } }

    @Test func piecesInOrderMakeAStep() throws {
        var details = SlotDetails(dimension: 3)
        #expect(!has(details, .slotDone(done(0))))
        let first = Self.numbers(0)
        #expect(details.add(piece(0, 0, Array(first[..<5])), from: "a", of: Self.samples) == nil)
        #expect(!has(details, .slotDone(done(0))))
        #expect(details.add(piece(0, 5, Array(first[5...])), from: "a", of: Self.samples) == nil)
        #expect(has(details, .slotDone(done(0))))
        #expect(!has(details, .slotDone(done(0)), from: "b"))
        #expect(details.rows(of: Self.samples, workers: ["a", "b"]) == nil)
        let second = Self.numbers(8)
        #expect(details.add(piece(1, 0, second), from: "b", of: Self.samples) == nil)
        let rows = try #require(details.rows(of: Self.samples, workers: ["a", "b"]))
        #expect(
            [Float](littleEndianBytes: rows.embeddings)
                == Array(first[..<6]) + Array(second[..<6]))
        #expect([Float](littleEndianBytes: rows.losses) == [6, 7, 14, 15])
    }

    @Test func aClaimWithoutNumbersDoesNotPass() {
        var details = SlotDetails(dimension: 3)
        var forward = done(0)
        forward.forward = true
        #expect(has(details, .slotDone(forward)))
        #expect(has(details, .slotDone(done(0, step: 6))))
        #expect(details.hasAll(claimedBy: .slotDone(done(0)), from: "a", of: nil))
        var ready = WireReady()
        #expect(has(details, .ready(ready)))
        ready.held = [done(0), done(1)]
        #expect(!has(details, .ready(ready)))
        for slot in 0..<2 {
            #expect(
                details.add(piece(slot, 0, Self.numbers(0)), from: "a", of: Self.samples) == nil)
        }
        #expect(has(details, .ready(ready)))
        #expect(!has(details, .slotDone(done(9))))
    }

    @Test func whatNoTrainerSendsIsRefusedAndChangesNothing() throws {
        var details = SlotDetails(dimension: 3)
        let numbers = Self.numbers(0)
        #expect(details.add(piece(0, 0, Array(numbers[..<4])), from: "a", of: Self.samples) == nil)
        // Out of order, which ends the slot; then too long, empty, half a number, no such slot.
        for wrong in [
            piece(0, 5, [1]), piece(0, 4, [1]), piece(0, 0, numbers + [1]), piece(0, 0, []),
            piece(2, 0, numbers),
        ] {
            #expect(details.add(wrong, from: "a", of: Self.samples) != nil)
        }
        var half = piece(0, 0, [1])
        half.values = Data([1, 2, 3])
        #expect(details.add(half, from: "a", of: Self.samples) != nil)
        #expect(!has(details, .slotDone(done(0))))
        // Of another step, or where none is in hand, it only comes late.
        #expect(details.add(piece(0, 0, numbers, step: 6), from: "a", of: Self.samples) == nil)
        #expect(details.add(piece(0, 0, numbers), from: "a", of: nil) == nil)
        #expect(!has(details, .slotDone(done(0))))
    }

    @Test func whatIsSentAgainReplacesWhatWasThereOnceItIsWhole() throws {
        var details = SlotDetails(dimension: 3)
        var one = Self.samples
        one.slots.removeLast()
        func losses() -> [Float]? {
            details.rows(of: one, workers: ["a"]).map { [Float](littleEndianBytes: $0.losses) }
        }
        #expect(details.add(piece(0, 0, Self.numbers(0)), from: "a", of: one) == nil)
        let again = Self.numbers(20)
        #expect(details.add(piece(0, 0, Array(again[..<3])), from: "a", of: one) == nil)
        #expect(losses() == [6, 7])
        #expect(details.add(piece(0, 3, Array(again[3...])), from: "a", of: one) == nil)
        #expect(losses() == [26, 27])
        var next = one
        next.step = 8
        #expect(
            details.add(piece(0, 0, Self.numbers(0), step: 8), from: "b", of: next) == nil)
        #expect(losses() == nil)
    }
}

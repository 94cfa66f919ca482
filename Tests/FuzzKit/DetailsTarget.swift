import Coordinator
import Foundation
import Protocol
import Storage
import SwiftProtobuf

/// Pieces of two slots' embeddings from two workers, some of them damaged: what is whole has the right
/// size, and sound pieces make a slot whatever came before.
struct DetailsTarget: FuzzTarget {
    static let name = "details"
    static let share = 300
    static let episodeFrames = 60

    let reached = Tally()

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        let dimension = 1 + random.below(4)
        let samples = WireStepSamples.with {
            $0.step = 3
            $0.slots = (0..<2).map { _ in
                .with { $0.labels = Array(repeating: 1, count: 1 + random.below(4)) }
            }
        }
        let rows = samples.slots.map(\.labels.count)
        let sound = rows.indices.map { slot in
            pieces(slot, rows[slot] * (dimension + 1), &random)
        }
        var details = SlotDetails(dimension: dimension)
        for _ in 0..<frames {
            let model = sound.joined().randomElement(using: &random)!
            let bytes = try model.serializedBytes() as [UInt8]
            let frame =
                random.chance(500)
                ? bytes : Mutator.mutate(bytes, .protobuf, others: [bytes], using: &random)
            log.feed(frame)
            guard let piece = try? WireSlotDetail(serializedBytes: frame) else { continue }
            let worker = random.pick(["a", "b"])
            if details.add(piece, from: worker, of: samples) != nil { reached.count("refused") }
            try check(details, samples, rows, dimension)
        }
        for piece in sound.joined() where details.add(piece, from: "a", of: samples) != nil {
            throw FuzzFailure("a sound piece of slot \(piece.slot) is refused")
        }
        guard let found = details.rows(of: samples, workers: ["a", "a"]) else {
            throw FuzzFailure("a slot is not whole with all of its pieces")
        }
        let expected = sound.map { $0.reduce(Data()) { $0 + $1.values } }
        let losses = zip(expected, rows).map { $0.suffix($1 * 4) }.reduce(Data(), +)
        guard found.losses == losses else { throw FuzzFailure("a slot is another one") }
        reached.count("steps")
    }

    private func pieces(
        _ slot: Int, _ count: Int, _ random: inout FuzzRandom
    ) -> [WireSlotDetail] {
        var pieces: [WireSlotDetail] = []
        var first = 0
        while first < count {
            let end = min(count, first + 1 + random.below(count))
            pieces.append(
                .with {
                    $0.step = 3
                    $0.slot = UInt32(slot)
                    $0.first = UInt32(first)
                    $0.values = (first..<end).map { Float($0 + slot * 100) }.littleEndianBytes
                })
            first = end
        }
        return pieces
    }

    private func check(
        _ details: SlotDetails, _ samples: WireStepSamples, _ rows: [Int], _ dimension: Int
    ) throws {
        for workers in [["a", "a"], ["a", "b"], ["b", "b"]] {
            guard let found = details.rows(of: samples, workers: workers) else { continue }
            let count = rows.reduce(0, +)
            guard found.losses.count == count * 4,
                found.embeddings.count == count * dimension * 4
            else {
                throw FuzzFailure("\(found.embeddings.count) bytes of embeddings are whole")
            }
        }
    }
}

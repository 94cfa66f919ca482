public import ClusterCore
public import Foundation
public import Protocol
public import Storage

/// What trainers send of the slots of a step in hand where `logging.detailed` is on.
///
/// A slot's numbers come in pieces, in order, before the SLOT_DONE that says its loss. Whoever says that
/// again sends them again: until they are there a second time those of before stay.
public struct SlotDetails: Sendable {
    private struct Key: Hashable {
        let worker: String
        let slot: Int
    }

    private let dimension: Int
    private var step: UInt64 = 0
    private var arriving: [Key: Data] = [:]
    private var whole: [Key: Data] = [:]

    /// - Parameter dimension: numbers of an embedding.
    public init(dimension: Int) { self.dimension = dimension }

    /// Takes a piece.
    ///
    /// - Parameter samples: those of the step in hand; what is of another step comes late and is let go.
    /// - Returns: why no trainer sends such a piece; nil for one that could be.
    public mutating func add(
        _ piece: WireSlotDetail, from worker: String, of samples: WireStepSamples?
    ) -> String? {
        guard let samples, piece.step == samples.step else { return nil }
        if piece.step != step {
            step = piece.step
            arriving = [:]
            whole = [:]
        }
        guard Int(piece.slot) < samples.slots.count else {
            return "slot \(piece.slot) of \(samples.slots.count)"
        }
        let key = Key(worker: worker, slot: Int(piece.slot))
        let wanted = byteCount(of: key.slot, samples)
        // Taken out, so that it grows in its place.
        let before = arriving.removeValue(forKey: key)
        var bytes = piece.first == 0 ? Data() : before ?? Data()
        guard bytes.count == Int(piece.first) * 4, !piece.values.isEmpty,
            piece.values.count.isMultiple(of: 4), bytes.count + piece.values.count <= wanted
        else {
            return "slot \(piece.slot): \(piece.values.count) bytes from number \(piece.first) on; "
                + "\(wanted) bytes were expected, \(bytes.count) are there"
        }
        bytes += piece.values
        if bytes.count == wanted { whole[key] = bytes } else { arriving[key] = bytes }
        return nil
    }

    /// Whether all numbers are there of the slots that a message reports to be done.
    ///
    /// What is of no step in hand counts for nothing and passes.
    public func hasAll(
        claimedBy body: WireBody, from worker: String, of samples: WireStepSamples?
    ) -> Bool {
        let claimed: [WireSlotDone] =
            switch body {
            case .slotDone(let done): done.forward ? [] : [done]
            case .ready(let ready): ready.held
            default: []
            }
        guard let samples else { return true }
        return claimed.filter { $0.step == samples.step }.allSatisfy {
            step == $0.step && whole[Key(worker: worker, slot: Int($0.slot))] != nil
        }
    }

    /// What a ledger keeps of a step that is to be committed.
    ///
    /// - Throws: ``CoordinatorError`` where something is not there: a step is committed only after
    ///   ``hasAll(claimedBy:from:of:)`` has let its slots pass.
    public func rows(
        of record: ClusterCore.StepRecord, _ machine: CoordinatorStateMachine
    ) throws(CoordinatorError) -> DetailedRecord {
        guard let samples = machine.samplesInHand, Int(samples.step) == record.step,
            let rows = rows(of: samples, workers: record.miniBatches.map(\.worker))
        else {
            throw CoordinatorError(
                .failed,
                "step \(record.step) has no embeddings for logging.detailed, which is a mistake in "
                    + "lineup: please report it; resume with --set logging.detailed=false")
        }
        return DetailedRecord(
            step: record.step, names: samples.slots.flatMap { machine.names(of: $0) },
            embeddings: [Float](littleEndianBytes: rows.embeddings),
            losses: [Float](littleEndianBytes: rows.losses))
    }

    /// Embeddings and losses of a step, slot by slot; nil where some are not there.
    ///
    /// - Parameter workers: whose result of each slot is used, in the order of the slots.
    public func rows(
        of samples: WireStepSamples, workers: [String]
    ) -> (embeddings: Data, losses: Data)? {
        guard samples.step == step, workers.count == samples.slots.count else { return nil }
        var (embeddings, losses) = (Data(), Data())
        for (slot, worker) in workers.enumerated() {
            guard let bytes = whole[Key(worker: worker, slot: slot)] else { return nil }
            let lossBytes = samples.slots[slot].labels.count * 4
            embeddings += bytes.dropLast(lossBytes)
            losses += bytes.suffix(lossBytes)
        }
        return (embeddings, losses)
    }

    private func byteCount(of slot: Int, _ samples: WireStepSamples) -> Int {
        samples.slots[slot].labels.count * (dimension + 1) * 4
    }
}

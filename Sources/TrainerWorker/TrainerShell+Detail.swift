internal import ClusterCore
internal import Foundation
internal import Protocol
internal import Settings
internal import Storage
internal import Training
internal import Transport

/// What `logging.detailed` writes of slots, on its way to the coordinator.
extension TrainerShell {
    /// Numbers in a piece: 128 KiB of them, half of what a worker's message may be.
    private static let pieceCount = 32 << 10

    /// A slot's embeddings, row by row, and then its rows' losses.
    ///
    /// Kept whatever this run writes: the next coordinator may want it of the step in hand.
    static func detail(of result: SlotResult, _ prepared: Prepared) -> Data {
        let rows = result.embeddings.count / prepared.settings.network.embeddingDim
        let losses =
            result.rowLosses.isEmpty ? Array(repeating: .nan, count: rows) : result.rowLosses
        return result.embeddings.littleEndianBytes + losses.littleEndianBytes
    }

    /// Sends a message, and before it what is written of the slots that it reports.
    ///
    /// The connection keeps them in order; whoever is told again of a slot gets all of it again.
    func send(_ body: WireBody) {
        switch body {
        case .slotDone(let done) where !done.forward: sendDetail(of: done)
        case .ready(let ready): ready.held.forEach(sendDetail)
        default: break
        }
        link.send(completed(body))
    }

    private func sendDetail(of done: WireSlotDone) {
        guard wantsDetails, let detail = details[Int(done.slot)] else { return }
        for first in stride(from: 0, to: detail.count / 4, by: Self.pieceCount) {
            var piece = WireSlotDetail()
            piece.step = done.step
            piece.slot = done.slot
            piece.first = UInt32(first)
            piece.values = detail[4 * first..<min(detail.count, 4 * (first + Self.pieceCount))]
            link.send(.slotDetail(piece))
        }
    }
}

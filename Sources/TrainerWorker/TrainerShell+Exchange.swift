internal import Basics
internal import ClusterCore
internal import Exchange
internal import Foundation
internal import Logging
internal import Protocol
internal import Training
internal import Transport

extension TrainerShell {
    func openExchange(step: Int, history: UInt64, peers: [WireMember]) throws {
        buffers = StepBuffers(
            step: step, history: history, layout: layout!, slotCount: machine.slotCount,
            pool: spare!)
        exchangeBegan = nil
        try carrier.connect(peers)
        takeParked(of: step)
    }

    /// What came before its time.
    func takeParked(of step: Int) {
        for item in parked.take(step: step) { take(item.header, item.payload, from: item.peer) }
    }

    func perform(_ action: ExchangeStateMachine.Action) throws {
        let stamp = BlockCarrier.Stamp(run: link.run, fold: machine.fold)
        switch action {
        case .sendPartial(let run, let blocks, let peer):
            for block in blocks {
                try carrier.sendPartial(run, block: block, of: buffers!, stamp, to: peer)
            }
        case .keepPartial, .combine:
            // Sums are made once, when a block is finished or sent, straight from the parts.
            break
        case .finish(let blocks):
            try buffers!.finish(blocks, threads: options.slotThreads)
        case .audit(let blocks):
            for block in blocks {
                let digest = try buffers!.secondFold(block)
                perform(tell(.blockAudited(block, digest: digest)))
            }
        case .broadcast(let blocks, let names):
            for block in blocks {
                for name in names {
                    // Whoever only listens comes to this step later than its members leave it.
                    carrier.sendResult(
                        block, of: buffers!, stamp, to: name, keeps: machine.isListener(name))
                }
            }
        case .wantPartials(let blocks, let peer):
            carrier.sendWant(.wantPartials, blocks, of: buffers!, stamp, to: peer)
        case .wantResults(let blocks, let peer):
            carrier.sendWant(.wantResults, blocks, of: buffers!, stamp, to: peer)
        case .complete: break
        }
    }

    // MARK: In

    func sendAgain() {
        for peer in carrier.reconnected() {
            carrier.copying { perform(tell(.peerReconnected(peer))) }
        }
    }

    func receiveData() {
        // A bounded share, so that control messages and progress are never late.
        for _ in 0..<256 {
            guard end == nil, let frames = data.receive() else { return }
            guard frames.count == 3, let peer = frames[0].text, isGenuine(frames[1], from: peer),
                let header = try? frames[1].withUnsafeBytes({ bytes throws(ProtocolError) in
                    try WireCodec.decodeHeader(bytes)
                }), header.run == link.run, link.run != 0
            else {
                refusals.note("a data message", frames.first?.text ?? "")
                continue
            }
            switch header.kind {
            case .partial, .result, .wantPartials, .wantResults:
                take(header, frames[2], from: peer)
            case .state: takeState(header, frames[2], from: peer)
            default: continue
            }
        }
    }

    /// Whether a message comes from the peer that it is named after.
    private func isGenuine(_ frame: Frame, from peer: String) -> Bool {
        context.keys == nil || admitted.admits(frame, from: peer)
    }

    func take(_ header: WireDataHeader, _ frame: Frame, from peer: String) {
        guard let layout else { return }
        let place = machine.place(
            step: Int(clamping: header.step), history: header.history, fold: Int(header.fold),
            from: peer)
        let isBlock = header.kind == .partial || header.kind == .result
        let block = Int(header.block)
        switch place {
        case .nowhere: return
        case .later:
            guard isBlock, block < layout.blockCount,
                frame.count == (header.memoryNonce == 0 ? layout.byteCount(block) : 0)
            else { return }
            parked.park(.init(header: header, payload: frame, peer: peer))
            return
        case .here: break
        }
        guard isBlock else { return answerWant(header, frame, from: peer) }
        guard block < layout.blockCount,
            let payload = carrier.payload(
                header, frame, from: peer, byteCount: layout.byteCount(block))
        else {
            logger.warning("a block that has another size or cannot be read was ignored")
            return
        }
        if header.kind == .partial {
            guard header.low < header.high, Int(header.high) <= machine.slotCount else { return }
            let run = SlotRun(Int(header.low), Int(header.high))
            guard machine.wantsPartial(block, run: run) else { return }
            guard buffers!.keepPartial(block, run: run, payload, digest: header.digest) else {
                return noteDamage(header, from: peer)
            }
            perform(tell(.partialReceived(block, run: run)))
        } else {
            guard machine.wantsResult(block) else { return }
            guard
                buffers!.keepResult(
                    block, payload, digest: header.digest,
                    keepingParts: machine.awaitsAudit(ofBlock: block))
            else { return noteDamage(header, from: peer) }
            perform(tell(.resultReceived(block, digest: header.digest)))
        }
    }

    /// The block is missing now, and asked for again like everything that is.
    private func noteDamage(_ header: WireDataHeader, from peer: String) {
        logger.warning(
            "a block arrived damaged",
            metadata: [
                "worker.id": "\(peer)", "step": "\(header.step)", "block": "\(header.block)",
            ])
    }

    private func answerWant(_ header: WireDataHeader, _ frame: Frame, from peer: String) {
        guard
            let blocks = BlockCarrier.blocks(
                wantedBy: header, frame, blockCount: layout!.blockCount)
        else { return }
        carrier.noteWant(from: peer, step: Int(clamping: header.step))
        carrier.copying {
            perform(
                tell(.wanted(blocks, partials: header.kind == .wantPartials, by: peer)))
        }
    }
}

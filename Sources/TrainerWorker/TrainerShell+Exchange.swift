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
            if let block = takeFoldFlip(in: blocks) { buffers!.flipBit(ofFinished: block) }
        case .audit(let blocks):
            for block in blocks {
                let flip: UInt64 = takeFoldFlip(in: [block]) == nil ? 0 : 1
                let digest = try buffers!.secondFold(block) ^ flip
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

    /// The audited block among some in whose sum a bit flips now.
    private func takeFoldFlip(in blocks: [Int]) -> Int? {
        guard let flip, flip.kind == .fold, flip.step <= buffers!.step,
            let block = blocks.first(where: { machine.isAudited(block: $0) })
        else { return nil }
        self.flip = nil
        return block
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
            case .partial, .result, .wantPartials, .wantResults, .embeddings, .wantEmbeddings:
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
        if header.kind == .embeddings || header.kind == .wantEmbeddings {
            return takeEmbeddings(header, frame, from: peer)
        }
        let place = machine.place(
            step: Int(clamping: header.step), history: header.history, fold: Int(header.fold),
            from: peer, isRequest: header.kind == .wantPartials || header.kind == .wantResults)
        guard
            let message = BlockMessage(
                header, frame, layout: layout, slotCount: machine.slotCount)
        else { return refusals.note("a block or a request of another size", peer) }
        switch place {
        case .nowhere: return
        case .later:
            if message.isBlock { parked.park(.init(header: header, payload: frame, peer: peer)) }
        case .here: take(message, header, frame, from: peer)
        }
    }

    private func take(
        _ message: BlockMessage, _ header: WireDataHeader, _ frame: Frame, from peer: String
    ) {
        func payload(_ block: Int) -> BlockPayload? {
            carrier.payload(header, frame, from: peer, byteCount: layout!.byteCount(block))
        }
        switch message {
        case .partial(let block, let run):
            guard machine.wantsPartial(block, run: run) else { return }
            guard let payload = payload(block),
                buffers!.keepPartial(block, run: run, payload, digest: header.digest)
            else { return noteDamage(header, from: peer) }
            perform(tell(.partialReceived(block, run: run)))
        case .result(let block):
            guard machine.wantsResult(block) else { return }
            guard let payload = payload(block),
                buffers!.keepResult(
                    block, payload, digest: header.digest,
                    keepingParts: machine.awaitsAudit(ofBlock: block))
            else { return noteDamage(header, from: peer) }
            perform(tell(.resultReceived(block, digest: header.digest)))
        case .wantPartials(let blocks): answer(blocks, partials: true, header, to: peer)
        case .wantResults(let blocks): answer(blocks, partials: false, header, to: peer)
        }
    }

    /// The block is missing now, and asked for again like everything that is.
    func noteDamage(_ header: WireDataHeader, from peer: String) {
        logger.warning(
            "a block arrived damaged, or cannot be read",
            metadata: [
                "worker.id": "\(peer)", "step": "\(header.step)", "block": "\(header.block)",
            ])
    }

    private func answer(
        _ blocks: [Int], partials: Bool, _ header: WireDataHeader, to peer: String
    ) {
        carrier.noteWant(from: peer, step: Int(clamping: header.step))
        carrier.copying { perform(tell(.wanted(blocks, partials: partials, by: peer))) }
    }
}

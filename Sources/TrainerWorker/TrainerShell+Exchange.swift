internal import Basics
internal import ClusterCore
internal import Foundation
internal import Logging
internal import Protocol
internal import Tensors
internal import Training
internal import Transport

extension TrainerShell {
    func openExchange(step: Int, history: UInt64, peers: [WireMember]) throws {
        buffers = StepBuffers(
            step: step, history: history, layout: layout!, slotCount: machine.slotCount,
            effect: takeContribution())
        exchangeBegan = nil
        try connect(peers)
        takeParked(of: step)
    }

    /// What came before its time.
    func takeParked(of step: Int) {
        for item in parked.take(step: step) { take(item.header, item.payload, from: item.peer) }
    }

    /// One DEALER to each peer's data socket.
    func connect(_ members: [WireMember]) throws {
        let wanted = members.filter { $0.worker != worker }
        for (name, peer) in peers
        where !wanted.contains(where: { $0.worker == name && $0.dataAddress == peer.address }) {
            peers[name] = nil
        }
        for member in wanted where peers[member.worker] == nil {
            let socket = try Socket(
                context, .dealer, identity: worker, frameBytesMax: WireCodec.headerBytesMax)
            do throws(TransportError) {
                try socket.connect(member.dataAddress)
            } catch {
                // That peer alone is unreachable; the coordinator sees that it gets nothing.
                logger.warning("a trainer names no usable address", metadata: ["why": "\(error)"])
                continue
            }
            peers[member.worker] = (member.dataAddress, socket)
        }
    }

    func perform(_ action: ExchangeStateMachine.Action) throws {
        switch action {
        case .sendPartial(let run, let blocks, let peer):
            for block in blocks { try sendPartial(run, block: block, to: peer) }
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
            for block in blocks { sendResult(block, to: names) }
        case .wantPartials(let blocks, let peer): sendWant(.wantPartials, blocks, to: peer)
        case .wantResults(let blocks, let peer): sendWant(.wantResults, blocks, to: peer)
        case .complete: break
        }
    }

    private func header(
        _ kind: WireDataHeader.Kind, block: Int, digest: UInt64
    ) -> WireDataHeader {
        var header = WireDataHeader()
        header.kind = kind
        header.run = link.run
        header.history = buffers!.history
        header.step = UInt64(buffers!.step)
        header.fold = UInt32(machine.fold)
        header.block = UInt32(block)
        header.digest = digest
        return header
    }

    private func sendPartial(_ run: SlotRun, block: Int, to peer: String) throws {
        guard let (_, socket) = peers[peer] else { return }
        let count = layout!.range(block).count
        try socket.send(payloadBytes: count * 4) { bytes in
            let sum = bytes.bindMemory(to: Float.self)
            try buffers!.sum(run, block: block, into: sum.baseAddress!)
            var header = header(
                .partial, block: block, digest: XXH64.digest(UnsafeRawBufferPointer(bytes)))
            header.low = UInt32(run.low)
            header.high = UInt32(run.high)
            return WireCodec.encode(header)
        }
    }

    private func sendResult(_ block: Int, to names: [String]) {
        let bytes = buffers!.bytes(ofBlock: block)
        let header = WireCodec.encode(
            header(.result, block: block, digest: buffers!.digests[block]))
        for name in names {
            guard let (_, socket) = peers[name] else { continue }
            socket.send(payloadBytes: bytes.count) {
                $0.copyMemory(from: bytes)
                return header
            }
        }
    }

    private func sendWant(_ kind: WireDataHeader.Kind, _ blocks: [Int], to peer: String) {
        guard let (_, socket) = peers[peer] else { return }
        var payload = Data()
        for block in blocks {
            withUnsafeBytes(of: UInt32(block).littleEndian) { payload.append(contentsOf: $0) }
        }
        let digest = payload.withUnsafeBytes { XXH64.digest($0) }
        socket.send([WireCodec.encode(header(kind, block: 0, digest: digest)), payload])
    }

    // MARK: In

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

    func take(_ header: WireDataHeader, _ payload: Frame, from peer: String) {
        guard let layout else { return }
        let place = machine.place(
            step: Int(clamping: header.step), history: header.history, fold: Int(header.fold),
            from: peer)
        let isBlock = header.kind == .partial || header.kind == .result
        switch place {
        case .nowhere: return
        case .later:
            guard isBlock, Int(header.block) < layout.blockCount,
                payload.count == layout.range(Int(header.block)).count * 4
            else { return }
            parked.park(.init(header: header, payload: payload, peer: peer))
            return
        case .here: break
        }
        guard isBlock else { return answerWant(header, payload, from: peer) }
        let block = Int(header.block)
        guard block < layout.blockCount, payload.count == layout.range(block).count * 4 else {
            logger.warning("a block of a wrong size was ignored")
            return
        }
        var run = SlotRun(0, 1)
        if header.kind == .partial {
            guard header.low < header.high, Int(header.high) <= machine.slotCount else { return }
            run = SlotRun(Int(header.low), Int(header.high))
            guard machine.wantsPartial(block, run: run) else { return }
        } else {
            guard machine.wantsResult(block) else { return }
        }
        guard payload.withUnsafeBytes({ XXH64.digest($0) == header.digest }) else {
            // It is missing now, and asked for again like everything that is.
            logger.warning(
                "a block arrived damaged",
                metadata: ["worker.id": "\(peer)", "step": "\(header.step)", "block": "\(block)"])
            return
        }
        if header.kind == .partial {
            buffers!.keepPartial(block, run: run, payload)
            perform(tell(.partialReceived(block, run: run)))
        } else {
            payload.withUnsafeBytes {
                buffers!.keepResult(
                    block, $0, digest: header.digest,
                    keepingParts: machine.awaitsAudit(ofBlock: block))
            }
            perform(tell(.resultReceived(block, digest: header.digest)))
        }
    }

    private func answerWant(_ header: WireDataHeader, _ payload: Frame, from peer: String) {
        guard payload.count.isMultiple(of: 4), payload.count / 4 <= layout!.blockCount,
            payload.withUnsafeBytes({ XXH64.digest($0) == header.digest })
        else { return }
        let blocks = payload.withUnsafeBytes { bytes in
            (0..<bytes.count / 4).map {
                Int(
                    UInt32(
                        littleEndian: bytes.loadUnaligned(
                            fromByteOffset: 4 * $0, as: UInt32.self)))
            }
        }
        perform(
            tell(.wanted(blocks, partials: header.kind == .wantPartials, by: peer)))
    }
}

import Basics
import ClusterCore
import Exchange
import Foundation
import Protocol
import Training
import Transport

/// Blocks of one step from two peers, some of them damaged: the effect must be that of the sound ones.
struct BlocksTarget: FuzzTarget {
    static let name = "blocks"
    static let share = 400
    static let episodeFrames = 60

    private static let members = ["a", "b", "c"]
    private static let history: UInt64 = 3

    let reached = Tally()

    func episode(_ random: inout FuzzRandom, frames: Int, log: FuzzLog) throws {
        // Now and then more than one block of the gradient.
        let isLarge = random.chance(20)
        let layout = EffectLayout(
            gradientCount: isLarge ? FlatLayout.blockElements + 5 : 1 + random.below(40),
            statisticsCount: random.below(9), entryCount: random.below(9))
        let slotCount = 2 + random.below(5)
        let step = 1 + random.below(1000)
        let pool = BufferPool(layout)
        func buffers() -> StepBuffers {
            StepBuffers(
                step: step, history: Self.history, layout: layout, slotCount: slotCount, pool: pool)
        }
        let whole = buffers()
        var slots: [SlotContribution] = []
        for slot in 0..<slotCount {
            let contribution = pool.take()
            for part in [contribution.gradient, contribution.statistics, contribution.entries] {
                for place in 0..<part.count {
                    part.base[place] = Float(random.below(2001) - 1000) / 64
                }
            }
            slots.append(contribution)
            whole.keep(slot: slot, contribution)
        }
        try whole.finish(Array(0..<layout.blockCount), threads: 1)

        var receiver = Receiver(
            layout: layout, slotCount: slotCount, step: step, buffers: buffers(), log: log)
        let own = Set((0..<slotCount).filter { _ in random.chance(400) })
        for slot in own { receiver.buffers.keep(slot: slot, slots[slot]) }
        try receiver.perform(receiver.machine.slotsComputed(own))

        var sound: [(header: WireDataHeader, payload: Data)] = []
        for block in 0..<layout.blockCount {
            if receiver.machine.owner(of: block) == "a" {
                for slot in 0..<slotCount where !own.contains(slot) {
                    var message = Self.message(.partial, block, step, of: slots[slot], layout)
                    message.header.low = UInt32(slot)
                    message.header.high = UInt32(slot + 1)
                    sound.append(message)
                }
            } else {
                sound.append(Self.message(.result, block, step, of: whole.effect, layout))
            }
        }
        sound.shuffle(using: &random)
        var left = sound[...]
        for _ in 0..<frames {
            if random.chance(100), let next = left.popFirst() {
                try receiver.take(WireCodec.encode(next.header), next.payload)
            } else if let model = sound.randomElement(using: &random) {
                let (header, payload) = damaged(model, slotCount, layout.blockCount, &random)
                try receiver.take(header, payload)
            }
        }
        // What was parked came first.
        try receiver.takeParked()
        for message in sound {
            try receiver.take(WireCodec.encode(message.header), message.payload)
        }
        guard receiver.machine.isComplete else {
            throw FuzzFailure("an effect is not complete with all of its blocks")
        }
        for block in 0..<layout.blockCount
        where receiver.buffers.digests[block] != whole.digests[block] {
            throw FuzzFailure("block \(block) of \(layout.blockCount) is another one")
        }
        reached.count("effects")
    }

    private static func message(
        _ kind: WireDataHeader.Kind, _ block: Int, _ step: Int, of contribution: SlotContribution,
        _ layout: EffectLayout
    ) -> (header: WireDataHeader, payload: Data) {
        let buffer = layout.buffer(block, in: contribution)
        let range = layout.range(block)
        let payload = Data(
            bytes: buffer.base + range.lowerBound, count: layout.byteCount(block))
        var header = WireDataHeader()
        header.kind = kind
        header.step = UInt64(step)
        header.history = history
        header.block = UInt32(block)
        header.digest = payload.withUnsafeBytes { XXH64.digest($0) }
        return (header, payload)
    }

    /// A message that says what cannot be, or whose payload is not what its digest says.
    private func damaged(
        _ model: (header: WireDataHeader, payload: Data), _ slotCount: Int, _ blockCount: Int,
        _ random: inout FuzzRandom
    ) -> (Data, Data) {
        var (header, payload) = model
        switch random.below(7) {
        case 0:
            // The header has a digest of its own.
            let encoded = Array(WireCodec.encode(header))
            return (
                Data(Mutator.mutate(encoded, .protobuf, others: [], using: &random)), payload
            )
        case 1:
            header.block = UInt32(clamping: UInt64(blockCount) + random.number() / 2)
        case 2:
            (header.low, header.high) = (
                UInt32(truncatingIfNeeded: random.number()),
                UInt32(slotCount) &+ 1 &+ UInt32(random.below(1 << 20))
            )
            if header.kind == .result { header.digest ^= 1 }
        case 3:
            header.memoryNonce = max(1, random.number())
            header.memoryDescriptor = UInt32(truncatingIfNeeded: random.number())
            header.offset = random.number()
            if random.chance(800) { payload = Data() }
        case 4:
            header.kind = random.pick([.wantPartials, .wantResults, .state, .unspecified])
            if random.chance(500) { header.digest = payload.withUnsafeBytes { XXH64.digest($0) } }
        case 5:
            payload = Data(Mutator.mutate(Array(payload), .bytes, others: [], using: &random))
        // Now and then nothing has changed, and the block counts.
        default:
            let count = random.below(2 * payload.count + 2)
            payload = Data(payload.prefix(count)) + Data(count: max(0, count - payload.count))
            if count != model.payload.count {
                header.digest = payload.withUnsafeBytes { XXH64.digest($0) }
            }
        }
        return (WireCodec.encode(header), payload)
    }

    /// A trainer's half of the exchange, as its shell puts it together.
    private struct Receiver {
        let layout: EffectLayout
        let slotCount: Int
        let step: Int
        let buffers: StepBuffers
        let log: FuzzLog
        var machine: ExchangeStateMachine
        private let carrier = BlockCarrier(Context(), me: "a")
        private var parked: ParkedBlocks
        private var isEarly = true

        init(
            layout: EffectLayout, slotCount: Int, step: Int, buffers: StepBuffers, log: FuzzLog
        ) {
            (self.layout, self.slotCount, self.step) = (layout, slotCount, step)
            (self.buffers, self.log) = (buffers, log)
            machine = ExchangeStateMachine(
                me: "a", members: BlocksTarget.members, slotCount: slotCount,
                blockCount: layout.blockCount)
            parked = ParkedBlocks(layout, steps: 2)
        }

        mutating func take(_ header: Data, _ payload: Data) throws {
            log.feed(header + payload)
            guard
                let header = try? header.withUnsafeBytes({ try WireCodec.decodeHeader($0) })
            else { return }
            let frame = payload.withUnsafeBytes { Frame(copying: $0) }
            guard
                let message = BlockMessage(header, frame, layout: layout, slotCount: slotCount)
            else { return }
            guard !isEarly || !message.isBlock else {
                parked.park(.init(header: header, payload: frame, peer: "b"))
                let limit =
                    2 * 2
                    * (0..<layout.blockCount).reduce(0) {
                        $0 + layout.byteCount($1) + 512
                    }
                guard parked.byteCount <= limit else {
                    throw FuzzFailure("\(parked.byteCount) bytes are parked")
                }
                return
            }
            try take(message, header, frame)
        }

        mutating func takeParked() throws {
            isEarly = false
            for item in parked.take(step: step) {
                guard
                    let message = BlockMessage(
                        item.header, item.payload, layout: layout, slotCount: slotCount)
                else { throw FuzzFailure("what was parked is no message") }
                try take(message, item.header, item.payload)
            }
        }

        private mutating func take(
            _ message: BlockMessage, _ header: WireDataHeader, _ frame: Frame
        ) throws {
            func payload(_ block: Int) -> BlockPayload? {
                carrier.payload(header, frame, from: "b", byteCount: layout.byteCount(block))
            }
            switch message {
            case .partial(let block, let run):
                guard machine.wantsPartial(block, run: run), let payload = payload(block),
                    buffers.keepPartial(block, run: run, payload, digest: header.digest)
                else { return }
                try perform(machine.partialReceived(block, run: run))
            case .result(let block):
                guard machine.wantsResult(block), let payload = payload(block),
                    buffers.keepResult(
                        block, payload, digest: header.digest,
                        keepingParts: machine.awaitsAudit(of: block))
                else { return }
                try perform(machine.resultReceived(block, digest: header.digest))
            case .wantPartials(let blocks): _ = machine.partialsWanted(blocks, by: "b")
            case .wantResults(let blocks): _ = machine.resultsWanted(blocks, by: "b")
            }
        }

        mutating func perform(_ actions: [ExchangeStateMachine.Action]) throws {
            for action in actions {
                if case .finish(let blocks) = action { try buffers.finish(blocks, threads: 1) }
            }
        }
    }
}

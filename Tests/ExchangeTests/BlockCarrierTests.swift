import Basics
import Exchange
import Foundation
import Protocol
import Testing
import Training
import Transport

/// A trainer's half of an exchange.
private final class Member {
    let name: String
    let context: Context
    let data: Socket
    let carrier: BlockCarrier
    let pool: BufferPool
    let address: String

    /// - Parameter keys: its own, and whose it lets in.
    init(
        _ name: String, _ layout: EffectLayout, memory: Bool = true,
        keys: (own: KeyPair, admitted: AdmittedKeys)? = nil
    ) throws {
        self.name = name
        context = try Context(
            keys: keys?.own, refusals: Refusals(label: "test"), isRefusalFinal: false
        ) { keys?.admitted.admits($0) ?? false }
        data = try Socket(context, .router, frameBytesMax: WireCodec.payloadBytesMax)
        carrier = BlockCarrier(context, me: name)
        let bound = try data.bindForData("tcp://127.0.0.1:*", host: "127.0.0.1")
        address = memory ? carrier.addresses(bound) : bound
        pool = BufferPool(layout)
    }

    var member: WireMember {
        var member = WireMember()
        member.worker = name
        member.dataAddress = address
        return member
    }

    func receive() throws -> (header: WireDataHeader, frame: Frame, peer: String) {
        let deadline = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < deadline {
            if let frames = data.receive() {
                let header = try frames[1].withUnsafeBytes { bytes throws(ProtocolError) in
                    try WireCodec.decodeHeader(bytes)
                }
                return (header, frames[2], frames[0].text ?? "")
            }
            Poller.wait([data], timeout: .milliseconds(100))
        }
        throw CancellationError()
    }
}

@Suite struct BlockCarrierTests {
    /// Two whole blocks of gradient and a short one, and one of statistics.
    private let layout = EffectLayout(
        gradientCount: 2 * FlatLayout.blockElements + 5, statisticsCount: 7, embeddingCount: 12)
    private let stamp = BlockCarrier.Stamp(run: 9, fold: 0)

    private func contribution(_ pool: BufferPool, _ first: Float) -> SlotContribution {
        let made = pool.take()
        for place in 0..<layout.gradientCount { made.gradient.base[place] = first + Float(place) }
        for place in 0..<layout.statisticsCount { made.statistics.base[place] = -first }
        return made
    }

    private func pair(memory: Bool) throws -> (Member, StepBuffers, Member, StepBuffers) {
        let left = try Member("left", layout, memory: memory)
        let right = try Member("right", layout, memory: memory)
        try left.carrier.connect([left.member, right.member])
        try right.carrier.connect([left.member, right.member])
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 3, pool: left.pool)
        let theirs = StepBuffers(
            step: 3, history: 8, layout: layout, slotCount: 3, pool: right.pool)
        mine.keep(slot: 0, contribution(left.pool, 1))
        mine.keep(slot: 1, contribution(left.pool, 2))
        theirs.keep(slot: 2, contribution(right.pool, 4))
        return (left, mine, right, theirs)
    }

    @Test(arguments: [true, false])
    func sumsAndResultsAreTheSameThroughMemoryAndSockets(memory: Bool) throws {
        let (left, mine, right, theirs) = try pair(memory: memory)
        let run = SlotRun(0, 2)
        for block in 0..<layout.blockCount {
            try left.carrier.sendPartial(run, block: block, of: mine, stamp, to: "right")
            let (header, frame, peer) = try right.receive()
            #expect(peer == "left" && header.kind == .partial && header.run == 9)
            #expect(header.step == 3 && header.history == 8 && Int(header.block) == block)
            #expect((frame.count == 0) == memory)
            let payload = try #require(
                right.carrier.payload(
                    header, frame, from: peer, byteCount: layout.byteCount(block)))
            #expect(
                theirs.keepPartial(block, run: run, payload, digest: header.digest))
        }
        try theirs.finish(Array(0..<layout.blockCount), threads: 1)
        for place in [0, 1, FlatLayout.blockElements, layout.gradientCount - 1] {
            let sum = Float(1 + place) + Float(2 + place) + Float(4 + place)
            #expect(theirs.effect.gradient.base[place] == sum * (Float(1) / 3))
        }
        #expect(theirs.effect.statistics.base[6] == Float(-7) * (Float(1) / 3))
        for block in 0..<layout.blockCount {
            right.carrier.sendResult(block, of: theirs, stamp, to: "left", keeps: false)
            let (header, frame, peer) = try left.receive()
            #expect(header.kind == .result && (frame.count == 0) == memory)
            let payload = try #require(
                left.carrier.payload(
                    header, frame, from: peer, byteCount: layout.byteCount(block)))
            #expect(
                mine.keepResult(block, payload, digest: header.digest, keepingParts: false))
        }
        #expect(mine.digests == theirs.digests)
        #expect(
            mine.effect.gradient.digest(0..<layout.gradientCount)
                == theirs.effect.gradient.digest(0..<layout.gradientCount))
    }

    @Test(arguments: [true, false])
    func embeddingsAreTheSameThroughMemoryAndSockets(memory: Bool) throws {
        let (left, mine, right, theirs) = try pair(memory: memory)
        // Slots of three, two and three images, four numbers each.
        let values: [[Float]] = [12, 8, 12].enumerated().map { slot, count in
            (0..<count).map { Float(100 * slot + $0) }
        }
        let statistics = [Float](repeating: 3, count: layout.statisticsCount)
        for slot in 0..<2 {
            let made = left.pool.take()
            let digest = made.store(embeddings: values[slot], statistics: statistics)
            #expect(digest == values[slot].withUnsafeBytes { XXH64.digest($0) })
            mine.keepEmbeddings(
                slot: slot, made, count: values[slot].count, digest: digest)
            try left.carrier.sendEmbeddings(ofSlot: slot, of: mine, stamp, to: "right")
            let (header, frame, peer) = try right.receive()
            #expect(header.kind == .embeddings && Int(header.low) == slot && header.step == 3)
            #expect((frame.count == 0) == memory)
            let payload = try #require(
                right.carrier.payload(
                    header, frame, from: peer, byteCount: values[slot].count * 4))
            #expect(!theirs.keepEmbeddings(slot: slot, payload, digest: header.digest ^ 1))
            #expect(theirs.keepEmbeddings(slot: slot, payload, digest: header.digest))
        }
        let own = right.pool.take()
        let digest = own.store(embeddings: values[2], statistics: statistics)
        theirs.keepEmbeddings(slot: 2, own, count: 12, digest: digest)
        #expect(try theirs.allEmbeddings() == values.flatMap { $0 })

        // What was sent by one who computes wrongly goes, and with it every gradient.
        theirs.forgetEmbeddings(ofSlots: [0])
        let fresh = try #require(theirs.contribution(ofEmbedded: 2))
        #expect(fresh.gradient.base != own.gradient.base)
        #expect(Array(fresh.statistics.floats) == statistics)
        let other = right.pool.take()
        theirs.keepEmbeddings(
            slot: 0, other, count: 12, digest: other.embeddings.digest(0..<12))
        #expect(try Array(theirs.allEmbeddings().suffix(20)) == values[1] + values[2])
        #expect(throws: TrainingError.self) { try theirs.finish([0], threads: 1) }
    }

    /// Three slots, of which two come as a sum: the effect has every row as it was written, though a third
    /// of any of them would not give it back.
    @Test func entriesOfTheMemoryAreSummedAndNotScaled() throws {
        let shape = MemoryShape(size: 100, dimension: 3, slots: 3, slotRows: 2)
        let layout = EffectLayout(
            gradientCount: 5, statisticsCount: 7, entryCount: shape.entryCount)
        #expect(layout.blockCount == 3 && layout.byteCount(2) == 3 * 2 * 4 * 4)
        let pool = BufferPool(layout)
        let values: [[Float]] = [[0.1, -0.0, 1e-30], [.pi, -1e30, 7, 1, 2, 3], [1 / 3, 5, 1e-7]]
        let labels = [[0], [16_777_214, 3], [2]]
        func slot(_ slot: Int) -> SlotContribution {
            let made = SlotContribution(layout)
            // What an earlier step has left.
            made.entries.floats.update(repeating: 9)
            made.gradient.floats.update(repeating: 1)
            made.store(entries: values[slot], labels: labels[slot], slot: slot, shape)
            return made
        }
        let left = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 3, pool: pool)
        for number in [0, 1, 2] { left.keep(slot: number, slot(number)) }
        try left.finish([0, 1, 2], threads: 2)
        let digests = left.digests
        #expect(
            Array(left.effect.entries.floats) == [
                0.1, 0, 1e-30, 1, 0, 0, 0, 0, .pi, -1e30, 7, 16_777_215, 1, 2, 3, 4, 1 / 3, 5,
                1e-7, 3, 0, 0, 0, 0,
            ])
        #expect(try (0..<3).map { try left.secondFold($0) } == digests)
        #expect(left.effect.gradient.base[0] == 3 * (Float(1) / 3))
        // An audit sees a bit that differs in them.
        let (one, other) = (slot(0), slot(0))
        #expect(SlotSeal(one, layout) == SlotSeal(other, layout))
        other.entries.base[0] += 1
        #expect(SlotSeal(one, layout).digest != SlotSeal(other, layout).digest)
    }

    @Test func memoryThatWasWrittenAgainIsRefused() throws {
        let (left, _, right, theirs) = try pair(memory: true)
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 3, pool: left.pool)
        let own = contribution(left.pool, 5)
        mine.keep(slot: 1, own)
        // A slot that is computed twice stays where peers read it.
        mine.keep(slot: 1, contribution(left.pool, 5))
        try left.carrier.sendPartial(SlotRun(1, 2), block: 1, of: mine, stamp, to: "right")
        own.gradient.base[FlatLayout.blockElements + 77] += 1
        let (header, frame, peer) = try right.receive()
        let payload = try #require(
            right.carrier.payload(header, frame, from: peer, byteCount: layout.byteCount(1)))
        #expect(!theirs.keepPartial(1, run: SlotRun(1, 2), payload, digest: header.digest))
        #expect(!theirs.keepResult(1, payload, digest: header.digest, keepingParts: false))
        #expect(throws: TrainingError.self) { try theirs.finish([1], threads: 1) }
    }

    @Test func whoAsksAndWhoOnlyListensGetsTheBlockItself() throws {
        let (left, mine, right, _) = try pair(memory: true)
        try left.carrier.sendPartial(SlotRun(0, 1), block: 0, of: mine, stamp, to: "right")
        #expect(try right.receive().frame.count == 0)
        try left.carrier.copying {
            try left.carrier.sendPartial(SlotRun(0, 1), block: 0, of: mine, stamp, to: "right")
        }
        #expect(try right.receive().frame.count == layout.byteCount(0))
        left.carrier.sendResult(0, of: mine, stamp, to: "right", keeps: true)
        #expect(try right.receive().frame.count == layout.byteCount(0))
    }

    @Test func whatNamesNoSuchMemoryIsNoPayload() throws {
        let (left, mine, right, _) = try pair(memory: true)
        try left.carrier.sendPartial(SlotRun(0, 1), block: 3, of: mine, stamp, to: "right")
        let (good, empty, _) = try right.receive()
        try left.carrier.sendPartial(SlotRun(0, 1), block: 3, of: mine, stamp, to: "right")
        func payload(
            of peer: String = "left", bytes: Int? = nil, _ change: (inout WireDataHeader) -> Void
        ) -> BlockPayload? {
            var header = good
            change(&header)
            return right.carrier.payload(
                header, empty, from: peer, byteCount: bytes ?? layout.byteCount(3))
        }
        #expect(payload { _ in } != nil)
        #expect(payload(of: "stranger") { _ in } == nil)
        #expect(payload { $0.memoryNonce ^= 1 } == nil)
        #expect(payload { $0.memoryDescriptor = 0 } == nil)
        #expect(payload { $0.memoryDescriptor = .max } == nil)
        #expect(payload { $0.offset = .max } == nil)
        #expect(payload { $0.offset = 1 << 40 } == nil)
        #expect(payload(bytes: 1 << 40) { _ in } == nil)
        // Without a name the bytes have to be in the frame.
        #expect(payload { $0.memoryNonce = 0 } == nil)
    }

    /// Whoever names no memory of his own reads none of others, and is not told of any.
    @Test(arguments: [true, false])
    func memoryIsUsedWhereBothNameTheirs(senderIsNear: Bool) throws {
        let sender = try Member("sender", layout, memory: senderIsNear)
        let other = try Member("other", layout, memory: !senderIsNear)
        try sender.carrier.connect([other.member])
        let buffers = StepBuffers(
            step: 1, history: 0, layout: layout, slotCount: 1, pool: sender.pool)
        buffers.keep(slot: 0, contribution(sender.pool, 1))
        try sender.carrier.sendPartial(SlotRun(0, 1), block: 0, of: buffers, stamp, to: "other")
        #expect(try other.receive().frame.count == layout.byteCount(0))
    }

    @Test func whoAsksForWhatLayInMemoryGetsBlocksForAWhile() throws {
        let (left, mine, right, _) = try pair(memory: true)
        func sent(_ buffers: StepBuffers) throws -> Int {
            try left.carrier.sendPartial(SlotRun(0, 1), block: 0, of: buffers, stamp, to: "right")
            return try right.receive().frame.count
        }
        left.carrier.noteWant(from: "right", step: 3)
        #expect(try sent(mine) == 0)
        left.carrier.noteWant(from: "right", step: 3)
        #expect(try sent(mine) == layout.byteCount(0))
        for (step, count) in [(103, layout.byteCount(0)), (104, 0)] {
            let later = StepBuffers(
                step: step, history: 8, layout: layout, slotCount: 3, pool: left.pool)
            later.keep(slot: 0, contribution(left.pool, 1))
            #expect(try sent(later) == count)
        }
    }

    /// A sum is made of what is still there; a slot cannot be, and nobody would take it.
    @Test func whatChangedInMemoryIsNotSentAgain() throws {
        let left = try Member("left", layout, memory: false)
        let right = try Member("right", layout, memory: false)
        try left.carrier.connect([right.member])
        // The buffers of two steps that are over are used again, the last one first.
        let old = (1...2).map {
            StepBuffers(step: $0, history: 8, layout: layout, slotCount: 3, pool: left.pool)
        }
        for buffers in old { left.pool.recycle(buffers) }
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 3, pool: left.pool)
        let slot = contribution(BufferPool(layout), 1)
        mine.keep(slot: 0, slot)
        mine.keep(slot: 1, contribution(BufferPool(layout), 2))
        func sent(_ run: SlotRun, again: Bool) throws -> (digest: UInt64, isWhole: Bool) {
            let send = {
                try left.carrier.sendPartial(run, block: 0, of: mine, stamp, to: "right")
            }
            if again { try left.carrier.copying(send) } else { try send() }
            let (header, frame, _) = try right.receive()
            return (header.digest, XXH64.digest(frame.bytes) == header.digest)
        }
        let sum = try sent(SlotRun(0, 2), again: false)
        #expect(sum.isWhole)
        old[0].effect.gradient.base[7] += 1
        #expect(try !sent(SlotRun(0, 2), again: false).isWhole)
        #expect(try sent(SlotRun(0, 2), again: true) == sum)
        #expect(try sent(SlotRun(0, 1), again: true).isWhole)
        slot.gradient.base[7] += 1
        let error = #expect(throws: TrainingError.self) {
            try sent(SlotRun(0, 1), again: true)
        }
        #expect(error?.code == .damaged && error?.message.contains("slot 0 of step 3") == true)
    }

    /// It is known by the digests of its blocks, the same wherever it was computed.
    @Test func aSealSaysWhatASlotIs() {
        let pool = BufferPool(layout)
        let seal = SlotSeal(contribution(pool, 1), layout)
        #expect(seal == SlotSeal(contribution(pool, 1), layout) && seal.digest != 0)
        #expect(seal.digest != SlotSeal(contribution(pool, 2), layout).digest)
        for place in [0, FlatLayout.blockElements, layout.gradientCount - 1] {
            let changed = contribution(pool, 1)
            changed.gradient.base[place] += 1
            #expect(seal.digest != SlotSeal(changed, layout).digest)
        }
        let changed = contribution(pool, 1)
        changed.statistics.base[6] += 1
        #expect(seal.digest != SlotSeal(changed, layout).digest)
    }

    /// What is done with a slot in which a bit has flipped since it was sealed.
    enum Use: CaseIterable {
        case sendFirst, sendSum, sendAfterRefold, fold, audit
    }

    @Test(arguments: Use.allCases, [0, 2, 3])
    func aBitThatFlipsInASealedSlotIsFoundBeforeTheSlotIsUsed(use: Use, block: Int) throws {
        let left = try Member("left", layout, memory: true)
        let right = try Member("right", layout, memory: true)
        try left.carrier.connect([right.member])
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 2, pool: left.pool)
        let slots = [contribution(left.pool, 1), contribution(left.pool, 2)]
        for (slot, made) in slots.enumerated() {
            mine.keep(slot: slot, made, seal: SlotSeal(made, layout))
        }
        func take(_ block: Int) throws {
            switch use {
            case .sendFirst, .sendAfterRefold:
                try left.carrier.sendPartial(
                    SlotRun(1, 2), block: block, of: mine, stamp, to: "right")
            case .sendSum:
                try left.carrier.sendPartial(
                    SlotRun(0, 2), block: block, of: mine, stamp, to: "right")
            case .fold: try mine.finish([block], threads: 1)
            case .audit: _ = try mine.secondFold(block)
            }
        }
        // Sent while it was whole; then it is folded anew, by others.
        if use == .sendAfterRefold { try take(block) }
        mine.forgetSums()
        let base = block < 3 ? slots[1].gradient.base : slots[1].statistics.base
        let place = block < 3 ? block * FlatLayout.blockElements + 1 : 1
        base[place] = Float(bitPattern: base[place].bitPattern ^ 1)
        for other in 0..<layout.blockCount where other != block { try take(other) }
        let error = #expect(throws: TrainingError.self) { try take(block) }
        #expect(error?.code == .damaged)
        #expect(
            error?.message.hasPrefix("block \(block) of slot 1 of step 3 changed in memory") == true
        )
        // What others send of it is used without it.
        base[place] = Float(bitPattern: base[place].bitPattern ^ 1)
        try take(block)
    }

    /// A slot that nobody else computes has no digest until it is sent.
    @Test func aSlotWithoutASealIsUsedAsItIs() throws {
        let pool = BufferPool(layout)
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 1, pool: pool)
        let slot = contribution(pool, 1)
        mine.keep(slot: 0, slot)
        slot.gradient.base[7] = 5
        try mine.finish([0], threads: 1)
        #expect(mine.effect.gradient.base[7] == 5)
    }

    /// What a peer may still read is not written again before the step is over, and then by one step.
    @Test func aStepThatBeginsAnewHasNothingOfBefore() {
        let pool = BufferPool(layout)
        let mine = StepBuffers(step: 3, history: 8, layout: layout, slotCount: 1, pool: pool)
        func compute(_ value: Float) -> SlotContribution {
            let made = contribution(pool, value)
            let digest = made.store(
                embeddings: [value], statistics: [Float](repeating: 0, count: 7))
            mine.keepEmbeddings(slot: 0, made, count: 1, digest: digest)
            mine.keep(slot: 0, made, seal: SlotSeal(made, layout))
            return made
        }
        let old = compute(1)
        mine.startOver()
        #expect(mine.contribution(ofEmbedded: 0) == nil)
        #expect(throws: TrainingError.self) { try mine.finish([0], threads: 1) }
        let new = compute(2)
        #expect(mine.contribution(ofEmbedded: 0)?.gradient.base == new.gradient.base)
        pool.recycle(mine)
        // The effect, and both of the slot.
        let spare = (0..<4).map { _ in pool.take().gradient.base }
        #expect(Set(spare).count == 4)
        #expect(spare.contains(old.gradient.base) && spare.contains(new.gradient.base))
    }

    @Test func embeddingsThatChangedInMemoryAreNeitherUsedNorSentAgain() throws {
        let (left, mine, right, theirs) = try pair(memory: false)
        let made = left.pool.take()
        let digest = made.store(
            embeddings: [1, 2, 3, 4], statistics: [Float](repeating: 0, count: 7))
        mine.keepEmbeddings(slot: 0, made, count: 4, digest: digest)
        made.embeddings.base[2] = 9
        // The digest is of what was computed: the receiver refuses them, and asks again.
        try left.carrier.sendEmbeddings(ofSlot: 0, of: mine, stamp, to: "right")
        let (header, frame, peer) = try right.receive()
        let payload = try #require(
            right.carrier.payload(header, frame, from: peer, byteCount: 16))
        #expect(!theirs.keepEmbeddings(slot: 0, payload, digest: header.digest))
        let errors = [
            #expect(throws: TrainingError.self) {
                try left.carrier.copying {
                    try left.carrier.sendEmbeddings(ofSlot: 0, of: mine, stamp, to: "right")
                }
            },
            #expect(throws: TrainingError.self) { _ = try mine.allEmbeddings() },
        ]
        for error in errors {
            #expect(error?.code == .damaged)
            #expect(error?.message.hasPrefix("the embeddings of slot 0 of step 3") == true)
        }
    }

    @Test func aPeerThatIsThereAgainIsReportedOnce() throws {
        let near = try Member("near", layout)
        let address: String
        do {
            let data = try Socket(Context(), .router, frameBytesMax: 1 << 20)
            address = try data.bind("tcp://127.0.0.1:*")
            var member = WireMember()
            member.worker = "far"
            member.dataAddress = address
            try near.carrier.connect([member])
            usleep(300_000)
            #expect(near.carrier.reconnected() == [])
        }
        let data = try Socket(Context(), .router, frameBytesMax: 1 << 20)
        _ = try data.bind(address)
        var found: [String] = []
        let deadline = ContinuousClock.now + .seconds(5)
        while found.isEmpty, ContinuousClock.now < deadline {
            found = near.carrier.reconnected()
            usleep(20_000)
        }
        #expect(found == ["far"])
        usleep(100_000)
        #expect(near.carrier.reconnected() == [])
    }

    /// A peer may not have heard yet that this trainer is allowed.
    @Test(arguments: [true, false])
    func whoIsTurnedAwayFirstGetsInLater(memory: Bool) throws {
        let admitted = AdmittedKeys()
        let own = try KeyPair.generate()
        let left = try Member(
            "left", layout, memory: memory, keys: (own: own, admitted: AdmittedKeys()))
        let right = try Member(
            "right", layout, memory: memory,
            keys: (own: try KeyPair.generate(), admitted: admitted))
        try left.carrier.connect([right.member])
        let buffers = StepBuffers(
            step: 3, history: 8, layout: layout, slotCount: 1, pool: left.pool)
        buffers.keep(slot: 0, contribution(left.pool, 1))
        let run = SlotRun(0, 1)
        try left.carrier.sendPartial(run, block: 0, of: buffers, stamp, to: "right")
        let refusedUntil = ContinuousClock.now + .milliseconds(700)
        while ContinuousClock.now < refusedUntil {
            #expect(left.carrier.reconnected() == [] && right.data.receive() == nil)
            usleep(20_000)
        }
        admitted.replace(with: [Data(own.publicKey.bytes)])
        let (header, _, peer) = try right.receive()
        #expect(peer == "left" && header.kind == .partial)
        // What else was lost is sent again.
        var found: [String] = []
        let deadline = ContinuousClock.now + .seconds(5)
        while found.isEmpty, ContinuousClock.now < deadline {
            found = left.carrier.reconnected()
            usleep(20_000)
        }
        #expect(found == ["right"])
    }

    @Test func requestsNameTheirBlocks() throws {
        let (left, mine, right, _) = try pair(memory: true)
        left.carrier.sendWant(.wantResults, [0, 3], of: mine, stamp, to: "right")
        let (header, frame, _) = try right.receive()
        #expect(BlockCarrier.blocks(wantedBy: header, frame, blockCount: 4) == [0, 3])
        #expect(BlockCarrier.blocks(wantedBy: header, frame, blockCount: 1) == nil)
        var damaged = header
        damaged.digest ^= 1
        #expect(BlockCarrier.blocks(wantedBy: damaged, frame, blockCount: 4) == nil)
    }

    @Test func aThousandCopiesTakeTheRoomOfOne() throws {
        let (left, mine, right, _) = try pair(memory: false)
        func item(_ slot: Int, fold: Int = 0) throws -> ParkedBlocks.Item {
            try left.carrier.sendPartial(
                SlotRun(slot, slot + 1), block: 0, of: mine, .init(run: 9, fold: fold), to: "right")
            let (header, frame, peer) = try right.receive()
            return .init(header: header, payload: frame, peer: peer)
        }
        let (first, second) = (try item(0), try item(1))
        var parked = ParkedBlocks(layout, steps: 1)
        parked.park(first)
        let one = parked.byteCount
        #expect(one > layout.byteCount(0))
        for _ in 0..<1_000 { parked.park(first) }
        #expect(parked.byteCount == one)
        parked.park(second)
        #expect(parked.byteCount == 2 * one)
        // Of a later fold: what was folded before is not used any more.
        let later = try item(0, fold: 1)
        parked.park(later)
        parked.park(first)
        #expect(parked.byteCount == 2 * one)
        #expect(parked.take(step: 3).map(\.header.fold) == [1, 0])
        #expect(parked.byteCount == 0)
        // Twice the effect of each step is room enough.
        for step in 0..<100 {
            var other = first.header
            other.step = UInt64(step)
            parked.park(.init(header: other, payload: first.payload, peer: "left"))
        }
        let effect = (0..<layout.blockCount).reduce(0) { $0 + layout.byteCount($1) }
        #expect(parked.byteCount > effect && parked.byteCount <= 2 * effect + 8 * 512)
    }
}

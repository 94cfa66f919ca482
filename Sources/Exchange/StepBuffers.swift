public import Basics
internal import Foundation
internal import Synchronization
internal import Training
public import Transport

/// The bytes of a block that came from a peer.
public enum BlockPayload {
    /// In a message, which nobody writes any more.
    case frame(Frame)
    /// In memory of the peer, which will write it again; valid for the moment.
    case memory(UnsafeRawBufferPointer)

    var bytes: UnsafeRawBufferPointer {
        switch self {
        case .frame(let frame): frame.bytes
        case .memory(let bytes): bytes
        }
    }
}

/// A partial sum that arrived: where ZeroMQ has put it if that address suits, else a copy.
private struct ReceivedPart {
    let base: UnsafePointer<Float>
    private let owner: AnyObject

    init(_ payload: BlockPayload, _ pool: BlockPool) {
        let bytes = payload.bytes
        if case .frame(let frame) = payload, let start = bytes.baseAddress,
            Int(bitPattern: start).isMultiple(of: MemoryLayout<Float>.alignment)
        {
            base = start.bindMemory(to: Float.self, capacity: bytes.count / 4)
            owner = frame
        } else {
            let copy = pool.take()
            UnsafeMutableRawPointer(copy.buffer.base).copyMemory(
                from: bytes.baseAddress!, byteCount: bytes.count)
            base = UnsafePointer(copy.buffer.base)
            owner = copy
        }
    }
}

/// Copies of blocks whose memory is used again: fresh memory costs as much as the copy.
private final class BlockPool {
    final class Loan {
        let buffer: FloatBuffer
        private let pool: BlockPool

        init(_ buffer: FloatBuffer, _ pool: BlockPool) {
            self.buffer = buffer
            self.pool = pool
        }

        deinit { pool.free.append(buffer) }
    }

    private var free: [FloatBuffer] = []

    func take() -> Loan {
        Loan(free.popLast() ?? FloatBuffer(count: FlatLayout.blockElements), self)
    }
}

/// Contributions and copies that steps use one after the other.
public final class BufferPool {
    private let layout: EffectLayout
    private var spare: [SlotContribution] = []
    fileprivate let blocks = BlockPool()

    /// Holds nothing yet.
    public init(_ layout: EffectLayout) { self.layout = layout }

    /// A contribution to be written; what it holds is of a step that is over.
    public func take() -> SlotContribution { spare.popLast() ?? SlotContribution(layout) }

    /// Takes back what a step used.
    public func recycle(_ buffers: StepBuffers) { spare += buffers.contributions }
}

/// A block that goes to peers, where it lies.
struct OutgoingBlock {
    let bytes: UnsafeRawBufferPointer
    /// Where others may read it; nil where the system has no such memory.
    let memory: SharedMemory?
    /// XXH64 of the bytes.
    let digest: UInt64
    /// Whose bytes they are.
    let owner: AnyObject

    /// The embeddings of a slot.
    init(embeddingsOf contribution: SlotContribution, count: Int, digest: UInt64) {
        bytes = contribution.embeddings.bytes(0..<count)
        memory = contribution.memory
        self.digest = digest
        owner = contribution.embeddings
    }

    init(_ block: Int, of contribution: SlotContribution, _ layout: EffectLayout, digest: UInt64) {
        bytes = UnsafeRawBufferPointer(
            start: layout.pointer(block, in: contribution), count: layout.byteCount(block))
        memory = contribution.memory
        self.digest = digest
        owner = layout.buffer(block, in: contribution)
    }
}

/// The numbers of one step's exchange: what this trainer computed, received and finished.
public final class StepBuffers {
    /// What this trainer sends of a run of slots; written once in a step.
    private struct Outgoing {
        let contribution: SlotContribution
        var digests: [Int: UInt64] = [:]
    }

    /// A slot that was computed here.
    private struct OwnSlot {
        let contribution: SlotContribution
        /// What it was when it was computed, where two compute it.
        let seal: SlotSeal?
    }

    /// Embeddings of a slot that were computed here.
    private struct OwnEmbeddings {
        let contribution: SlotContribution
        /// How many numbers they are.
        let count: Int
        /// XXH64 of what they were when they were computed.
        let digest: UInt64

        var isWhole: Bool { contribution.embeddings.digest(0..<count) == digest }
    }

    /// The step.
    public let step: Int
    /// The history that it goes on.
    public let history: UInt64
    let layout: EffectLayout
    /// Slots in the step.
    public let slotCount: Int
    /// Finished blocks.
    public let effect: SlotContribution
    private let pool: BufferPool
    private var slots: [Int: OwnSlot] = [:]
    /// Slots that were computed again; peers may still read them.
    private var outdated: [SlotContribution] = []
    private var received: [Int: [SlotRun: ReceivedPart]] = [:]
    private var outgoing: [SlotRun: Outgoing] = [:]
    private var own: [Int: OwnEmbeddings] = [:]
    /// Embeddings that peers have sent.
    private var receivedEmbeddings: [Int: [Float]] = [:]
    /// XXH64 of each finished block, taken while it is in the cache.
    public private(set) var digests: [UInt64]

    /// Begins a step with nothing in it.
    public init(
        step: Int, history: UInt64, layout: EffectLayout, slotCount: Int, pool: BufferPool
    ) {
        self.step = step
        self.history = history
        self.layout = layout
        self.slotCount = slotCount
        self.pool = pool
        effect = pool.take()
        digests = [UInt64](repeating: 0, count: layout.blockCount)
    }

    fileprivate var contributions: [SlotContribution] {
        let unfinished = own.filter { slots[$0.key] == nil }.map(\.value.contribution)
        return [effect] + slots.values.map(\.contribution) + outdated + unfinished
            + outgoing.filter { $0.key.count > 1 }.map(\.value.contribution)
    }

    /// Keeps what was computed here; peers may read it from now on, so that the first stays.
    ///
    /// - Parameter seal: what it has to be whenever it is sent or folded; nil where nobody else computes
    ///   the slot, and nothing is compared.
    public func keep(slot: Int, _ contribution: SlotContribution, seal: SlotSeal? = nil) {
        if slots[slot] == nil { slots[slot] = OwnSlot(contribution: contribution, seal: seal) }
    }

    // MARK: Embeddings, where mining spans the step

    /// Keeps what a slot's forward pass gave here; peers may read it from now on, so that the first
    /// stays.
    ///
    /// - Parameter digest: XXH64 of them, as ``SlotContribution/store(embeddings:statistics:)`` gave it.
    public func keepEmbeddings(
        slot: Int, _ contribution: SlotContribution, count: Int, digest: UInt64
    ) {
        guard own[slot] == nil else { return }
        own[slot] = OwnEmbeddings(contribution: contribution, count: count, digest: digest)
    }

    /// Copies what a peer sent.
    ///
    /// - Returns: false, with nothing kept, where it is not what was sent.
    public func keepEmbeddings(slot: Int, _ payload: BlockPayload, digest: UInt64) -> Bool {
        let bytes = payload.bytes
        let copy = [Float](unsafeUninitializedCapacity: bytes.count / 4) { floats, count in
            UnsafeMutableRawBufferPointer(floats).copyMemory(from: bytes)
            count = bytes.count / 4
        }
        guard copy.withUnsafeBytes({ XXH64.digest($0) }) == digest else { return false }
        receivedEmbeddings[slot] = copy
        return true
    }

    /// The embeddings of all slots, in slot order; every slot's are here.
    ///
    /// - Throws: ``TrainingError`` with code `damaged` where those that were computed here have changed
    ///   since.
    public func allEmbeddings() throws -> [Float] {
        var all: [Float] = []
        for slot in 0..<slotCount {
            if let received = receivedEmbeddings[slot] {
                all += received
            } else {
                try checkEmbeddings(of: slot)
                all += own[slot]!.contribution.embeddings.floats.prefix(own[slot]!.count)
            }
        }
        return all
    }

    private func checkEmbeddings(of slot: Int) throws(TrainingError) {
        if own[slot]?.isWhole == false { throw damaged("the embeddings of slot \(slot)") }
    }

    /// Where the rest of a slot goes whose forward pass was done here.
    public func contribution(ofEmbedded slot: Int) -> SlotContribution? { own[slot]?.contribution }

    /// Drops embeddings of some slots that peers have sent, and every gradient, which stems from them.
    ///
    /// A backward pass that is still under way writes where nobody looks any more.
    public func forgetEmbeddings(ofSlots slots: [Int]) {
        for slot in slots { receivedEmbeddings[slot] = nil }
        self.slots = [:]
        forgetSums()
        for (slot, old) in own {
            let fresh = SlotContribution(layout)
            _ = fresh.store(
                embeddings: Array(old.contribution.embeddings.floats.prefix(old.count)),
                statistics: Array(old.contribution.statistics.floats))
            own[slot] = OwnEmbeddings(contribution: fresh, count: old.count, digest: old.digest)
            outdated.append(old.contribution)
        }
    }

    /// Drops everything that was computed here or sent: all of the step is computed again.
    public func startOver() {
        outdated += own.values.map(\.contribution)
        outdated += slots.filter { own[$0.key] == nil }.map(\.value.contribution)
        (slots, own, receivedEmbeddings) = ([:], [:], [:])
        forgetSums()
    }

    /// The embeddings of a slot that was computed here; nil for another one's.
    ///
    /// - Parameter isChecked: whether they are compared with their digest first, since they did not
    ///   arrive.
    /// - Throws: ``TrainingError`` with code `damaged` where they have changed since, and nobody would take
    ///   them.
    func outgoingEmbeddings(
        of slot: Int, isChecked: Bool = false
    ) throws(TrainingError) -> OutgoingBlock? {
        guard let own = own[slot] else { return nil }
        if isChecked { try checkEmbeddings(of: slot) }
        return OutgoingBlock(
            embeddingsOf: own.contribution, count: own.count, digest: own.digest)
    }

    // MARK: Blocks

    /// Keeps a partial sum.
    ///
    /// - Returns: false, with nothing kept, where it is not what was sent.
    public func keepPartial(
        _ block: Int, run: SlotRun, _ payload: BlockPayload, digest: UInt64
    ) -> Bool {
        // What counts is the copy: memory of a peer may change between two looks.
        let part = ReceivedPart(payload, pool.blocks)
        let bytes = UnsafeRawBufferPointer(start: part.base, count: layout.byteCount(block))
        guard XXH64.digest(bytes) == digest else { return false }
        received[block, default: [:]][run] = part
        return true
    }

    /// Copies a finished block into the effect.
    ///
    /// - Returns: false where it is not what was sent; the block is not finished then.
    public func keepResult(
        _ block: Int, _ payload: BlockPayload, digest: UInt64, keepingParts: Bool
    ) -> Bool {
        let target = bytes(ofBlock: block)
        UnsafeMutableRawPointer(mutating: target.baseAddress!).copyMemory(
            from: payload.bytes.baseAddress!, byteCount: target.count)
        guard XXH64.digest(target) == digest else { return false }
        digests[block] = digest
        if !keepingParts { received[block] = nil }
        return true
    }

    /// Folds a block beside the effect.
    ///
    /// - Returns: XXH64 of what a finished block would be.
    public func secondFold(_ block: Int) throws -> UInt64 {
        let count = layout.range(block).count
        return try withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { floats in
            try sum(
                SlotRun(0, slotCount), block: block, into: floats.baseAddress!,
                scale: layout.scale(block, slotCount: slotCount))
            return XXH64.digest(UnsafeRawBufferPointer(floats))
        }
    }

    /// Forgets what was received and folded, and slots that are computed again.
    public func forgetSums(and slots: [Int] = []) {
        received = [:]
        outgoing = [:]
        outdated += slots.compactMap { self.slots.removeValue(forKey: $0)?.contribution }
    }

    /// A block of the effect.
    func bytes(ofBlock block: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            start: layout.pointer(block, in: effect), count: layout.byteCount(block))
    }

    /// A block of a run's sum: the slot itself, or a sum of several that is made when it is first asked
    /// for.
    ///
    /// - Parameter isChecked: whether it is compared with its digest first, since it did not arrive; a sum
    ///   that has changed is made once more.
    /// - Throws: ``TrainingError`` with code `damaged` where a slot has changed since it was sealed or
    ///   sent, which nobody would take.
    func outgoing(_ run: SlotRun, block: Int, isChecked: Bool = false) throws -> OutgoingBlock {
        let slot = run.count == 1 ? slots[run.low] : nil
        var entry = outgoing[run] ?? Outgoing(contribution: slot?.contribution ?? pool.take())
        if isChecked, let digest = entry.digests[block],
            layout.digest(block, in: entry.contribution) != digest
        {
            if slot != nil { throw damaged(run.low, block: block) }
            entry.digests[block] = nil
        }
        if entry.digests[block] == nil {
            if slot == nil {
                try sum(run, block: block, into: layout.pointer(block, in: entry.contribution))
            }
            let digest = layout.digest(block, in: entry.contribution)
            // The pass that every block takes when it is sent: a sealed one has its digest already.
            if let seal = slot?.seal, seal.blocks[block] != digest {
                throw damaged(run.low, block: block)
            }
            entry.digests[block] = digest
            outgoing[run] = entry
        }
        return OutgoingBlock(
            block, of: entry.contribution, layout, digest: entry.digests[block]!)
    }

    /// Compares a block of a sealed slot with its digest, unless that was done when it was sent.
    private func checkSealed(_ slot: Int, block: Int) throws(TrainingError) {
        guard let own = slots[slot], let seal = own.seal,
            outgoing[SlotRun(slot, slot + 1)]?.digests[block] == nil,
            layout.digest(block, in: own.contribution) != seal.blocks[block]
        else { return }
        throw damaged(slot, block: block)
    }

    private func damaged(_ slot: Int, block: Int) -> TrainingError {
        damaged("block \(block) of slot \(slot)")
    }

    private func damaged(_ what: String) -> TrainingError {
        TrainingError(
            .damaged,
            "\(what) of step \(step) changed in memory after being computed; run 'lineup "
                + "doctor' on this machine, then start this worker again")
    }

    /// A finished block.
    func finished(_ block: Int) -> OutgoingBlock {
        OutgoingBlock(block, of: effect, layout, digest: digests[block])
    }

    /// Sums a run of a block in tree order from what is held here.
    ///
    /// - Throws: ``TrainingError`` with code `damaged` where a sealed slot has changed, `missingPartial`
    ///   where a part is not here.
    func sum(
        _ run: SlotRun, block: Int, into output: UnsafeMutablePointer<Float>, scale: Float? = nil
    ) throws {
        var parts: [SlotRun: UnsafePointer<Float>] = [:]
        for (slot, own) in slots where run.low <= slot && slot < run.high {
            try checkSealed(slot, block: block)
            parts[SlotRun(slot, slot + 1)] = UnsafePointer(
                layout.pointer(block, in: own.contribution))
        }
        for (other, part) in received[block] ?? [:]
        where run.low <= other.low && other.high <= run.high {
            parts[other] = part.base
        }
        try Fold.sum(
            run, parts: parts, into: output, count: layout.range(block).count, scale: scale)
    }

    /// Changes a bit of a block that was folded here: for tests of what audits find.
    public func flipBit(ofFinished block: Int) {
        layout.pointer(block, in: effect).flipBit()
        digests[block] = XXH64.digest(bytes(ofBlock: block))
    }

    /// Puts finished blocks into the effect, the root's sum times 1/G but for entries of the memory, and
    /// digests them.
    public func finish(_ blocks: [Int], threads: Int) throws {
        let root = SlotRun(0, slotCount)
        let shared = Unguarded(self)
        let found = Mutex<[(block: Int, digest: UInt64)]>([])
        try Parallel.tryRun(parts: max(1, min(threads, blocks.count))) { part, parts in
            let buffers = shared.value
            var own: [(block: Int, digest: UInt64)] = []
            for place in blocks.count * part / parts..<blocks.count * (part + 1) / parts {
                let block = blocks[place]
                try buffers.sum(
                    root, block: block, into: buffers.layout.pointer(block, in: buffers.effect),
                    scale: buffers.layout.scale(block, slotCount: buffers.slotCount))
                own.append((block, XXH64.digest(buffers.bytes(ofBlock: block))))
            }
            found.withLock { $0 += own }
        }
        for (block, digest) in found.withLock({ $0 }) {
            digests[block] = digest
            received[block] = nil
        }
    }
}

/// Lends an object to threads that read it and write disjoint parts of its buffers.
private struct Unguarded<Value>: @unchecked Sendable {
    // @unchecked: the lender waits for the threads, and they write blocks of their own.
    let value: Value
    init(_ value: Value) { self.value = value }
}

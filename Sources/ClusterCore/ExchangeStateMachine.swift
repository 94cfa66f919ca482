public import Basics

/// What became of a block that two members folded.
public struct FoldCheck: Sendable, Equatable {
    /// The block.
    public let block: Int
    /// Who folded what everybody uses.
    public let owner: String
    /// XXH64 of that.
    public let folded: UInt64
    /// XXH64 of what the auditor folded.
    public let audited: UInt64
}

/// Decides who sends, folds and broadcasts which block of one step's effect.
///
/// Holds no numbers: it speaks of blocks and slot runs, the shell holds the floats. A block is
/// folded by its owner alone, in the order of ``FoldTree``; ownership follows the members, block
/// boundaries and tree never do.
public struct ExchangeStateMachine: Codable, Sendable {
    /// What the shell does next, in order.
    public enum Action: Equatable, Sendable {
        /// Sum the held slots of `run` in tree order and send each block to who folds it.
        case sendPartial(run: SlotRun, blocks: [Int], to: String)
        /// Sum the held slots of `run` in tree order and keep the blocks: this member owns them.
        case keepPartial(run: SlotRun, blocks: [Int])
        /// `left + right` becomes their parent run's partial of this block.
        case combine(block: Int, left: SlotRun, right: SlotRun)
        /// The root partial of these blocks is there: scale it into the effect.
        case finish(blocks: [Int])
        /// Send the finished blocks.
        case broadcast(blocks: [Int], to: [String])
        /// The root partial of these blocks is there: fold them beside the effect and report
        /// ``ExchangeStateMachine/blockAudited(_:digest:)`` for each.
        case audit(blocks: [Int])
        /// Every block of the effect is there.
        case complete
        /// Ask for partials of these blocks again: what was sent did not arrive.
        case wantPartials(blocks: [Int], from: String)
        /// Ask an owner for these blocks again.
        case wantResults(blocks: [Int], from: String)
    }

    /// Slots in the step.
    public let slotCount: Int
    /// Blocks in the effect.
    public let blockCount: Int
    private let me: String
    private var members: [String]
    private var listeners: [String]
    private let fold: Int
    private var held: Set<Int> = []
    private var sharesSent = false
    /// Runs whose partial this member holds, by owned block.
    private var partials: [Set<SlotRun>]
    private var finished: [Bool]
    private var finishedCount = 0
    /// Blocks that a second member folds; while there are any, the members of a fold stay the same.
    private let audited: Set<Int>
    /// XXH64 of the blocks that this member folds a second time, as their owners folded them.
    private var folded: [Int: UInt64] = [:]
    /// Blocks that this member folds a second time, and has not yet.
    private var awaited: Set<Int> = []
    /// What came of the second folds.
    private var audits: [Int: UInt64] = [:]

    /// Starts a step.
    ///
    /// - Parameters:
    ///   - members: every member in the order the coordinator gave; block `k` belongs to
    ///     `members[(k + fold) % members.count]`. Whoever is not among them only listens.
    ///   - listeners: joiners, who get every finished block.
    ///   - fold: how often the step was folded before; another member folds each block.
    ///   - audited: blocks that a second member folds as well; who is neither owner nor auditor of a
    ///     block has nothing to do with that.
    public init(
        me: String, members: [String], listeners: [String] = [], slotCount: Int,
        blockCount: Int, fold: Int = 0, audited: Set<Int> = []
    ) {
        precondition(slotCount > 0 && blockCount > 0, "an exchange needs slots and blocks")
        precondition(!members.isEmpty, "an exchange needs members")
        self.me = me
        self.members = members
        self.listeners = listeners
        self.slotCount = slotCount
        self.blockCount = blockCount
        self.fold = fold
        self.audited = audited
        partials = Array(repeating: [], count: blockCount)
        finished = Array(repeating: false, count: blockCount)
        awaited = audited.filter { $0 < blockCount && auditor(of: $0) == me }
    }

    /// Whether every block of the effect is there, and every audit of this member is done.
    public var isComplete: Bool { finishedCount == blockCount && awaited.isEmpty }

    /// The member who folds a block.
    public func owner(of block: Int) -> String { members[(block + fold) % members.count] }

    /// The member who folds a block a second time, nil where nobody does.
    public func auditor(of block: Int) -> String? {
        guard audited.contains(block), members.count > 1 else { return nil }
        return members[(block + fold + 1) % members.count]
    }

    /// Whether a received block is still wanted; the shell then keeps its bytes.
    ///
    /// While a block has an auditor its owner stays the same, and nobody else folds it for him.
    public func wantsResult(_ block: Int) -> Bool {
        finished.indices.contains(block) && !finished[block]
            && !(audited.contains(block) && owner(of: block) == me)
    }

    /// Whether a received partial is still wanted.
    public func wantsPartial(_ block: Int, run: SlotRun) -> Bool {
        finished.indices.contains(block) && (!finished[block] || awaited.contains(block))
            && isTreeNode(run) && !covered(run, in: partials[block])
    }

    /// Whether this member still has to fold the block a second time.
    public func awaitsAudit(of block: Int) -> Bool { awaited.contains(block) }

    /// What this member's audits found, by block.
    public var checks: [FoldCheck] {
        audits.keys.sorted().compactMap { block in
            folded[block].map {
                FoldCheck(
                    block: block, owner: owner(of: block), folded: $0, audited: audits[block]!)
            }
        }
    }

    /// All slots leased to this member are computed; `slots` are all that it holds.
    public mutating func slotsComputed(_ slots: Set<Int>) -> [Action] {
        held = slots
        sharesSent = true
        return share()
    }

    /// A partial arrived and was kept.
    public mutating func partialReceived(_ block: Int, run: SlotRun) -> [Action] {
        guard wantsPartial(block, run: run) else { return [] }
        partials[block].insert(run)
        return settle([block])
    }

    /// A finished block arrived and was kept.
    ///
    /// - Parameter digest: XXH64 of the block.
    public mutating func resultReceived(_ block: Int, digest: UInt64) -> [Action] {
        guard wantsResult(block) else { return [] }
        markFinished(block)
        if auditor(of: block) == me { folded[block] = digest }
        var actions: [Action] = []
        // Whoever owned it has gone, and may not have told everybody.
        let audience = audience
        if owner(of: block) == me, !audience.isEmpty {
            actions.append(.broadcast(blocks: [block], to: audience))
        }
        return isComplete ? actions + [.complete] : actions
    }

    /// A block was folded a second time.
    public mutating func blockAudited(_ block: Int, digest: UInt64) -> [Action] {
        guard awaited.remove(block) != nil else { return [] }
        audits[block] = digest
        return isComplete ? [.complete] : []
    }

    /// The membership changed in mid-step: blocks get new owners, nobody computes anything again.
    ///
    /// What this member has finished goes to everyone when it now owns the block, and to the new
    /// owner otherwise; partials of unfinished blocks go to the new owners. What arrives twice is
    /// the same bits and is dropped.
    public mutating func membersChanged(
        _ members: [String], listeners: [String] = []
    ) -> [Action] {
        precondition(!members.isEmpty, "an exchange needs members")
        let isSame = self.members == members
        let newcomers = listeners.filter { !self.listeners.contains($0) && $0 != me }
        self.members = members
        self.listeners = listeners
        let done = finished.indices.filter { finished[$0] }
        let mine = done.filter { owner(of: $0) == me }
        if isSame {
            // Only leases or listeners differ.
            guard !mine.isEmpty, !newcomers.isEmpty else { return [] }
            return [.broadcast(blocks: mine, to: newcomers)]
        }
        var actions: [Action] = []
        let audience = audience
        if !mine.isEmpty && !audience.isEmpty {
            actions.append(.broadcast(blocks: mine, to: audience))
        }
        for other in members where other != me {
            let theirs = done.filter { owner(of: $0) == other }
            if !theirs.isEmpty { actions.append(.broadcast(blocks: theirs, to: [other])) }
        }
        #if PLANTED_BUGS
            if Planted.has(.partialLostAtOwnerChange), sharesSent, !listeners.isEmpty {
                for block in finished.indices where owner(of: block) == me {
                    if !partials[block].isEmpty { partials[block] = [SlotRun(0, slotCount)] }
                }
            }
        #endif
        if sharesSent { actions += share() }
        // Blocks that became this member's may be foldable from partials parked before.
        actions += settle(finished.indices.filter { folds($0, me) })
        return actions
    }

    /// Whether a member needs the partials of a block.
    private func folds(_ block: Int, _ member: String) -> Bool {
        if !finished[block], owner(of: block) == member { return true }
        return auditor(of: block) == member && (member != me || awaited.contains(block))
    }

    // MARK: What got lost

    /// What to ask for when nothing has come for a while.
    public func missing() -> [Action] {
        var actions: [Action] = []
        for member in members where member != me {
            let blocks = finished.indices.filter { !finished[$0] && owner(of: $0) == member }
            if !blocks.isEmpty { actions.append(.wantResults(blocks: blocks, from: member)) }
        }
        let mine = finished.indices.filter { folds($0, me) }
        if !mine.isEmpty, members.contains(me) {
            for other in members where other != me {
                actions.append(.wantPartials(blocks: mine, from: other))
            }
        }
        return actions
    }

    /// The connection to a member or listener broke and is there again: what was under way on it is lost.
    public func reconnected(_ peer: String) -> [Action] {
        guard peer != me, (members + listeners).contains(peer) else { return [] }
        let results = finished.indices.filter { finished[$0] && owner(of: $0) == me }
        let open = finished.indices.filter { folds($0, peer) }
        return resultsWanted(results, by: peer) + partialsWanted(open, by: peer)
    }

    /// A member lacks finished blocks.
    public func resultsWanted(_ blocks: [Int], by worker: String) -> [Action] {
        let there = blocks.filter { finished.indices.contains($0) && finished[$0] }
        return there.isEmpty || worker == me ? [] : [.broadcast(blocks: there, to: [worker])]
    }

    /// An owner lacks partials: it gets them, or the block where that is finished here.
    public func partialsWanted(_ blocks: [Int], by worker: String) -> [Action] {
        let known = blocks.filter { finished.indices.contains($0) }
        var actions = resultsWanted(known, by: worker)
        let open = known.filter { folds($0, worker) }
        guard sharesSent, !open.isEmpty, worker != me else { return actions }
        for (run, isAudited) in pieces {
            let blocks = open.filter { (auditor(of: $0) != nil) == isAudited }
            if !blocks.isEmpty {
                actions.append(.sendPartial(run: run, blocks: blocks, to: worker))
            }
        }
        return actions
    }

    /// Runs in which the held slots travel: sums of whole subtrees, and each slot by itself for audited
    /// blocks, so that nobody but the two that are compared has added anything up.
    private var pieces: [(run: SlotRun, isAudited: Bool)] {
        let sums = FoldTree.cover(held, slotCount: slotCount)
        guard members.count > 1, !audited.isEmpty else { return sums.map { ($0, false) } }
        #if PLANTED_BUGS
            let single = Planted.has(.auditedSumSent) ? sums : singles
        #else
            let single = singles
        #endif
        return sums.map { ($0, false) } + single.map { ($0, true) }
    }

    private var singles: [SlotRun] { held.sorted().map { SlotRun($0, $0 + 1) } }

    /// Everyone who gets the blocks that this member folds.
    private var audience: [String] { (members + listeners).filter { $0 != me } }

    private mutating func share() -> [Action] {
        var actions: [Action] = []
        var touched: Set<Int> = []
        for (run, isAudited) in pieces {
            for member in members {
                let blocks = finished.indices.filter { block in
                    folds(block, member) && (auditor(of: block) != nil) == isAudited
                        && (member != me || !covered(run, in: partials[block]))
                }
                guard !blocks.isEmpty else { continue }
                if member == me {
                    actions.append(.keepPartial(run: run, blocks: blocks))
                    for block in blocks { partials[block].insert(run) }
                    touched.formUnion(blocks)
                } else {
                    actions.append(.sendPartial(run: run, blocks: blocks, to: member))
                }
            }
        }
        return actions + settle(touched.sorted())
    }

    /// Combines siblings up to the root, finishes and broadcasts what became complete.
    private mutating func settle(_ blocks: [Int]) -> [Action] {
        var actions: [Action] = []
        var done: [Int] = []
        var audits: [Int] = []
        let root = SlotRun(0, slotCount)
        for block in blocks where folds(block, me) {
            actions += combine(block, up: root)
            guard partials[block].contains(root) else { continue }
            partials[block] = []
            if awaited.contains(block) {
                audits.append(block)
            } else {
                markFinished(block)
                done.append(block)
            }
        }
        if !audits.isEmpty { actions.append(.audit(blocks: audits)) }
        guard !done.isEmpty else { return actions }
        actions.append(.finish(blocks: done))
        let audience = audience
        if !audience.isEmpty { actions.append(.broadcast(blocks: done, to: audience)) }
        if isComplete { actions.append(.complete) }
        return actions
    }

    /// Brings the run's partial into being from its children where both can be had.
    private mutating func combine(_ block: Int, up run: SlotRun) -> [Action] {
        guard !partials[block].contains(run), run.count > 1 else { return [] }
        guard partials[block].contains(where: { run.low <= $0.low && $0.high <= run.high })
        else { return [] }
        let (left, right) = FoldTree.split(run)
        var actions = combine(block, up: left) + combine(block, up: right)
        if partials[block].contains(left) && partials[block].contains(right) {
            partials[block].remove(left)
            partials[block].remove(right)
            partials[block].insert(run)
            actions.append(.combine(block: block, left: left, right: right))
        }
        return actions
    }

    private mutating func markFinished(_ block: Int) {
        finished[block] = true
        finishedCount += 1
    }

    /// Whether the run, or a run above it, is there already.
    private func covered(_ run: SlotRun, in runs: Set<SlotRun>) -> Bool {
        runs.contains { $0.low <= run.low && run.high <= $0.high }
    }

    private func isTreeNode(_ run: SlotRun) -> Bool {
        var node = SlotRun(0, slotCount)
        guard run.high <= slotCount else { return false }
        while node != run {
            guard node.count > 1, node.low <= run.low, run.high <= node.high else { return false }
            let (left, right) = FoldTree.split(node)
            node = run.low < right.low ? left : right
        }
        return true
    }
}

import Basics
import ClusterCore
import Testing

/// Runs the exchange of one step among members whose numbers are expression trees, so that the
/// order of every addition is seen, and not only its value.
struct ExchangeRig {
    indirect enum Sum: Equatable {
        case leaf(Int)
        case plus(Sum, Sum)
    }

    struct Member {
        var machine: ExchangeStateMachine
        var slots: Set<Int> = []
        var partials: [Int: [SlotRun: Sum]] = [:]
        var results: [Int: Sum] = [:]
        var audits: [Int: Sum] = [:]
        var isComplete = false
    }

    enum Packet {
        case partial(SlotRun, block: Int, Sum)
        case result(block: Int, Sum)
    }

    let slotCount: Int
    let blockCount: Int
    var members: [String: Member] = [:]
    var order: [String] = []
    var wire: [(from: String, to: String, Packet)] = []

    init(members names: [String], slotCount: Int, blockCount: Int, audited: Set<Int> = []) {
        self.slotCount = slotCount
        self.blockCount = blockCount
        order = names
        for name in names {
            members[name] = Member(
                machine: ExchangeStateMachine(
                    me: name, members: names, slotCount: slotCount, blockCount: blockCount,
                    audited: audited))
        }
    }

    static func digest(_ sum: Sum) -> UInt64 {
        var hash = XXH64()
        hash.update("\(sum)")
        return hash.finish()
    }

    static func expected(_ run: SlotRun) -> Sum {
        guard run.count > 1 else { return .leaf(run.low) }
        let (left, right) = FoldTree.split(run)
        return .plus(expected(left), expected(right))
    }

    /// The sum of a run from what a member holds; nil when something is missing.
    func sum(_ run: SlotRun, block: Int, at name: String) -> Sum? {
        let member = members[name]!
        if let known = member.partials[block]?[run] { return known }
        if run.count == 1 { return member.slots.contains(run.low) ? .leaf(run.low) : nil }
        let (left, right) = FoldTree.split(run)
        guard let low = sum(left, block: block, at: name),
            let high = sum(right, block: block, at: name)
        else { return nil }
        return .plus(low, high)
    }

    mutating func perform(_ actions: [ExchangeStateMachine.Action], at name: String) {
        for action in actions {
            switch action {
            case .sendPartial(let run, let blocks, let peer):
                for block in blocks {
                    wire.append(
                        (name, peer, .partial(run, block: block, sum(run, block: block, at: name)!))
                    )
                }
            case .keepPartial, .combine, .wantPartials, .wantResults: break
            case .finish(let blocks):
                for block in blocks {
                    members[name]!.results[block] = sum(
                        SlotRun(0, slotCount), block: block, at: name)!
                }
            case .audit(let blocks):
                for block in blocks {
                    let sum = sum(SlotRun(0, slotCount), block: block, at: name)!
                    members[name]!.audits[block] = sum
                    perform(
                        members[name]!.machine.blockAudited(block, digest: Self.digest(sum)),
                        at: name)
                }
            case .broadcast(let blocks, let peers):
                for block in blocks {
                    for peer in peers {
                        wire.append(
                            (name, peer, .result(block: block, members[name]!.results[block]!)))
                    }
                }
            case .complete: members[name]!.isComplete = true
            }
        }
    }

    mutating func computed(_ name: String, _ slots: Set<Int>) {
        members[name]!.slots = slots
        let actions = members[name]!.machine.slotsComputed(slots)
        perform(actions, at: name)
    }

    mutating func deliver(_ place: Int) {
        let (_, name, packet) = wire.remove(at: place)
        guard members[name] != nil else { return }
        switch packet {
        case .partial(let run, let block, let sum):
            guard members[name]!.machine.wantsPartial(block, run: run) else { return }
            members[name]!.partials[block, default: [:]][run] = sum
            let actions = members[name]!.machine.partialReceived(block, run: run)
            perform(actions, at: name)
        case .result(let block, let sum):
            guard members[name]!.machine.wantsResult(block) else { return }
            members[name]!.results[block] = sum
            let actions = members[name]!.machine.resultReceived(
                block, digest: Self.digest(sum))
            perform(actions, at: name)
        }
    }

    /// Some of what was under way from it is lost, too.
    mutating func kill(_ name: String, _ random: inout CounterRandom) {
        members[name] = nil
        order.removeAll { $0 == name }
        wire.removeAll { $0.to == name || $0.from == name && random.index(below: 2) == 0 }
        for other in order {
            let actions = members[other]!.machine.membersChanged(order)
            perform(actions, at: other)
        }
    }

    /// What is under way from one to the other is lost.
    mutating func reset(_ name: String, to peer: String) {
        wire.removeAll { $0.from == name && $0.to == peer }
        perform(members[name]!.machine.reconnected(peer), at: name)
    }
}

@Suite struct ExchangeTests {
    @Test(arguments: [1, 2, 3, 4, 5, 7, 8])
    func everyMemberEndsWithTheTreesSumInAnyOrder(memberCount: Int) {
        for seed in 0..<40 {
            for slotCount in [1, 3, 4, 6, 8] {
                var random = CounterRandom(
                    seed: UInt64(seed), step: UInt64(memberCount), slot: UInt64(slotCount),
                    purpose: .audit)
                let names = (0..<memberCount).map { "t\($0)" }
                let audited: Set<Int> = seed.isMultiple(of: 2) ? [] : [0, 2, 3]
                var rig = ExchangeRig(
                    members: names, slotCount: slotCount, blockCount: 5, audited: audited)
                var slots: [String: Set<Int>] = [:]
                for slot in 0..<slotCount {
                    slots[names[random.index(below: memberCount)], default: []].insert(slot)
                }
                var waiting = names.filter { slots[$0] != nil }
                random.shuffle(&waiting)
                while !waiting.isEmpty || !rig.wire.isEmpty {
                    if rig.wire.isEmpty || (!waiting.isEmpty && random.index(below: 4) == 0) {
                        let name = waiting.removeLast()
                        rig.computed(name, slots[name]!)
                    } else {
                        rig.deliver(random.index(below: rig.wire.count))
                    }
                    // Nobody but the two who are compared adds up what goes into an audited block.
                    for case (_, _, .partial(let run, let block, _)) in rig.wire {
                        #expect(run.count == 1 || !audited.contains(block))
                    }
                }
                let tree = ExchangeRig.expected(SlotRun(0, slotCount))
                for name in names {
                    #expect(rig.members[name]!.isComplete, "seed \(seed), slots \(slotCount)")
                    for block in 0..<5 { #expect(rig.members[name]!.results[block] == tree) }
                    for check in rig.members[name]!.machine.checks {
                        #expect(check.folded == check.audited && check.owner != name)
                        #expect(rig.members[name]!.audits[check.block] == tree)
                    }
                }
                let checks = names.flatMap { rig.members[$0]!.machine.checks.map(\.block) }
                #expect(checks.sorted() == (memberCount > 1 ? audited.sorted() : []))
            }
        }
    }

    @Test(arguments: 0..<300)
    func aMemberThatDiesCostsItsSlotsAndNothingElse(seed: Int) {
        var random = CounterRandom(seed: UInt64(seed), purpose: .audit)
        let memberCount = 2 + random.index(below: 4)
        let slotCount = 1 + random.index(below: 8)
        let names = (0..<memberCount).map { "t\($0)" }
        var rig = ExchangeRig(members: names, slotCount: slotCount, blockCount: 4)
        var slots: [String: Set<Int>] = [:]
        for slot in 0..<slotCount { slots[names[slot % memberCount], default: []].insert(slot) }
        var waiting = names.filter { slots[$0] != nil }
        random.shuffle(&waiting)
        let victim = names[random.index(below: memberCount)]
        let deathAt = random.index(below: 40)
        var events = 0
        while !waiting.isEmpty || !rig.wire.isEmpty || rig.order.contains(victim) {
            events += 1
            if events == deathAt || (waiting.isEmpty && rig.wire.isEmpty) {
                guard rig.order.contains(victim) else { break }
                waiting.removeAll { $0 == victim }
                rig.kill(victim, &random)
                // Its slots are leased again, each to somebody who may hold others already.
                for slot in slots[victim] ?? [] {
                    let heir = rig.order[random.index(below: rig.order.count)]
                    slots[heir, default: []].insert(slot)
                    if !waiting.contains(heir) { waiting.append(heir) }
                }
                continue
            }
            if rig.wire.isEmpty || (!waiting.isEmpty && random.index(below: 3) == 0) {
                let name = waiting.removeLast()
                rig.computed(name, slots[name]!)
            } else {
                rig.deliver(random.index(below: rig.wire.count))
            }
        }
        let tree = ExchangeRig.expected(SlotRun(0, slotCount))
        for name in rig.order {
            #expect(rig.members[name]!.isComplete, "\(name) of \(rig.order)")
            for block in 0..<4 { #expect(rig.members[name]!.results[block] == tree) }
        }
    }

    @Test(arguments: 0..<100)
    func whatABrokenConnectionLosesIsSentAgain(seed: Int) {
        var random = CounterRandom(seed: UInt64(seed), purpose: .audit)
        let names = (0..<2 + random.index(below: 4)).map { "t\($0)" }
        let slotCount = 1 + random.index(below: 8)
        var rig = ExchangeRig(members: names, slotCount: slotCount, blockCount: 4)
        var waiting = names.indices.filter { $0 < slotCount }
        var resets = 6
        while !waiting.isEmpty || !rig.wire.isEmpty {
            if resets > 0, !rig.wire.isEmpty, random.index(below: 5) == 0 {
                resets -= 1
                let packet = rig.wire[random.index(below: rig.wire.count)]
                rig.reset(packet.from, to: packet.to)
            } else if rig.wire.isEmpty || (!waiting.isEmpty && random.index(below: 4) == 0) {
                let place = waiting.removeLast()
                let slots = stride(from: place, to: slotCount, by: names.count)
                rig.computed(names[place], Set(slots))
            } else {
                rig.deliver(random.index(below: rig.wire.count))
            }
        }
        let tree = ExchangeRig.expected(SlotRun(0, slotCount))
        for name in names {
            #expect(rig.members[name]!.isComplete)
            for block in 0..<4 { #expect(rig.members[name]!.results[block] == tree) }
        }
    }

    @Test func aRunThatIsNoSubtreeIsRefused() {
        let machine = ExchangeStateMachine(
            me: "a", members: ["a", "b"], slotCount: 4, blockCount: 1)
        #expect(machine.wantsPartial(0, run: SlotRun(0, 2)))
        #expect(!machine.wantsPartial(0, run: SlotRun(1, 3)))
        #expect(!machine.wantsPartial(0, run: SlotRun(0, 5)))
        #expect(!machine.wantsPartial(7, run: SlotRun(0, 2)))
    }
}

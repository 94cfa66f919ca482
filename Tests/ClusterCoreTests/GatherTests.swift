import ClusterCore
import Protocol
import Testing

/// Embeddings of a step that mines over all of its slots: who sends them, who waits, who takes over.
@Suite struct GatherTests {
    @Test func everybodyGetsWhatWasComputedHere() {
        var gather = GatherStateMachine(me: "a", members: ["a", "b", "c"], slotCount: 3)
        #expect(gather.embedded(1) == [.send(slots: [1], to: ["b", "c"])])
        #expect(gather.embedded(1) == [])
        gather.received(0, from: "b")
        #expect(gather.lacking == [2])
        // What others have computed is theirs to send.
        #expect(gather.wanted([0, 1], by: "c") == [.send(slots: [1], to: ["c"])])
        #expect(gather.reconnected("b") == [.send(slots: [1], to: ["b"])])
        #expect(gather.membersChanged(["a", "c", "d"]) == [.send(slots: [1], to: ["d"])])
        #expect(
            gather.missing(holders: [0: ["b"], 1: ["a"], 2: ["c", "d"]])
                == [.want(slots: [2], from: "c"), .want(slots: [2], from: "d")])
        gather.received(2, from: "d")
        #expect(gather.isComplete)
    }

    @Test func whatComesFromWhoComputesWronglyIsForgotten() {
        var gather = GatherStateMachine(me: "a", members: ["a", "b", "c"], slotCount: 3)
        gather.received(0, from: "b")
        gather.received(1, from: "c")
        // Its own comes second: what was computed until then is computed from the other's.
        _ = gather.embedded(0)
        #expect(gather.distrust { $0 == "b" } == [0])
        #expect(gather.lacking == [2])
        #expect(gather.distrust { $0 == "b" } == [])
    }

    // MARK: A trainer

    /// A trainer that has begun step 1, of whose two slots it has the first.
    private static func trainer() -> (TrainerStateMachine, plan: WirePlan) {
        var machine = TrainerStateMachine(worker: "a")
        _ = machine.connectionOpened(now: .zero)
        var welcome = WireWelcome()
        welcome.term = 1
        _ = machine.received(.welcome(welcome), now: .zero)
        var prepared = WirePrepared()
        prepared.blockCount = 2
        _ = machine.prepared(prepared, slotCount: 2, minesStep: true, epoch: machine.epoch)
        var load = WireLoadState()
        load.source = .initial
        load.number = 1
        _ = machine.received(.loadState(load), now: .zero)
        _ = machine.stateLoaded(step: 0, digest: 1, epoch: machine.epoch)
        var plan = WirePlan()
        plan.term = 1
        plan.generation = 1
        plan.step = 1
        var samples = WireStepSamples()
        samples.step = 1
        for (slot, name) in ["a", "b"].enumerated() {
            var member = WireMember()
            member.worker = name
            plan.members.append(member)
            var lease = WireLease()
            lease.worker = name
            lease.slot = UInt32(slot)
            lease.attempt = 1
            plan.leases.append(lease)
            var images = WireSlotSamples()
            images.labels = [0, 1]
            samples.slots.append(images)
        }
        plan.samples = [samples]
        _ = machine.received(.plan(plan), now: .zero)
        return (machine, plan)
    }

    private static func done(_ slot: Int, embeddings: UInt64 = 9) -> WireSlotDone {
        var done = WireSlotDone()
        done.step = 1
        done.slot = UInt32(slot)
        done.embeddings = embeddings
        return done
    }

    private static func lacking(_ actions: [TrainerAction]) -> [UInt32]? {
        for case .send(.progress(let progress)) in actions { return progress.lacking }
        return nil
    }

    @Test func backwardBeginsWhenAllEmbeddingsAreThere() {
        var (machine, _) = Self.trainer()
        #expect(Self.lacking(machine.tick(now: .seconds(1))) == [])
        let actions = machine.slotEmbedded(Self.done(0), epoch: machine.epoch)
        #expect(actions.contains(.gather(.send(slots: [0], to: ["b"]))))
        #expect(Self.lacking(machine.tick(now: .seconds(2))) == [1])
        #expect(
            machine.tick(now: .seconds(4)).contains(.gather(.want(slots: [1], from: "b"))))
        #expect(machine.imageCount(ofSlot: 1) == 2)
        #expect(
            machine.embeddingsReceived(1, from: "b")
                == [.backward(step: 1, slots: [0], epoch: machine.epoch)])
        #expect(machine.embeddingsReceived(1, from: "b") == [])
        #expect(Self.lacking(machine.tick(now: .seconds(5))) == [])
    }

    @Test func whatWasComputedFromWrongEmbeddingsIsComputedAgain() {
        var (machine, plan) = Self.trainer()
        _ = machine.slotEmbedded(Self.done(0), epoch: machine.epoch)
        _ = machine.embeddingsReceived(1, from: "b")
        _ = machine.slotComputed(Self.done(0), epoch: machine.epoch)
        plan.generation = 2
        plan.fold = 1
        plan.members.removeLast()
        plan.quarantined = ["b"]
        plan.leases[1].worker = "a"
        plan.leases[1].attempt = 2
        let actions = machine.received(.plan(plan), now: .zero)
        #expect(actions.contains(.gather(.forget(slots: [1]))))
        #expect(
            actions.contains {
                if case .compute(1, [1], _, _) = $0 { true } else { false }
            })
        #expect(
            machine.slotEmbedded(Self.done(1), epoch: machine.epoch).contains(
                .backward(step: 1, slots: [0, 1], epoch: machine.epoch)))
        let said = machine.slotComputed(Self.done(0), epoch: machine.epoch)
        guard case .send(.slotDone(let done)) = said.first else {
            Issue.record("\(said)")
            return
        }
        #expect(done.fold == 1 && done.embeddings == 9 && !done.forward)
    }

    @Test func aStepThatBeginsAnewDropsAllThatItHasComeTo() {
        var (machine, plan) = Self.trainer()
        func place(fold: Int) -> TrainerStateMachine.DataPlace {
            machine.place(step: 1, history: 0, fold: fold, from: "b", isEmbeddings: true)
        }
        func done(_ slot: Int, _ attempt: UInt32) -> WireSlotDone {
            var done = Self.done(slot)
            done.attempt = attempt
            return done
        }
        #expect(place(fold: 0) == .here && place(fold: 1) == .later)
        _ = machine.slotEmbedded(done(0, 1), epoch: machine.epoch)
        _ = machine.embeddingsReceived(1, from: "b")
        _ = machine.slotComputed(done(0, 1), epoch: machine.epoch)
        plan.generation = 2
        plan.fold = 1
        for slot in 0..<2 {
            plan.leases[slot].attempt = 2
            var outdated = WireSlotAttempt()
            outdated.slot = UInt32(slot)
            outdated.attempt = 1
            plan.outdated.append(outdated)
        }
        let actions = machine.received(.plan(plan), now: .zero)
        #expect(actions.contains(.gather(.startOver)))
        #expect(
            actions.contains {
                if case .compute(1, [0], _, _) = $0 { true } else { false }
            })
        // What was sent or computed before counts for nothing.
        #expect(place(fold: 0) == .nowhere && place(fold: 1) == .here)
        #expect(machine.slotEmbedded(done(0, 1), epoch: machine.epoch).isEmpty)
        #expect(machine.wantsEmbeddings(ofSlot: 1))
        // Said twice it is the same.
        let again = machine.received(.plan(plan), now: .zero)
        #expect(!again.contains(.gather(.startOver)))
        #expect(!again.contains { if case .compute = $0 { true } else { false } })
        _ = machine.slotEmbedded(done(0, 2), epoch: machine.epoch)
        #expect(
            machine.embeddingsReceived(1, from: "b")
                == [.backward(step: 1, slots: [0], epoch: machine.epoch)])
        #expect(machine.slotComputed(done(0, 1), epoch: machine.epoch).isEmpty)
        #expect(!machine.slotComputed(done(0, 2), epoch: machine.epoch).isEmpty)
    }

    // MARK: The coordinator

    /// Three members with a slot each; nobody has computed anything.
    private static func cluster() -> SmallCluster {
        SmallCluster(["a", "b", "c"], minesStep: true)
    }

    @Test func theStepHasTheLossOfItsSlots() {
        var cluster = Self.cluster()
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.embedded(slot, by: worker, at: .milliseconds(100))
        }
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.done(slot, by: worker, loss: 0.7, at: .milliseconds(300)) { done in
                done.activeCount = 5
                done.spread = 2
                done.lossParts = [Float(3).bitPattern]
            }
        }
        cluster.commit(at: .milliseconds(400))
        #expect(cluster.commits.map(\.loss) == [0.7])
        #expect(cluster.commits.map(\.activeCount) == [5])
        #expect(cluster.commits.map(\.spread) == [2])
        #expect(cluster.commits.map(\.lossParts) == [[3]])
    }

    /// Of which images it is not finite: a slot's, before the loss is; those of all slots after.
    @Test(arguments: [false, true])
    func whatIsNotFiniteEndsTheRunAndItsImagesAreNamed(ofLoss: Bool) throws {
        var cluster = Self.cluster()
        for (slot, worker) in ["a", "b", "c"].enumerated() where ofLoss || slot != 1 {
            cluster.embedded(slot, by: worker, at: .milliseconds(100))
        }
        var returned = WireSlotReturned()
        returned.step = 1
        returned.slot = 1
        returned.diverged = true
        for _ in 0..<2 {
            cluster.hear(.slotReturned(returned), from: cluster.holders(of: 1)[0])
        }
        let event = try #require(cluster.events["diverged"]?.first)
        #expect(event.ranges(of: "left.jpg").count == (ofLoss ? 3 : 1))
    }

    @Test func aMemberThatWaitsIsNotSlow() {
        var cluster = Self.cluster()
        // Three steps in which everybody takes 0.1 s for either phase.
        for turn in 0..<3 {
            let start = Duration.milliseconds(400 * turn)
            for (slot, worker) in ["a", "b", "c"].enumerated() {
                cluster.embedded(slot, by: worker, at: start + .milliseconds(100))
            }
            for (slot, worker) in ["a", "b", "c"].enumerated() {
                cluster.done(slot, by: worker, at: start + .milliseconds(200))
            }
            cluster.commit(at: start + .milliseconds(400))
        }
        // Now c takes long; the others have nothing to compute, and one of them takes its slot over.
        let start = Duration.milliseconds(1200)
        cluster.embedded(0, by: "a", at: start + .milliseconds(100))
        cluster.embedded(1, by: "b", at: start + .milliseconds(100))
        for tenth in 2...9 {
            for worker in ["a", "b"] {
                cluster.progress(
                    worker, lacking: [2], at: start + .milliseconds(100 * tenth))
            }
            cluster.progress("c", at: start + .milliseconds(100 * tenth))
            cluster.tick(at: start + .milliseconds(100 * tenth))
        }
        #expect(cluster.holders(of: 0) == ["a"])
        #expect(cluster.holders(of: 1) == ["b"])
        #expect(cluster.holders(of: 2) == ["c", "a"])
        #expect(cluster.events["leased_again"]?.count == 1)
        // Whoever is first goes on with it.
        cluster.embedded(2, by: "a", at: start + .milliseconds(1000))
        #expect(cluster.holders(of: 2) == ["a"])
    }

    /// Its embeddings are computed and said to be, and it has sent them to nobody.
    @Test func embeddingsThatAMemberHasTakenAwayAreComputedByOneWhoWaits() {
        var cluster = Self.cluster()
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.embedded(slot, by: worker, at: .milliseconds(100))
        }
        for tenth in 2...14 {
            for worker in ["a", "b"] {
                cluster.progress(worker, lacking: [2], at: .milliseconds(100 * tenth))
            }
            cluster.tick(at: .milliseconds(100 * tenth))
        }
        #expect(cluster.holders(of: 2) == ["c", "a"])
        #expect(cluster.holders(of: 0) == ["a"])
        #expect(cluster.events["leased_again"]?.count == 1)
    }

    /// It speaks, and nothing that it sends arrives.
    @Test func embeddingsThatDoNotArriveAreComputedByOneWhoWaits() {
        var cluster = Self.cluster()
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.embedded(slot, by: worker, at: .milliseconds(100))
        }
        for tenth in 2...19 {
            cluster.progress("a", lacking: [1, 2], at: .milliseconds(100 * tenth))
            cluster.progress("b", lacking: [0, 2], at: .milliseconds(100 * tenth))
            cluster.progress("c", lacking: [0, 1], at: .milliseconds(100 * tenth))
            cluster.tick(at: .milliseconds(100 * tenth))
        }
        #expect(cluster.events["leased_again"] == nil)
        for tenth in 20...24 {
            cluster.progress("a", lacking: [1, 2], at: .milliseconds(100 * tenth))
            cluster.progress("b", lacking: [0, 2], at: .milliseconds(100 * tenth))
            cluster.progress("c", lacking: [0, 1], at: .milliseconds(100 * tenth))
            cluster.tick(at: .milliseconds(100 * tenth))
        }
        #expect(cluster.holders(of: 1) == ["b", "a"])
        #expect(cluster.holders(of: 2) == ["c", "a"])
        #expect(cluster.holders(of: 0) == ["a"])
    }

    /// What two members say of slot 0, of which a has something wrong.
    enum Wrong: CaseIterable { case embeddings, gradient }

    /// Both phases of all slots, as two members compute them by the last plan; slot 0 comes last.
    private static func compute(_ cluster: inout SmallCluster, wrong: Wrong? = nil) {
        for slot in [1, 2, 0] {
            for worker in ["a", "b"] {
                let isWrong = wrong == .embeddings && slot == 0 && worker == "a"
                cluster.embedded(slot, by: worker, digest: isWrong ? 2 : 1)
            }
        }
        guard wrong != .embeddings else { return }
        let fold = cluster.plans["a"]!.fold
        for slot in [1, 2, 0] {
            for worker in ["a", "b"] {
                let isWrong = wrong == .gradient && slot == 0 && worker == "a"
                cluster.done(slot, by: worker, loss: 3, digest: isWrong ? 8 : 7) {
                    $0.fold = fold
                }
            }
        }
    }

    private static func two() -> SmallCluster {
        SmallCluster(["a", "b"], audit: Audit(seed: 1, fraction: 1), minesStep: true)
    }

    @Test(arguments: Wrong.allCases)
    func ofTwoTheOneThatChangesItsWordWasWrong(wrong: Wrong) throws {
        var cluster = Self.two()
        let before = try #require(cluster.plans["a"])
        Self.compute(&cluster, wrong: wrong)
        let plan = try #require(cluster.plans["a"])
        #expect(plan.fold == before.fold + 1 && plan.outdated.map(\.slot) == [0, 1, 2])
        #expect(cluster.events["disagreement"]?.count == 1 && cluster.outcome == nil)
        // What comes late of the first time counts for nothing.
        for lease in before.leases {
            var late = WireSlotDone()
            (late.step, late.slot, late.attempt) = (1, lease.slot, lease.attempt)
            (late.forward, late.embeddings) = (true, 2)
            cluster.hear(.slotDone(late), from: lease.worker)
        }
        Self.compute(&cluster)
        #expect(cluster.events["suspected"]?.map { String($0.prefix(2)) } == ["a "])
        #expect(cluster.events["disagreement"]?.count == 1)
        cluster.commit(at: .milliseconds(100))
        #expect(cluster.commits.map(\.loss) == [3] && cluster.machine.members == ["a", "b"])
    }

    @Test(arguments: Wrong.allCases)
    func twoThatRepeatThemselvesEndTheRun(wrong: Wrong) throws {
        var cluster = Self.two()
        Self.compute(&cluster, wrong: wrong)
        #expect(cluster.outcome == nil)
        Self.compute(&cluster, wrong: wrong)
        guard case .disagreed(let text) = try #require(cluster.outcome) else {
            Issue.record("\(String(describing: cluster.outcome))")
            return
        }
        #expect(text.contains("slot 0 of step 1") && cluster.commits.isEmpty)
        #expect(cluster.events["suspected"] == nil && cluster.events["quarantined"] == nil)
    }

    /// Nobody says once more what was wrong: the one who is left goes on with what it computes itself.
    @Test func ofTwoWhoDifferOneLeaves() {
        var cluster = Self.two()
        Self.compute(&cluster, wrong: .embeddings)
        cluster.hear(.goodbye(WireGoodbye()), from: "a")
        let fold = cluster.plans["b"]!.fold
        for slot in 0..<3 { cluster.embedded(slot, by: "b") }
        for slot in 0..<3 { cluster.done(slot, by: "b", digest: 7) { $0.fold = fold } }
        cluster.commit(at: .milliseconds(100))
        #expect(cluster.commits.count == 1 && cluster.events["suspected"] == nil)
    }

    @Test func embeddingsThatDifferAreJudgedBeforeWhatWasComputedFromThem() {
        var cluster = Self.cluster()
        for (slot, worker) in ["a", "b", "c"].enumerated() {
            cluster.embedded(slot, by: worker, digest: 1, at: .milliseconds(100))
        }
        // b has taken a's slot too, and finds something else; c is the judge.
        cluster.take(cluster.machine.disconnected("a", now: .milliseconds(110)))
        cluster.done(1, by: "b", loss: 1, at: .milliseconds(120))
        cluster.done(2, by: "c", loss: 2, at: .milliseconds(120))
        cluster.tick(at: .milliseconds(180))
        #expect(cluster.holders(of: 0).count == 2)
        let second = cluster.holders(of: 0)[1]
        let third = second == "b" ? "c" : "b"
        cluster.embedded(0, by: second, digest: 2, at: .milliseconds(190))
        #expect(cluster.events["disagreement"]?.count == 1)
        cluster.embedded(0, by: third, digest: 2, at: .milliseconds(195))
        #expect(cluster.events["quarantined"]?.first?.hasPrefix("a computes wrongly") == true)
        // What was computed from a's is not counted, and neither is what still comes of it.
        cluster.done(1, by: "b", loss: 1, at: .milliseconds(196))
        cluster.done(2, by: "c", loss: 1, at: .milliseconds(196))
        #expect(cluster.plans["b"]?.fold == 1)
        for (slot, worker) in [(0, second), (1, "b"), (2, "c")] {
            cluster.done(slot, by: worker, loss: 3, at: .milliseconds(200)) { $0.fold = 1 }
        }
        cluster.commit(at: .milliseconds(300))
        #expect(cluster.commits.map(\.loss) == [3])
    }
}

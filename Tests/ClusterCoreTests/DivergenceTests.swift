import ClusterCore
import Protocol
import Testing

/// A loss or gradient that is not finite ends the run, with the images named and the state before kept.
@Suite struct DivergenceTests {
    private static func returned(slot: Int, step: UInt64 = 1) -> WireBody {
        var returned = WireSlotReturned()
        returned.step = step
        returned.slot = UInt32(slot)
        returned.reason = "the loss is nan"
        returned.diverged = true
        return .slotReturned(returned)
    }

    /// Why the run has failed.
    private static func reason(_ cluster: SmallCluster) throws -> String {
        guard case .failed(let why) = try #require(cluster.outcome) else {
            Issue.record("the run ended as \(String(describing: cluster.outcome))")
            return ""
        }
        return why
    }

    /// Step 0 is durable, as in any run whose first step is under way.
    private static func storeStart(_ cluster: inout SmallCluster) {
        cluster.take(
            cluster.machine.checkpointStored(
                DurableCheckpoint(
                    step: 0, history: 0, file: "start", byteCount: 1, digest: 1,
                    isRecovery: false), now: .zero))
    }

    @Test func oneAloneMayHaveAFaultOfItsOwn() {
        var cluster = SmallCluster(["a", "b", "c"])
        let holder = cluster.holders(of: 1)[0]
        cluster.hear(Self.returned(slot: 1), from: holder)
        #expect(cluster.events["diverged"] == nil)
        let heir = cluster.holders(of: 1)
        #expect(heir.count == 1 && heir != [holder])
        for slot in 0..<3 { cluster.done(slot, by: cluster.holders(of: slot)[0]) }
        cluster.commit(at: .seconds(1))
        #expect(cluster.commits.map(\.step) == [1])
    }

    @Test func theSecondEndsTheRunAndTheImagesAreNamed() throws {
        var cluster = SmallCluster(["a", "b", "c"])
        Self.storeStart(&cluster)
        for _ in 0..<2 {
            cluster.hear(Self.returned(slot: 1), from: cluster.holders(of: 1)[0])
        }
        let event = try #require(cluster.events["diverged"]?.first)
        #expect(event.contains("step 1, slot 1: the loss is nan"))
        #expect(event.hasSuffix("its images: left.jpg, right.jpg"))
        #expect(try Self.reason(cluster).contains("step 0 is the last good one"))
        #expect(cluster.commits.isEmpty)
    }

    @Test func oneTrainerAloneIsEnough() throws {
        var cluster = SmallCluster(["a"], slots: 1)
        Self.storeStart(&cluster)
        cluster.hear(Self.returned(slot: 0), from: "a")
        _ = try Self.reason(cluster)
    }

    @Test func theLastGoodStateIsStoredFirst() throws {
        var cluster = SmallCluster(["a"], slots: 1)
        Self.storeStart(&cluster)
        cluster.done(0, by: "a")
        cluster.commit(at: .seconds(1))
        let asked = cluster.hear(Self.returned(slot: 0, step: 2), from: "a", at: .seconds(2))
        let duties = asked.compactMap { action -> WireSendCheckpoint? in
            if case .send(.sendCheckpoint(let duty), _) = action, !duty.digestOnly {
                duty
            } else {
                nil
            }
        }
        #expect(duties.map(\.step) == [1] && duties.map(\.recovery) == [true])
        #expect(cluster.outcome == nil)
        cluster.take(
            cluster.machine.checkpointStored(
                DurableCheckpoint(
                    step: 1, history: 1, file: "last", byteCount: 1,
                    digest: 2, isRecovery: true), now: .seconds(3)))
        #expect(try Self.reason(cluster).contains("step 1 is the last good one"))
    }

    @Test func whereNobodyHoldsTheStateAnyMoreTheRunEnds() throws {
        var cluster = SmallCluster(["a"], slots: 1)
        Self.storeStart(&cluster)
        cluster.done(0, by: "a")
        cluster.commit(at: .seconds(1))
        cluster.hear(Self.returned(slot: 0, step: 2), from: "a", at: .seconds(2))
        var goodbye = WireGoodbye()
        goodbye.failed = true
        cluster.hear(.goodbye(goodbye), from: "a", at: .seconds(3))
        _ = try Self.reason(cluster)
    }
}

import FaultRig
import Foundation
import Storage
import Testing

/// Slots and folds that two real trainers compute, and a bit that flips in one.
@Suite(.serialized) struct AuditedRunTests {
    @Test(.timeLimit(.minutes(4)))
    func auditsChangeNoBitAndBlameNobody() throws {
        let run = LocalRun.folder("audited")
        let process = try LineupProcess(
            ["train", run, "--trainers", "3", "--evaluators", "1"]
                + LocalRun.settings(steps: 24) + LocalRun.options(["audit_fraction=0.3"]))
        #expect(try process.wait() == 0, "\(process.errors)")
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        let events = try LedgerReader(run: run).events()
        let blame = ["audit", "disagreement", "suspected", "quarantined"]
        #expect(!events.contains { blame.contains($0.kind) }, "\(events.map(\.text))")
    }

    /// A slot is computed by a third, a fold by others: both times the trainer is named.
    ///
    /// A trainer that is silent for a moment, on a busy machine, has its blocks folded by others, and
    /// a sum that flipped is gone with that fold; such a run says nothing and is repeated.
    @Test(.timeLimit(.minutes(6)), arguments: [("slot", 3), ("fold", 3), ("slot", 2), ("fold", 2)])
    func aFlippedBitIsFoundAndLaidToItsTrainer(kind: String, trainers: Int) throws {
        for attempt in 1...3 {
            let run = LocalRun.folder("flipped-\(kind)-\(trainers)-\(attempt)")
            let flipped = try flip(kind, trainers: trainers, in: run)
            let events = try LedgerReader(run: run).events()
            let blamed = events.filter { ["suspected", "quarantined"].contains($0.kind) }
            let isUndecided = blamed.isEmpty && events.contains { $0.kind == "sidelined" }
            if attempt < 3, isUndecided { continue }
            #expect(blamed.count == 1, "\(events.map { "\($0.kind): \($0.text)" })")
            // Two of three agree on a slot, and the third is not used any more.
            let isQuarantined = kind == "slot" && trainers == 3
            #expect(blamed.first?.kind == (isQuarantined ? "quarantined" : "suspected"))
            #expect(
                blamed.first?.text.hasPrefix("\(flipped.name) ") == true, "\(blamed.map(\.text))")
            #expect(flipped.code == (isQuarantined ? 2 : 0), "\(flipped.errors)")
            return
        }
    }

    /// A slot whose bits are not those that its digest is of is not used: its trainer says so and leaves,
    /// and nobody is blamed for anything else.
    ///
    /// Two trainers both use what they have computed, unless one was silent for a moment. Of three
    /// the other holder's copy may be the one that is used, and then the flip is nobody's concern.
    @Test(.timeLimit(.minutes(6)), arguments: [2, 3])
    func aBitThatFlipsAfterTheDigestIsFoundByItsTrainer(trainers: Int) throws {
        for attempt in 1...3 {
            let run = LocalRun.folder("flipped-sealed-\(trainers)-\(attempt)")
            let flipped = try flip("sealed", trainers: trainers, in: run)
            let events = try LedgerReader(run: run).events()
            let blame = ["disagreement", "suspected", "quarantined"]
            #expect(!events.contains { blame.contains($0.kind) }, "\(events.map(\.text))")
            let mayBeUnused = trainers > 2 || events.contains { $0.kind == "sidelined" }
            if flipped.code == 0, mayBeUnused {
                if attempt < 3 { continue }
                return
            }
            #expect(flipped.code == 1, "\(flipped.errors)")
            let words = try #require(flipped.why.wholeMatch(of: Self.damage), "\(flipped.why)")
            #expect(Int(words.step).map { $0 >= 5 } == true, "\(flipped.why)")
            #expect(flipped.errors.contains(flipped.why))
            let left = events.filter { $0.kind == "worker_left" && $0.text.contains("changed in") }
            #expect(left.count == 1)
            #expect(left.first?.text.hasPrefix("trainer \(flipped.name) left: ") == true)
            return
        }
    }

    private static var damage: Regex<(Substring, step: Substring)> {
        /block 0 of slot \d+ of step (?<step>\d+) changed in memory after being computed; run 'lineup doctor' .+/
    }

    /// The trainer in which a bit flipped.
    private struct Flipped {
        let name: String
        let code: Int32
        /// Why it left, as the ledger says.
        let why: String
        let errors: String
    }

    /// Runs trainers in the first of which a bit flips; the run is the undisturbed one.
    private func flip(_ kind: String, trainers: Int, in run: String) throws -> Flipped {
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--expect-trainers",
                "\(trainers)",
            ] + LocalRun.settings(steps: 24) + LocalRun.options(["audit_fraction=1"]))
        let address = try LocalRun.address(of: coordinator)
        func trainer(_ options: [String] = []) throws -> LineupProcess {
            try LineupProcess(
                ["trainer", "--coordinator", address, "--slots-at-once", "1"] + options)
        }
        // The first member folds or audits the first block; the network has two.
        var workers = [try trainer(["--flip", "\(kind):5"])]
        let deadline = Date().addingTimeInterval(60)
        while try LedgerReader(run: run).workers().first?.numericsClass == nil, Date() < deadline {
            usleep(5_000)
        }
        for _ in 1..<trainers { workers.append(try trainer()) }
        #expect(try coordinator.wait() == 0, "\(coordinator.errors)")
        let codes = try workers.map { try $0.wait(seconds: 30) }
        for (worker, code) in zip(workers, codes).dropFirst() {
            #expect(code == 0, "\(worker.errors)")
        }
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        try LocalRun.checkLedger(run, steps: 24)
        let entry = try #require(
            try LedgerReader(run: run).workers()
                .first { Int32($0.process) == workers[0].identifier })
        return Flipped(
            name: entry.worker, code: codes[0], why: entry.why ?? "", errors: workers[0].errors)
    }
}

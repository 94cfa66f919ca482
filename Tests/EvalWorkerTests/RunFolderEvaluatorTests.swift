import Basics
import EvalWorker
import Foundation
import Storage
import Synchronization
import Testing

struct RunFolderEvaluatorTests {
    @Test func onceScoresWhatIsThereAndEnds() throws {
        let run = try TestRun()
        for step in [0, 20, 40] { try run.writeCheckpoint(step) }
        let log = TestLog()
        let outcome = try run.evaluator(run.options(once: true), log: log).run()
        #expect(outcome.reason == .once)
        #expect(outcome.exitCode == 0)
        #expect(
            outcome.written.map(\.description).sorted()
                == run.results.map { String($0.dropLast(5)) })
        #expect(run.results.count == 9)
        #expect(run.leftovers == [])
        let file = try EvaluationFile.read(run: run.path, EvaluationTask(step: 40, set: "val_eval"))
        #expect(file.metrics["general_accuracy"] == 40.0 / 3)
        #expect(file.weightsDigest == (try run.store.open(step: 40).digests.weights.hex))
        #expect(file.numericsClass == "test")
        let first = RunFolderEvaluator.Report.scoring(step: 0, sets: TestRun.sets)
        #expect(log.all.first == first)
    }

    @Test func resultsAreNotDoneAgain() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        _ = try run.evaluator(run.options(once: true)).run()
        try run.writeCheckpoint(20)
        try FileManager.default.removeItem(atPath: run.path + "/evaluations/0-val_eval.json")
        let outcome = try run.evaluator(run.options(once: true)).run()
        let names = outcome.written.map(\.description)
        #expect(names == ["0-val_eval", "20-train_eval", "20-val_eval", "20-easy_val_eval"])
    }

    @Test func endsAfterTheTimeoutWithoutACheckpoint() throws {
        let run = try TestRun()
        let clock = TestClock()
        let outcome = try run.evaluator(run.options(timeout: 100), clock: clock).run()
        #expect(outcome.reason == .timedOut)
        #expect(outcome.exitCode == 0)
        #expect(abs(clock.seconds - 100) < 0.01)
    }

    @Test func newCheckpointsStartTheIdleClockAgain() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        let written = Mutex<Set<Int>>([])
        let clock = TestClock { now in
            for (step, time) in [(20, 90.0), (40, 185.0)] where now >= time {
                if written.withLock({ $0.insert(step).inserted }) {
                    _ = try? run.writeCheckpoint(step)
                }
            }
        }
        let outcome = try run.evaluator(run.options(timeout: 100), clock: clock).run()
        #expect(outcome.reason == .timedOut)
        #expect(run.results.count == 9)
        // Found at the first poll, every 2 s, after 185.
        #expect(clock.seconds >= 285 && clock.seconds <= 287.5)
    }

    @Test func idleClockStandsStillWhileThereIsWork() throws {
        let run = try TestRun()
        for step in [0, 20] { try run.writeCheckpoint(step) }
        let clock = TestClock()
        let outcome = try run.evaluator(run.options(timeout: 100), clock: clock) {
            checkpoint, sets, stop, completed in
            clock.advance(1000)
            TestRun.score(checkpoint, sets, stop, completed)
        }.run()
        #expect(outcome.reason == .timedOut)
        #expect(run.results.count == 6)
        #expect(abs(clock.seconds - 2100) < 0.01)
    }

    @Test func endsWithTheRunOnceItsLastCheckpointIsScored() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        let clock = TestClock { now in
            if now >= 10, !FileManager.default.fileExists(atPath: run.path + "/finished") {
                _ = try? run.writeCheckpoint(60)
                run.finish()
            }
        }
        let outcome = try run.evaluator(run.options(), clock: clock).run()
        #expect(outcome.reason == .runFinished)
        #expect(outcome.exitCode == 0)
        #expect(run.results.count == 6)
        #expect(clock.seconds < 13)
    }

    @Test func endedRunWaitsForWhatAnotherScores() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        run.finish()
        let other = ClaimFolder(
            folder: run.path + "/evaluations/claims", identity: .current, leaseSeconds: 60)
        let task = EvaluationTask(step: 0, set: "val_eval")
        #expect(try other.take(task))
        let clock = TestClock { now in if now >= 30 { other.release(task) } }
        let outcome = try run.evaluator(run.options(), clock: clock).run()
        #expect(outcome.reason == .runFinished)
        #expect(clock.seconds >= 30 && clock.seconds < 33)
        #expect(run.results.count == 3)
    }

    @Test func onceLeavesWhatAnotherScoresAndSaysSo() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        let other = ClaimFolder(
            folder: run.path + "/evaluations/claims", identity: .current, leaseSeconds: 60)
        let task = EvaluationTask(step: 0, set: "val_eval")
        #expect(try other.take(task))
        let outcome = try run.evaluator(run.options(once: true)).run()
        #expect(outcome.leftToOthers == [task])
        #expect(outcome.exitCode == 0)
        #expect(run.results == ["0-easy_val_eval.json", "0-train_eval.json"])
        other.release(task)
    }

    @Test func twoSideBySideGiveOneRowEach() throws {
        let run = try TestRun()
        for step in 0..<12 { try run.writeCheckpoint(step) }
        run.finish()
        let count = Mutex<[String: Int]>([:])
        let outcomes = Mutex<[RunFolderEvaluator.Outcome]>([])
        DispatchQueue.concurrentPerform(iterations: 4) { number in
            var identity = ProcessIdentity.current
            identity.host = "host\(number)"
            let clock = TestClock()
            let evaluator = run.evaluator(run.options(), clock: clock, identity: identity) {
                checkpoint, sets, stop, completed in
                for set in sets {
                    Thread.sleep(forTimeInterval: 0.002)
                    count.withLock { $0["\(checkpoint.metadata.step)-\(set)", default: 0] += 1 }
                    completed(set, .success(TestRun.result(set, checkpoint.metadata.step)))
                }
            }
            if let outcome = try? evaluator.run() { outcomes.withLock { $0.append(outcome) } }
        }
        #expect(run.results.count == 36)
        #expect(run.leftovers == [])
        let all = outcomes.withLock { $0 }
        #expect(all.count == 4)
        #expect(all.allSatisfy { $0.failures.isEmpty })
        let written = all.flatMap(\.written).sorted()
        #expect(written == Set(written).sorted())
        #expect(written.count == 36)
        // A claim is released after its result is there, so nothing is computed twice.
        #expect(count.withLock { $0.values.allSatisfy { $0 == 1 } })
    }

    @Test func corruptCheckpointIsSkippedAndReported() throws {
        let run = try TestRun()
        for step in [0, 20, 40] { try run.writeCheckpoint(step) }
        let path = run.store.path(step: 20)
        var bytes = try Data(contentsOf: URL(filePath: path))
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(filePath: path))
        let log = TestLog()
        let outcome = try run.evaluator(run.options(timeout: 10), log: log).run()
        #expect(outcome.reason == .timedOut)
        #expect(outcome.exitCode == 1)
        #expect(outcome.failures.count == 1)
        #expect(outcome.failures.first?.contains(path) == true)
        #expect(run.results.count == 6)
        #expect(run.leftovers == [])
        // Restored, it is scored.
        bytes[bytes.count - 1] ^= 1
        try bytes.write(to: URL(filePath: path))
        #expect(try run.evaluator(run.options(once: true)).run().written.count == 3)
    }

    @Test func corruptCheckpointThatIsReplacedIsTriedAgain() throws {
        let run = try TestRun()
        try FileManager.default.createDirectory(
            atPath: run.path + "/checkpoints", withIntermediateDirectories: true)
        let path = run.store.path(step: 0)
        try Data("no checkpoint".utf8).write(to: URL(filePath: path))
        let clock = TestClock { now in
            guard now >= 10, now < 12 else { return }
            try? FileManager.default.removeItem(atPath: path)
            _ = try? run.writeCheckpoint(0)
        }
        let outcome = try run.evaluator(run.options(timeout: 50), clock: clock).run()
        #expect(outcome.failures.count == 1)
        #expect(run.results.count == 3)
    }

    @Test func failingSetLeavesTheOthers() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        let outcome = try run.evaluator(run.options(once: true)) {
            checkpoint, sets, stop, completed in
            for set in sets where set != "val_eval" {
                completed(set, .success(TestRun.result(set, 0)))
            }
            completed("val_eval", .failure(EvalWorkerError(.dataset, "image a.jpg is missing")))
        }.run()
        #expect(outcome.exitCode == 1)
        #expect(outcome.failures == ["step 0, set 'val_eval' not scored: image a.jpg is missing"])
        #expect(run.results.count == 2)
        #expect(run.leftovers == [])
    }

    @Test func stopGivesClaimsBack() throws {
        let run = try TestRun()
        for step in [0, 20] { try run.writeCheckpoint(step) }
        let stop = StopRequest()
        let outcome = try run.evaluator(run.options(), stop: stop) {
            checkpoint, sets, stop, completed in
            completed(sets[0], .success(TestRun.result(sets[0], 0)))
            stop.stop()
            for set in sets.dropFirst() {
                completed(set, .failure(EvalWorkerError(.stopped, "stopped")))
            }
        }.run()
        #expect(outcome.reason == .stopped)
        #expect(outcome.exitCode == 75)
        #expect(outcome.failures == [])
        #expect(run.results == ["0-train_eval.json"])
        #expect(run.leftovers == [])
    }

    @Test func anotherNumericsClassIsRefused() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        _ = try run.evaluator(run.options(once: true), numericsClass: "cpu").run()
        let error = #expect(throws: EvalWorkerError.self) {
            try run.evaluator(run.options(once: true), numericsClass: "cuda").run()
        }
        #expect(error?.message.contains("'cpu'") == true)
        #expect(error?.message.contains("'cuda'") == true)
        var statistical = run.options(once: true)
        statistical.refusesOtherClass = false
        _ = try run.evaluator(statistical, numericsClass: "cuda").run()
    }

    @Test func missingRunIsBadInput() throws {
        let options = RunFolderEvaluator.Options(
            run: "/no/such/run", sets: ["a"], pollSeconds: 1, timeoutSeconds: 1)
        let evaluator = RunFolderEvaluator(
            options, numericsClass: "", datasetDigest: 0, score: TestRun.score)
        let error = #expect(throws: EvalWorkerError.self) { try evaluator.run() }
        #expect(error?.isBadInput == true)
        #expect(error?.message.contains("/no/such/run") == true)
        #expect(throws: EvalWorkerError.self) {
            try RunFolderEvaluator.settings(run: "/no/such/run")
        }
        let run = try TestRun()
        var slash = run.options()
        slash.sets = ["../x"]
        #expect(throws: EvalWorkerError.self) { try run.evaluator(slash).run() }
    }

    @Test func nothingElseIsTouched() throws {
        let run = try TestRun()
        try run.writeCheckpoint(0)
        let ledger = run.path + "/ledger.sqlite"
        try Data("not opened".utf8).write(to: URL(filePath: ledger))
        _ = try run.evaluator(run.options(once: true)).run()
        #expect(try Data(contentsOf: URL(filePath: ledger)) == Data("not opened".utf8))
        let names = try FileManager.default.contentsOfDirectory(atPath: run.path).sorted()
        #expect(names == ["checkpoints", "evaluations", "ledger.sqlite"])
    }
}

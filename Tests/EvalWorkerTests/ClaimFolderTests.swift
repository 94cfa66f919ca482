import EvalWorker
import Foundation
import Glibc
import Synchronization
import Testing

struct ClaimFolderTests {
    private let task = EvaluationTask(step: 7, set: "val_eval")

    private func folder(_ run: TestRun, identity: ProcessIdentity = .current, lease: Double = 60)
        -> ClaimFolder
    { ClaimFolder(folder: run.path + "/claims", identity: identity, leaseSeconds: lease) }

    private func age(_ run: TestRun, by seconds: Int) {
        var times = [timespec(), timespec()]
        let then = Int(Date().timeIntervalSince1970) - seconds
        times[0].tv_sec = then
        times[1].tv_sec = then
        utimensat(AT_FDCWD, run.path + "/claims/7-val_eval.claim", times, 0)
    }

    @Test func onlyOneHoldsAClaim() throws {
        let run = try TestRun()
        let (first, second) = (folder(run), folder(run))
        #expect(try first.take(task))
        #expect(try !second.take(task))
        #expect(second.isHeldElsewhere(task))
        #expect(!first.isHeldElsewhere(task))
        first.release(task)
        #expect(!second.isHeldElsewhere(task))
        #expect(try second.take(task))
    }

    @Test func raceHasOneWinner() throws {
        let run = try TestRun()
        for round in 0..<20 {
            let task = EvaluationTask(step: round, set: "val_eval")
            let winners = Mutex(0)
            DispatchQueue.concurrentPerform(iterations: 8) { _ in
                if (try? folder(run).take(task)) == true { winners.withLock { $0 += 1 } }
            }
            #expect(winners.withLock { $0 } == 1)
        }
    }

    @Test func claimOfADeadProcessIsTakenOver() throws {
        let run = try TestRun()
        let process = Process()
        process.executableURL = URL(filePath: "/bin/sleep")
        process.arguments = ["60"]
        try process.run()
        var identity = ProcessIdentity.current
        identity.pid = process.processIdentifier
        identity.startTicks = try #require(ProcessIdentity.startTicks(of: "\(identity.pid)"))
        let (other, mine) = (folder(run, identity: identity), folder(run))
        #expect(try other.take(task))
        #expect(try !mine.take(task))
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        #expect(try mine.take(task))
        // The old holder's release must not remove the new claim.
        other.release(task)
        #expect(try !folder(run).take(task))
    }

    @Test func laterProcessOfTheSameNumberIsNotTheHolder() throws {
        let run = try TestRun()
        var earlier = ProcessIdentity.current
        earlier.startTicks -= 1
        #expect(try folder(run, identity: earlier).take(task))
        #expect(try folder(run).take(task))
    }

    @Test func processesOfOtherHostsAndContainersAreNotJudged() throws {
        for change in [\ProcessIdentity.boot, \ProcessIdentity.pidNamespace] {
            let run = try TestRun()
            var elsewhere = ProcessIdentity.current
            elsewhere.pid = 999_999_999
            elsewhere[keyPath: change] = "elsewhere"
            #expect(try folder(run, identity: elsewhere).take(task))
            #expect(try !folder(run).take(task))
        }
    }

    @Test func claimThatWasNotRenewedIsTakenOver() throws {
        let run = try TestRun()
        var elsewhere = ProcessIdentity.current
        elsewhere.boot = "elsewhere"
        let (other, mine) = (folder(run, identity: elsewhere), folder(run))
        #expect(try other.take(task))
        age(run, by: 50)
        #expect(try !mine.take(task))
        age(run, by: 70)
        other.renew()
        #expect(try !mine.take(task))
        age(run, by: 70)
        #expect(try mine.take(task))
        // What is no longer its own is neither renewed nor removed.
        age(run, by: 50)
        other.renew()
        other.release(task)
        #expect(try !folder(run).take(task))
        age(run, by: 70)
        #expect(try folder(run).take(task))
    }

    @Test func staleClaimHasOneNewHolder() throws {
        for round in 0..<20 {
            let run = try TestRun()
            var dead = ProcessIdentity.current
            dead.startTicks -= 1
            #expect(try folder(run, identity: dead).take(task))
            let winners = Mutex(0)
            DispatchQueue.concurrentPerform(iterations: 6) { _ in
                if (try? folder(run).take(task)) == true { winners.withLock { $0 += 1 } }
            }
            #expect(winners.withLock { $0 } == 1, "round \(round)")
        }
    }

    @Test func unreadableClaimLivesUntilItsLeaseEnds() throws {
        let run = try TestRun()
        try FileManager.default.createDirectory(
            atPath: run.path + "/claims", withIntermediateDirectories: true)
        let path = run.path + "/claims/7-val_eval.claim"
        try Data("garbage".utf8).write(to: URL(filePath: path))
        #expect(try !folder(run).take(task))
        age(run, by: 70)
        #expect(try folder(run).take(task))
    }
}

import Basics
import ClusterCore
import Flight
import Foundation
import Protocol
import SwiftProtobuf
import Testing

/// What machines were told is there after the process, and makes them decide the same again.
@Suite struct FlightTests {
    private struct Source: StepSource {
        /// What is done while the samples of step 40 are named.
        var atStep40: @Sendable () -> Void = {}

        func samples(step: Int) -> WireStepSamples {
            if step == 40 { atStep40() }
            return .with {
                $0.step = UInt64(step)
                $0.slots = (0..<2).map { _ in .with { $0.indices = [1, 2, 3] } }
            }
        }
        func scalars(step: Int) -> WireStepScalars { .with { $0.learningRate = 7 } }
    }

    private static func folder() -> String {
        NSTemporaryDirectory() + "lineup-flight-test-\(UInt64.random(in: .min ... .max).hex)"
    }

    private static func machine(_ source: Source = Source()) -> CoordinatorStateMachine {
        CoordinatorStateMachine(
            configuration: CoordinatorConfiguration(
                run: 1, datasetDigest: 5, slotCount: 2, totalSteps: 1000, checkpointEverySteps: 0,
                checkpointMaxLagSteps: 2, evaluationSets: ["val_eval"],
                evaluationTimeout: .seconds(1),
                retention: .init(
                    last: 1, everySteps: 0, best: 1,
                    ranking: .init(set: "val_eval", metric: "mean_loss", isLargerBetter: false),
                    unscored: 3), lineupVersion: "test"),
            source: source,
            recovery: CoordinatorRecovery(
                term: 1, committedStep: 0, committedHistory: 0, checkpoints: [], scored: [:],
                rankingValues: [0: .infinity]))
    }

    /// A trainer "a" that takes part in steps; a shell that commits them.
    private static func train(
        _ recorder: FlightRecorder<CoordinatorStateMachine>,
        _ machine: inout CoordinatorStateMachine, steps: Int
    ) {
        var now = Duration.milliseconds(1)
        var plan: WirePlan?
        var load = WireLoadState()
        func tell(_ input: CoordinatorInput, _ machine: inout CoordinatorStateMachine) {
            now += .microseconds(137)
            let actions = recorder.tell(input, now: now, machine: &machine)
            for action in actions {
                switch action {
                case .send(.plan(let new), to: "a"): plan = new
                case .send(.loadState(let new), to: "a"): load = new
                case .commit(let record): tell(.stepCommitted(record), &machine)
                default: break
                }
            }
        }
        func say(_ body: WireBody, _ machine: inout CoordinatorStateMachine) {
            tell(.received(body, from: "a"), &machine)
        }
        say(
            .hello(
                .with {
                    $0.worker = "a"
                    $0.role = .trainer
                    $0.lineupVersion = "test"
                }), &machine)
        say(.prepared(.with { $0.datasetDigest = 5 }), &machine)
        tell(.tick, &machine)
        say(
            .stateLoaded(
                .with {
                    $0.step = load.step
                    $0.number = load.number
                }), &machine)
        tell(
            .checkpointStored(
                DurableCheckpoint(
                    step: 0, history: 0, file: "f", byteCount: 1, digest: 2, isRecovery: false)),
            &machine)
        while machine.ledgerStep < steps, let current = plan {
            tell(.tick, &machine)
            for slot in 0..<2 {
                say(
                    .slotDone(
                        .with {
                            $0.step = current.step
                            $0.slot = UInt32(slot)
                            $0.loss = Float(slot).bitPattern
                        }), &machine)
            }
            say(
                .ready(
                    .with {
                        $0.term = current.term
                        $0.generation = current.generation
                        $0.step = current.step
                        $0.effectDigest = current.step * 3
                    }), &machine)
        }
    }

    @Test(arguments: [1 << 20, 16 << 10])
    func aReplayDecidesTheSame(bytes: Int) throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let recorder = FlightRecorder<CoordinatorStateMachine>(path: folder + "/c-1", bytes: bytes)
        var machine = Self.machine()
        Self.train(recorder, &machine, steps: 400)
        #expect(recorder.problem == nil)
        #expect(machine.ledgerStep == 400)

        // The files are read while the recorder still has them, as after a kill.
        let record = try FlightRecord(file: folder + "/c-1-a.flight")
        #expect(record.role == .coordinator)
        var replay = try FlightReplay<CoordinatorStateMachine>(record)
        var differing = 0
        var commits = 0
        while let step = try replay.step() {
            if step.isSame == false { differing += 1 }
            commits += step.input.hasSuffix("is in the ledger") ? 1 : 0
        }
        #expect(differing == 0)
        #expect(replay.machine.ledgerStep == 400)
        #expect(replay.machine.members == machine.members)
        #expect(replay.machine.currentGeneration == machine.currentGeneration)
        // The small files have turned over: only the last steps are told again.
        if bytes < 1 << 20 {
            #expect(commits > 8 && commits < 400)
        } else {
            #expect(commits == 400)
        }
    }

    /// A trap in the middle of a decision leaves all decisions before and the input; the file is taken as it
    /// is at that moment, since memory that is mapped outlives the process.
    @Test func aTrapLeavesTheRecord() throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (file, copy) = (folder + "/c-1-a.flight", folder + "/trapped.flight")
        let recorder = FlightRecorder<CoordinatorStateMachine>(
            path: folder + "/c-1", bytes: 1 << 20)
        var machine = Self.machine(
            Source(atStep40: { try? FileManager.default.copyItem(atPath: file, toPath: copy) }))
        Self.train(recorder, &machine, steps: 400)
        var replay = try FlightReplay<CoordinatorStateMachine>(FlightRecord(file: copy))
        var steps: [Bool?] = []
        while let step = try replay.step() { steps.append(step.isSame) }
        #expect(steps.count > 3 * 36 && steps.dropLast().allSatisfy { $0 == true })
        #expect(steps.last == .some(nil))
        #expect((36...40).contains(replay.machine.ledgerStep))
    }

    @Test func aLargeStateIsWrittenDownBesideTheEvents() throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let recorder = FlightRecorder<CoordinatorStateMachine>(
            path: folder + "/c-1", bytes: 64 << 10)
        var machine = Self.machine()
        Self.train(recorder, &machine, steps: 10)
        var now = Duration.seconds(1)
        func say(_ body: WireBody, by evaluator: Int) {
            now += .microseconds(50)
            _ = recorder.tell(
                .received(body, from: "evaluator-\(evaluator)"), now: now, machine: &machine)
        }
        for number in 0..<500 {
            say(
                .hello(
                    .with {
                        $0.worker = "evaluator-\(number)"
                        $0.role = .evaluator
                        $0.lineupVersion = "test"
                    }), by: number)
        }
        for number in 0..<500 {
            say(
                .prepared(
                    .with {
                        $0.datasetDigest = 5
                        $0.numerics.description_p = "class"
                    }), by: number)
        }
        for number in 0..<40_000 {
            say(.evaluationPoll(.with { $0.idle = number % 3 > 0 }), by: number % 500)
        }
        #expect(recorder.problem == nil)
        let record = try FlightRecord(file: folder + "/c-1-a.flight")
        // The files have turned over, and no event is in both.
        #expect((5_000..<30_000).contains(record.events.count))
        #expect(zip(record.events, record.events.dropFirst()).allSatisfy { $0.time < $1.time })
        #expect(record.events.last?.time == now)
        var replay = try FlightReplay<CoordinatorStateMachine>(record)
        var differing = 0
        while let step = try replay.step() { differing += step.isSame == false ? 1 : 0 }
        #expect(differing == 0)
        #expect(replay.machine.workerCount == 501)
    }

    @Test func anotherDecisionIsSeen() throws {
        let folder = Self.folder()
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let recorder = FlightRecorder<EvaluatorStateMachine>(path: folder + "/e", bytes: 1 << 16)
        var machine = EvaluatorStateMachine(worker: "e", once: false)
        _ = recorder.tell(.connectionOpened, now: .seconds(1), machine: &machine)
        _ = recorder.tell(.received(.welcome(WireWelcome())), now: .seconds(2), machine: &machine)
        let file = try #require(recorder.close(keep: true))
        var bytes = try Data(contentsOf: URL(fileURLWithPath: file))
        // The machine's name is in its state.
        let name = try #require(bytes.range(of: Data(#""me":"e""#.utf8)))
        bytes.replaceSubrange(name, with: Data(#""me":"f""#.utf8))
        try bytes.write(to: URL(fileURLWithPath: file))
        var replay = try FlightReplay<EvaluatorStateMachine>(FlightRecord(file: file))
        let first = try #require(try replay.step())
        #expect(first.input == "connected" && first.isSame == true)
        // A byte of an event: what comes from there on is left out.
        let event = try #require(bytes.lastIndex { $0 != 0 })
        bytes[event] ^= 1
        try bytes.write(to: URL(fileURLWithPath: file))
        #expect(try FlightRecord(file: file).events.count <= 2)
        #expect(throws: FlightError.self) { try FlightRecord(file: folder) }
        try Data("no record".utf8).write(to: URL(fileURLWithPath: file))
        #expect(throws: FlightError.self) { try FlightRecord(file: file) }
    }

    @Test func everyInputReadsBack() throws {
        let inputs: [TrainerInput] = [
            .connectionOpened, .connectionClosed, .tick, .drain, .received(.stop(WireStop())),
            .prepared(
                .with { $0.blockCount = 3 }, slotCount: 2, audit: Audit(seed: 1, fraction: 0.5),
                epoch: 1),
            .stateLoaded(step: 4, digest: .max, epoch: 1), .loadFailed("é", epoch: 2),
            .statePieceReceived, .stillBusy, .slotComputed(.with { $0.slot = 1 }, epoch: 1),
            .slotFailed(step: 1, slot: 2, reason: "r", diverged: true, epoch: 3),
            .partialReceived(7, run: SlotRun(0, 2)), .resultReceived(8, digest: 3),
            .blockAudited(8, digest: 4),
            .wanted([1, 2, 3], partials: true, by: "t"),
            .effectDigested(step: 1, fold: 0, digest: 5, state: 6, epoch: 1),
            .applied(step: 1, epoch: 1), .stateDigested(step: 8, digest: .max, epoch: 2),
        ]
        for input in inputs {
            var writer = FlightWriter()
            TrainerStateMachine.write(input, into: &writer)
            var reader = FlightReader(writer.bytes[...])
            let read = try TrainerStateMachine.read(&reader, earlier: [])
            #expect("\(read)" == "\(input)")
            // Cut anywhere, it is refused and nothing worse.
            for end in 0..<writer.bytes.count {
                var cut = FlightReader(writer.bytes[..<end])
                _ = try? TrainerStateMachine.read(&cut, earlier: [])
            }
        }
    }

    @Test func aRecordOfAProcessThatLivesIsNotTidiedAway() throws {
        let folder = Self.folder()
        func record(_ name: String) -> FlightRecorder<EvaluatorStateMachine> {
            let recorder = FlightRecorder<EvaluatorStateMachine>(
                path: folder + "/" + name, bytes: 1 << 16, keepingFiles: 0)
            var machine = EvaluatorStateMachine(worker: name, once: false)
            _ = recorder.tell(.connectionOpened, now: .seconds(1), machine: &machine)
            return recorder
        }
        let first = record("first")
        let second = record("second")
        let file = try #require(first.close(keep: true))
        #expect(FileManager.default.fileExists(atPath: file))
        let third = record("third")
        #expect(!FileManager.default.fileExists(atPath: file))
        for recorder in [second, third] {
            #expect(
                FileManager.default.fileExists(atPath: try #require(recorder.close(keep: true))))
        }
    }

    @Test func withoutRoomTheMachineRunsWithout() {
        var told = 0
        let recorder = FlightRecorder<EvaluatorStateMachine>(
            path: "/proc/none/e", bytes: 1 << 16, report: { _ in told += 1 })
        var machine = EvaluatorStateMachine(worker: "e", once: false)
        #expect(
            recorder.tell(.connectionOpened, now: .seconds(1), machine: &machine).count == 1)
        #expect(told == 1)
        #expect(recorder.problem?.contains("/proc/none") == true)
        #expect(recorder.copy() == nil && recorder.close(keep: true) == nil)
    }
}

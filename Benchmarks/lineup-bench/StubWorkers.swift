import Basics
import Foundation
import Protocol
import Transport

/// Workers of one thread that speak the protocol over sockets of their own and compute nothing.
final class StubWorkers {
    private struct Worker {
        let name: String
        let role: WireRole
        let socket: Socket
    }

    private let workers: [Worker]
    private var run: UInt64 = 0
    private var datasetDigest: UInt64 = 0
    /// Workers without a part in the steps, and which of them speaks next.
    private var bystanders: Range<Int> = 0..<0
    private var nextToSpeak = 0
    private var round = MemberRound(members: [])
    private var spokenAt = ContinuousClock.now
    /// Messages that say nothing but that the sender lives.
    private(set) var signsOfLife = 0

    /// Connects trainers, then evaluators, and waits until all are welcomed.
    ///
    /// - Parameter keys: nil without keys.
    init(trainers: Int, evaluators: Int = 0, keys: WorkerKeys? = nil, address: String) throws {
        let contexts = try (0..<(trainers + evaluators + 127) / 128).map { _ in
            try Context(keys: keys?.own, refusals: Refusals(label: "bench")) { _ in false }
        }
        let coordinator = Address.adding(keys?.coordinator, to: address)
        let process = ProcessInfo.processInfo.processIdentifier
        var workers: [Worker] = []
        for number in 0..<trainers + evaluators {
            let role: WireRole = number < trainers ? .trainer : .evaluator
            // As if they were processes: ZeroMQ does not expect thousands of connections from one.
            let context = contexts[number / 128]
            let socket = try Socket(context, .dealer, frameBytesMax: WireCodec.controlBytesMax)
            try socket.connect(coordinator)
            var hello = WireHello()
            hello.lineupVersion = "0.1.0"
            hello.role = role
            hello.worker = WorkerName.make(
                role: role.word, host: "stub\(number)", process: process,
                key: keys?.own.publicKey.fingerprint)
            hello.host = "stub\(number)"
            hello.device = "cpu"
            hello.dataAddress = "tcp://127.0.0.1:1"
            socket.send([WireCodec.encode(.hello(hello), run: 0)])
            workers.append(Worker(name: hello.worker, role: role, socket: socket))
        }
        self.workers = workers
        // In order: whoever is welcomed earlier is found so when its turn comes.
        for worker in workers {
            let welcome = try next(for: worker, within: 60) { body -> WireWelcome? in
                if case .welcome(let welcome) = body { welcome } else { nil }
            }
            datasetDigest = welcome.datasetDigest
        }
    }

    /// The next message of a kind.
    private func next<Found>(
        for worker: Worker, within seconds: Double, _ find: (WireBody) -> Found?
    ) throws -> Found {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline {
            while let frame = worker.socket.receive()?.first {
                let envelope = try frame.withUnsafeBytes { try WireCodec.decode($0) }
                if envelope.run != 0 { run = envelope.run }
                if let body = envelope.body, let found = find(body) { return found }
            }
            Poller.wait([worker.socket], timeout: .milliseconds(100))
        }
        throw BenchFailure("\(worker.name) was not answered within \(seconds) s")
    }

    private func send(_ body: WireBody, from worker: Worker) {
        worker.socket.send([WireCodec.encode(body, run: run)])
    }

    /// Makes the first trainers members and everybody else a bystander.
    ///
    /// - Parameter members: as many as the coordinator expects.
    func prepare(members: Int) throws {
        var prepared = WirePrepared()
        prepared.datasetDigest = datasetDigest
        prepared.blockCount = 1
        prepared.numerics.description_p = "stub"
        for worker in workers.prefix(members) { send(.prepared(prepared), from: worker) }
        for worker in workers.prefix(members) {
            let load = try next(for: worker, within: 10) { body -> WireLoadState? in
                if case .loadState(let load) = body { load } else { nil }
            }
            var loaded = WireStateLoaded()
            loaded.step = load.step
            loaded.number = load.number
            send(.stateLoaded(loaded), from: worker)
        }
        round = MemberRound(members: workers.prefix(members).map(\.name))
        bystanders = members..<workers.count
        nextToSpeak = members
        spokenAt = .now
        for worker in workers[bystanders] {
            send(.prepared(prepared), from: worker)
        }
    }

    /// What members were granted.
    struct Grants {
        /// Leases of steps that are committed.
        var leases = 0
        var steps = 0
        /// Seconds from the last READY of a step to the plan of the next at a member, one a lease.
        var waits: [Double] = []

        /// The wait that a share of leases does not exceed, in seconds.
        func wait(of share: Double) -> Double {
            let sorted = waits.sorted()
            return sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
        }
    }

    /// Lets the members answer every plan at once, or at an even pace.
    ///
    /// - Parameter leasesPerSecond: nil for as many as there can be.
    func train(seconds: Double, leasesPerSecond: Double? = nil) throws -> Grants {
        let members = Array(workers.prefix(bystanders.lowerBound))
        var grants = Grants()
        let begun = ContinuousClock.now
        var due = begun
        var answeredAt: ContinuousClock.Instant?
        while true {
            for (place, member) in members.enumerated() where !round.hasPlan(place) {
                guard let frame = member.socket.receive()?.first else { continue }
                guard try round.take(frame, at: place) else { continue }
                let leases = round.slots[place].count
                grants.leases += leases
                if let answeredAt {
                    let wait = (ContinuousClock.now - answeredAt).inSeconds
                    grants.waits += repeatElement(wait, count: leases)
                }
            }
            keepBystandersAlive()
            let now = ContinuousClock.now
            guard round.isComplete else {
                guard answeredAt.map({ now - $0 < .seconds(10) }) ?? (now - begun < .seconds(10))
                else { throw BenchFailure("no plan for step \(round.step + 1) within 10 s") }
                let waiting = members.indices.filter { !round.hasPlan($0) }
                Poller.wait(waiting.map { members[$0].socket }, timeout: .milliseconds(1))
                continue
            }
            guard (now - begun).inSeconds < seconds else { return grants }
            guard now >= due else {
                usleep(UInt32(min(1e3, (due - now).inSeconds * 1e6)))
                continue
            }
            if let leasesPerSecond {
                due =
                    max(due, now - .milliseconds(100))
                    + .seconds(Double(round.leaseCount) / leasesPerSecond)
            }
            for (place, member) in members.enumerated() {
                for message in round.results(of: place) { send(message, from: member) }
            }
            answeredAt = .now
            grants.steps += 1
            round.begin()
        }
    }

    /// Everybody says once a second that it lives: trainers what they stand on, evaluators every other
    /// time that they wait for work.
    private func keepBystandersAlive() {
        guard !bystanders.isEmpty else { return }
        let now = ContinuousClock.now
        let isTrainer = workers[bystanders.lowerBound].role == .trainer
        let pause = Duration.seconds(1 / Double(bystanders.count))
        while spokenAt + pause <= now {
            spokenAt = max(spokenAt + pause, now - .milliseconds(500))
            let worker = workers[nextToSpeak]
            nextToSpeak =
                nextToSpeak + 1 < bystanders.upperBound ? nextToSpeak + 1 : bystanders.lowerBound
            signsOfLife += 1
            if isTrainer {
                var progress = WireProgress()
                progress.phase = "standing by"
                progress.prepared = true
                send(.progress(progress), from: worker)
            } else {
                var poll = WireEvaluationPoll()
                poll.idle = signsOfLife / bystanders.count % 2 == 0
                send(.evaluationPoll(poll), from: worker)
                while worker.socket.receive() != nil {}
            }
        }
    }
}

/// One step as its members see it: the plan, and who has it.
private struct MemberRound {
    private let places: [String: Int]
    private var plan = WirePlan()
    private var seal: UInt64 = 0
    private var has: [Bool]
    private var missing: Int
    /// Slots of each member.
    private(set) var slots: [[WireLease]]

    init(members: [String]) {
        places = Dictionary(uniqueKeysWithValues: members.enumerated().map { ($1, $0) })
        has = Array(repeating: false, count: members.count)
        missing = members.count
        slots = Array(repeating: [], count: members.count)
    }

    var step: Int { Int(plan.step) }
    var leaseCount: Int { plan.leases.count }
    var isComplete: Bool { missing == 0 }
    func hasPlan(_ place: Int) -> Bool { has[place] }

    /// Waits for the plan of the next step.
    mutating func begin() {
        has = has.map { _ in false }
        missing = has.count
    }

    /// Takes a member's frame; all get the same bytes, which are read once.
    ///
    /// - Returns: whether it was a plan of a later step than the one before.
    mutating func take(_ frame: Frame, at place: Int) throws -> Bool {
        let ending = frame.withUnsafeBytes {
            $0.loadUnaligned(fromByteOffset: $0.count - 8, as: UInt64.self)
        }
        if ending != seal || missing == has.count {
            let envelope = try frame.withUnsafeBytes { try WireCodec.decode($0) }
            guard case .plan(let next)? = envelope.body, next.step > plan.step else {
                if case .stop(let stop)? = envelope.body {
                    throw BenchFailure("a stub was told to stop: \(stop.message)")
                }
                return false
            }
            (plan, seal) = (next, ending)
            slots = slots.map { _ in [] }
            for lease in plan.leases {
                if let place = places[lease.worker] { slots[place].append(lease) }
            }
        }
        has[place] = true
        missing -= 1
        return true
    }

    /// What a member says that has computed its slots and has every block.
    func results(of place: Int) -> [WireBody] {
        var bodies = slots[place].map { lease -> WireBody in
            var done = WireSlotDone()
            done.step = plan.step
            done.slot = lease.slot
            done.attempt = lease.attempt
            done.loss = Float(0.5).bitPattern
            return .slotDone(done)
        }
        var ready = WireReady()
        ready.term = plan.term
        ready.generation = plan.generation
        ready.step = plan.step
        ready.effectDigest = XXH64.digest("step \(plan.step)")
        ready.stateDigest = plan.history
        bodies.append(.ready(ready))
        return bodies
    }
}

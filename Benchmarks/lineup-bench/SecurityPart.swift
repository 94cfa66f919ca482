import Foundation
import Protocol
import Storage
import Transport

#if canImport(Glibc)
    import Glibc
#endif

extension Part {
    private static let small =
        settings([
            "network.backbone=basic", "batch.identities=4", "batch.images_per_identity=4",
            "batch.mini_batches_per_step=4",
        ]) + [
            "schedule.steps=1000000", "checkpoint.every_steps=0", "checkpoint.recovery_seconds=0",
        ]

    private static func part(
        _ name: String, _ what: String,
        _ measure: @escaping @Sendable (Bench, String, String) throws -> Measurement
    ) -> Part {
        Part(name: name, what: what) { try measure($0, name, what) }
    }

    /// What CURVE on the control channel adds to a step.
    static let securityControl = part(
        "security-control",
        "coordinator and one trainer with keys beside the same without: basic at 64x64, P 4, "
            + "K 4, G 4, steps of a tenth of a second", measureControl)

    private static func measureControl(
        _ bench: Bench, _ name: String, _ what: String
    ) throws -> Measurement {
        let start = ContinuousClock.now
        let crops = try bench.crops(withSets: false)
        let slots = bench.parallelSlots(of: 4)
        let window = 10
        let rounds = bench.rounds ?? 15
        func launch(_ name: String, keys: String?) throws -> RunningCluster {
            let cluster = try Cluster(
                lineup: bench.lineup, folder: bench.folder + "/run-" + name, dataRoot: crops,
                overrides: small, trainers: [(nil, slots)], coordinatorCores: nil, keys: keys
            ).start()
            try cluster.run(to: 15)
            return cluster
        }
        let open = try launch("open", keys: nil)
        defer { open.end() }
        let keyed = try launch("keyed", keys: try bench.keys().path)
        defer { keyed.end() }
        let begun = try [open, keyed].map { ($0, try $0.coordinatorSeconds(), try $0.lastStep()) }
        var without: [Double] = []
        var with: [Double] = []
        for round in 0..<rounds {
            without.append(Series.median(try open.steps(window)))
            with.append(Series.median(try keyed.steps(window)))
            say(
                String(
                    format: "security-control round %d of %d: without %.4f, with keys %.4f s/step",
                    round + 1, rounds, without[round], with[round]))
        }
        let common = min(try open.lastStep(), try keyed.lastStep())
        guard try open.digest(after: common) == keyed.digest(after: common) else {
            throw BenchFailure("with and without keys differ after \(common) steps")
        }
        // What others do on this machine does not change it much.
        let busy = try begun.map { cluster, seconds, step in
            (try cluster.coordinatorSeconds() - seconds) / Double(try cluster.lastStep() - step)
        }
        let ratio = Series(zip(with, without).map { $0 / $1 })
        return Measurement(
            name: name, what: what, unit: "seconds",
            sides: [
                Side(name: "without keys, a step", series: Series(without)),
                Side(name: "with keys, a step", series: Series(with)),
            ],
            ratios: [
                Ratio(
                    of: "with keys / without", series: ratio, wanted: "at most 1.02",
                    isMet: ratio.median <= 1.02)
            ],
            notes: [
                "both runs have the same history after \(common) steps",
                String(
                    format: "the coordinator's processor time: %.5f s a step without, %.5f s with",
                    busy[0], busy[1]),
            ],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// What strangers at the door cost the coordinator.
    static let securityStrangers = part(
        "security-strangers",
        "coordinator and one trainer with keys; by turns left alone and under 50 bad "
            + "connections a second: garbage, silence, no key, a key that is not allowed",
        measureStrangers)

    private static func measureStrangers(
        _ bench: Bench, _ name: String, _ what: String
    ) throws -> Measurement {
        let start = ContinuousClock.now
        let cluster = try Cluster(
            lineup: bench.lineup, folder: bench.folder + "/run",
            dataRoot: try bench.crops(withSets: false), overrides: small,
            trainers: [(nil, bench.parallelSlots(of: 4))], coordinatorCores: nil,
            keys: try bench.keys().path
        ).start()
        defer { cluster.end() }
        try cluster.run(to: 15)
        cluster.go()
        let address = cluster.address
        let key = try bench.keys().publicKey(.coordinator)
        let seconds = 10.0
        let rounds = bench.rounds ?? 7
        var alone: [Double] = []
        var pressed: [Double] = []
        var paces: [Double] = []
        var made = 0
        func window(_ body: () throws -> Void) throws -> (cores: Double, steps: Double) {
            let (begun, ticks, step) = (
                ContinuousClock.now, try cluster.coordinatorSeconds(), try cluster.lastStep()
            )
            try body()
            let passed = (ContinuousClock.now - begun).inSeconds
            return (
                (try cluster.coordinatorSeconds() - ticks) / passed,
                Double(try cluster.lastStep() - step) / passed
            )
        }
        for round in 0..<rounds {
            let quiet = try window { usleep(UInt32(seconds * 1e6)) }
            let crowd = try Crowd(address: address, coordinator: key)
            let loud = try window { made += try crowd.press(perSecond: 50, seconds: seconds) }
            alone.append(quiet.cores)
            pressed.append(loud.cores)
            paces.append(quiet.steps / loud.steps)
            say(
                String(
                    format: "security-strangers round %d of %d: alone %.4f, pressed %.4f cores",
                    round + 1, rounds, alone[round], pressed[round]))
        }
        // Throws where a lease was lost.
        let steps = try cluster.checkedSteps().count
        let cost = Series(zip(pressed, alone).map { $0 - $1 })
        return Measurement(
            name: name, what: what, unit: "cores",
            sides: [
                Side(name: "coordinator alone", series: Series(alone)),
                Side(name: "coordinator pressed", series: Series(pressed)),
            ],
            ratios: [
                Ratio(
                    of: "what they cost, in cores", series: cost, wanted: "at most 0.1",
                    isMet: cost.median <= 0.1),
                Ratio(
                    of: "step pressed / step alone", series: Series(paces), wanted: nil, isMet: nil),
            ],
            notes: ["\(made) bad connections; no lease was lost in \(steps) steps"],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// How long a mass join with keys takes.
    static let securityJoins = part(
        "security-joins",
        "1,024 trainers of one process connect with CURVE, say HELLO and are welcomed; the "
            + "coordinator is a process of its own on the same cores", measureJoins)

    private static func measureJoins(
        _ bench: Bench, _ name: String, _ what: String
    ) throws -> Measurement {
        let start = ContinuousClock.now
        let count = 1_024
        let folder = try bench.keys()
        let keys = WorkerKeys(
            own: try folder.pair(.worker), coordinator: try folder.publicKey(.coordinator))
        let crops = try bench.crops(withSets: false)
        var series: [Double] = []
        let rounds = bench.rounds ?? 5
        for round in 0..<rounds {
            let cluster = try Cluster(
                lineup: bench.lineup, folder: bench.folder + "/run", dataRoot: crops,
                overrides: small, trainers: [], coordinatorCores: nil, keys: folder.path
            ).start()
            defer { cluster.end() }
            let begun = ContinuousClock.now
            let stubs = try StubWorkers(trainers: count, keys: keys, address: cluster.address)
            series.append((ContinuousClock.now - begun).inSeconds)
            withExtendedLifetime(stubs) {}
            say("security-joins round \(round + 1) of \(rounds): \(series[round]) s")
        }
        let seconds = Series(series)
        return Measurement(
            name: name, what: what, unit: "seconds",
            sides: [Side(name: "until all 1,024 are welcomed", series: seconds)],
            ratios: [
                Ratio(
                    of: "until all 1,024 are welcomed", series: seconds, wanted: "at most 1.5 s",
                    isMet: seconds.median <= 1.5)
            ], notes: ["each join is a row in the ledger"],
            seconds: (ContinuousClock.now - start).inSeconds)
    }
}

extension Bench {
    /// Keys of a coordinator and its workers, made once a call.
    func keys() throws -> KeyFolder {
        let keys = KeyFolder(path: folder + "/keys")
        guard !keys.suitsCoordinator else { return keys }
        let child = try Child(
            "lineup keys", executable: lineup, arguments: ["keys", "create", "--keys", keys.path],
            log: folder + "/keys.log", answers: false)
        try child.waitForEnd(within: 30)
        return keys
    }
}

/// Connections that come to nothing, of four kinds in turn.
private final class Crowd {
    private let host: String
    private let port: UInt16
    private let address: String
    private let stranger: Context
    private let keyless = Context()
    private let coordinator: PublicKey
    /// Each is let go after a while, silent ones after the coordinator has given them up.
    private var open: [(until: ContinuousClock.Instant, end: () -> Void)] = []

    /// - Parameter coordinator: its real key, so that a stranger gets as far as one can.
    init(address: String, coordinator: PublicKey) throws {
        self.address = address
        host = Address.host(of: address) ?? "127.0.0.1"
        port = address.split(separator: ":").last.flatMap { UInt16($0) } ?? 0
        stranger = try Context(
            keys: try KeyPair.generate(), refusals: Refusals(label: "bench")
        ) { _ in false }
        self.coordinator = coordinator
    }

    /// Comes at an even pace; returns how many connections were made.
    func press(perSecond: Int, seconds: Double) throws -> Int {
        let begun = ContinuousClock.now
        let count = Int(Double(perSecond) * seconds)
        for number in 0..<count {
            let due = begun + .seconds(Double(number) / Double(perSecond))
            while ContinuousClock.now < due { usleep(1_000) }
            try connect(kind: number % 4)
            let now = ContinuousClock.now
            for connection in open where connection.until <= now { connection.end() }
            open.removeAll { $0.until <= now }
        }
        for connection in open { connection.end() }
        open = []
        return count
    }

    private func connect(kind: Int) throws {
        let now = ContinuousClock.now
        if kind < 2 {
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            var target = sockaddr_in()
            target.sin_family = sa_family_t(AF_INET)
            target.sin_port = port.bigEndian
            target.sin_addr.s_addr = inet_addr(host)
            _ = withUnsafePointer(to: &target) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            if kind == 0 {
                let bytes = (0..<4_096).map { _ in UInt8.random(in: .min ... .max) }
                _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
            }
            open.append((now + .seconds(kind == 0 ? 0.2 : 4), { _ = close(descriptor) }))
            return
        }
        let socket = try Socket(kind == 2 ? keyless : stranger, .dealer, frameBytesMax: 1_000)
        try socket.connect(kind == 2 ? address : Address.adding(coordinator, to: address))
        // Gone before it would try again.
        open.append((now + .milliseconds(90), { withExtendedLifetime(socket) {} }))
    }
}

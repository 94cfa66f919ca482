import Basics
import FaultRig
import Foundation
import Protocol
import Storage
import SwiftProtobuf
import Testing
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// Who is told why, who may watch and who may send what, with real processes.
@Suite(.serialized) struct RoleTests {
    /// A stand-in for a coordinator that refuses whoever says HELLO.
    @Test(
        .timeLimit(.minutes(2)),
        arguments: [
            WireRefusal.Code.version, .numerics, .run, .history, .role, .nameTaken, .ended,
            .dataset,
        ])
    func whoIsRefusedSaysWhyInOneLine(code: WireRefusal.Code) throws {
        let socket = try Socket(Context(), .server, frameBytesMax: WireCodec.controlBytesMax)
        let address = try socket.bind("tcp://127.0.0.1:*")
        var refusal = WireRefusal()
        refusal.code = code
        refusal.message = "worker X is not wanted (\(code)); do something about it"
        let answer = WireCodec.encode(.refusal(refusal), run: 7)
        let workers = try ["trainer", "evaluator"].map {
            try LineupProcess([$0, "--coordinator", address])
        }
        let deadline = Date().addingTimeInterval(60)
        var heard: Set<WireRole> = []
        while workers.contains(where: \.isRunning), Date() < deadline {
            Poller.wait([socket], timeout: .milliseconds(50))
            while let frames = socket.receive() {
                let envelope = try frames[1].withUnsafeBytes { try WireCodec.decode($0) }
                guard case .hello(let hello) = envelope.body else { continue }
                heard.insert(hello.role)
                socket.send([answer], to: frames[0].data)
            }
        }
        #expect(heard == [.trainer, .evaluator])
        for worker in workers { try expectRefusal(worker, saying: refusal.message) }
    }

    @Test(.timeLimit(.minutes(3)))
    func anotherVersionOrDataSetIsRefusedAndTheRunGoesOn() throws {
        let run = LocalRun.folder("others")
        let other = LocalRun.folder("other-data")
        try FileManager.default.copyItem(atPath: try LocalRun.crops.get(), toPath: other)
        // The same pictures in other sets.
        let curate = try LineupProcess(
            ["curate", other, "--seed", "4", "--images-per-set", "200", "--force"])
        try #require(try curate.wait() == 0, "\(curate.errors)")
        let coordinator = try LineupProcess(
            ["coordinator", run, "--bind", "tcp://127.0.0.1:*"] + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        for role in ["trainer", "evaluator"] {
            try expectRefusal(
                LineupProcess([role, "--coordinator", address, "--data-root", other]),
                saying: other, "--data-root")
        }
        let context = Context()
        for role in [WireRole.trainer, .evaluator, .observer] {
            let link = try WorkerLink(
                context, coordinator: address, role: role, keys: nil, host: "elsewhere")
            link.send(
                .hello(
                    .with {
                        $0.lineupVersion = "0.0.9"
                        $0.role = role
                        $0.worker = link.worker
                    }))
            let refusal = try #require(
                try answer(on: link) {
                    if case .refusal(let refusal) = $0 { refusal } else { nil }
                })
            #expect(refusal.code == .version)
            #expect(refusal.message.contains("0.0.9") && refusal.message.contains("0.1.0"))
        }
        let trainer = try LineupProcess(["trainer", "--coordinator", address])
        // It would wait a minute for the evaluator to come again.
        try LocalRun.wait(for: 24, in: run, of: coordinator)
        coordinator.send(SIGTERM)
        #expect(try coordinator.wait() == 75, "\(coordinator.errors)")
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        #expect(try trainer.wait(seconds: 30) == 75, "\(trainer.errors)")
    }

    /// The first message on a link that is what is looked for, within ten seconds.
    private func answer<Found>(
        on link: WorkerLink, _ find: (WireBody) -> Found?
    ) throws -> Found? {
        let deadline = Date().addingTimeInterval(10)
        while Date() < deadline {
            Poller.wait([link.socket], timeout: .milliseconds(100))
            for body in try link.receive() {
                if let found = find(body) { return found }
            }
        }
        return nil
    }

    /// Connections that say nothing are turned out, and meanwhile keep nobody waiting.
    @Test(.timeLimit(.minutes(2)))
    func silentConnectionsAreClosedAndNobodyWaitsForThem() throws {
        let coordinator = try LineupProcess(
            ["coordinator", LocalRun.folder("silent"), "--bind", "tcp://127.0.0.1:*"]
                + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        let port = try #require(UInt16(address.split(separator: ":").last ?? ""))
        let strangers = try (0..<50).map { _ in try TCP.connect(port) }
        defer { for stranger in strangers { close(stranger) } }
        func isOpen(_ descriptor: Int32) -> Bool {
            // The greeting of the other side may wait to be read.
            var bytes = [UInt8](repeating: 0, count: 256)
            while true {
                let count = recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
                if count < 0 { return errno == EAGAIN }
                if count == 0 { return false }
            }
        }
        let link = try WorkerLink(
            Context(), coordinator: address, role: .trainer, keys: nil, host: "here")
        link.send(
            .hello(
                .with {
                    $0.lineupVersion = "0.1.0"
                    $0.role = .trainer
                    $0.worker = link.worker
                }))
        let welcome = try answer(on: link) {
            if case .welcome(let welcome) = $0 { welcome } else { nil }
        }
        #expect(welcome?.worker == link.worker)
        #expect(strangers.allSatisfy(isOpen), "the worker came in after the strangers were gone")
        // The limit is three seconds; without one they stay for ever.
        let deadline = Date().addingTimeInterval(20)
        while strangers.contains(where: isOpen), Date() < deadline { usleep(50_000) }
        #expect(!strangers.contains(where: isOpen))
        coordinator.send(SIGTERM)
        #expect(try coordinator.wait(seconds: 30) == 75, "\(coordinator.errors)")
    }
}

extension SecurityTests {
    /// What comes back on the channel for files, if anything does within two seconds.
    private func reply(
        to header: WireDataHeader, _ payload: Data, on socket: Socket
    ) throws -> WireDataHeader? {
        socket.send([WireCodec.encode(header), payload])
        let deadline = Date().addingTimeInterval(2)
        while Date() < deadline {
            Poller.wait([socket], timeout: .milliseconds(50))
            guard let frames = socket.receive() else { continue }
            return try frames[0].withUnsafeBytes { try WireCodec.decodeHeader($0) }
        }
        return nil
    }

    @Test(.timeLimit(.minutes(4)))
    func anObserverWatchesAndFilesAreForTrainersAndEvaluators() throws {
        let run = LocalRun.folder("roles")
        let head = try head()
        let coordinator = try LineupProcess(
            [
                "coordinator", run, "--bind", "tcp://127.0.0.1:*", "--keys", head,
                "--expect-trainers", "1",
            ] + LocalRun.settings(steps: 24))
        let address = try LocalRun.address(of: coordinator)
        let roles = ["trainer", "evaluator", "observer"]
        let folders = try roles.map { try node($0, of: head, roles: $0) }
        let watch = try LineupProcess(["watch", address, "--keys", folders[2]])

        for (role, folder) in zip(roles, folders).reversed() {
            let keys = KeyFolder(path: folder)
            let workerKeys = WorkerKeys(
                own: try keys.pair(.worker), coordinator: try keys.publicKey(.coordinator))
            let context = try Context(keys: workerKeys.own, refusals: Refusals(label: "test")) {
                _ in false
            }
            let name: WireRole =
                role == "trainer" ? .trainer : role == "evaluator" ? .evaluator : .observer
            let link = try WorkerLink(
                context, coordinator: address, role: name, keys: workerKeys, host: role)
            link.send(
                .hello(
                    .with {
                        $0.lineupVersion = "0.1.0"
                        $0.role = name
                        $0.worker = link.worker
                    }))
            var bulk = ""
            let deadline = Date().addingTimeInterval(10)
            while bulk.isEmpty, Date() < deadline {
                Poller.wait([link.socket], timeout: .milliseconds(50))
                for case .welcome(let welcome) in try link.receive() { bulk = welcome.dataAddress }
            }
            let socket = try Socket(context, .dealer, frameBytesMax: WireCodec.payloadBytesMax)
            try socket.connect(bulk)
            var fetch = WireDataHeader()
            fetch.kind = .fetch
            fetch.run = link.run
            fetch.file = "checkpoints/" + CheckpointStore.fileName(step: 99)
            fetch.length = 8
            // There is no such file; who may ask is told so.
            let fetched = try reply(to: fetch, Data(), on: socket)?.kind
            #expect(fetched == (role == "observer" ? nil : .fetchFailed), "\(role)")
            var piece = WireDataHeader()
            piece.kind = .checkpoint
            piece.run = link.run
            piece.step = 99
            piece.total = 8
            piece.worker = link.worker
            // Nobody asked for it; a trainer's is let pass, so that it need not wait.
            let credit = try reply(to: piece, Data(count: 8), on: socket)?.kind
            #expect(credit == (role == "trainer" ? .credit : nil), "\(role)")
            link.send(.goodbye(WireGoodbye()))
        }
        let trainer = try LineupProcess(
            ["trainer", "--coordinator", address, "--keys", folders[0]])
        // It would wait a minute for the evaluator to come again.
        try LocalRun.wait(for: 24, in: run, of: coordinator)
        coordinator.send(SIGTERM)
        #expect(try coordinator.wait() == 75, "\(coordinator.errors)")
        #expect(try trainer.wait(seconds: 30) == 75, "\(trainer.errors)")
        #expect(try watch.wait(seconds: 30) == 0, "\(watch.errors)")
        #expect(watch.errors.contains("/24"), "\(watch.errors)")
        #expect(try LocalRun.weights(run, step: 24) == ClusterTests.undisturbed.get().weights)
        #expect(try CheckpointStore(directory: run + "/checkpoints").steps() == [0, 8, 16, 24])
        #expect(coordinator.errors.contains("role does not send"), "\(coordinator.errors)")
    }
}

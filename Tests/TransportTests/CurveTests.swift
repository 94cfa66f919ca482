import Foundation
import Protocol
import Testing
import Transport

/// Sockets with keys, as coordinator and workers use them.
@Suite struct CurveTests {
    private let coordinator: KeyPair
    private let allowed: KeyPair

    init() throws {
        coordinator = try KeyPair.generate()
        allowed = try KeyPair.generate()
    }

    /// A bound socket that lets one key in.
    private func server(
        _ kind: Socket.Kind = .server, refusals: Refusals = Refusals(label: "test")
    ) throws -> (socket: Socket, address: String) {
        let key = allowed.publicKey
        let context = try Context(keys: coordinator, refusals: refusals) { $0 == key }
        let socket = try Socket(context, kind, frameBytesMax: 1_000)
        return (socket, try socket.bindForData("tcp://127.0.0.1:*", host: "head"))
    }

    private func client(
        _ keys: KeyPair?, identity: String = "", to address: String
    ) throws -> Socket {
        let context = try Context(keys: keys, refusals: Refusals(label: "test")) { _ in false }
        let socket = try Socket(context, .dealer, identity: identity, frameBytesMax: 1_000)
        try socket.watchConnections()
        try socket.connect(address)
        return socket
    }

    /// The first TCP address, without the Unix socket.
    private func tcp(_ addresses: String) throws -> String {
        try #require(addresses.split(separator: " ").first.map(String.init))
    }

    private func receive(_ socket: Socket, seconds: Double = 5) -> [Frame]? {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < deadline {
            if let frames = socket.receive() { return frames }
            Poller.wait([socket], timeout: .milliseconds(50))
        }
        return nil
    }

    private func failure(_ socket: Socket) throws -> Socket.HandshakeFailure {
        let deadline = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < deadline {
            for case .failed(let failure) in socket.connectionEvents() { return failure }
            Poller.wait([socket], timeout: .milliseconds(50))
        }
        throw CocoaError(.featureUnsupported)
    }

    @Test(arguments: [true, false])
    func anAllowedKeyGetsInAndItsMessagesSayIt(overTCP: Bool) throws {
        let (router, addresses) = try server()
        #expect(Address.key(in: addresses) == coordinator.publicKey)
        let address =
            overTCP
            ? Address.adding(coordinator.publicKey, to: try tcp(addresses)) : addresses
        let dealer = try client(allowed, to: address)
        dealer.send([Data("hello".utf8), Data([1])])
        let frames = try #require(receive(router))
        #expect(frames.count == 3)
        #expect(frames[1].key == allowed.publicKey && frames[2].key == allowed.publicKey)
        router.send([Data("back".utf8)], to: frames[0].data)
        #expect(try #require(receive(dealer)).map(\.text) == ["back"])
    }

    @Test func anAddressThatIsToldInTheOnesPlaceSaysTheKeyToo() throws {
        let context = try Context(keys: coordinator, refusals: Refusals(label: "test")) { _ in false
        }
        let socket = try Socket(context, .server, frameBytesMax: 1_000)
        let told = try socket.bindForData(
            "tcp://127.0.0.1:*", host: "head", advertised: "tcp://gate:7000")
        #expect(told.hasPrefix("tcp://gate:7000 "))
        #expect(Address.key(in: told) == coordinator.publicKey)
    }

    @Test func aStrangersKeyIsTurnedAwayAndToldSo() throws {
        let refusals = Refusals(label: "test")
        let (router, address) = try server(refusals: refusals)
        let stranger = try client(try KeyPair.generate(), to: address)
        stranger.send([Data("hello".utf8)])
        #expect(try failure(stranger) == .keyRefused)
        #expect(receive(router, seconds: 0.3) == nil)
        #expect(refusals.total >= 1)
    }

    @Test func withoutAKeyNothingGetsInNorOut() throws {
        let (router, addresses) = try server()
        let plain = try client(nil, to: try tcp(addresses))
        plain.send([Data("hello".utf8)])
        // The other side may see it first, and hang up.
        #expect([.otherMechanism, .unclear].contains(try failure(plain)))
        #expect(receive(router, seconds: 0.3) == nil)
        let open = try Socket(Context(), .server, frameBytesMax: 1_000)
        let bound = try open.bind("tcp://127.0.0.1:*")
        let keyed = try client(allowed, to: Address.adding(coordinator.publicKey, to: bound))
        keyed.send([Data("hello".utf8)])
        #expect([.otherMechanism, .unclear].contains(try failure(keyed)))
        #expect(receive(open, seconds: 0.3) == nil)
        let error = try #require(throws: TransportError.self) { try client(allowed, to: bound) }
        #expect(error.message.contains(bound))
    }

    @Test func whoDoesNotHoldTheCoordinatorsKeyIsNotTheCoordinator() throws {
        let (router, addresses) = try server()
        let other = try KeyPair.generate().publicKey
        let misled = try client(allowed, to: Address.adding(other, to: try tcp(addresses)))
        misled.send([Data("hello".utf8)])
        #expect(try failure(misled) == .unclear)
        #expect(receive(router, seconds: 0.3) == nil)
    }

    @Test func nobodyTakesAConnectionThatIsAnothers() throws {
        let (router, address) = try server()
        let first = try client(allowed, identity: "worker-1", to: address)
        first.send([Data("mine".utf8)])
        let route = try #require(receive(router))[0].data
        let thief = try client(allowed, identity: "worker-1", to: address)
        thief.send([Data("not mine".utf8)])
        #expect(receive(router, seconds: 0.5) == nil)
        router.send([Data("yours".utf8)], to: route)
        #expect(try #require(receive(first)).map(\.text) == ["yours"])
        #expect(receive(thief, seconds: 0.3) == nil)
    }

    @Test func aMessageCountsForTheNameOfItsKeyAlone() throws {
        let (router, address) = try server(.router)
        let own = WorkerName.make(
            role: "trainer", host: "a", process: 1, key: allowed.publicKey.fingerprint)
        let another = WorkerName.make(
            role: "trainer", host: "b", process: 2,
            key: try KeyPair.generate().publicKey.fingerprint)
        let admitted = AdmittedKeys()
        for (name, isGenuine) in [(own, true), (another, false), ("trainer-a-1-9f3a", false)] {
            let dealer = try client(allowed, identity: name, to: address)
            dealer.send([Data("hello".utf8)])
            let frames = try #require(receive(router))
            #expect(frames[0].text == name)
            admitted.replace(with: [])
            #expect(!admitted.admits(frames[1], from: name))
            admitted.replace(with: [Data(allowed.publicKey.bytes), Data([1, 2])])
            #expect(admitted.admits(frames[1], from: name) == isGenuine)
        }
    }

    @Test func aFrameThatIsTooLongNeverArrivesAndTheSocketLivesOn() throws {
        let (router, address) = try server()
        let loud = try client(allowed, to: address)
        loud.send([Data(count: 5_000)])
        #expect(receive(router, seconds: 0.5) == nil)
        let quiet = try client(allowed, to: address)
        quiet.send([Data("hello".utf8)])
        #expect(try #require(receive(router)).last?.text == "hello")
    }

    @Test func ofAMessageWithManyFramesTheRestIsLetGo() throws {
        let (router, address) = try server()
        let dealer = try client(allowed, to: address)
        dealer.send((0..<100).map { Data([UInt8($0)]) })
        dealer.send([Data("next".utf8)])
        #expect(try #require(receive(router)).count == 8)
        #expect(try #require(receive(router)).last?.text == "next")
    }
}

import Basics
import Foundation
import Protocol
import Synchronization
import Testing
import Transport

@Suite struct SocketTests {
    /// Waits for a message, at most five seconds.
    private func receive(_ socket: Socket) -> [Frame]? {
        let deadline = ContinuousClock().now + .seconds(5)
        while ContinuousClock().now < deadline {
            if let frames = socket.receive() { return frames }
            Poller.wait([socket], timeout: .milliseconds(100))
        }
        return nil
    }

    @Test func aMessageComesBackFromTheNamedPeer() throws {
        let context = Context()
        let router = try Socket(context, .router, frameBytesMax: 1 << 20)
        let address = try router.bind("tcp://127.0.0.1:*")
        let dealer = try Socket(context, .dealer, identity: "worker-7", frameBytesMax: 1 << 20)
        try dealer.connect(address)
        #expect(dealer.send([Data("hello".utf8), Data([1, 2, 3])]))
        let frames = try #require(receive(router))
        #expect(
            frames.map(\.data) == [Data("worker-7".utf8), Data("hello".utf8), Data([1, 2, 3])])
        #expect(frames[1].sourceDescriptor >= 0)
        #expect(router.send([Data("back".utf8)], to: "worker-7"))
        #expect(try #require(receive(dealer)).map(\.text) == ["back"])
    }

    @Test func processesOfOneMachineMeetOnAUnixSocket() throws {
        let context = Context()
        var addresses = ""
        do {
            let router = try Socket(context, .router, frameBytesMax: 1 << 20)
            addresses = try router.bindForData("tcp://127.0.0.1:*", host: "head")
            let all = addresses.split(separator: " ")
            #expect(all.count == 2 && all[0].hasPrefix("tcp://127.0.0.1:"))
            #expect(Address.choose(addresses) == String(all[1]))
            let dealer = try Socket(context, .dealer, identity: "w", frameBytesMax: 1 << 20)
            try dealer.connect(addresses)
            #expect(dealer.send([Data("hello".utf8)]))
            #expect(try #require(receive(router)).map(\.text) == ["w", "hello"])
        }
        // Nobody listens there any more: it could as well be another machine's.
        let deadline = ContinuousClock.now + .seconds(5)
        while Address.choose(addresses).hasPrefix("ipc"), ContinuousClock.now < deadline {
            usleep(10_000)
        }
        #expect(Address.choose(addresses).hasPrefix("tcp://127.0.0.1:"))
        #expect(Address.choose("tcp://head:5555") == "tcp://head:5555")
    }

    @Test func anAdvertisedAddressIsTheOnlyOneThatIsTold() throws {
        let router = try Socket(Context(), .router, frameBytesMax: 1 << 20)
        let told = try router.bindForData(
            "tcp://127.0.0.1:*", host: "head", advertised: "tcp://outside:15600")
        #expect(told == "tcp://outside:15600")
        #expect(Address.choose(told) == told)
    }

    @Test(arguments: [[0], [1], [300_000, 0, 5, 700_001], [262_144, 262_144]])
    func aLongStreamArrivesWholeAndInOrder(sizes: [Int]) throws {
        let bytes = sizes.enumerated().map { number, size in
            [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                for at in 0..<size { buffer[at] = UInt8(truncatingIfNeeded: at * 7 + number) }
                count = size
            }
        }
        let whole = bytes.flatMap { $0 }
        let context = Context()
        let router = try Socket(context, .router, frameBytesMax: 1 << 20)
        let address = try router.bindForData("tcp://127.0.0.1:*", host: "head")
        let sender = Thread {
            let segments = bytes.map { bytes in
                let copy = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: bytes.count, alignment: 1)
                copy.copyBytes(from: bytes)
                return UnsafeRawBufferPointer(copy)
            }
            var header = WireDataHeader()
            header.kind = .checkpoint
            try? ChunkSender.send(
                context, to: address, identity: "s", base: header, segments: segments)
            for segment in segments { segment.deallocate() }
        }
        sender.start()
        var received: [UInt8] = []
        while received.count < whole.count {
            let frames = try #require(receive(router))
            let header = try frames[1].withUnsafeBytes { try WireCodec.decodeHeader($0) }
            #expect(Int(header.offset) == received.count && Int(header.total) == whole.count)
            frames[2].withUnsafeBytes { chunk in
                #expect(XXH64.digest(chunk) == header.digest)
                received.append(contentsOf: chunk)
            }
            var credit = WireDataHeader()
            credit.kind = .credit
            credit.offset = UInt64(received.count)
            #expect(router.send([WireCodec.encode(credit)], to: "s"))
        }
        #expect(received == whole)
    }

    /// A coordinator's bulk socket that answers so many requests for pieces, and hears no more.
    private func serve(
        _ file: [UInt8], pieces: Int, on socket: Socket, refusing: Bool = false
    ) throws {
        for _ in 0..<pieces {
            let frames = try #require(receive(socket))
            var header = try frames[1].withUnsafeBytes { try WireCodec.decodeHeader($0) }
            header.kind = refusing ? .fetchFailed : .fetched
            let (from, count) = (Int(header.offset), Int(header.length))
            let bytes = refusing ? Data("gone".utf8) : Data(file[from..<from + count])
            header.digest = bytes.withUnsafeBytes { XXH64.digest($0) }
            #expect(socket.send([WireCodec.encode(header), bytes], to: frames[0].data))
        }
    }

    @Test(.timeLimit(.minutes(1))) func piecesThatAreLostAreAskedForAgain() throws {
        let file = (0..<(10 * FileFetcher.pieceBytes + 77)).map {
            UInt8(truncatingIfNeeded: $0 / 5)
        }
        let context = Context()
        func bind() throws -> (Socket, String) {
            let socket = try Socket(context, .server, frameBytesMax: WireCodec.payloadBytesMax)
            return (socket, try socket.bind("tcp://127.0.0.1:*"))
        }
        let address = Mutex("")
        let fetched = Mutex<Result<Data, any Error>?>(nil)
        // Answers nothing, then is gone; the second gives four pieces, the third the rest: each at
        // another address, as coordinators that are started again may be.
        var (server, place) = try bind()
        address.withLock { $0 = place }
        Thread.detachNewThread {
            let result = Result {
                try FileFetcher.fetch(
                    context, from: address.withLock { $0 }, run: 1, file: "f",
                    byteCount: file.count)
            }
            fetched.withLock { $0 = result }
        }
        _ = try #require(receive(server))
        for pieces in [4, 7] {
            (server, place) = try bind()
            address.withLock { $0 = place }
            try serve(file, pieces: pieces, on: server)
        }
        let deadline = ContinuousClock.now + .seconds(10)
        while fetched.withLock({ $0 == nil }), ContinuousClock.now < deadline { usleep(10_000) }
        #expect(try fetched.withLock { try $0?.get() } == Data(file))
    }

    @Test(.timeLimit(.minutes(1))) func nobodyWhoAnswersAndARefusalAreToldApart() throws {
        let context = Context()
        let server = try Socket(context, .server, frameBytesMax: WireCodec.payloadBytesMax)
        let address = try server.bind("tcp://127.0.0.1:*")
        let silent = #expect(throws: TransportError.self) {
            try FileFetcher.fetch(
                context, from: address, run: 1, file: "f", byteCount: 10,
                silence: .milliseconds(100))
        }
        #expect(silent?.code == .unanswered)
        _ = try #require(receive(server))
        let refused = Mutex<TransportError?>(nil)
        Thread.detachNewThread {
            do throws(TransportError) {
                _ = try FileFetcher.fetch(
                    context, from: address, run: 1, file: "f", byteCount: 10)
            } catch {
                refused.withLock { $0 = error }
            }
        }
        try serve([], pieces: 1, on: server, refusing: true)
        let deadline = ContinuousClock.now + .seconds(10)
        while refused.withLock({ $0 == nil }), ContinuousClock.now < deadline { usleep(10_000) }
        #expect(refused.withLock { $0?.code } == .system)
        #expect(refused.withLock { $0?.message.contains("gone") } == true)
    }

    @Test func aPeerThatIsNotThereIsReported() throws {
        let context = Context()
        let router = try Socket(context, .router, frameBytesMax: 1 << 20)
        _ = try router.bind("tcp://127.0.0.1:*")
        #expect(!router.send([Data("anyone?".utf8)], to: "nobody"))
    }

    @Test func aPortInUseIsNamed() throws {
        let context = Context()
        let first = try Socket(context, .router, frameBytesMax: 1 << 20)
        let address = try first.bind("tcp://127.0.0.1:*")
        let second = try Socket(context, .router, frameBytesMax: 1 << 20)
        let error = try #require(throws: TransportError.self) { try second.bind(address) }
        #expect(error.code == .addressInUse)
        #expect(error.message.contains(address))
    }

    @Test(arguments: [
        "head:5555", "tcp://head", "tcp://:5555", "tcp://head:port", "tcp://head:70000", "",
    ])
    func whatIsNoAddressIsRefused(text: String) {
        #expect(throws: TransportError.self) { try Address.check(text) }
    }

    @Test func onlyLoopbackIsLocal() {
        #expect(Address.isLocal("tcp://127.0.0.1:5555"))
        #expect(Address.isLocal("tcp://localhost:5555"))
        #expect(Address.isLocal("ipc:///tmp/x"))
        #expect(!Address.isLocal("tcp://0.0.0.0:5555"))
        #expect(!Address.isLocal("tcp://*:5555"))
        #expect(!Address.isLocal("tcp://10.0.0.1:5555"))
        #expect(Address.reachable("tcp://0.0.0.0:5555", from: "head") == "tcp://head:5555")
        #expect(Address.reachable("tcp://127.0.0.1:5555", from: "head") == "tcp://127.0.0.1:5555")
    }

    @Test func aClosedConnectionIsSeenAsTheOneItWas() throws {
        let context = Context()
        let router = try Socket(context, .router, frameBytesMax: 1 << 20)
        try router.watchConnections()
        let address = try router.bind("tcp://127.0.0.1:*")
        var descriptor: Int32 = -1
        do {
            let dealer = try Socket(context, .dealer, identity: "short", frameBytesMax: 1 << 20)
            try dealer.connect(address)
            dealer.send([Data("hi".utf8)])
            descriptor = try #require(receive(router))[1].sourceDescriptor
        }
        let deadline = ContinuousClock().now + .seconds(5)
        var closed: [Int32] = []
        while closed.isEmpty && ContinuousClock().now < deadline {
            Poller.wait([router], timeout: .milliseconds(50))
            for event in router.connectionEvents() {
                if case .closed(let number) = event { closed.append(number) }
            }
        }
        #expect(closed == [descriptor])
    }

    @Test func aMailboxEndsTheWait() {
        let mailbox = Mailbox<Int>()
        Thread.detachNewThread {
            usleep(20_000)
            mailbox.post(5)
        }
        let start = ContinuousClock().now
        Poller.wait([], wakeup: mailbox.wakeup, timeout: .seconds(10))
        #expect(ContinuousClock().now - start < .seconds(5))
        #expect(mailbox.take() == [5])
        #expect(mailbox.take() == [])
    }

    @Test func aStreamArrivesWholeAtASlowReceiver() throws {
        let context = Context()
        let router = try Socket(context, .router, frameBytesMax: WireCodec.payloadBytesMax)
        let address = try router.bind("tcp://127.0.0.1:*")
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<3_000_001).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        let failure = Mutex<String?>(nil)
        let isSent = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do {
                try bytes.withUnsafeBytes { all in
                    var header = WireDataHeader()
                    header.kind = .state
                    try ChunkSender.send(
                        context, to: address, identity: "donor", base: header,
                        segments: [
                            UnsafeRawBufferPointer(rebasing: all[..<7]),
                            UnsafeRawBufferPointer(rebasing: all[7..<1_000_000]),
                            UnsafeRawBufferPointer(rebasing: all[1_000_000...]),
                        ])
                }
            } catch {
                failure.withLock { $0 = "\(error)" }
            }
            isSent.signal()
        }
        var taken: [UInt8] = []
        var waiting = 0
        while taken.count < bytes.count {
            let frames = try #require(receive(router))
            let header = try frames[1].withUnsafeBytes { raw throws(ProtocolError) in
                try WireCodec.decodeHeader(raw)
            }
            #expect(Int(header.offset) == taken.count)
            taken += frames[2].data
            waiting += 1
            // Credits come late and in lumps.
            if waiting == 5 || taken.count == bytes.count {
                var credit = WireDataHeader()
                credit.kind = .credit
                credit.offset = UInt64(taken.count)
                router.send([WireCodec.encode(credit)], to: "donor")
                waiting = 0
            }
        }
        #expect(isSent.wait(timeout: .now() + 10) == .success)
        #expect(taken == bytes)
        #expect(failure.withLock { $0 } == nil)
    }
}

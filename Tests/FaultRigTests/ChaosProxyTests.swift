import FaultRig
import Foundation
import Testing

#if canImport(Glibc)
    import Glibc
#endif

/// What the proxy does to a plain connection.
@Suite struct ChaosProxyTests {
    /// A connection through the proxy, both ends in hand.
    private final class Wire {
        let proxy: ChaosProxy
        let link: ChaosProxy.Link
        let near: Int32
        let far: Int32
        private let listener: Int32

        init(seed: UInt64 = 1, _ conditions: ChaosProxy.Conditions = .init()) throws {
            let (listener, port) = try TCP.listen()
            self.listener = listener
            proxy = ChaosProxy(seed: seed)
            link = try proxy.open(to: port)
            proxy.set(conditions, on: link)
            near = try TCP.connect(link.port)
            far = accept(listener, nil, nil)
            for descriptor in [near, far] {
                var limit = timeval(tv_sec: 5, tv_usec: 0)
                setsockopt(
                    descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit,
                    socklen_t(MemoryLayout<timeval>.size))
            }
        }

        deinit { for descriptor in [near, far, listener] { close(descriptor) } }

        func send(_ bytes: [UInt8]) -> Int {
            Glibc.send(near, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        }

        /// Up to `count` bytes at the far end, fewer where it ends or says nothing for long.
        func receive(_ count: Int, waiting seconds: Double = 5) -> [UInt8] {
            var limit = timeval(
                tv_sec: Int(seconds), tv_usec: Int((seconds - seconds.rounded(.down)) * 1e6))
            setsockopt(
                far, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            var all: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 65_536)
            while all.count < count {
                let got = recv(far, &buffer, min(buffer.count, count - all.count), 0)
                guard got > 0 else { break }
                all += buffer[..<got]
            }
            return all
        }
    }

    /// Whether the proxy comes to say so: what it does shows before it is counted.
    private func comesTrue(_ condition: () -> Bool) -> Bool {
        for _ in 0..<500 where !condition() { usleep(10_000) }
        return condition()
    }

    private let message = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 / 7 &* 31) }

    @Test func whatIsNotStruckArrivesAsItWasSent() throws {
        let wire = try Wire()
        #expect(wire.send(message) == message.count)
        #expect(wire.receive(message.count) == message)
        #expect(comesTrue { wire.proxy.counts.bytes == message.count })
        #expect(wire.proxy.counts.flippedBits == 0)
    }

    @Test func delayAndJitterKeepTheOrder() throws {
        let wire = try Wire(.init(delay: .milliseconds(60), jitter: .milliseconds(60)))
        let begun = ContinuousClock.now
        for part in stride(from: 0, to: message.count, by: 20_000) {
            _ = wire.send(Array(message[part..<part + 20_000]))
        }
        #expect(wire.receive(message.count) == message)
        #expect(ContinuousClock.now - begun >= .milliseconds(60))
    }

    @Test func aNarrowLinkTakesItsTime() throws {
        let wire = try Wire(.init(bytesPerSecond: 400_000))
        let begun = ContinuousClock.now
        _ = wire.send(message)
        #expect(wire.receive(message.count) == message)
        // Half a second's worth, less the tenth that a link may save up.
        #expect(ContinuousClock.now - begun >= .milliseconds(300))
    }

    @Test func aDripIsSlowAndWhole() throws {
        let wire = try Wire(.init(dripBytes: 1_000))
        let begun = ContinuousClock.now
        _ = wire.send(message)
        #expect(wire.receive(message.count) == message)
        #expect(ContinuousClock.now - begun >= .milliseconds(190))
    }

    @Test func flippedBitsComeFromTheSeed() throws {
        func flips(_ seed: UInt64) throws -> [Int] {
            let wire = try Wire(seed: seed, .init(bytesPerFlip: 10_000))
            _ = wire.send(message)
            let got = wire.receive(message.count)
            try #require(got.count == message.count)
            let places = got.indices.filter { got[$0] != message[$0] }
            #expect(places.allSatisfy { (got[$0] ^ message[$0]).nonzeroBitCount == 1 })
            #expect(comesTrue { wire.proxy.counts.flippedBits == places.count })
            return places
        }
        let first = try flips(3)
        #expect((8...40).contains(first.count))
        #expect(try flips(3) == first)
        #expect(try flips(4) != first)
    }

    @Test func nothingPassesABlackholeAndAllOfItPassesAfterwards() throws {
        let wire = try Wire(.init(isBlackhole: true))
        _ = wire.send(message)
        #expect(wire.receive(1, waiting: 0.2).isEmpty)
        wire.proxy.set(.init(), on: wire.link)
        #expect(wire.receive(message.count) == message)
    }

    @Test func aResetIsSeenAtBothEnds() throws {
        let wire = try Wire()
        _ = wire.send([1])
        try #require(wire.receive(1) == [1])
        wire.proxy.strike(.reset, on: wire.link)
        var byte: UInt8 = 0
        for descriptor in [wire.near, wire.far] {
            #expect(recv(descriptor, &byte, 1, 0) == -1)
            #expect(errno == ECONNRESET)
        }
        #expect(comesTrue { wire.proxy.counts.resets == 1 })
    }

    @Test func aCutComesAfterSoManyBytes() throws {
        let wire = try Wire()
        _ = wire.send([1])
        try #require(wire.receive(1) == [1])
        wire.proxy.strike(.cut(afterBytes: 12_345), on: wire.link)
        usleep(50_000)
        _ = wire.send(message)
        // A reset may overtake what has not been read.
        #expect(wire.receive(message.count).count <= 12_345)
        #expect(comesTrue { wire.proxy.counts.cuts == 1 })
    }

    @Test func aHalfOpenConnectionStaysAndCarriesNothing() throws {
        // The seed decides which directions; some seed loses this one.
        let outcomes = try (UInt64(1)...8).map { seed in
            let wire = try Wire(seed: seed)
            _ = wire.send([1])
            try #require(wire.receive(1) == [1])
            wire.proxy.strike(.halfOpen, on: wire.link)
            usleep(20_000)
            #expect(wire.send([2]) == 1)
            let isLost = wire.receive(1, waiting: 0.2).isEmpty
            #expect(wire.send([3]) == 1)
            return isLost
        }
        #expect(outcomes.contains(true))
    }

    @Test func whereNobodyListensTheConnectionEnds() throws {
        let proxy = ChaosProxy(seed: 1)
        let link = try proxy.open(to: try TCP.freePort())
        let near = try TCP.connect(link.port)
        defer { close(near) }
        var byte: UInt8 = 0
        #expect(recv(near, &byte, 1, 0) <= 0)
    }
}

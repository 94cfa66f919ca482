import Basics
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// The proxy's thread: accepts, reads, waits, spoils and writes.
final class ProxyLoop: Sendable {
    struct Shared: Sendable {
        var conditions: [ChaosProxy.Conditions] = []
        /// Links that the thread has not seen yet.
        var opened: [(listener: Int32, target: UInt16)] = []
        var strikes: [(link: Int, strike: ChaosProxy.Strike)] = []
        var counts = ChaosProxy.Counts()
        var isStopping = false
    }

    private let shared = Mutex(Shared())
    /// The two ends of a pipe: what is written ends the thread's wait.
    private let wakeup: (out: Int32, into: Int32)
    private let seed: UInt64

    init(seed: UInt64) {
        self.seed = seed
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no pipe could be opened")
        for end in ends { TCP.prepare(end, blocking: false) }
        wakeup = (ends[0], ends[1])
    }

    deinit {
        close(wakeup.out)
        close(wakeup.into)
    }

    /// Changes what the thread goes by, and wakes it.
    func change<Result: Sendable>(_ body: (inout Shared) -> Result) -> Result {
        let result = shared.withLock { body(&$0) }
        var one: UInt8 = 1
        _ = write(wakeup.into, &one, 1)
        return result
    }

    var counts: ChaosProxy.Counts { shared.withLock { $0.counts } }

    func run() {
        var listeners: [(descriptor: Int32, target: UInt16)] = []
        var connections: [Connection] = []
        while true {
            let (conditions, strikes, isStopping) = shared.withLock { shared in
                listeners += shared.opened.map { ($0.listener, $0.target) }
                shared.opened = []
                defer { shared.strikes = [] }
                return (shared.conditions, shared.strikes, shared.isStopping)
            }
            guard !isStopping else { break }
            for (link, strike) in strikes {
                for connection in connections where connection.link == link {
                    connection.take(strike)
                }
            }
            let now = ContinuousClock.now
            var wait = Duration.milliseconds(200)
            var made = ChaosProxy.Counts()
            for connection in connections {
                wait = min(
                    wait, connection.move(conditions[connection.link], now: now, &made))
            }
            connections.removeAll(where: \.isOver)
            shared.withLock { $0.counts.add(made) }
            var polled = [pollfd(fd: wakeup.out, events: Int16(POLLIN), revents: 0)]
            polled += listeners.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
            for connection in connections {
                polled += connection.interests(conditions[connection.link])
            }
            let milliseconds = wait / .milliseconds(1)
            poll(&polled, nfds_t(polled.count), Int32(max(0, milliseconds.rounded(.up))))
            var signals = [UInt8](repeating: 0, count: 64)
            while read(wakeup.out, &signals, signals.count) == signals.count {}
            for (link, listener) in listeners.enumerated()
            where polled[1 + link].revents != 0 {
                accept(from: listener, link: link, into: &connections)
            }
        }
        for connection in connections { connection.end() }
        for listener in listeners { close(listener.descriptor) }
    }

    private func accept(
        from listener: (descriptor: Int32, target: UInt16), link: Int,
        into connections: inout [Connection]
    ) {
        while true {
            let near = Glibc.accept(listener.descriptor, nil, nil)
            guard near >= 0 else { return }
            TCP.prepare(near, blocking: false)
            guard let far = try? TCP.connect(listener.target, blocking: false) else {
                TCP.reset(near)
                continue
            }
            for descriptor in [near, far] {
                var yes: Int32 = 1
                setsockopt(
                    descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes,
                    socklen_t(MemoryLayout<Int32>.size))
            }
            let number = shared.withLock { shared in
                shared.counts.connections += 1
                return shared.counts.connections
            }
            connections.append(
                Connection(link: link, near: near, far: far, seed: seed, number: UInt64(number)))
        }
    }
}

extension ChaosProxy.Counts {
    mutating func add(_ other: Self) {
        connections += other.connections
        bytes += other.bytes
        flippedBits += other.flippedBits
        resets += other.resets
        cuts += other.cuts
        halfOpened += other.halfOpened
    }
}

/// Two sockets and what is on its way between them.
private final class Connection {
    /// Bytes on their way in one direction.
    private struct Direction {
        var from: Int
        var pieces: [(due: ContinuousClock.Instant, bytes: [UInt8])] = []
        /// First byte of the first piece that is not written.
        var offset = 0
        var queuedBytes = 0
        var lastDue: ContinuousClock.Instant?
        var allowance = 0.0
        var allowanceAt: ContinuousClock.Instant?
        var nextPieceAt: ContinuousClock.Instant?
        var bytesToFlip: Int?
        var bytesToCut: Int?
        var isLost = false
        var hasEnded = false
        var isShut = false
        var isBlocked = false
        var random: CounterRandom

        var to: Int { 1 - from }
    }

    private static let queueBytesMax = 4 << 20
    private static let readBytes = 64 << 10

    let link: Int
    private var sockets: [Int32]
    private var directions: [Direction]
    private var random: CounterRandom
    private var isStruck: ChaosProxy.Strike?
    private var scratch = [UInt8](repeating: 0, count: readBytes)

    init(link: Int, near: Int32, far: Int32, seed: UInt64, number: UInt64) {
        self.link = link
        sockets = [near, far]
        random = CounterRandom(seed: seed, step: number, purpose: .audit)
        directions = (0..<2).map { from in
            Direction(
                from: from,
                random: CounterRandom(
                    seed: seed, step: number, slot: UInt64(from + 1), purpose: .audit))
        }
    }

    var isOver: Bool { sockets.allSatisfy { $0 < 0 } }

    func end() { for place in sockets.indices { shut(place, reset: false) } }

    private func shut(_ place: Int, reset: Bool) {
        guard sockets[place] >= 0 else { return }
        if reset { TCP.reset(sockets[place]) } else { close(sockets[place]) }
        sockets[place] = -1
    }

    private func resetBoth() { for place in sockets.indices { shut(place, reset: true) } }

    func take(_ strike: ChaosProxy.Strike) { isStruck = strike }

    /// Moves what is due, in both directions.
    ///
    /// - Returns: how long nothing more is due.
    func move(
        _ conditions: ChaosProxy.Conditions, now: ContinuousClock.Instant,
        _ counts: inout ChaosProxy.Counts
    ) -> Duration {
        apply(&counts)
        guard !conditions.isBlackhole else { return .seconds(1) }
        var wait = Duration.seconds(1)
        for number in directions.indices {
            read(number, conditions, now: now, &counts)
            wait = min(wait, write(number, conditions, now: now, &counts))
        }
        if directions.allSatisfy(\.isShut) { end() }
        return wait
    }

    private func apply(_ counts: inout ChaosProxy.Counts) {
        guard let strike = isStruck else { return }
        isStruck = nil
        switch strike {
        case .reset:
            counts.resets += 1
            resetBoth()
        case .cut(let bytes):
            for number in directions.indices { directions[number].bytesToCut = bytes }
        case .halfOpen:
            counts.halfOpened += 1
            let which = random.index(below: 3)
            for number in directions.indices where which == 2 || which == number {
                directions[number].isLost = true
            }
        }
    }

    /// What to wait for: room where something could not be written, data where it is wanted.
    func interests(_ conditions: ChaosProxy.Conditions) -> [pollfd] {
        sockets.indices.compactMap { place in
            var events = 0
            if sockets[place] >= 0, !conditions.isBlackhole {
                if wantsRead(directions[place]) { events |= Int(POLLIN) }
                if directions[1 - place].isBlocked { events |= Int(POLLOUT) }
            }
            // One that is asked for nothing would report its end again and again.
            guard events != 0 else { return nil }
            return pollfd(fd: sockets[place], events: Int16(events), revents: 0)
        }
    }

    private func wantsRead(_ direction: Direction) -> Bool {
        !direction.hasEnded && direction.queuedBytes < Self.queueBytesMax
    }

    private func read(
        _ number: Int, _ conditions: ChaosProxy.Conditions, now: ContinuousClock.Instant,
        _ counts: inout ChaosProxy.Counts
    ) {
        let from = directions[number].from
        while sockets[from] >= 0, wantsRead(directions[number]) {
            let count = recv(sockets[from], &scratch, scratch.count, 0)
            if count > 0 {
                counts.bytes += count
                guard !directions[number].isLost else { continue }
                var bytes = Array(scratch[..<count])
                counts.flippedBits += spoil(&bytes, number, conditions)
                enqueue(bytes, number, conditions, now: now)
            } else if count == 0 || errno != EAGAIN && errno != ENOTCONN {
                directions[number].hasEnded = true
                // The other end hears nothing of what half-open connections lose.
                if directions[number].isLost {
                    directions[number].isShut = true
                    shut(from, reset: false)
                } else if count < 0 {
                    resetBoth()
                }
            } else {
                return
            }
        }
    }

    /// Flips bits at places that the connection's own generator draws.
    private func spoil(
        _ bytes: inout [UInt8], _ number: Int, _ conditions: ChaosProxy.Conditions
    ) -> Int {
        guard let mean = conditions.bytesPerFlip else {
            directions[number].bytesToFlip = nil
            return 0
        }
        var flips = 0
        var place =
            directions[number].bytesToFlip ?? directions[number].random.index(below: 2 * mean)
        while place < bytes.count {
            bytes[place] ^= 1 << UInt8(directions[number].random.index(below: 8))
            flips += 1
            place += 1 + directions[number].random.index(below: 2 * mean)
        }
        directions[number].bytesToFlip = place - bytes.count
        return flips
    }

    private func enqueue(
        _ bytes: [UInt8], _ number: Int, _ conditions: ChaosProxy.Conditions,
        now: ContinuousClock.Instant
    ) {
        var due = now + conditions.delay
        if conditions.jitter > .zero {
            due += conditions.jitter * directions[number].random.uniform()
        }
        if let last = directions[number].lastDue { due = max(due, last) }
        directions[number].lastDue = due
        directions[number].pieces.append((due, bytes))
        directions[number].queuedBytes += bytes.count
    }

    /// - Returns: how long nothing more is due in this direction.
    private func write(
        _ number: Int, _ conditions: ChaosProxy.Conditions, now: ContinuousClock.Instant,
        _ counts: inout ChaosProxy.Counts
    ) -> Duration {
        let to = directions[number].to
        directions[number].isBlocked = false
        while sockets[to] >= 0, let (due, bytes) = directions[number].pieces.first {
            guard due <= now else { return due - now }
            if let next = directions[number].nextPieceAt, conditions.dripBytes != nil, next > now {
                return next - now
            }
            var count = bytes.count - directions[number].offset
            if let drip = conditions.dripBytes { count = min(count, drip) }
            if let rate = conditions.bytesPerSecond {
                count = min(count, allow(number, rate, now: now))
                guard count > 0 else { return .milliseconds(2) }
            }
            if let left = directions[number].bytesToCut { count = min(count, left) }
            let offset = directions[number].offset
            let sent =
                count == 0
                ? 0
                : bytes.withUnsafeBytes {
                    send(sockets[to], $0.baseAddress! + offset, count, Int32(MSG_NOSIGNAL))
                }
            guard sent >= 0 else {
                guard errno == EAGAIN || errno == ENOTCONN else {
                    resetBoth()
                    return .seconds(1)
                }
                directions[number].isBlocked = true
                return .seconds(1)
            }
            passed(sent, number, conditions, now: now)
            if directions[number].bytesToCut == 0 {
                counts.cuts += 1
                resetBoth()
                return .seconds(1)
            }
        }
        if directions[number].hasEnded, !directions[number].isShut,
            directions[number].pieces.isEmpty, sockets[to] >= 0
        {
            directions[number].isShut = true
            shutdown(sockets[to], Int32(SHUT_WR))
        }
        return .seconds(1)
    }

    private func allow(
        _ number: Int, _ rate: Int, now: ContinuousClock.Instant
    ) -> Int {
        let since = directions[number].allowanceAt.map { now - $0 } ?? .zero
        directions[number].allowanceAt = now
        let seconds = since / .seconds(1)
        // A tenth of a second's worth at most, so that a pause is not made up for at once.
        directions[number].allowance = min(
            directions[number].allowance + seconds * Double(rate), Double(rate) / 10 + 1)
        return Int(directions[number].allowance)
    }

    private func passed(
        _ count: Int, _ number: Int, _ conditions: ChaosProxy.Conditions,
        now: ContinuousClock.Instant
    ) {
        directions[number].queuedBytes -= count
        directions[number].offset += count
        if conditions.bytesPerSecond != nil { directions[number].allowance -= Double(count) }
        if conditions.dripBytes != nil { directions[number].nextPieceAt = now + .milliseconds(1) }
        if let left = directions[number].bytesToCut { directions[number].bytesToCut = left - count }
        if directions[number].offset == directions[number].pieces[0].bytes.count {
            directions[number].pieces.removeFirst()
            directions[number].offset = 0
        }
    }
}

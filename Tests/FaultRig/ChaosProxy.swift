import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// A TCP proxy on 127.0.0.1 that treats connections as a bad network would; needs no privileges.
///
/// What it does to a connection's bytes is drawn from (seed, number of the connection, direction),
/// so that the same bytes are struck in the same places.
package final class ChaosProxy: Sendable {
    /// One port of the proxy and the port behind it.
    package struct Link: Hashable, Sendable {
        fileprivate let number: Int
        /// Where to connect.
        package let port: UInt16
    }

    /// How a link treats what passes, in both directions, until it is told otherwise.
    package struct Conditions: Sendable, Equatable {
        /// Time that every byte is under way.
        package var delay: Duration
        /// Further time, from none to so much, drawn for each read; the order is kept.
        package var jitter: Duration
        /// Bytes a second in each direction.
        package var bytesPerSecond: Int?
        /// Most bytes that are passed on at once, a millisecond apart.
        package var dripBytes: Int?
        /// Mean number of bytes from one flipped bit to the next.
        package var bytesPerFlip: Int?
        /// Whether nothing passes, while connections stay.
        package var isBlackhole: Bool

        package init(
            delay: Duration = .zero, jitter: Duration = .zero, bytesPerSecond: Int? = nil,
            dripBytes: Int? = nil, bytesPerFlip: Int? = nil, isBlackhole: Bool = false
        ) {
            self.delay = delay
            self.jitter = jitter
            self.bytesPerSecond = bytesPerSecond
            self.dripBytes = dripBytes
            self.bytesPerFlip = bytesPerFlip
            self.isBlackhole = isBlackhole
        }
    }

    /// What is done once to the connections that a link has.
    package enum Strike: Sendable {
        /// Both ends get a reset.
        case reset
        /// Both ends get a reset after so many further bytes in either direction: in mid-frame.
        case cut(afterBytes: Int)
        /// One or both directions lose everything from now on, and nobody is told.
        case halfOpen
    }

    /// What has been done so far.
    package struct Counts: Sendable {
        package var connections = 0
        package var bytes = 0
        package var flippedBits = 0
        package var resets = 0
        package var cuts = 0
        package var halfOpened = 0
    }

    private let loop: ProxyLoop

    /// Starts the proxy's thread.
    package init(seed: UInt64) {
        let loop = ProxyLoop(seed: seed)
        self.loop = loop
        Thread.detachNewThread { loop.run() }
    }

    deinit { stop() }

    /// Opens a link to a port of this machine; nobody need listen there yet.
    package func open(to target: UInt16) throws -> Link {
        let (listener, port) = try TCP.listen(blocking: false)
        let number = loop.change { shared in
            shared.opened.append((listener, target))
            shared.conditions.append(Conditions())
            return shared.conditions.count - 1
        }
        return Link(number: number, port: port)
    }

    /// Sets how a link treats what passes from now on.
    package func set(_ conditions: Conditions, on link: Link) {
        loop.change { $0.conditions[link.number] = conditions }
    }

    /// Strikes the connections that a link has now.
    package func strike(_ strike: Strike, on link: Link) {
        loop.change { $0.strikes.append((link.number, strike)) }
    }

    package var counts: Counts { loop.counts }

    /// Ends every connection and the thread.
    package func stop() { loop.change { $0.isStopping = true } }
}

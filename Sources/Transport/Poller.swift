internal import CZeroMQ
internal import Synchronization

/// Waits on sockets and a mailbox at once; belongs to one thread.
public struct Poller {
    /// Waits until a socket has a message or the mailbox an item, at most `timeout`.
    public static func wait(
        _ sockets: [Socket], wakeup: Wakeup? = nil, timeout: Duration
    ) {
        var items: [zmq_pollitem_t] = []
        for socket in sockets {
            items.append(
                zmq_pollitem_t(
                    socket: socket.handle, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0))
            if let monitor = socket.monitorHandle {
                items.append(
                    zmq_pollitem_t(socket: monitor, fd: 0, events: Int16(ZMQ_POLLIN), revents: 0))
            }
        }
        if let wakeup {
            items.append(
                zmq_pollitem_t(
                    socket: nil, fd: wakeup.descriptor, events: Int16(ZMQ_POLLIN), revents: 0))
        }
        let components = timeout.components
        let milliseconds =
            components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000
        zmq_poll(&items, Int32(items.count), max(0, Int(milliseconds)))
        wakeup?.clear()
    }
}

/// Ends another thread's wait; may be used from any thread.
public final class Wakeup: Sendable {
    let descriptor: Int32

    /// Opens an eventfd.
    public init() {
        descriptor = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
        precondition(descriptor >= 0, "eventfd could not be opened")
    }

    deinit { close(descriptor) }

    /// Ends the wait under way, or the next one.
    public func signal() {
        var one: UInt64 = 1
        _ = write(descriptor, &one, 8)
    }

    func clear() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
    }
}

/// Items from any thread for the one that polls.
public final class Mailbox<Item: Sendable>: Sendable {
    private let items = Mutex<[Item]>([])
    /// Ends the poller's wait.
    public let wakeup = Wakeup()

    /// Makes an empty mailbox.
    public init() {}

    /// Adds an item and wakes the poller.
    public func post(_ item: Item) {
        items.withLock { $0.append(item) }
        wakeup.signal()
    }

    /// Takes every item, oldest first.
    public func take() -> [Item] {
        items.withLock { items in
            defer { items = [] }
            return items
        }
    }
}

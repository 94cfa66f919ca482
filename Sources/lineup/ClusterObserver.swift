import Basics
import Dashboard
import Foundation
import Protocol
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// Shows a running cluster on standard error until it ends.
///
/// Belongs to the thread that calls ``poll(timeout:)``.
final class ClusterObserver {
    private let link: WorkerLink
    private let context: Context
    private let worker: String
    private let mode: TerminalMode
    private var screen = TerminalScreen()
    private var reporter = PlainReporter()
    private var lastPlain = ContinuousClock().now - .seconds(60)
    private var saidHello = false
    private var lastDrawn: ClusterView?
    /// The newest view, nil before the first.
    private(set) var view: ClusterView?
    /// Why the coordinator ended, once it has said so.
    private(set) var ending: String?
    private(set) var heardAt = ContinuousClock().now

    init(address: String, keys: WorkerKeys?) throws {
        context = try Context(
            keys: keys?.own, refusals: Refusals(label: "lineup.observer")
        ) { _ in false }
        link = try WorkerLink(
            context, coordinator: address, role: .observer, keys: keys, host: hostName())
        worker = link.worker
        mode = TerminalMode.detect(
            isTerminal: isatty(2) == 1, size: Self.terminalSize(),
            environment: ProcessInfo.processInfo.environment)
        sayHello()
    }

    private func sayHello() {
        var hello = WireHello()
        hello.lineupVersion = lineupVersion
        hello.role = .observer
        hello.worker = worker
        hello.host = hostName()
        hello.processID = UInt32(ProcessInfo.processInfo.processIdentifier)
        link.send(.hello(hello))
        saidHello = true
    }

    /// Takes what has arrived and draws it.
    func poll(timeout: Duration) throws {
        Poller.wait([link.socket], timeout: timeout)
        for event in try link.connectionEvents() {
            switch event {
            case .closed: saidHello = false
            case .opened: if !saidHello { sayHello() }
            case .failed: break
            }
        }
        for body in try link.receive() {
            heardAt = ContinuousClock().now
            switch body {
            case .status(let status):
                view = ClusterView(status)
                draw()
            case .refusal(let refusal): throw ObserverFailure(message: refusal.message)
            case .stop(let stop) where stop.reason != .expelled: ending = stop.message
            case .stop: sayHello()
            default: break
            }
        }
    }

    /// Draws the last view once more, whatever was skipped.
    func finish() {
        guard let view, view != lastDrawn else { return }
        draw(final: true)
    }

    private func draw(final: Bool = false) {
        guard let view else { return }
        switch mode {
        case .interactive(let columns, let rows, let colour):
            let size = Self.terminalSize() ?? (columns, rows)
            let lines = TerminalRenderer.render(
                view, columns: size.columns, rows: size.rows - 1, colour: colour)
            write(screen.frame(lines, rows: size.rows))
            lastDrawn = view
        case .plain:
            // A log wants a line now and then, but every score and event.
            let now = ContinuousClock().now
            let isNews =
                view.scores != lastDrawn?.scores || view.events != lastDrawn?.events
                || view.state != lastDrawn?.state || view.isFinal || final
            guard isNews || now - lastPlain >= .seconds(2) else { return }
            lastPlain = now
            lastDrawn = view
            for line in reporter.lines(for: view) { write(line + "\n") }
        }
    }

    private func write(_ text: String) {
        writeError(text)
    }

    private static func terminalSize() -> (columns: Int, rows: Int)? {
        var size = winsize()
        guard ioctl(2, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
        return (Int(size.ws_col), Int(size.ws_row))
    }
}

/// A coordinator that does not want to be watched, or is not there.
struct ObserverFailure: LineupError {
    let message: String
    var isBadInput: Bool { true }
}

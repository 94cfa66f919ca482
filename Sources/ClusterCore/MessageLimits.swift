internal import Protocol

/// What of a worker's message may be kept, logged or sent on: a worker that is allowed here may still
/// be wrong in every byte.
enum MessageLimits {
    /// Longest reason that is taken from a worker, in bytes of UTF-8.
    static let reasonBytesMax = 512
    /// Longest name of a worker, host or version; ZeroMQ's own names end at 255.
    static let nameBytesMax = 255
    /// Longest list of addresses.
    static let addressBytesMax = 1024
    /// Longest description of a numerics class.
    static let numericsBytesMax = 1024
    /// Most metrics of one set, and the longest name of one.
    static let metricsMax = 64
    static let metricBytesMax = 64
    /// Most copies of its state that a worker keeps, tasks that it names, and losses of a sum.
    static let listMax = 64

    /// Why a HELLO is none of ours; nil for one that could be.
    static func objection(_ hello: WireHello, slotCount: Int) -> String? {
        let names = [hello.lineupVersion, hello.worker, hello.host, hello.device]
        let isWithin =
            names.allSatisfy { $0.utf8.count <= nameBytesMax }
            && hello.dataAddress.utf8.count <= addressBytesMax
            && hello.numerics.description_p.utf8.count <= numericsBytesMax
            && hello.heldSlots.count <= slotCount && hello.copies.count <= listMax
        return isWithin ? nil : "its HELLO is larger than any of this version"
    }

    /// Whether a ledger can hold the rows.
    static func isSound(_ rows: WireEvaluationRows) -> Bool {
        rows.started.isFinite && rows.finished.isFinite
            && (1...metricsMax).contains(rows.metrics.count)
            && rows.metrics.allSatisfy { (1...metricBytesMax).contains($0.metric.utf8.count) }
    }
}

extension String {
    /// The text, or the beginning of a longer one than is kept.
    func clipped(_ bytesMax: Int = MessageLimits.reasonBytesMax) -> String {
        utf8.count <= bytesMax
            ? self : String(decoding: utf8.prefix(bytesMax), as: UTF8.self) + "..."
    }
}

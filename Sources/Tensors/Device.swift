import CTorch

/// Where a tensor lives and its operators run.
public struct Device: Hashable, Sendable, CustomStringConvertible {
    /// The kinds of device that Lineup uses.
    public enum Kind: Int32, Hashable, Sendable {
        case cpu = 0
        case cuda = 1
    }

    /// The kind.
    public let kind: Kind
    /// Number among the devices of the kind; 0 for the CPU.
    public let index: Int

    private init(kind: Kind, index: Int) {
        self.kind = kind
        self.index = index
    }

    /// The host's processor.
    public static let cpu = Device(kind: .cpu, index: 0)

    /// A CUDA device by its number.
    public static func cuda(_ index: Int) -> Device {
        precondition(0 <= index && index < 128, "cuda(\(index)): the number must be in 0..<128")
        return Device(kind: .cuda, index: index)
    }

    /// Reads `cpu`, `cuda` (the first) or `cuda:N`.
    ///
    /// - Throws: ``TensorError`` with code `deviceMissing` for any other text. Whether the device
    ///   exists on this machine is not asked; see ``requireAvailable()``.
    public init(parsing text: String) throws(TensorError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let index = parts.count == 2 ? Self.number(parts[1]) : 0
        switch (parts.first.map(String.init), parts.count, index) {
        case ("cpu", 1, _), ("cpu", 2, 0): self = .cpu
        case ("cuda", 1...2, .some(let index)): self = .cuda(index)
        default:
            throw TensorError(
                code: .deviceMissing,
                message: "device '\(text)' is not known; write cpu, cuda or cuda:N (N from 0)")
        }
    }

    private static func number(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let value = Int(text), value < 128
        else { return nil }
        return value
    }

    /// `cpu` or `cuda:N`.
    public var description: String {
        switch kind {
        case .cpu: "cpu"
        case .cuda: "cuda:\(index)"
        }
    }

    /// Throws unless the engine can use this device here.
    ///
    /// - Throws: ``TensorError`` with code `deviceMissing`, or `engineMissing`.
    public func requireAvailable() throws(TensorError) {
        let count = try Engine.deviceCount(kind)
        guard index >= count else { return }
        let reason =
            count > 0
            ? "there are \(count), numbered from 0"
            : "LibTorch \(try Engine.version()) sees no CUDA device "
                + "(it needs a CUDA build and an NVIDIA driver; see lineup doctor)"
        throw TensorError(
            code: .deviceMissing, message: "device \(self) is not on this machine: \(reason)")
    }

    /// Free and total bytes of a CUDA device's memory.
    public func memory() throws(TensorError) -> (free: UInt64, total: UInt64) {
        let table = try Engine.table()
        var free: UInt64 = 0
        var total: UInt64 = 0
        try table.check(
            table.functions.device_memory(kind.rawValue, Int32(index), &free, &total),
            "memory of \(self)")
        return (free, total)
    }

    /// The model as its driver names it, for instance `NVIDIA H100 80GB HBM3`.
    ///
    /// - Throws: ``TensorError`` for the CPU, whose name LibTorch does not know.
    public func model() throws(TensorError) -> String {
        let table = try Engine.table()
        var text = [CChar](repeating: 0, count: 256)
        try table.check(
            table.functions.device_name(kind.rawValue, Int32(index), &text, Int32(text.count)),
            "model of \(self)")
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Waits until the device has finished everything that was queued on it.
    public func synchronize() throws(TensorError) {
        let table = try Engine.table()
        try table.check(
            table.functions.device_synchronize(kind.rawValue, Int32(index)), "wait for \(self)")
    }

    /// Makes this the device on which the calling OS thread's new queues and contexts are.
    public func select() throws(TensorError) {
        let table = try Engine.table()
        try table.check(
            table.functions.device_select(kind.rawValue, Int32(index)), "select \(self)")
    }

    /// LibTorch's index of the device, -1 for the CPU.
    var rawIndex: Int32 { kind == .cpu ? -1 : Int32(index) }

    /// The form in which the shim takes a device as an operator's argument.
    var packed: Int64 { Int64(kind.rawValue) << 8 | Int64(rawIndex + 1) }

    init?(rawKind: Int32, rawIndex: Int32) {
        guard let kind = Kind(rawValue: rawKind) else { return nil }
        self.init(kind: kind, index: max(0, Int(rawIndex)))
    }
}

// @unchecked: the handle never changes; the shim's event functions may be called from any thread.
/// A point in the work queue of a CUDA device.
///
/// Copies between pinned host memory and the device run while the host goes on; an event says when
/// they are done.
public final class DeviceEvent: @unchecked Sendable {
    private let table: EngineTable
    private let handle: OpaquePointer

    /// Marks the present end of what the calling thread has queued on the device.
    ///
    /// - Throws: ``TensorError`` for the CPU, which has no queue.
    public init(recordingOn device: Device) throws(TensorError) {
        let table = try Engine.table()
        var handle: OpaquePointer?
        try table.check(
            table.functions.event_record(device.kind.rawValue, Int32(device.index), &handle),
            "mark the queue of \(device)")
        self.table = table
        self.handle = handle!
    }

    deinit { table.functions.event_free(handle) }

    /// Blocks the calling OS thread until the device has passed this point.
    public func wait() throws(TensorError) {
        try table.check(table.functions.event_wait(handle), "wait for a device event")
    }

    /// Whether the device has passed this point.
    public func isDone() throws(TensorError) -> Bool {
        var done: Int32 = 0
        try table.check(table.functions.event_query(handle, &done), "query a device event")
        return done != 0
    }
}

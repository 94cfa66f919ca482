import CTorch

// @unchecked: the handle never changes and LibTorch counts references atomically. Contents are
// guarded by their owner: a tensor that one thread writes in place no other thread uses meanwhile.
/// An array of numbers with a shape, on a device.
///
/// A reference to a tensor of LibTorch. Operators make new tensors; those whose name ends in `_`
/// change the receiver in place.
///
/// ```swift
/// let x = try Tensor([1, 2, 3, 4] as [Float], shape: [2, 2]).requiresGradient()
/// let y = try (x * x).sum()
/// let dx = try gradients(of: y, withRespectTo: [x])[0].floats()   // [2, 4, 6, 8]
/// ```
public final class Tensor: @unchecked Sendable {
    let handle: OpaquePointer
    private let table: EngineTable

    /// Takes over one reference; tensors exist only after the engine was opened.
    init(adopting handle: OpaquePointer) {
        guard let table = try? Engine.table() else {
            preconditionFailure("a tensor handle exists although the engine is not open")
        }
        self.handle = handle
        self.table = table
    }

    deinit { table.functions.tensor_free(handle) }

    // MARK: - From Swift values

    /// Copies 32-bit floats in row-major order.
    ///
    /// - Parameter shape: one dimension when left out.
    /// - Throws: ``TensorError`` with code `unsuitableTensor` when the counts differ.
    public convenience init(_ values: [Float], shape: [Int]? = nil) throws(TensorError) {
        self.init(adopting: try Self.copy(values, shape))
    }

    /// Copies integers in row-major order into an `int64` tensor.
    public convenience init(_ values: [Int], shape: [Int]? = nil) throws(TensorError) {
        self.init(adopting: try Self.copy(values, shape))
    }

    /// Copies 64-bit integers in row-major order.
    public convenience init(_ values: [Int64], shape: [Int]? = nil) throws(TensorError) {
        self.init(adopting: try Self.copy(values, shape))
    }

    /// Copies elements of any supported Swift type in row-major order.
    public convenience init<Element: TensorElement>(
        copying values: [Element], shape: [Int]? = nil
    ) throws(TensorError) {
        self.init(adopting: try Self.copy(values, shape))
    }

    /// One element without dimensions.
    public convenience init(_ value: Float) throws(TensorError) {
        self.init(adopting: try Self.copy([value], []))
    }

    private static func copy<Element: TensorElement>(
        _ values: [Element], _ shape: [Int]?
    ) throws(TensorError) -> OpaquePointer {
        let shape = shape ?? [values.count]
        let wanted = try elementCount(shape)
        guard wanted == values.count else {
            throw TensorError(
                code: .unsuitableTensor,
                message: "a tensor of shape \(shape) has \(wanted) elements, not \(values.count)")
        }
        let outcome = values.withUnsafeBytes { bytes in
            Result { () throws(TensorError) in try copy(bytes.baseAddress, shape, Element.dtype) }
        }
        return try outcome.get()
    }

    private static func copy(
        _ data: UnsafeRawPointer?, _ shape: [Int], _ dtype: DType
    ) throws(TensorError) -> OpaquePointer {
        let table = try Engine.table()
        let sizes = shape.map(Int64.init)
        var handle: OpaquePointer?
        try table.check(
            table.functions.tensor_copy(
                data, sizes, Int32(sizes.count), dtype.rawValue, &handle),
            "new tensor \(dtype)\(shape)")
        return handle!
    }

    /// Copies bytes that lie in row-major order.
    ///
    /// - Throws: ``TensorError`` with code `unsuitableTensor` when the byte counts differ.
    public convenience init(
        copying bytes: UnsafeRawBufferPointer, shape: [Int], dtype: DType
    ) throws(TensorError) {
        let wanted = try Self.elementCount(shape) * dtype.byteCount
        guard wanted == bytes.count else {
            throw TensorError(
                code: .unsuitableTensor,
                message: "a tensor \(dtype)\(shape) has \(wanted) bytes, not \(bytes.count)")
        }
        self.init(adopting: try Self.copy(bytes.baseAddress, shape, dtype))
    }

    /// A tensor over memory that stays where it is; nothing is copied.
    ///
    /// - Parameters:
    ///   - data: host memory, aligned for `dtype`, valid until the last reference to the tensor
    ///     and its views is gone.
    ///   - shape: in row-major order unless `strides` says otherwise.
    ///   - strides: steps in elements, one for each dimension.
    ///   - owner: kept alive as long as LibTorch uses the memory; released on whichever thread
    ///     drops the last reference.
    public convenience init(
        viewing data: UnsafeMutableRawPointer, shape: [Int], strides: [Int]? = nil, dtype: DType,
        keepingAlive owner: AnyObject? = nil
    ) throws(TensorError) {
        let table = try Engine.table()
        _ = try Self.elementCount(shape)
        guard UInt(bitPattern: data) % UInt(dtype.byteCount) == 0 else {
            throw TensorError(
                code: .unsuitableTensor,
                message: "memory at \(data) is not aligned for \(dtype); "
                    + "a view needs a multiple of \(dtype.byteCount)")
        }
        guard strides == nil || strides!.count == shape.count else {
            throw TensorError(
                code: .unsuitableTensor,
                message: "strides \(strides!) do not fit the shape \(shape)")
        }
        let sizes = shape.map(Int64.init)
        let steps = strides?.map(Int64.init)
        var handle: OpaquePointer?
        let context = owner.map { Unmanaged.passRetained($0).toOpaque() }
        let release: ct_release? =
            owner == nil
            ? nil : { context in Unmanaged<AnyObject>.fromOpaque(context!).release() }
        let status = Self.withOptionalPointer(steps) { steps in
            table.functions.tensor_view(
                data, sizes, steps, Int32(sizes.count), dtype.rawValue, Device.cpu.kind.rawValue,
                -1, release, context, &handle)
        }
        try table.check(status, "view of memory as \(dtype)\(shape)")
        self.init(adopting: handle!)
    }

    private static func withOptionalPointer<Result>(
        _ items: [Int64]?, _ body: (UnsafePointer<Int64>?) -> Result
    ) -> Result {
        guard let items else { return body(nil) }
        return items.withUnsafeBufferPointer { body($0.baseAddress) }
    }

    /// The product of the dimensions.
    static func elementCount(_ shape: [Int]) throws(TensorError) -> Int {
        var count = 1
        for size in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard size >= 0, !overflow else {
                throw TensorError(
                    code: .unsuitableTensor,
                    message: "\(shape) is no shape; sizes are not negative and their product fits")
            }
            count = product
        }
        return count
    }

    // MARK: - What it is

    /// Everything that can be read off without touching the elements.
    var raw: ct_description {
        var description = ct_description()
        let status = table.functions.tensor_describe(handle, &description)
        precondition(status == 0, "\(table.failure(status, "describe a tensor"))")
        return description
    }

    private func integers(_ start: UnsafePointer<Int64>?, _ count: Int32) -> [Int] {
        UnsafeBufferPointer(start: start, count: Int(count)).map(Int.init)
    }

    /// Sizes of the dimensions.
    public var shape: [Int] {
        withExtendedLifetime(self) {
            let raw = raw
            return integers(raw.shape, raw.dimensions)
        }
    }

    /// Steps in elements between neighbours along each dimension.
    public var strides: [Int] {
        withExtendedLifetime(self) {
            let raw = raw
            return integers(raw.strides, raw.dimensions)
        }
    }

    /// Number of dimensions.
    public var rank: Int { Int(raw.dimensions) }

    /// Number of elements.
    public var count: Int { Int(raw.count) }

    /// Size of one dimension; negative numbers count from the last.
    public func size(_ dimension: Int) -> Int {
        let shape = shape
        let place = dimension < 0 ? dimension + shape.count : dimension
        precondition(
            shape.indices.contains(place), "dimension \(dimension) of a tensor of shape \(shape)")
        return shape[place]
    }

    /// Type of the elements.
    public var dtype: DType {
        let number = raw.dtype
        guard let dtype = DType(rawValue: number) else {
            preconditionFailure("LibTorch's scalar type \(number) is not used by Lineup")
        }
        return dtype
    }

    /// Where the elements are.
    public var device: Device {
        let raw = raw
        guard let device = Device(rawKind: raw.device_type, rawIndex: raw.device_index) else {
            preconditionFailure("LibTorch's device type \(raw.device_type) is not used by Lineup")
        }
        return device
    }

    /// Whether the elements lie in row-major order without gaps.
    public var isContiguous: Bool { raw.is_contiguous != 0 }

    /// Whether the tensor has four dimensions that lie in the order N, H, W, C without gaps.
    public var isChannelsLast: Bool { raw.is_channels_last != 0 }

    /// Whether operators on this tensor are recorded.
    public var needsGradient: Bool { raw.requires_gradient != 0 }

    /// The address of the first element, for telling views apart; nil when there is none.
    public var dataAddress: UInt? { raw.data.map { UInt(bitPattern: $0) } }

    /// Dtype and shape, as error messages show them: `float32[2, 3]`.
    public var summary: String {
        let raw = raw
        let kind = DType(rawValue: raw.dtype)?.description ?? "dtype\(raw.dtype)"
        let place = device == .cpu ? "" : "@\(device)"
        return "\(kind)\(shape)\(place)"
    }

    // MARK: - Gradients

    /// Turns the recording of operators on this tensor on or off, and returns it.
    ///
    /// - Throws: ``TensorError`` unless it is a leaf of a floating-point dtype.
    @discardableResult
    public func requiresGradient(_ required: Bool = true) throws(TensorError) -> Tensor {
        let status = table.functions.tensor_require_gradient(handle, required ? 1 : 0)
        try table.check(status, "requiresGradient of \(summary)")
        return self
    }

    /// The same elements, without history.
    public func detach() throws(TensorError) -> Tensor {
        var detached: OpaquePointer?
        try table.check(table.functions.tensor_detach(handle, &detached), "detach of \(summary)")
        return Tensor(adopting: detached!)
    }
}

extension Tensor: CustomStringConvertible {
    /// Dtype, shape and, of small tensors on the host, the elements.
    public var description: String {
        guard count <= 16, dtype.isFloatingPoint, let values = try? floats() else { return summary }
        return "\(summary) \(values)"
    }
}

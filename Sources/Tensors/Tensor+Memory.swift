import CTorch

extension Tensor {
    /// The elements' memory in row-major order, valid while the tensor or a view of it lives.
    ///
    /// Prefer ``withUnsafeBytes(_:)``; this is for memory that other threads read or write on their
    /// own, such as gradient exchange.
    ///
    /// - Throws: ``TensorError`` with code `unsuitableTensor` unless the tensor is contiguous and
    ///   on the CPU.
    public func unsafeMutableBytes() throws(TensorError) -> UnsafeMutableRawBufferPointer {
        let raw = raw
        guard raw.is_contiguous != 0, raw.device_type == Device.Kind.cpu.rawValue else {
            let state = raw.is_contiguous != 0 ? "" : ", which is not in row-major order,"
            throw TensorError(
                code: .unsuitableTensor,
                message: "cannot read the memory of \(summary)\(state) in place; "
                    + "use contiguous() or to(device: .cpu) first")
        }
        return UnsafeMutableRawBufferPointer(
            start: raw.data, count: Int(raw.count) * dtype.byteCount)
    }

    /// Calls `body` with the elements' memory in row-major order.
    ///
    /// - Throws: ``TensorError`` with code `unsuitableTensor` unless the tensor is contiguous and
    ///   on the CPU, and what `body` throws.
    public func withUnsafeBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws(TensorError) -> Result
    ) throws(TensorError) -> Result {
        let bytes = try unsafeMutableBytes()
        defer { withExtendedLifetime(self) {} }
        return try body(UnsafeRawBufferPointer(bytes))
    }

    /// Calls `body` with the elements' memory in row-major order, for writing.
    ///
    /// Autograd does not see what is written; use it on tensors that no graph refers to.
    public func withUnsafeMutableBytes<Result>(
        _ body: (UnsafeMutableRawBufferPointer) throws(TensorError) -> Result
    ) throws(TensorError) -> Result {
        let bytes = try unsafeMutableBytes()
        defer { withExtendedLifetime(self) {} }
        return try body(bytes)
    }

    /// The elements in row-major order, without conversion.
    ///
    /// Copies from the device and gathers strided tensors where needed.
    ///
    /// - Throws: ``TensorError`` with code `unsuitableTensor` when the dtype is not `Element`'s.
    public func values<Element: TensorElement>(
        as type: Element.Type = Element.self
    ) throws(TensorError) -> [Element] {
        guard dtype == Element.dtype else {
            throw TensorError(
                code: .unsuitableTensor,
                message: "the elements of \(summary) are \(dtype), not \(Element.dtype); "
                    + "convert with to(dtype:)")
        }
        let source = try detach().to(device: .cpu).contiguous()
        return try source.withUnsafeBytes { bytes throws(TensorError) in
            [Element](unsafeUninitializedCapacity: bytes.count / MemoryLayout<Element>.stride) {
                buffer, count in
                UnsafeMutableRawBufferPointer(buffer).copyMemory(from: bytes)
                count = bytes.count / MemoryLayout<Element>.stride
            }
        }
    }

    /// The elements in row-major order, converted to 32-bit floats.
    public func floats() throws(TensorError) -> [Float] {
        try detach().to(dtype: .float32).values(as: Float.self)
    }

    /// The elements in row-major order, converted to integers.
    public func integers() throws(TensorError) -> [Int] {
        try detach().to(dtype: .int64).values(as: Int.self)
    }

    /// The only element, converted to double; waits for the device.
    ///
    /// - Throws: ``TensorError`` when there is not exactly one element.
    public func item() throws(TensorError) -> Double {
        let table = try Engine.table()
        var value = 0.0
        try table.check(table.functions.tensor_item(handle, &value), "item of \(summary)")
        return value
    }
}

extension Tensor {
    /// A copy with memory of its own.
    public func clone(memoryFormat: MemoryFormat = .preserve) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::clone", [.tensor(self), .memoryFormat(memoryFormat)])
    }

    /// The same elements on a device, in a dtype, in an order; the tensor itself where it is so.
    public func to(
        device: Device? = nil, dtype: DType? = nil, memoryFormat: MemoryFormat? = nil,
        nonBlocking: Bool = false
    ) throws(TensorError) -> Tensor {
        if device == nil || device == self.device, dtype == nil || dtype == self.dtype,
            memoryFormat == nil || memoryFormat == .preserve
        {
            return self
        }
        // _to_copy alone would copy also where nothing changes.
        return try callTensorOperator(
            "aten::to", overload: "dtype_layout",
            [
                .tensor(self), .optional(dtype), .none, device.map(Argument.device) ?? .none,
                .none, .bool(nonBlocking), .bool(false),
                memoryFormat.map(Argument.memoryFormat) ?? .none,
            ])
    }

    /// The same elements in an order in memory; the tensor itself where it is so.
    public func contiguous(
        _ memoryFormat: MemoryFormat = .contiguous
    ) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::contiguous", [.tensor(self), .memoryFormat(memoryFormat)])
    }

    /// A copy in host memory that a CUDA device copies from and to on its own.
    public func pinned() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::pin_memory", [.tensor(self)])
    }

    /// The same elements in another shape, shared where possible; -1 takes what is left.
    public func reshape(_ shape: [Int]) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::reshape", [.tensor(self), .ints(shape)])
    }

    /// The same memory in another shape; -1 takes what is left.
    ///
    /// - Throws: ``TensorError`` when that needs a copy; see ``reshape(_:)``.
    public func view(_ shape: [Int]) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::view", [.tensor(self), .ints(shape)])
    }

    /// Merges the dimensions `from...to` into one.
    public func flatten(from: Int = 0, to: Int = -1) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::flatten", overload: "using_ints", [.tensor(self), .int(from), .int(to)])
    }

    /// The dimensions in another order; shares memory.
    public func permute(_ dims: [Int]) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::permute", [.tensor(self), .ints(dims)])
    }

    /// Swaps two dimensions; shares memory.
    public func transpose(_ first: Int = -2, _ second: Int = -1) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::transpose", overload: "int", [.tensor(self), .int(first), .int(second)])
    }

    /// Removes a dimension of size one.
    public func squeeze(_ dim: Int) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::squeeze", overload: "dim", [.tensor(self), .int(dim)])
    }

    /// Inserts a dimension of size one.
    public func unsqueeze(_ dim: Int) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::unsqueeze", [.tensor(self), .int(dim)])
    }

    /// Repeats dimensions of size one without a copy; -1 keeps a size.
    public func expand(_ shape: [Int]) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::expand", [.tensor(self), .ints(shape)])
    }

    /// `length` places of a dimension from `start`; shares memory.
    public func narrow(
        _ dim: Int, start: Int, length: Int
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::narrow", [.tensor(self), .int(dim), .int(start), .int(length)])
    }

    /// One place of a dimension, which disappears; shares memory.
    public func select(_ dim: Int, _ index: Int) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::select", overload: "int", [.tensor(self), .int(dim), .int(index)])
    }

    /// Cuts a dimension into pieces of the given sizes; they share memory.
    public func split(_ sizes: [Int], dim: Int = 0) throws(TensorError) -> [Tensor] {
        let results = try callOperator(
            "aten::split_with_sizes", [.tensor(self), .ints(sizes), .int(dim)])
        guard case .tensors(let pieces)? = results.first else { return [] }
        return pieces.compactMap { $0 }
    }

    /// Adds a border: two numbers (before, after) for each dimension from the last on.
    public func pad(_ border: [Int], value: Double = 0) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::constant_pad_nd", [.tensor(self), .ints(border), .double(value)])
    }

    /// Along `dim`, the elements whose places `index` gives; shapes match but along `dim`.
    public func gather(_ dim: Int, _ index: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::gather", [.tensor(self), .int(dim), .tensor(index)])
    }

    /// The slices of `dim` whose numbers the one-dimensional `index` gives.
    public func indexSelect(_ dim: Int, _ index: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::index_select", [.tensor(self), .int(dim), .tensor(index)])
    }

    /// A lower triangle; elements above diagonal `diagonal` become zero.
    public func tril(diagonal: Int = 0) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::tril", [.tensor(self), .int(diagonal)])
    }

    /// An upper triangle; elements below diagonal `diagonal` become zero.
    public func triu(diagonal: Int = 0) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::triu", [.tensor(self), .int(diagonal)])
    }
}

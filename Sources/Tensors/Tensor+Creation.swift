extension Tensor {
    /// Zeros.
    public static func zeros(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::zeros", [.ints(shape), .dtype(dtype), .none, .device(device)])
    }

    /// Ones.
    public static func ones(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::ones", [.ints(shape), .dtype(dtype), .none, .device(device)])
    }

    /// One value everywhere.
    public static func full(
        _ shape: [Int], _ value: Double, dtype: DType = .float32, device: Device = .cpu
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::full",
            [.ints(shape), .double(value), .dtype(dtype), .none, .device(device)])
    }

    /// Memory whose contents are not set.
    ///
    /// - Parameter pinned: host memory that a CUDA device copies from and to on its own.
    public static func empty(
        _ shape: [Int], dtype: DType = .float32, device: Device = .cpu,
        memoryFormat: MemoryFormat = .contiguous, pinned: Bool = false
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::empty", overload: "memory_format",
            [
                .ints(shape), .dtype(dtype), .none, .device(device), .bool(pinned),
                .memoryFormat(memoryFormat),
            ])
    }

    /// The integers 0..<end as `int64`, or another dtype.
    public static func arange(
        _ end: Int, dtype: DType = .int64, device: Device = .cpu
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::arange", [.int(end), .dtype(dtype), .none, .device(device)])
    }

    /// The identity matrix.
    public static func eye(
        _ size: Int, dtype: DType = .float32, device: Device = .cpu
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::eye", [.int(size), .dtype(dtype), .none, .device(device)])
    }

    /// Zeros with this tensor's shape, dtype, device and order in memory.
    public func zerosLike() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::zeros_like", [.tensor(self)])
    }

    /// Memory with this tensor's shape, dtype, device and order, whose contents are not set.
    public func emptyLike() throws(TensorError) -> Tensor {
        try callTensorOperator("aten::empty_like", [.tensor(self)])
    }

    /// Joins along an existing dimension.
    public static func cat(_ tensors: [Tensor], dim: Int = 0) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::cat", [.tensors(tensors), .int(dim)])
    }

    /// Joins along a new dimension.
    public static func stack(_ tensors: [Tensor], dim: Int = 0) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::stack", [.tensors(tensors), .int(dim)])
    }

    /// Elements of `first` where `condition` holds, else of `second`; shapes broadcast.
    public static func `where`(
        _ condition: Tensor, _ first: Tensor, _ second: Tensor
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::where", overload: "self",
            [.tensor(condition), .tensor(first), .tensor(second)])
    }

    /// Elements of `first` where `condition` holds, else `second`; shapes broadcast.
    public static func `where`(
        _ condition: Tensor, _ first: Tensor, _ second: Double
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::where", overload: "ScalarOther",
            [.tensor(condition), .tensor(first), .double(second)])
    }
}

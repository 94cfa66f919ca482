// Operators may throw, because shapes are checked when they run: `try (x * y).sum()`.
extension Tensor {
    private static func binary(
        _ name: String, _ left: Tensor, _ right: Tensor
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(name, overload: "Tensor", [.tensor(left), .tensor(right)])
    }

    private static func binary(
        _ name: String, _ left: Tensor, _ right: Double
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(name, overload: "Scalar", [.tensor(left), .double(right)])
    }

    private func unary(_ name: String) throws(TensorError) -> Tensor {
        try callTensorOperator(name, [.tensor(self)])
    }

    /// Element-wise sum.
    public static func + (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::add", left, right)
    }

    /// Adds a number to every element.
    public static func + (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::add", left, right)
    }

    /// Adds a number to every element.
    public static func + (left: Double, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::add", right, left)
    }

    /// Element-wise difference.
    public static func - (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::sub", left, right)
    }

    /// Subtracts a number from every element.
    public static func - (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::sub", left, right)
    }

    /// Subtracts every element from a number.
    public static func - (left: Double, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::rsub", right, left)
    }

    /// Negates every element.
    public static prefix func - (tensor: Tensor) throws(TensorError) -> Tensor {
        try tensor.unary("aten::neg")
    }

    /// Element-wise product.
    public static func * (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::mul", left, right)
    }

    /// Multiplies every element by a number.
    public static func * (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::mul", left, right)
    }

    /// Multiplies every element by a number.
    public static func * (left: Double, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::mul", right, left)
    }

    /// Element-wise quotient.
    public static func / (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::div", left, right)
    }

    /// Divides every element by a number.
    public static func / (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::div", left, right)
    }

    /// Where elements are smaller, as `bool`.
    public static func .< (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::lt", left, right)
    }

    /// Where elements are smaller, as `bool`.
    public static func .< (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::lt", left, right)
    }

    /// Where elements are smaller or equal, as `bool`.
    public static func .<= (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::le", left, right)
    }

    /// Where elements are smaller or equal, as `bool`.
    public static func .<= (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::le", left, right)
    }

    /// Where elements are greater, as `bool`.
    public static func .> (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::gt", left, right)
    }

    /// Where elements are greater, as `bool`.
    public static func .> (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::gt", left, right)
    }

    /// Where elements are greater or equal, as `bool`.
    public static func .>= (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::ge", left, right)
    }

    /// Where elements are greater or equal, as `bool`.
    public static func .>= (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::ge", left, right)
    }

    /// Where elements are equal, as `bool`.
    public static func .== (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::eq", left, right)
    }

    /// Where elements are equal, as `bool`.
    public static func .== (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::eq", left, right)
    }

    /// Where elements differ, as `bool`.
    public static func .!= (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try binary("aten::ne", left, right)
    }

    /// Where elements differ, as `bool`.
    public static func .!= (left: Tensor, right: Double) throws(TensorError) -> Tensor {
        try binary("aten::ne", left, right)
    }

    /// Both, of `bool` tensors.
    public static func .& (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::logical_and", [.tensor(left), .tensor(right)])
    }

    /// Either, of `bool` tensors.
    public static func .| (left: Tensor, right: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::logical_or", [.tensor(left), .tensor(right)])
    }

    /// The opposite of a `bool` tensor.
    public func not() throws(TensorError) -> Tensor { try unary("aten::logical_not") }

    /// Whether both have the same shape and equal elements.
    public func isEqual(to other: Tensor) throws(TensorError) -> Bool {
        guard
            case .bool(let equal)? =
                try callOperator("aten::equal", [.tensor(self), .tensor(other)]).first
        else { return false }
        return equal
    }

    /// The natural logarithm.
    public func log() throws(TensorError) -> Tensor { try unary("aten::log") }

    /// log(1 + x).
    public func log1p() throws(TensorError) -> Tensor { try unary("aten::log1p") }

    /// The exponential.
    public func exp() throws(TensorError) -> Tensor { try unary("aten::exp") }

    /// The square root.
    public func sqrt() throws(TensorError) -> Tensor { try unary("aten::sqrt") }

    /// One over the square root.
    public func rsqrt() throws(TensorError) -> Tensor { try unary("aten::rsqrt") }

    /// One over each element.
    public func reciprocal() throws(TensorError) -> Tensor { try unary("aten::reciprocal") }

    /// The absolute value; its gradient at 0 is 0.
    public func abs() throws(TensorError) -> Tensor { try unary("aten::abs") }

    /// -1, 0 or 1.
    public func sign() throws(TensorError) -> Tensor { try unary("aten::sign") }

    /// Each element times itself.
    public func square() throws(TensorError) -> Tensor { try self * self }

    /// Each element to a power.
    public func pow(_ exponent: Double) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::pow", overload: "Tensor_Scalar", [.tensor(self), .double(exponent)])
    }

    /// max(x, 0).
    public func relu() throws(TensorError) -> Tensor { try unary("aten::relu") }

    /// max(x, 0) in place.
    @discardableResult
    public func relu_() throws(TensorError) -> Tensor {
        try callOperator("aten::relu_", [.tensor(self)])
        return self
    }

    /// 1 / (1 + exp(-x)).
    public func sigmoid() throws(TensorError) -> Tensor { try unary("aten::sigmoid") }

    /// The hyperbolic tangent.
    public func tanh() throws(TensorError) -> Tensor { try unary("aten::tanh") }

    /// log(1 + exp(beta x)) / beta; linear above `threshold`.
    public func softplus(
        beta: Double = 1, threshold: Double = 20
    ) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::softplus", [.tensor(self), .double(beta), .double(threshold)])
    }

    /// Limits elements to a range; nil leaves a side open.
    public func clamp(min: Double? = nil, max: Double? = nil) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::clamp",
            [
                .tensor(self), min.map(Argument.double) ?? .none,
                max.map(Argument.double) ?? .none,
            ])
    }

    /// The larger of each pair of elements.
    public func maximum(_ other: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::maximum", [.tensor(self), .tensor(other)])
    }

    /// The smaller of each pair of elements.
    public func minimum(_ other: Tensor) throws(TensorError) -> Tensor {
        try callTensorOperator("aten::minimum", [.tensor(self), .tensor(other)])
    }

    /// `value` where `mask` holds, else the element.
    public func maskedFill(_ mask: Tensor, _ value: Double) throws(TensorError) -> Tensor {
        try callTensorOperator(
            "aten::masked_fill", overload: "Scalar",
            [.tensor(self), .tensor(mask), .double(value)])
    }

    // MARK: - In place

    /// Copies the elements of `source`, converted and broadcast, into this tensor.
    ///
    /// - Parameter nonBlocking: between pinned host memory and a CUDA device, do not wait.
    @discardableResult
    public func copy_(
        _ source: Tensor, nonBlocking: Bool = false
    ) throws(TensorError) -> Tensor {
        try callOperator(
            "aten::copy_", [.tensor(self), .tensor(source), .bool(nonBlocking)])
        return self
    }

    /// Adds `alpha` times `other` in place.
    @discardableResult
    public func add_(_ other: Tensor, alpha: Double = 1) throws(TensorError) -> Tensor {
        try callOperator(
            "aten::add_", overload: "Tensor",
            alpha == 1
                ? [.tensor(self), .tensor(other)]
                : [.tensor(self), .tensor(other), .double(alpha)])
        return self
    }

    /// Multiplies in place, element by element.
    @discardableResult
    public func mul_(_ other: Tensor) throws(TensorError) -> Tensor {
        try callOperator("aten::mul_", overload: "Tensor", [.tensor(self), .tensor(other)])
        return self
    }

    /// Multiplies every element by a number in place.
    @discardableResult
    public func mul_(_ factor: Double) throws(TensorError) -> Tensor {
        try callOperator("aten::mul_", overload: "Scalar", [.tensor(self), .double(factor)])
        return self
    }

    /// Sets every element to a number.
    @discardableResult
    public func fill_(_ value: Double) throws(TensorError) -> Tensor {
        try callOperator("aten::fill_", overload: "Scalar", [.tensor(self), .double(value)])
        return self
    }

    /// Sets every element to zero.
    @discardableResult
    public func zero_() throws(TensorError) -> Tensor {
        try callOperator("aten::zero_", [.tensor(self)])
        return self
    }
}

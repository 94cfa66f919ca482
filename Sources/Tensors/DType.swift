import CTorch

/// The type of a tensor's elements.
public enum DType: Int32, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case uint8 = 0
    case int8 = 1
    case int16 = 2
    case int32 = 3
    case int64 = 4
    case float16 = 5
    case float32 = 6
    case float64 = 7
    case bool = 11
    case bfloat16 = 15

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .uint8, .int8, .bool: 1
        case .int16, .float16, .bfloat16: 2
        case .int32, .float32: 4
        case .int64, .float64: 8
        }
    }

    /// Whether gradients can be taken with respect to such tensors.
    public var isFloatingPoint: Bool {
        switch self {
        case .float16, .float32, .float64, .bfloat16: true
        default: false
        }
    }

    /// The name in LibTorch's spelling, for instance `float32`.
    public var description: String {
        switch self {
        case .uint8: "uint8"
        case .int8: "int8"
        case .int16: "int16"
        case .int32: "int32"
        case .int64: "int64"
        case .float16: "float16"
        case .float32: "float32"
        case .float64: "float64"
        case .bool: "bool"
        case .bfloat16: "bfloat16"
        }
    }
}

/// The order in which the elements of an image tensor lie in memory.
public enum MemoryFormat: Int, Hashable, Sendable {
    /// Row-major in the shape's order, `[N, C, H, W]`.
    case contiguous = 0
    /// Keeps the source's order where the operator can.
    case preserve = 1
    /// The shape stays `[N, C, H, W]`; memory is in the order N, H, W, C.
    case channelsLast = 2
}

/// A Swift type whose arrays go into and come out of tensors unchanged.
public protocol TensorElement: BitwiseCopyable, Sendable {
    /// The dtype with the same bits.
    static var dtype: DType { get }
}

extension Float: TensorElement {
    /// `float32`.
    public static var dtype: DType { .float32 }
}

extension Double: TensorElement {
    /// `float64`.
    public static var dtype: DType { .float64 }
}

extension Int64: TensorElement {
    /// `int64`.
    public static var dtype: DType { .int64 }
}

extension Int: TensorElement {
    /// `int64`.
    public static var dtype: DType { .int64 }
}

extension Int32: TensorElement {
    /// `int32`.
    public static var dtype: DType { .int32 }
}

extension UInt8: TensorElement {
    /// `uint8`.
    public static var dtype: DType { .uint8 }
}

extension Bool: TensorElement {
    /// `bool`.
    public static var dtype: DType { .bool }
}

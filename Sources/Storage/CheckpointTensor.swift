import Basics

/// The type of a tensor's elements, as safetensors names it.
public enum TensorType: String, Sendable, CaseIterable {
    /// IEEE binary64.
    case float64 = "F64"
    /// IEEE binary32; what all training state is.
    case float32 = "F32"
    /// IEEE binary16.
    case float16 = "F16"
    /// The upper half of an IEEE binary32.
    case bfloat16 = "BF16"
    /// Signed, 64 bits.
    case int64 = "I64"
    /// Signed, 32 bits.
    case int32 = "I32"
    /// Signed, 16 bits.
    case int16 = "I16"
    /// Signed, 8 bits.
    case int8 = "I8"
    /// Unsigned, 64 bits.
    case uint64 = "U64"
    /// Unsigned, 32 bits.
    case uint32 = "U32"
    /// Unsigned, 16 bits.
    case uint16 = "U16"
    /// Unsigned, 8 bits.
    case uint8 = "U8"
    /// One byte, 0 or 1.
    case bool = "BOOL"

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .float64, .int64, .uint64: return 8
        case .float32, .int32, .uint32: return 4
        case .float16, .bfloat16, .int16, .uint16: return 2
        case .int8, .uint8, .bool: return 1
        }
    }
}

/// A named tensor whose bytes lie somewhere in memory: in a trainer's copy or in a mapped file.
public struct CheckpointTensor: @unchecked Sendable {
    // @unchecked: nobody writes to the bytes while the value is in use; `owner` is never called.

    /// The name, for instance `network/layer1.0.conv1.weight`.
    public let name: String
    /// The type of the elements.
    public let type: TensorType
    /// The sizes, outermost first; empty for a scalar.
    public let shape: [Int]
    /// The elements, little-endian and contiguous; their address need not be aligned.
    public let bytes: UnsafeRawBufferPointer
    /// What keeps the bytes alive.
    public let owner: AnyObject?

    /// Describes a tensor.
    ///
    /// - Parameters:
    ///   - bytes: stays valid and unchanged as long as `owner` lives, or the caller sees to it.
    ///   - owner: is retained with the value.
    public init(
        name: String, type: TensorType = .float32, shape: [Int], bytes: UnsafeRawBufferPointer,
        owner: AnyObject? = nil
    ) {
        self.name = name
        self.type = type
        self.shape = shape
        self.bytes = bytes
        self.owner = owner
    }

    /// The elements as 32-bit floats; nil when the tensor has another type.
    public func floats() -> [Float]? {
        guard type == .float32 else { return nil }
        return (0..<bytes.count / 4).map {
            Float(bitPattern: bytes.loadUnaligned(fromByteOffset: $0 * 4, as: UInt32.self))
        }
    }

    /// Bytes that a tensor of this type and shape takes; nil when that overflows.
    static func byteCount(type: TensorType, shape: [Int]) -> Int? {
        var count = type.byteCount
        for size in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: size)
            guard size >= 0, !overflow else { return nil }
            count = product
        }
        return count
    }
}

/// The digests of a training state.
///
/// All are XXH64 with seed 0, and numbers enter as eight little-endian bytes.
/// - A tensor's digest is over the UTF-8 bytes of its whole name (prefix included, no terminator),
///   its rank, its sizes, outermost first, and its bytes (little-endian elements, contiguous).
/// - The weights' digest is over the digests of the tensors whose name begins with `network/`, in
///   file order.
/// - The state's digest is over the digests of all tensors, in file order, and then the step.
public struct StateDigests: Equatable, Sendable {
    /// What the names of the network's parameters and buffers begin with.
    public static let networkPrefix = "network/"

    /// Over the network's parameters and batch-norm statistics.
    public let weights: UInt64
    /// Over all tensors, the optimizer's included, and the step.
    public let state: UInt64

    /// Digests tensors in the order given.
    public init(of tensors: [CheckpointTensor], step: Int) {
        var stream = StateDigestStream()
        for tensor in tensors { stream.add(tensor.name, digest: tensor.digest()) }
        self = stream.finish(step: step)
    }

    /// Digests the weights alone.
    static func weights(of tensors: [CheckpointTensor]) -> UInt64 {
        StateDigests(
            of: tensors.filter { $0.name.hasPrefix(networkPrefix) }, step: 0
        ).weights
    }

    init(weights: UInt64, state: UInt64) {
        self.weights = weights
        self.state = state
    }
}

/// Makes ``StateDigests`` of tensors that come one after another.
struct StateDigestStream {
    private var weights = XXH64()
    private var state = XXH64()

    mutating func add(_ name: String, digest: UInt64) {
        state.update(digest)
        if name.hasPrefix(StateDigests.networkPrefix) { weights.update(digest) }
    }

    func finish(step: Int) -> StateDigests {
        var state = state
        state.update(UInt64(step))
        return StateDigests(weights: weights.finish(), state: state.finish())
    }
}

extension CheckpointTensor {
    /// The digest of name, shape and bytes; see ``StateDigests``.
    public func digest() -> UInt64 {
        var hash = Self.digest(name: name, shape: shape)
        hash.update(bytes)
        return hash.finish()
    }

    /// The digest of a tensor whose bytes are still to be added.
    static func digest(name: String, shape: [Int]) -> XXH64 {
        var hash = XXH64()
        hash.update(name)
        hash.update(UInt64(shape.count))
        for size in shape { hash.update(UInt64(size)) }
        return hash
    }
}

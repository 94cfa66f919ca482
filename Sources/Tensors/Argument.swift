import CTorch

/// One argument of an operator.
///
/// Literals stand for themselves: `callOperator("aten::sum", overload: "dim_IntList", [x, [0], true])`.
public enum Argument: Sendable {
    /// None, where the schema allows it.
    case none
    /// The schema's default value.
    case defaultValue
    case tensor(Tensor)
    case int(Int)
    case double(Double)
    case bool(Bool)
    case ints([Int])
    case doubles([Double])
    case bools([Bool])
    case tensors([Tensor])
    case optionalTensors([Tensor?])
    case string(String)
    case dtype(DType)
    case device(Device)
    case memoryFormat(MemoryFormat)

    /// A tensor, or None for nil.
    public static func optional(_ tensor: Tensor?) -> Argument {
        tensor.map(Argument.tensor) ?? .none
    }

    /// A number for a parameter that takes integers and reals.
    public static func scalar(_ value: Double) -> Argument { .double(value) }

    /// A dtype, or None for nil.
    public static func optional(_ dtype: DType?) -> Argument {
        dtype.map(Argument.dtype) ?? .none
    }

    /// Eight-byte words of memory that the argument's list needs.
    var wordCount: Int {
        switch self {
        case .ints(let items): items.count
        case .doubles(let items): items.count
        case .bools(let items): items.count
        case .tensors(let items): items.count
        case .optionalTensors(let items): items.count
        case .string(let text): text.utf8.count / 8 + 1
        default: 0
        }
    }

    /// The shim's form; lists are laid out at `words`, which moves on behind them.
    func lower(_ words: inout UnsafeMutablePointer<UInt64>) -> ct_value {
        var value = ct_value()
        func list(_ kind: Int, _ bits: some Collection<UInt64>) {
            value.kind = Int32(kind)
            value.list = UnsafeRawPointer(words)
            value.count = Int64(bits.count)
            for word in bits {
                words.initialize(to: word)
                words += 1
            }
        }
        switch self {
        case .none: value.kind = Int32(CT_NONE)
        case .defaultValue: value.kind = Int32(CT_DEFAULT)
        case .tensor(let tensor):
            value.kind = Int32(CT_TENSOR)
            value.tensor = tensor.handle
        case .int(let number):
            value.kind = Int32(CT_INTEGER)
            value.integer = Int64(number)
        case .dtype(let dtype):
            value.kind = Int32(CT_INTEGER)
            value.integer = Int64(dtype.rawValue)
        case .memoryFormat(let format):
            value.kind = Int32(CT_INTEGER)
            value.integer = Int64(format.rawValue)
        case .double(let number):
            value.kind = Int32(CT_REAL)
            value.real = number
        case .bool(let flag):
            value.kind = Int32(CT_BOOLEAN)
            value.integer = flag ? 1 : 0
        case .device(let device):
            value.kind = Int32(CT_DEVICE)
            value.integer = device.packed
        case .ints(let items):
            list(CT_INTEGERS, items.lazy.map { UInt64(bitPattern: Int64($0)) })
        case .doubles(let items): list(CT_REALS, items.lazy.map(\.bitPattern))
        case .bools(let items): list(CT_BOOLEANS, items.lazy.map { $0 ? 1 : 0 })
        case .tensors(let items):
            list(CT_TENSORS, items.lazy.map { UInt64(UInt(bitPattern: $0.handle)) })
        case .optionalTensors(let items):
            list(CT_TENSORS, items.lazy.map { UInt64(UInt(bitPattern: $0?.handle)) })
        case .string(let text):
            value.kind = Int32(CT_STRING)
            value.list = UnsafeRawPointer(words)
            value.count = Int64(text.utf8.count)
            let room = UnsafeMutableRawBufferPointer(start: words, count: wordCount * 8)
            room.copyBytes(from: text.utf8)
            words += wordCount
        }
        return value
    }
}

extension Argument: ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByStringLiteral, ExpressibleByNilLiteral,
    ExpressibleByArrayLiteral
{
    /// An integer.
    public init(integerLiteral value: Int) { self = .int(value) }
    /// A real number.
    public init(floatLiteral value: Double) { self = .double(value) }
    /// A boolean.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    /// None.
    public init(nilLiteral: ()) { self = .none }
    /// A list of integers.
    public init(arrayLiteral elements: Int...) { self = .ints(elements) }
}

extension Argument: CustomStringConvertible {
    /// A short form for error messages: dtypes and shapes for tensors, values for the rest.
    public var description: String {
        switch self {
        case .none: "None"
        case .defaultValue: "default"
        case .tensor(let tensor): tensor.summary
        case .int(let number): "\(number)"
        case .double(let number): "\(number)"
        case .bool(let flag): "\(flag)"
        case .ints(let items): Self.shortened(items.map { "\($0)" })
        case .doubles(let items): Self.shortened(items.map { "\($0)" })
        case .bools(let items): Self.shortened(items.map { "\($0)" })
        case .tensors(let items): Self.shortened(items.map(\.summary))
        case .optionalTensors(let items):
            Self.shortened(items.map { $0.map(\.summary) ?? "None" })
        case .string(let text): "'\(text)'"
        case .dtype(let dtype): "\(dtype)"
        case .device(let device): "\(device)"
        case .memoryFormat(let format): "\(format)"
        }
    }

    private static func shortened(_ items: [String]) -> String {
        let shown = items.prefix(6).joined(separator: ", ")
        return items.count > 6 ? "[\(shown), ... \(items.count) in all]" : "[\(shown)]"
    }
}

/// One result of an operator.
public enum Value: Sendable {
    /// None, or a tensor that was not computed.
    case none
    case tensor(Tensor)
    case int(Int)
    case double(Double)
    case bool(Bool)
    case ints([Int])
    case doubles([Double])
    case bools([Bool])
    case tensors([Tensor?])
    case string(String)
    case device(Device)

    /// Takes over a result of the shim, with everything that has to be freed.
    init(adopting raw: ct_value, _ table: EngineTable) {
        defer { table.functions.list_free(raw.list) }
        let count = Int(raw.count)
        func list<Element>(of: Element.Type) -> UnsafeBufferPointer<Element> {
            UnsafeBufferPointer(
                start: raw.list?.assumingMemoryBound(to: Element.self), count: count)
        }
        switch Int(raw.kind) {
        case CT_TENSOR: self = .tensor(Tensor(adopting: raw.tensor))
        case CT_INTEGER: self = .int(Int(raw.integer))
        case CT_REAL: self = .double(raw.real)
        case CT_BOOLEAN: self = .bool(raw.integer != 0)
        case CT_INTEGERS: self = .ints(list(of: Int64.self).map(Int.init))
        case CT_REALS: self = .doubles(Array(list(of: Double.self)))
        case CT_BOOLEANS: self = .bools(list(of: Int64.self).map { $0 != 0 })
        case CT_TENSORS:
            self = .tensors(list(of: OpaquePointer?.self).map { $0.map(Tensor.init(adopting:)) })
        case CT_STRING: self = .string(String(decoding: list(of: UInt8.self), as: UTF8.self))
        case CT_DEVICE:
            let kind = Int32(truncatingIfNeeded: raw.integer >> 8)
            let index = Int32(truncatingIfNeeded: raw.integer & 0xFF) - 1
            self = Device(rawKind: kind, rawIndex: index).map(Value.device) ?? .none
        default: self = .none
        }
    }

    /// The tensor, where the value is one.
    public var tensor: Tensor? {
        if case .tensor(let tensor) = self { tensor } else { nil }
    }
}

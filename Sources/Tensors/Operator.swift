import CTorch
import Synchronization

// @unchecked: the handle is constant and lives as long as the process.
/// An operator of LibTorch, looked up by name.
///
/// Looking up costs a lock and a hash; keep the value where an operator is called often.
public struct Operator: @unchecked Sendable {
    /// Name with its namespace, for instance `aten::add`.
    public let name: String
    /// Overload, for instance `Tensor`; often empty.
    public let overload: String
    private let handle: OpaquePointer
    private let table: EngineTable

    /// Finds an operator.
    ///
    /// - Throws: ``TensorError`` with code `unknownOperator`, or `engineMissing`.
    public init(_ name: String, overload: String = "") throws(TensorError) {
        let table = try Engine.table()
        let key = OperatorKey(name: name, overload: overload)
        self.name = name
        self.overload = overload
        self.table = table
        if let known = operatorCache.withLock({ $0[key] }) {
            handle = known.handle
            return
        }
        var found: OpaquePointer?
        let status = table.functions.operator_find(name, overload, &found)
        guard status == 0, let found else {
            throw table.failure(
                status, overload.isEmpty ? "operator \(name)" : "operator \(name).\(overload)")
        }
        let entry = OperatorEntry(handle: found)
        operatorCache.withLock { $0[key] = entry }
        handle = found
    }

    /// The schema in LibTorch's notation.
    public var schema: String {
        table.functions.operator_schema(handle).map { String(cString: $0) } ?? ""
    }

    /// Calls the operator; missing trailing arguments take the schema's defaults.
    ///
    /// Runs with the gradient mode, autocast and thread settings of the calling OS thread.
    ///
    /// - Throws: ``TensorError`` with the operator's name, the arguments and LibTorch's reason.
    public func callAsFunction(_ arguments: [Argument]) throws(TensorError) -> [Value] {
        try call(arguments) { results in results.map { Value(adopting: $0, table) } }
    }

    /// Calls an operator whose first result is a tensor; further results are dropped.
    public func tensor(_ arguments: [Argument]) throws(TensorError) -> Tensor {
        let first: Value? = try call(arguments) { results in
            for extra in results.dropFirst() { _ = Value(adopting: extra, table) }
            return results.first.map { Value(adopting: $0, table) }
        }
        guard let first, case .tensor(let tensor) = first else {
            throw TensorError(
                code: .badArgument, message: "\(described(arguments)): it returned no tensor")
        }
        return tensor
    }

    private func call<Result>(
        _ arguments: [Argument], _ take: (UnsafeBufferPointer<ct_value>) -> Result
    ) throws(TensorError) -> Result {
        var status: ct_status = 0
        var outcome: Result?
        var wordCount = 0
        for argument in arguments { wordCount += argument.wordCount }
        let capacity = Int(CT_RESULTS_MAX)
        withExtendedLifetime(arguments) {
            withUnsafeTemporaryAllocation(
                of: ct_value.self, capacity: arguments.count + capacity
            ) { values in
                withUnsafeTemporaryAllocation(of: UInt64.self, capacity: max(1, wordCount)) {
                    words in
                    var next = words.baseAddress!
                    let base = values.baseAddress!
                    for (place, argument) in arguments.enumerated() {
                        (base + place).initialize(to: argument.lower(&next))
                    }
                    let results = base + arguments.count
                    var count: Int32 = 0
                    status = table.functions.operator_call(
                        handle, base, Int32(arguments.count), results, Int32(capacity), &count)
                    guard status == 0 else { return }
                    outcome = take(UnsafeBufferPointer(start: results, count: Int(count)))
                }
            }
        }
        guard let outcome else { throw table.failure(status, described(arguments)) }
        return outcome
    }

    private func described(_ arguments: [Argument]) -> String {
        let list = arguments.map(\.description).joined(separator: ", ")
        return overload.isEmpty ? "\(name)(\(list))" : "\(name).\(overload)(\(list))"
    }
}

/// Calls any operator of LibTorch by name.
///
/// - Parameters:
///   - name: with its namespace, for instance `aten::conv2d`.
///   - overload: as in the schema; empty for most operators.
///   - arguments: in the schema's order; missing trailing ones take its defaults.
/// - Throws: ``TensorError`` with the operator's name, the arguments' shapes and LibTorch's reason.
@discardableResult
public func callOperator(
    _ name: String, overload: String = "", _ arguments: [Argument]
) throws(TensorError) -> [Value] {
    try Operator(name, overload: overload)(arguments)
}

/// Calls any operator of LibTorch whose first result is a tensor.
///
/// - Throws: ``TensorError`` as ``callOperator(_:overload:_:)`` does, or when no tensor came back.
public func callTensorOperator(
    _ name: String, overload: String = "", _ arguments: [Argument]
) throws(TensorError) -> Tensor {
    try Operator(name, overload: overload).tensor(arguments)
}

private struct OperatorKey: Hashable, Sendable {
    let name: String
    let overload: String
}

// @unchecked: the handle is constant and lives as long as the process.
private struct OperatorEntry: @unchecked Sendable {
    let handle: OpaquePointer
}

private let operatorCache = Mutex<[OperatorKey: OperatorEntry]>([:])

import Foundation
import Synchronization
import Tensors
import Testing

/// Opens the engine as the trap of OpenBLAS wants it: with OpenBLAS already in the global scope.
///
/// Fails, and does not skip, where the shim or OpenBLAS is missing.
enum EngineFixture {
    // Never changes, and the library is never closed.
    nonisolated(unsafe) static let openBLAS = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_GLOBAL)

    static func open() throws {
        try #require(
            openBLAS != nil, "libopenblas.so.0 cannot be opened; install libopenblas-dev")
        try Engine.load()
    }
}

/// Runs `body` on an OS thread of its own and waits for it.
func onThread<Result: Sendable>(
    _ body: @escaping @Sendable () throws -> Result
) throws -> Result {
    try OwnThread(body).wait()
}

/// An OS thread that computes one value.
final class OwnThread<Result: Sendable>: Sendable {
    private let outcome = Mutex<Swift.Result<Result, any Error>?>(nil)
    private let done = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable () throws -> Result) {
        let thread = Thread { [self] in
            let result = Swift.Result { try body() }
            outcome.withLock { $0 = result }
            done.signal()
        }
        thread.stackSize = 8 << 20
        thread.start()
    }

    func wait() throws -> Result {
        done.wait()
        return try outcome.withLock { $0! }.get()
    }
}

/// Repeatable numbers in [-1, 1): a linear congruential generator's upper bits.
func numbers(_ count: Int, seed: UInt64) -> [Float] {
    var state = seed &* 2_862_933_555_777_941_757 &+ 3_037_000_493
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Float(state >> 40) / Float(1 << 23) - 1
    }
}

func random(_ shape: [Int], seed: UInt64) throws -> Tensor {
    try Tensor(numbers(shape.reduce(1, *), seed: seed), shape: shape)
}

extension Tensor {
    /// The elements' bits, so that -0 and 0, and NaNs, are told apart.
    func bits() throws -> [UInt32] { try floats().map(\.bitPattern) }
}

/// Runs `body` and returns the engine's error that it throws.
func tensorError(_ body: () throws -> Void) throws -> TensorError {
    try #require(throws: TensorError.self) { try body() }
}

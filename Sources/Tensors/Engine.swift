import CTorch
import Foundation
import Synchronization

#if canImport(Glibc)
    import Glibc
#endif

/// LibTorch, opened when it is first needed.
///
/// `lineup` is not linked against LibTorch: commands that need no tensors run on machines without
/// it. The shim `libCTorch.so` is opened with `RTLD_LOCAL | RTLD_DEEPBIND`, so that LibTorch keeps
/// to its own BLAS even where OpenBLAS is loaded in the same process.
public enum Engine {
    /// The environment variable that names the shim's file.
    public static let environmentKey = "LINEUP_CTORCH"

    /// Opens LibTorch; does nothing when it is open.
    ///
    /// - Throws: ``TensorError`` with code `engineMissing`; the message says where the shim was
    ///   looked for and how to get it.
    public static func load() throws(TensorError) { _ = try table() }

    /// Whether LibTorch can be used in this process; opens it.
    public static var isAvailable: Bool { (try? table()) != nil }

    /// LibTorch's version with its build suffix, for instance `2.13.0+cpu`.
    public static func version() throws(TensorError) -> String {
        text(try table().functions.torch_version())
    }

    /// The instruction set whose kernels LibTorch has chosen, for instance `AVX2`.
    public static func cpuCapability() throws(TensorError) -> String {
        text(try table().functions.cpu_capability())
    }

    /// LibTorch's own account of how it was built; several lines.
    public static func configuration() throws(TensorError) -> String {
        text(try table().functions.configuration())
    }

    private static func text(_ pointer: UnsafePointer<CChar>?) -> String {
        pointer.map { String(cString: $0) } ?? ""
    }

    /// The file from which the shim was opened.
    public static func libraryPath() throws(TensorError) -> String { try table().path }

    /// Sets how many threads one operator may use when the calling OS thread calls it.
    ///
    /// A setting of each OS thread, and part of the numerics class: gradients differ in bits
    /// between counts.
    public static func setIntraOpThreads(_ count: Int) throws(TensorError) {
        let table = try table()
        try table.check(
            table.functions.set_thread_count(Int32(clamping: count)), "set intra-op threads")
    }

    /// Threads that one operator may use when the calling OS thread calls it.
    public static func intraOpThreads() throws(TensorError) -> Int {
        Int(try table().functions.thread_count())
    }

    /// How many devices of a kind can be used here.
    public static func deviceCount(_ kind: Device.Kind) throws(TensorError) -> Int {
        Int(try table().functions.device_count(kind.rawValue))
    }

    /// Every device that can be used here, CUDA devices first.
    public static func devices() throws(TensorError) -> [Device] {
        (0..<(try deviceCount(.cuda))).map(Device.cuda) + [.cpu]
    }

    /// Process-wide switches of the numeric behaviour.
    public struct Numerics: Hashable, Sendable {
        /// Refuse operators that have no deterministic kernel.
        public var deterministic: Bool
        /// Let cuDNN use deterministic kernels only.
        public var cudnnDeterministic: Bool
        /// Let cuDNN choose kernels by timing them, which may change bits between processes.
        public var cudnnBenchmark: Bool
        /// Let float32 products on CUDA devices use TF32.
        public var allowTF32: Bool
        /// Let cuBLAS add half-precision products in half precision.
        public var allowReducedSums: Bool

        /// What a bitwise run needs: deterministic kernels, no timing, no reduced precision.
        public static let bitwise = Numerics(
            deterministic: true, cudnnDeterministic: true, cudnnBenchmark: false,
            allowTF32: false, allowReducedSums: false)

        /// Names every switch.
        public init(
            deterministic: Bool, cudnnDeterministic: Bool, cudnnBenchmark: Bool, allowTF32: Bool,
            allowReducedSums: Bool
        ) {
            self.deterministic = deterministic
            self.cudnnDeterministic = cudnnDeterministic
            self.cudnnBenchmark = cudnnBenchmark
            self.allowTF32 = allowTF32
            self.allowReducedSums = allowReducedSums
        }
    }

    /// The switches as they are.
    public static func numerics() throws(TensorError) -> Numerics {
        let table = try table()
        var raw = ct_numerics()
        try table.check(table.functions.numerics_get(&raw), "read the numerics")
        return Numerics(
            deterministic: raw.deterministic != 0,
            cudnnDeterministic: raw.cudnn_deterministic != 0,
            cudnnBenchmark: raw.cudnn_benchmark != 0,
            allowTF32: raw.allow_tf32 != 0,
            allowReducedSums: raw.allow_reduced_sums != 0)
    }

    /// Sets the switches for the process; call it before the first work.
    ///
    /// Deterministic products need a fixed workspace of cuBLAS, which takes it from the environment
    /// (`CUBLAS_WORKSPACE_CONFIG`); it is set here where it is not.
    public static func setNumerics(_ numerics: Numerics) throws(TensorError) {
        let table = try table()
        if numerics.deterministic { setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0) }
        var raw = ct_numerics(
            deterministic: numerics.deterministic ? 1 : 0,
            cudnn_deterministic: numerics.cudnnDeterministic ? 1 : 0,
            cudnn_benchmark: numerics.cudnnBenchmark ? 1 : 0,
            allow_tf32: numerics.allowTF32 ? 1 : 0,
            allow_reduced_sums: numerics.allowReducedSums ? 1 : 0)
        try table.check(table.functions.numerics_set(&raw), "set the numerics")
    }

    /// Seeds LibTorch's own generators; Lineup's results never depend on them.
    public static func seedGenerators(_ seed: UInt64) throws(TensorError) {
        let table = try table()
        try table.check(table.functions.seed(seed), "seed the generators")
    }

    /// Keeps up to `bytes` of freed host memory of tensors for the next ones of the same size.
    ///
    /// Two slots side by side spend a tenth of their time in fetching pages without it. A quarter
    /// of the machine's memory is the limit from the start; what is kept never exceeds what the
    /// process had in use at once. 0 gives everything back and keeps nothing.
    public static func keepMemory(upTo bytes: UInt64) throws(TensorError) {
        try table().functions.memory_keep(bytes)
    }

    /// Bytes of freed host memory that are kept now.
    public static func keptMemory() throws(TensorError) -> UInt64 {
        try table().functions.memory_kept()
    }

    /// Gives freed host memory back to the system, for a process that will idle.
    public static func releaseMemory() throws(TensorError) {
        try keepMemory(upTo: 0)
        try keepMemory(upTo: EngineLoader.memoryLimit)
    }

    static func table() throws(TensorError) -> EngineTable { try opened.get() }

    private static let opened: Result<EngineTable, TensorError> = EngineLoader.open()
}

/// The shim's functions.
// @unchecked: the table is constant for the life of the process.
struct EngineTable: @unchecked Sendable {
    let pointer: UnsafePointer<ct_api>
    let path: String

    @inline(__always)
    var functions: ct_api { pointer.pointee }

    /// Makes a status this module's error; `action` completes "cannot ...".
    @inline(__always)
    func check(_ status: ct_status, _ action: @autoclosure () -> String) throws(TensorError) {
        guard status != 0 else { return }
        throw failure(status, action())
    }

    /// The error for a status, with LibTorch's first line.
    func failure(_ status: ct_status, _ action: String) -> TensorError {
        let detail = functions.last_error().map { String(cString: $0) } ?? ""
        let code: TensorError.Code =
            switch Int(status) {
            case CT_UNKNOWN_OPERATOR: .unknownOperator
            case CT_BAD_ARGUMENT: .badArgument
            case CT_OUT_OF_MEMORY: .outOfMemory
            default: .operatorFailed
            }
        let line = detail.split(separator: "\n").first.map(String.init) ?? "no reason was given"
        return TensorError(code: code, message: "\(action): \(line)", detail: detail)
    }
}

/// Finds and opens the shim.
package enum EngineLoader {
    static let fileName = "libCTorch.so"

    static let memoryLimit = ProcessInfo.processInfo.physicalMemory / 4

    /// The files that are tried, in order.
    package static func candidates(environment: String?, executable: String?) -> [String] {
        if let environment, !environment.isEmpty { return [environment] }
        guard let executable, let slash = executable.lastIndex(of: "/") else { return [] }
        let folder = String(executable[..<slash])
        return [
            "\(folder)/\(fileName)",
            "\(folder)/../ctorch/\(fileName)",
            "\(folder)/../../ctorch/\(fileName)",
            "\(folder)/../lib/\(fileName)",
        ]
    }

    static func open() -> Result<EngineTable, TensorError> {
        let environment = ProcessInfo.processInfo.environment[Engine.environmentKey]
        let executable = try? FileManager.default.destinationOfSymbolicLink(
            atPath: "/proc/self/exe")
        let candidates = candidates(environment: environment, executable: executable)
        guard let path = candidates.first(where: { access($0, R_OK) == 0 }) else {
            return .failure(missing(candidates, fromEnvironment: environment?.isEmpty == false))
        }
        return open(path: path)
    }

    static func open(path: String) -> Result<EngineTable, TensorError> {
        guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL | deepBind) else {
            let reason = dlerror().map { String(cString: $0) } ?? "no reason was given"
            return .failure(
                TensorError(
                    code: .engineMissing,
                    message: "cannot open LibTorch through \(path): \(reason); "
                        + "run make setup build, or set \(Engine.environmentKey)"))
        }
        guard let symbol = dlsym(library, "ct_get_api") else {
            return .failure(mismatch(path, "it is not Lineup's shim"))
        }
        let getAPI = unsafeBitCast(symbol, to: ct_get_api_function.self)
        guard let pointer = getAPI(CT_API_VERSION),
            Int(pointer.pointee.size) >= MemoryLayout<ct_api>.size
        else { return .failure(mismatch(path, "it was built from another version of Lineup")) }
        pointer.pointee.memory_keep(memoryLimit)
        return .success(EngineTable(pointer: pointer, path: path))
    }

    /// Opens a shim and drops it again; for tests of the messages.
    package static func check(path: String) throws(TensorError) { _ = try open(path: path).get() }

    // ThreadSanitizer's and AddressSanitizer's runtimes do not work beside RTLD_DEEPBIND.
    private static var deepBind: Int32 {
        let sanitized =
            dlsym(nil, "__tsan_init") != nil || dlsym(nil, "__asan_init") != nil
        return sanitized ? 0 : RTLD_DEEPBIND
    }

    package static func missing(
        _ candidates: [String], fromEnvironment: Bool
    ) -> TensorError {
        let places = candidates.joined(separator: ", ")
        let source = fromEnvironment ? " (from \(Engine.environmentKey))" : ""
        return TensorError(
            code: .engineMissing,
            message: "this command needs LibTorch, and there is no \(fileName); looked at "
                + "\(places)\(source); run make setup and make build, or set "
                + "\(Engine.environmentKey) to the file")
    }

    private static func mismatch(_ path: String, _ reason: String) -> TensorError {
        TensorError(
            code: .engineMismatch,
            message: "cannot use \(path): \(reason); run make build")
    }
}

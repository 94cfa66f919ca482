// swift-tools-version: 6.2
import PackageDescription

// Every Swift target shares these; `.strictMemorySafety()` is added where no pointer is needed.
let shared: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

func module(
    _ name: String, _ dependencies: [Target.Dependency] = [], pure: Bool = false,
    defines: [String] = []
) -> Target {
    .target(
        name: name,
        dependencies: dependencies,
        swiftSettings: shared + (pure ? [.strictMemorySafety()] : []) + defines.map { .define($0) }
    )
}

func tests(
    _ name: String, _ dependencies: [Target.Dependency], fixtures: Bool = false
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: fixtures ? ["Fixtures"] : [],
        swiftSettings: shared)
}

func planted(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Tests/Planted/\(name)",
        swiftSettings: shared + [.define("PLANTED_BUGS")])
}

let log = Target.Dependency.product(name: "Logging", package: "swift-log")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let database = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let sqlite = Target.Dependency.product(name: "GRDBSQLite", package: "GRDB.swift")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")

// scripts/planted.sh builds the machines of production with the mistakes in them.
let mistakes = Context.environment["LINEUP_PLANTED_BUILD"] == nil ? [] : ["PLANTED_BUGS"]

let package = Package(
    name: "lineup",
    products: [.executable(name: "lineup", targets: ["lineup"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
        .package(url: "https://github.com/groue/GRDB.swift", exact: "7.10.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", exact: "1.0.2"),
    ],
    targets: [
        // Values that every module shares: digests, counter-based randomness, the fold tree, errors, what
        // a loss is.
        module("Basics"),
        module("HDF5", ["Basics", "CHDF5"]),
        module("Settings", ["Basics"], pure: true),
        module("Protocol", ["Basics", protobuf]),
        module("ClusterCore", ["Basics", "Protocol"], pure: true, defines: mistakes),
        module("Flight", ["Basics", "ClusterCore"]),
        module("Simulation", ["Basics", "Protocol", "ClusterCore"], pure: true),
        module("Transport", ["Basics", "Protocol", "CLinux", "CZeroMQ", log]),
        module("Storage", ["Basics", database, sqlite]),
        module("Images", ["Basics", "CTurboJPEG"]),
        module("Datasets", ["Basics", "Images", "CZlib"]),
        module("Tensors", ["Basics", "CTorch"]),
        module("Networks", ["Basics", "Tensors"]),
        module("MetricLearning", ["Basics", "Settings", "Tensors"]),
        module(
            "Training",
            ["Basics", "Settings", "Images", "Tensors", "Networks", "MetricLearning"]),
        module("Scoring", ["Basics", "COpenBLAS"]),
        module(
            "Coordinator",
            [
                "Basics", "Settings", "Protocol", "ClusterCore", "Flight", "Transport", "Storage",
                "Datasets", "Tensors", "Networks", "MetricLearning", "Training", "HDF5", log,
            ]),
        // How gradients travel between trainers and are summed there.
        module("Exchange", ["Basics", "Protocol", "ClusterCore", "Transport", "Training", log]),
        module(
            "TrainerWorker",
            [
                "Basics", "Settings", "Protocol", "ClusterCore", "Flight", "Transport", "Storage",
                "Images", "Datasets", "Tensors", "Networks", "MetricLearning", "Training",
                "Exchange",
                log,
            ]),
        module(
            "EvalWorker",
            [
                "Basics", "Settings", "Protocol", "ClusterCore", "Flight", "Transport", "Storage",
                "Images", "Datasets", "Tensors", "Networks", "MetricLearning", "Training",
                "Scoring", log,
            ]),
        module("Dashboard", ["Basics", "Protocol"]),
        .executableTarget(
            name: "lineup",
            dependencies: [
                "Basics", "Settings", "Protocol", "ClusterCore", "Flight", "Transport", "Storage",
                "Images", "Datasets", "Tensors", "Networks", "MetricLearning", "Training",
                "Scoring",
                "Coordinator", "TrainerWorker", "EvalWorker", "Dashboard", "Simulation",
                arguments, log, subprocess,
            ],
            swiftSettings: shared
        ),
        .executableTarget(
            name: "lineup-bench",
            dependencies: [
                "Basics", "Settings", "Protocol", "ClusterCore", "Flight", "Transport", "Storage",
                "Images", "Datasets", "Tensors", "Networks", "MetricLearning", "Training",
                "Scoring", "Exchange", "EvalWorker", "FaultRig", arguments,
            ],
            path: "Benchmarks/lineup-bench",
            swiftSettings: shared
        ),

        // Changed frames for every parser of foreign bytes; in a process of its own, which may crash.
        .target(
            name: "FuzzKit",
            dependencies: [
                "Basics", "Settings", "Protocol", "ClusterCore", "Transport", "Storage", "Datasets",
                "Coordinator", "Exchange", "Training", protobuf,
            ],
            path: "Tests/FuzzKit", swiftSettings: shared),
        .executableTarget(
            name: "lineup-fuzz", dependencies: ["FuzzKit", arguments], path: "Tests/lineup-fuzz",
            swiftSettings: shared),

        // The shim over LibTorch is compiled by scripts/build-shim.sh and opened at run time;
        // the package sees its header alone.
        .systemLibrary(name: "CTorch"),
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CZeroMQ", providers: [.apt(["libzmq3-dev"])]),
        .systemLibrary(name: "COpenBLAS", providers: [.apt(["libopenblas-dev"])]),
        .systemLibrary(name: "CHDF5", pkgConfig: "hdf5", providers: [.apt(["libhdf5-dev"])]),
        .systemLibrary(name: "CTurboJPEG", providers: [.apt(["libturbojpeg0-dev"])]),
        .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),

        tests("BasicsTests", ["Basics"]),
        tests("HDF5Tests", ["HDF5"], fixtures: true),
        tests("SettingsTests", ["Settings", "Basics"]),
        tests("ProtocolTests", ["Protocol", "Basics", protobuf]),
        tests("ClusterCoreTests", ["ClusterCore", "Protocol", "Basics", protobuf]),
        // The same sources with mistakes planted in them, for the tests that must find them.
        planted("ClusterCorePlanted", ["Basics", "Protocol"]),
        planted("SimulationPlanted", ["Basics", "Protocol", "ClusterCorePlanted"]),
        tests("SimulationTests", ["Simulation", "SimulationPlanted", "ClusterCorePlanted"]),
        tests("TransportTests", ["Transport", "Protocol", "Basics", "FaultRig"]),
        tests("StorageTests", ["Storage", "Basics", database], fixtures: true),
        tests("ImagesTests", ["Images", "Basics"], fixtures: true),
        tests("DatasetsTests", ["Datasets", "Images", "Basics"]),
        tests("TensorsTests", ["Tensors", "Basics"]),
        tests("NetworksTests", ["Networks", "Tensors", "Basics"]),
        // What the losses of training and of scoring are both held against.
        .target(
            name: "LossFixtures", dependencies: ["Basics"], path: "Tests/LossFixtures",
            swiftSettings: shared),
        tests(
            "MetricLearningTests", ["MetricLearning", "Tensors", "LossFixtures", "Basics"],
            fixtures: true),
        tests(
            "TrainingTests",
            ["Training", "Images", "Networks", "MetricLearning", "Tensors", "Basics"],
            fixtures: true),
        tests(
            "ExchangeTests",
            ["Exchange", "Transport", "Training", "ClusterCore", "Protocol", "Basics"]),
        tests("ScoringTests", ["Scoring", "LossFixtures", "Basics"], fixtures: true),
        tests(
            "EvalWorkerTests",
            [
                "EvalWorker", "Scoring", "Storage", "Settings", "Datasets", "Images", "Training",
                "Networks", "Tensors", "Basics",
            ]),
        tests("DashboardTests", ["Dashboard", "Basics"]),
        tests(
            "CoordinatorTests",
            [
                "Coordinator", "Transport", "Storage", "ClusterCore", "Protocol", "Settings",
                "HDF5", "Basics",
            ]),
        // Real processes, and what breaks them: shared by tests and benchmarks.
        .target(
            name: "FaultRig", dependencies: ["Basics", "Storage", "CLinux"], path: "Tests/FaultRig",
            swiftSettings: shared),
        tests("FaultRigTests", ["FaultRig", "Basics"]),
        tests(
            "ClusterTests",
            ["FaultRig", "Storage", "HDF5", "Transport", "Protocol", "Basics", protobuf]),
        tests("FuzzTests", ["FuzzKit"]),
        tests("FlightTests", ["Flight", "ClusterCore", "Protocol", "Basics", protobuf]),
    ],
    cxxLanguageStandard: .cxx20
)

internal import Basics
internal import Foundation
internal import Settings
internal import Tensors

/// What must be equal for two trainers to compute the same bits, as one line of text.
enum NumericsClass {
    /// Raised when one of Lineup's own kernels changes bits.
    static let version = 1

    /// Describes this process for a run's settings.
    static func describe(_ settings: Settings, device: Device) throws -> String {
        [
            "lineup-numerics=\(version)", "device=\(device.kind)",
            "libtorch=\(try Engine.version())",
            "isa=\(device == .cpu ? try Engine.cpuCapability() : "-")",
            "threads=\(settings.numerics.threadsPerSlot)",
            "precision=\(settings.numerics.precision.rawValue)", "format=channels_last",
            "batch=\(settings.batch.identities)x\(settings.batch.imagesPerIdentity)"
                + (settings.batch.phases.map { ",\($0)" } ?? ""),
            "input=\(settings.input.height)x\(settings.input.width)", "adam=fused",
        ].joined(separator: " ")
    }
}

internal import Basics
internal import Foundation
internal import Settings
internal import Images
internal import Tensors
internal import Training

/// What must be equal for two trainers to compute the same bits, as one line of text.
enum NumericsClass {
    /// Raised when one of Lineup's own kernels changes bits.
    static let version = 1

    /// Describes this process for a run's settings, with what a small slot comes to here.
    ///
    /// Words between spaces that are added later keep the others as they are: a run of before then
    /// goes on.
    static func describe(_ settings: Settings, _ configuration: TrainingConfiguration) throws
        -> String
    {
        let device = configuration.device
        let probe = try NumericsProbe.digest(
            training: configuration,
            input: InputConfiguration(settings: settings, isTraining: true),
            imagesPerIdentity: settings.batch.images > 0 ? 1 : settings.batch.imagesPerIdentity)
        return [
            "lineup-numerics=\(version)", "device=\(device.kind)",
            "libtorch=\(try Engine.version())",
            "isa=\(device == .cpu ? try Engine.cpuCapability() : "-")",
            "threads=\(settings.numerics.threadsPerSlot)",
            "precision=\(settings.numerics.precision.rawValue)", "format=channels_last",
            "batch="
                + (settings.batch.images > 0 || settings.batch.isOfTriplets
                    ? "\(settings.batch.imagesPerSlot)"
                    : "\(settings.batch.identities)x\(settings.batch.imagesPerIdentity)")
                + (settings.batch.phases.map { ",\($0)" } ?? ""),
            "input=\(settings.input.height)x\(settings.input.width)", "adam=fused",
            "model=\(try device.modelWord())", "libjpeg-turbo=\(JPEG.libraryVersion)",
            "probe=\(probe.hex)",
        ].joined(separator: " ")
    }
}
